# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pack as the controller makes it, from wheels that these tests write; no network."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import stat
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _sdk

FILES = Path(__file__).resolve().parents[2] / "roles/docker_sdk/files"
REQUIREMENTS = b"parrot==1.0 --hash=sha256:00\n"
KEY = hashlib.sha256(REQUIREMENTS).hexdigest()[:16]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pack", FILES / "make_pack.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_pack = _load()


def _wheel(directory: Path, name: str = "parrot", **members: str) -> Path:
    """A wheel with a package, its metadata, a script, and ``members`` (path: content)."""
    path = directory / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "__version__ = '1.0'\n")
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")
        wheel.writestr(f"{name}-1.0.data/scripts/{name}.py", "print('a script')\n")
        for member, content in members.items():
            wheel.writestr(member, content)
    return path


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any, str]:
    code = make_pack.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else {}, said.err.strip()


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    """Requirements that pin the one wheel in ``tmp_path`` with its true hash."""
    digest = hashlib.sha256(_wheel(tmp_path).read_bytes()).hexdigest()
    path = tmp_path / "requirements.txt"
    path.write_text(f"parrot==1.0 --hash=sha256:{digest}\n")
    return path


def test_same_wheels_give_same_bytes(tmp_path: Path) -> None:
    wheels = [_wheel(tmp_path, "parrot"), _wheel(tmp_path, "cage")]
    one = make_pack.pack_bytes(make_pack.read_wheels(wheels), REQUIREMENTS)
    os.utime(wheels[0], (1, 1))
    two = make_pack.pack_bytes(make_pack.read_wheels(wheels[::-1]), REQUIREMENTS)
    assert one == two
    path = tmp_path / "pack.tar.gz"
    make_pack.write_whole(path, one)
    with tarfile.open(path) as pack:
        members = pack.getmembers()
    assert [m.name for m in members] == sorted(m.name for m in members)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.isreg()) for m in members} == {(0, 0, 0, "", True)}
    assert not [m.name for m in members if "scripts" in m.name]
    assert make_pack.read_key(path) == KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_both_ends_know_the_same_format() -> None:
    assert make_pack.MANIFEST == _sdk.MANIFEST
    assert make_pack.MAX_BYTES == _sdk.MAX_BYTES


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("../evil.py", "leaves the directory"),
        ("/etc/evil.py", "leaves the directory"),
        ("parrot/../../evil.py", "leaves the directory"),
        ("parrot\\..\\evil.py", "leaves the directory"),
        ("parrot-1.0.data/purelib/evil.py", "outside sys.path"),
        (_sdk.MANIFEST, "another file has this name"),
    ],
)
def test_evil_members_of_a_wheel_are_refused(tmp_path: Path, member: str, reason: str) -> None:
    with pytest.raises(make_pack.PackError, match=reason):
        make_pack.read_wheels([_wheel(tmp_path, **{member: "evil"})])


def test_links_in_a_wheel_are_refused(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path)
    with zipfile.ZipFile(wheel, "a") as archive:
        link = zipfile.ZipInfo("parrot/link.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(make_pack.PackError, match="no regular file"):
        make_pack.read_wheels([wheel])


def test_two_wheels_with_one_file_are_refused(tmp_path: Path) -> None:
    second = _wheel(tmp_path, "cage", **{"parrot/__init__.py": "evil"})
    with pytest.raises(make_pack.PackError, match="another file has this name"):
        make_pack.read_wheels([_wheel(tmp_path), second])


def test_compiled_wheels_are_refused(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path).rename(tmp_path / "parrot-1.0-cp39-cp39-linux_x86_64.whl")
    with pytest.raises(make_pack.PackError, match="pure Python"):
        make_pack.read_wheels([wheel])


def test_a_wheel_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "parrot-1.0-py3-none-any.whl"
    path.write_bytes(b"no zip")
    with pytest.raises(make_pack.PackError, match="cannot be read"):
        make_pack.read_wheels([path])


def test_make_repeat_and_mend(
    tmp_path: Path, requirements: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pip")
    arguments = ("--requirements", requirements, "--cache-dir", tmp_path / "cache")
    code, first, error = _run(capsys, *arguments, "--wheels", tmp_path)
    assert (code, error) == (0, "")
    path = Path(first["path"])
    assert first["changed"] and path.name == f"fleet-images-sdk-{first['key']}.tar.gz"
    assert first["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    # Neither wheels nor an index are needed again.
    assert _run(capsys, *arguments, "--wheels", "/nowhere") == (0, {**first, "changed": False}, "")
    path.write_bytes(path.read_bytes()[:-20])
    assert _run(capsys, *arguments, "--wheels", tmp_path) == (0, first, "")


def test_a_wrong_hash_is_refused(
    tmp_path: Path, requirements: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pip")
    _wheel(tmp_path, **{"parrot/evil.py": "evil"})
    cache = tmp_path / "cache"
    arguments = ("--requirements", requirements, "--cache-dir", cache, "--wheels", tmp_path)
    code, _result, error = _run(capsys, *arguments)
    assert code == 1 and "docker_sdk_pack" in error and len(error.splitlines()) == 1
    assert not cache.exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('ERROR: no route to index')", "no route to index; if it cannot"),
        ("import time; time.sleep(60)", "took more than 1 s"),
    ],
)
def test_when_pip_fails_the_error_names_the_way_out(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    said: str,
) -> None:
    monkeypatch.setattr(make_pack, "_pip", lambda: [sys.executable, "-c", script])
    code, _result, error = _run(capsys, "--cache-dir", tmp_path / "cache", "--timeout", 1)
    assert code == 1 and said in error and "name the file in docker_sdk_pack" in error
    assert not (tmp_path / "cache").exists()


def test_no_pip_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(make_pack.PackError, match="has no pip"):
        make_pack._pip()


def test_a_prepared_pack_is_adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_bytes(REQUIREMENTS)
    given = tmp_path / "from-a-stick.tar.gz"
    given.write_bytes(make_pack.pack_bytes({"parrot.py": b""}, REQUIREMENTS))
    arguments = ("--requirements", requirements, "--cache-dir", tmp_path / "c", "--pack", given)
    code, result, _error = _run(capsys, *arguments)
    assert code == 0 and result["changed"] and result["key"] == KEY
    assert Path(result["path"]).read_bytes() == given.read_bytes()
    assert _run(capsys, *arguments)[1] == {**result, "changed": False}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (make_pack.pack_bytes({}, b"other"), f"wants {KEY}"),
        (make_pack.pack_bytes({}, REQUIREMENTS)[:-9], "cannot be read"),
        (b"no archive", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_prepared_pack_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, said: str
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_bytes(REQUIREMENTS)
    given = tmp_path / "given.tar.gz"
    if content is not None:
        given.write_bytes(content)
    cache = tmp_path / "c"
    arguments = ("--requirements", requirements, "--cache-dir", cache, "--pack", given)
    code, _result, error = _run(capsys, *arguments)
    assert code == 1 and said in error
    assert not cache.exists()
