# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed archives: unpacked once, within the disk and the memory, and gone afterwards."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import random
import shutil
import stat
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _unpacked
from ansible_collections.fleet.images.plugins.module_utils._bundle import BundleError
from ansible_collections.fleet.images.plugins.module_utils._unpacked import compression, unpacked

CONTENT = random.Random(1).randbytes(3 << 20) + bytes(1 << 20)
# What the command does, for machines without it: four bytes of magic, then the content itself.
ZSTD = """#!/bin/sh
[ "$1" = -dc ] && head -c 4 >/dev/null && cat && ! [ -e "$0.damaged" ] && exit
echo damaged >&2
exit 1
"""
MAGIC = b"\x28\xb5\x2f\xfd"
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda content: gzip.compress(content, 1),
    "bzip2": lambda content: bz2.compress(content, 1),
    "xz": lambda content: lzma.compress(content, preset=0),
    "zstd": lambda content: MAGIC + content,
}


@pytest.fixture(autouse=True)
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command zstd of our own, and a Python without it."""
    path = tmp_path / "bin" / "zstd"
    path.parent.mkdir()
    path.write_text(ZSTD)
    path.chmod(0o700)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    real = importlib.import_module

    def without(name: str) -> object:
        if name == "compression.zstd":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without)
    return path


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir()
    return path


def unpack(paths: list[Path], spool: Path) -> bytes:
    with unpacked(paths, spool) as (path,):
        return path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_content_is_there_and_gone_afterwards(kind: str, tmp_path: Path, spool: Path) -> None:
    file = tmp_path / "a.tar.x"
    file.write_bytes(KINDS[kind](CONTENT))
    assert compression([file]) == kind
    with unpacked([file], spool / "not" / "there") as (path,):
        assert path.read_bytes() == CONTENT
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) & 0o077 == 0
        assert found.st_dev == spool.stat().st_dev
        assert os.listdir(spool) == []  # it has no name, even while it is in use
    assert not path.exists() or path.stat() != found


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_read_as_one(kind: str, tmp_path: Path, spool: Path) -> None:
    content = KINDS[kind](CONTENT)
    parts = []
    for start in range(0, len(content), 1_000_003):
        parts.append(tmp_path / f"{start:09}")
        parts[-1].write_bytes(content[start : start + 1_000_003])
    assert unpack(parts, spool) == CONTENT


def test_parts_as_short_as_can_be(tmp_path: Path, spool: Path) -> None:
    parts = []
    for number, byte in enumerate(gzip.compress(b"content")):
        parts.append(tmp_path / f"{number:03}")
        parts[-1].write_bytes(bytes([byte]))
    assert unpack(parts, spool) == b"content"


def test_a_plain_file_is_taken_as_it_is(tmp_path: Path, spool: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(CONTENT)
    with unpacked([file], spool) as paths:
        assert paths == (file,)
    file.write_bytes(b"")
    assert compression([file]) == ""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "zstd"])
@pytest.mark.parametrize("how", ["cut", "flipped", "magic only"])
def test_damage_is_told(kind: str, how: str, tmp_path: Path, spool: Path) -> None:
    content = bytearray(KINDS[kind](CONTENT))
    if how == "flipped":
        content[len(content) // 2] ^= 1
    length = {"cut": len(content) - 20, "flipped": len(content), "magic only": 6}[how]
    file = tmp_path / "a.tar.x"
    file.write_bytes(content[:length])
    with pytest.raises(BundleError, match=rf"a.tar.x: wanted a whole {kind} file, found a dam"):
        unpack([file], spool)
    assert os.listdir(spool) == []


def test_what_the_command_says_is_told(tmp_path: Path, spool: Path, command: Path) -> None:
    Path(f"{command}.damaged").touch()
    file = tmp_path / "a.tar.zst"
    file.write_bytes(MAGIC + CONTENT)
    with pytest.raises(BundleError, match=r"a.tar.zst: wanted a whole zstd file, .*\(damaged\)"):
        unpack([file], spool)


def test_no_way_to_read_zstd(tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(spool))
    file = tmp_path / "a.tar.zst"
    file.write_bytes(MAGIC + CONTENT)
    with pytest.raises(BundleError, match=r"a.tar.zst: the command zstd is wanted .* \(zstd -d\)"):
        unpack([file], spool)


def test_zstd_of_python_itself(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 3.14 on; here something of the same shape stands for it."""
    monkeypatch.setenv("PATH", str(spool))
    module = type("zstd", (), {"open": staticmethod(gzip.open), "ZstdError": gzip.BadGzipFile})
    monkeypatch.setattr(_unpacked, "_module", lambda name: {"compression.zstd": module}[name])
    monkeypatch.setattr(_unpacked, "_MAGIC", {b"\x1f\x8b": "zstd"})
    file = tmp_path / "a.tar.zst"
    file.write_bytes(gzip.compress(CONTENT, 1))
    assert unpack([file], spool) == CONTENT


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_is_never_filled(
    kind: str, tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    left = [usage(0, 0, _unpacked.SPARE + size) for size in (4 << 20, 3 << 20, 1000)]
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: left.pop(0))
    file = tmp_path / "a.tar.x"
    file.write_bytes(KINDS[kind](CONTENT))
    with pytest.raises(BundleError, match=rf"a.tar.x: room for .* in {spool}, only \d+ bytes are"):
        unpack([file], spool)
    assert (left, os.listdir(spool)) == ([], [])


def test_a_consumer_that_fails_leaves_no_process(tmp_path: Path, spool: Path) -> None:
    """And no half of one: both commands end when nobody reads any more."""
    file = tmp_path / "a.tar.zst"
    file.write_bytes(MAGIC + CONTENT * 4)
    chunks = _unpacked._chunks("zstd", [file])
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


GROWTH = """
import sys
from pathlib import Path
from ansible_collections.fleet.images.plugins.module_utils._unpacked import unpacked

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

start = peak()
with unpacked([Path(sys.argv[1])], Path(sys.argv[2])) as (path,):
    print(path.stat().st_size, peak() - start)
"""


def test_memory_stays_small(tmp_path: Path, spool: Path) -> None:
    file = tmp_path / "a.tar.gz"
    with gzip.open(file, "wb", 1) as whole:
        for _mebibyte in range(200):
            whole.write(bytes(1 << 20))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", GROWTH, str(file), str(spool)]
    out = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout
    size, growth = map(int, out.split())
    assert size == 200 << 20
    assert growth < 32 << 10  # kB
