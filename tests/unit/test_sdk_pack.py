# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module sdk_pack: create, repeat, change, remove, each in check mode as well."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _sdk

pytest.importorskip("ansible.module_utils.basic")

from ansible_collections.fleet.images.plugins.modules import sdk_pack


class Host:
    """A directory for packs and one for those that were sent, and the module on them."""

    def __init__(self, root: Path, run_main: Callable[..., dict[str, Any]]) -> None:
        self.root, self.dest, self.run_main = root, root / "share" / "sdk", run_main

    def send(self, requirements: str) -> dict[str, Any]:
        """Put a pack on the host, as the role does; return the options that install it."""
        content = requirements.encode()
        key = hashlib.sha256(content).hexdigest()[:16]
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, data in (("parrot/__init__.py", b"x = 1\n"), (_sdk.MANIFEST, content)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        src = self.root / f"fleet-images-sdk-{key}.tar.gz"
        src.write_bytes(buffer.getvalue())
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        return {"key": key, "src": str(src), "sha256": sha256}

    def run(self, check: bool = False, **options: Any) -> dict[str, Any]:
        """Run the module; in check mode nothing below ``root`` may change."""
        before = self.tree()
        result = self._main({"_ansible_check_mode": check, **options})
        assert "failed" not in result, result
        if check or not result["changed"]:
            assert self.tree() == before
        return result

    def both(self, **options: Any) -> dict[str, Any]:
        """Run in check mode, then truly: what was predicted must have come true."""
        predicted = self.run(check=True, **options)
        result = self.run(**options)
        # Ansible adds owner and mode of a "path" that is there.
        assert predicted == {name: result[name] for name in predicted}
        return result

    def fail(self, **options: Any) -> str:
        """Run the module, which must fail, and return what it says."""
        result = self._main(options)
        assert result["failed"]
        return str(result["msg"])

    def _main(self, options: dict[str, object]) -> dict[str, Any]:
        arguments = {"dest": str(self.dest), **options}
        result = self.run_main(sdk_pack, arguments)
        del result["rc"]
        return result

    def tree(self) -> list[tuple[str, int]]:
        """Every path below ``root`` with the time of its last change."""
        return sorted((str(p), p.lstat().st_mtime_ns) for p in self.root.rglob("*"))


@pytest.fixture
def host(tmp_path: Path, run_main: Callable[..., dict[str, Any]]) -> Any:
    """A host without a pack; its session has an odd umask, which is restored after."""
    old = os.umask(0o077)
    yield Host(tmp_path, run_main)
    os.umask(old)


def test_create_repeat_change_remove(host: Host) -> None:
    first = host.send("one")
    key = first["key"]

    asked = host.both(key=key)
    assert (asked["changed"], asked["installed"], asked["path"]) == (False, False, "")
    assert asked["dest"] == str(host.dest)

    created = host.both(**first)
    assert (created["changed"], created["installed"]) == (True, True)
    assert created["path"] == str(host.dest / key)
    assert created["diff"] == {"before": "\n", "after": f"{key}\n"}
    assert os.readlink(host.dest / "current") == key

    # The file that was sent is not needed again.
    os.unlink(first["src"])
    for options in (first, {"key": key}):
        repeated = host.both(**options)
        assert (repeated["changed"], repeated["installed"]) == (False, True)
        assert repeated["path"] == created["path"]

    second = host.send("two")
    lacking = host.both(key=second["key"])
    assert (lacking["changed"], lacking["installed"]) == (False, False)
    assert lacking["path"] == created["path"]
    changed = host.both(**second)
    assert changed["changed"] and changed["diff"]["before"] == f"{key}\n"
    assert changed["previous"] == key
    assert sorted(os.listdir(host.dest)) == sorted([".lock", second["key"], "current"])

    removed = host.both(state="absent")
    assert (removed["changed"], removed["installed"], removed["path"]) == (True, False, "")
    assert set(removed["system"]) == {"docker", "jmespath", "requests"}
    assert not host.dest.exists()
    assert host.both(state="absent")["changed"] is False


def test_modes_do_not_depend_on_the_umask(host: Host) -> None:
    host.run(**host.send("one"))
    modes = {
        (stat.S_IFMT(path.lstat().st_mode), stat.S_IMODE(path.lstat().st_mode))
        for path in [host.dest, *host.dest.rglob("*")]
        if not path.is_symlink()
    }
    assert modes == {(stat.S_IFDIR, 0o755), (stat.S_IFREG, 0o644)}


def test_check_mode_needs_no_file(host: Host) -> None:
    result = host.run(check=True, key="0" * 16, src="/nowhere", sha256="")
    assert (result["changed"], result["installed"]) == (True, True)


def test_bytecode_of_another_python_is_completed(host: Host) -> None:
    options = host.send("one")
    host.run(**options)
    (compiled,) = (host.dest / options["key"] / "parrot/__pycache__").iterdir()
    compiled.rename(compiled.with_name("__init__.cpython-32.pyc"))
    assert host.both(key=options["key"])["changed"] is True
    assert compiled.exists()
    assert host.both(key=options["key"])["changed"] is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": "../../etc"}, "should be 16 hexadecimal digits"),
        ({"key": "0" * 16, "src": "/x"}, "sha256"),
        ({}, "key"),
        ({"key": "0" * 16, "src": "/nowhere", "sha256": "00"}, "/nowhere"),
    ],
)
def test_errors_are_one_sentence(host: Host, options: dict[str, str], said: str) -> None:
    message = host.fail(**options)
    assert said in message and len(message.splitlines()) == 1


def test_an_untrusted_pack_fails_at_once(host: Host) -> None:
    options = host.send("one")
    host.run(**options)
    (host.dest / options["key"]).chmod(0o777)
    assert "chmod o-w" in host.fail(key=options["key"])
