# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets and logins that a command reads and nobody else sees."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.module_utils._buildx import BuildxError
from ansible_collections.fleet.images.plugins.module_utils._hidden import Hidden, login, secrets

PASSWORD = "pa55-for-tests"
TOKEN = base64.b64encode(f"robot:{PASSWORD}".encode()).decode()


@pytest.fixture
def hidden() -> Iterator[Hidden]:
    with Hidden() as one:
        yield one


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own settings of Docker."""
    (tmp_path / "home" / ".docker").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("DOCKER_CONFIG", "BUILDX_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home" / ".docker"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def read_by_a_child(path: str) -> bytes:
    # Two readers, as buildx may be: each from the beginning.
    script = "import sys; a, b = (open(sys.argv[1], 'rb') for _n in 'ab'); sys.stdout.buffer.write(a.read()); assert b.read()"  # noqa: E501
    command = [sys.executable, "-ISc", script, path]
    return subprocess.run(command, check=True, capture_output=True).stdout


def on_disk(root: Path, *contents: str) -> list[str]:
    """The files below that hold one of these."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return [
        str(one) for one in files if any(text.encode() in one.read_bytes() for text in contents)
    ]


def test_a_child_reads_what_is_hidden(hidden: Hidden) -> None:
    content = bytes(range(256)) * 1000
    path = hidden.path(content)
    assert read_by_a_child(path) == content and path.startswith(f"/proc/{os.getpid()}/fd/")
    assert os.readlink(path).startswith("/memfd:"), "it is on no disk"


def test_what_is_hidden_is_gone_after() -> None:
    with Hidden() as one:
        path = one.path(b"x")
    assert not os.path.exists(path)


def test_no_child_inherits_it(hidden: Hidden) -> None:
    number = int(hidden.path(b"x").rpartition("/")[2])
    assert not os.get_inheritable(number)


# masks


@pytest.mark.parametrize(
    ("value", "text", "masked"),
    [
        ("s3cret-1", "a s3cret-1 b s3cret-1", "a ******** b ********"),
        ("s3cret-1\n", "s3cret-1", "********"),
        ("line-1\n line-2 \n", "got line-2, line-1.", "got ********, ********."),
        ("long-one\nlong", "long-one", "********"),
        # What is as short stands anywhere by chance.
        ("abc", "abc", "abc"),
        ("", "abc", "abc"),
        ("other", "abc", "abc"),
        # Lines are cut where they are long.
        ("s3cret-1", "the end is s3cret-", "the end is ********"),
        ("s3cret-1", "the end is s3cr", "the end is ********"),
        ("s3cret-1", "the end is s3c", "the end is s3c"),
        ("s3cret-1", "s3cret- is not the end", "s3cret- is not the end"),
    ],
)
def test_mask(hidden: Hidden, value: str, text: str, masked: str) -> None:
    hidden.remember(value)
    assert hidden.mask(text) == masked


# secrets


def test_a_secret_by_value(hidden: Hidden, tmp_path: Path) -> None:
    (found,) = secrets([{"id": "t", "value": "gr\u00fcn-4\n", "src": None, "env": None}], hidden)
    assert sorted(found) == ["id", "src"]
    assert read_by_a_child(found["src"]).decode() == "gr\u00fcn-4\n"
    assert hidden.mask("it is gr\u00fcn-4.") == "it is ********."
    assert on_disk(tmp_path, "gr\u00fcn-4") == []


def test_a_secret_that_is_empty(hidden: Hidden) -> None:
    (found,) = secrets([{"id": "t", "value": ""}], hidden)
    assert Path(found["src"]).read_bytes() == b""


def test_a_secret_from_a_variable(hidden: Hidden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret-2")
    assert secrets([{"id": "t", "env": "TOKEN"}], hidden) == [{"id": "t", "env": "TOKEN"}]
    assert hidden.mask("s3cret-2") == "********"


def test_a_secret_from_a_file(hidden: Hidden, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"s3cret-3\n\xff\xfe")
    found = secrets([{"id": "t", "src": str(tmp_path / "t")}], hidden)
    assert found == [{"id": "t", "src": str(tmp_path / "t")}]
    assert hidden.mask("s3cret-3") == "********"


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ({"env": "NONE_OF_IT"}, "environment variable NONE_OF_IT, which is not set"),
        ({"src": "/nonexistent/t"}, r"file /nonexistent/t on this host.*No such file"),
        ({"src": "/"}, r"file / on this host.*Is a directory"),
        ({}, r"\(none is given\)"),
    ],
)
def test_a_secret_that_is_not_there(hidden: Hidden, secret: dict[str, str], message: str) -> None:
    with pytest.raises(BuildxError, match=message) as raised:
        secrets([{"id": "good", "value": "s3cret-4"}, {"id": "bad", **secret}], hidden)
    assert str(raised.value).startswith("secret bad: ") and "s3cret-4" not in str(raised.value)


# logins


def seen_with(environment: dict[str, str]) -> Any:
    return json.loads(read_by_a_child(f"{environment['DOCKER_CONFIG']}/config.json"))


def test_without_a_user_name_nothing_is_done(hidden: Hidden, place: Path) -> None:
    with login(["r.example"], "", "", hidden, str(place)) as environment:
        assert environment == {} and list(place.iterdir()) == []


def test_a_login(hidden: Hidden, place: Path, tmp_path: Path) -> None:
    with login(["r.example", "docker.io"], "robot", PASSWORD, hidden, str(place)) as environment:
        auths = seen_with(environment)["auths"]
        assert auths == {
            "r.example": {"auth": TOKEN},
            "https://index.docker.io/v1/": {"auth": TOKEN},
        }
        (directory,) = place.iterdir()
        assert environment["DOCKER_CONFIG"] == str(directory)
        assert directory.stat().st_mode & 0o777 == 0o700
        assert on_disk(tmp_path, PASSWORD, TOKEN) == []
        assert all(PASSWORD not in one and TOKEN not in one for one in environment.values())
    assert list(place.iterdir()) == []
    assert hidden.mask(f"{PASSWORD} {TOKEN}") == "******** ********"


def test_it_goes_when_the_build_fails(hidden: Hidden, place: Path) -> None:
    with pytest.raises(ValueError, match="x"), login(["r"], "u", "pppp", hidden, str(place)):
        raise ValueError("x")
    assert list(place.iterdir()) == []


def test_the_users_settings_count_for_all_else(hidden: Hidden, home: Path, place: Path) -> None:
    theirs = {
        "auths": {"r.example": {"auth": "old"}, "other.example": {"auth": "theirs"}},
        "credHelpers": {"r.example": "helper", "third.example": "helper"},
        "credsStore": "desktop",
        "proxies": {"default": {"httpProxy": "http://p"}},
    }
    (home / "config.json").write_text(json.dumps(theirs))
    (home / "contexts" / "meta").mkdir(parents=True)
    (home / "cli-plugins").mkdir()
    with login(["r.example"], "robot", PASSWORD, hidden, str(place)) as environment:
        config = seen_with(environment)
        assert config["proxies"] == theirs["proxies"]
        assert config["auths"] == {
            "r.example": {"auth": TOKEN},
            "other.example": {"auth": "theirs"},
        }
        # As docker/cli asks for a registry: its helper, where it has an entry, else the store.
        assert config["credHelpers"] == {"r.example": "", "third.example": "helper"}
        assert config["credsStore"] == "desktop"
        assert Path(environment["DOCKER_CONFIG"], "contexts", "meta").is_dir()
        assert Path(environment["DOCKER_CONFIG"], "cli-plugins").is_dir()
        assert environment["BUILDX_CONFIG"] == str(home / "buildx")
    assert json.loads((home / "config.json").read_text()) == theirs
    assert (home / "contexts" / "meta").is_dir(), "only the link to it is gone"


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '{"auths": null, "credHelpers": null}'])
def test_settings_in_disorder(hidden: Hidden, home: Path, place: Path, content: str) -> None:
    (home / "config.json").write_text(content)
    with login(["r.example"], "robot", PASSWORD, hidden, str(place)) as environment:
        assert seen_with(environment)["auths"] == {"r.example": {"auth": TOKEN}}


def test_settings_elsewhere(
    hidden: Hidden, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text('{"psFormat": "x"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "own"))
    monkeypatch.setenv("BUILDX_CONFIG", "/builders")
    with login(["r.example"], "robot", PASSWORD, hidden, str(place)) as environment:
        assert seen_with(environment)["psFormat"] == "x"
        assert environment["BUILDX_CONFIG"] == "/builders"
