# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The digest of a build context: what it depends on, what is read again, and what goes wrong."""

from __future__ import annotations

import errno
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _context, _dockerignore
from ansible_collections.fleet.images.plugins.module_utils._context import (
    ContextError,
    Memory,
    Tree,
    file_digest,
    read,
)

HOUR = 3600


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where memories are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A context of two files, a directory, an empty one and a link."""
    root = tmp_path / "context"
    (root / "src" / "empty").mkdir(parents=True)
    (root / "src" / "main.py").write_text("print()")
    (root / "Dockerfile").write_text("FROM scratch")
    (root / "link").symlink_to("src/main.py")
    return root


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an hour later: no file is young."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + HOUR * 10**9)


def look(root: Path, ignore: str = "", memory: Memory | None = None) -> Tree:
    return read(root, _dockerignore.parse(ignore), memory)


def names(root: Path, ignore: str) -> list[str]:
    entries = _context._entries(root, _dockerignore.parse(ignore))
    return [path for path, _status, _full in entries]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def rename(root: Path, old: str, new: str) -> None:
    (root / old).rename(root / new)


def relink(root: Path, target: str) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to(target)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: write(root / "src/main.py", "print(1)"),
        lambda root: write(root / "src/main.py", "PRINT()"),
        lambda root: write(root / "new", ""),
        lambda root: rename(root, "Dockerfile", "dockerfile"),
        lambda root: (root / "Dockerfile").unlink(),
        lambda root: (root / "Dockerfile").chmod(0o755),
        lambda root: (root / "src").chmod(0o700),
        lambda root: (root / "src" / "empty").rmdir(),
        lambda root: (root / "other").mkdir(),
        lambda root: relink(root, "src/main"),
        lambda root: ((root / "link").unlink(), write(root / "link", "src/main.py")),
        lambda root: ((root / "src/empty").rmdir(), write(root / "src/empty", "")),
        lambda root: ((root / "link").unlink(), (root / "link").mkdir()),
        lambda root: os.mkfifo(root / "fifo"),
    ],
)
def test_what_changes_the_digest(root: Path, change: Callable[[Path], None]) -> None:
    before = look(root)
    change(root)
    assert look(root).digest != before.digest


def touch(path: Path) -> None:
    os.utime(path, (1, 1), follow_symlinks=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: None,
        lambda root: touch(root / "Dockerfile"),
        lambda root: touch(root / "link"),
        lambda root: touch(root / "src"),
        lambda root: (rename(root, "Dockerfile", "x"), write(root / "Dockerfile", "FROM scratch")),
        lambda root: os.link(root / "Dockerfile", root.parent / "hard"),
        lambda root: root.chmod(0o700),
        pytest.param(
            lambda root: [os.lchown(path, 7, 7) for path in root.rglob("*")],
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
        ),
    ],
)
def test_what_does_not(root: Path, change: Callable[[Path], None]) -> None:
    (root / "Dockerfile").chmod(0o644)
    before = look(root)
    change(root)
    if (root / "x").exists():
        (root / "x").unlink()
        (root / "Dockerfile").chmod(0o644)
    assert look(root) == before


def test_another_place_is_the_same_context(root: Path, tmp_path: Path) -> None:
    before = look(root)
    root.rename(tmp_path / "moved")
    (tmp_path / "way").symlink_to("moved")
    assert look(tmp_path / "moved") == look(tmp_path / "way") == before


def test_what_is_counted(root: Path) -> None:
    tree = look(root)
    assert (tree.files, tree.bytes, tree.read) == (2, 19, 19)
    assert tree.digest.startswith("sha256:") and len(tree.digest) == 71


def test_an_empty_context(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    tree = look(tmp_path / "empty")
    assert tree.digest and (tree.files, tree.bytes) == (0, 0)


def test_names_that_look_like_what_stands_between_them(tmp_path: Path) -> None:
    """`x` -> `1\\nb`, `c` and `x` -> `1`, `b\\nc` are two contexts."""
    digests = set()
    for target, name in (("1\nb", "c"), ("1", "b\nc")):
        place = tmp_path / str(len(digests))
        place.mkdir()
        (place / "a").symlink_to(target)
        write(place / name, "")
        digests.add(look(place).digest)
    assert len(digests) == 2


def test_names_in_no_encoding(root: Path, later: None) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_text("x")
    (root / "odd").symlink_to(os.fsdecode(b"\xff"))
    for _time in range(2):
        tree = look(root, memory=Memory.of(root, True))
    assert tree.files == 3 and tree.read == 0


# what .dockerignore leaves out


@pytest.mark.parametrize(
    ("ignore", "there"),
    [
        ("", ["Dockerfile", "link", "src", "src/empty", "src/main.py"]),
        ("src", ["Dockerfile", "link"]),
        ("*", []),
        ("**/*.py", ["Dockerfile", "link", "src", "src/empty"]),
        # A directory that stays out goes in with what is taken back, and only then.
        ("src\n!src/main.py", ["Dockerfile", "link", "src", "src/main.py"]),
        ("*\n!src/main.py", ["src", "src/main.py"]),
        ("*\n!**/*.py", ["src", "src/main.py"]),
        ("*\n!src/none.py", []),
        ("*\n!src/empty", ["src", "src/empty"]),
        ("*\n!link", ["link"]),
        ("*\n!src\nsrc/main.py", ["src", "src/empty"]),
    ],
)
def test_what_goes_in(root: Path, ignore: str, there: list[str]) -> None:
    assert names(root, ignore) == there


def test_directories_around_what_is_taken_back_come_once(root: Path) -> None:
    for name in ("a/b/c/keep", "a/b/d/e", "a/b/f/keep", "a/g/keep", "a/h/i", "z"):
        write(root / name, "")
    there = ["a", "a/b", "a/b/c", "a/b/c/keep", "a/b/f", "a/b/f/keep", "a/g", "a/g/keep"]
    assert names(root, "*\n!**/keep") == there


def test_what_stays_out_does_not_change_the_digest(root: Path) -> None:
    before = look(root, "junk\nsrc\n!src/main.py")
    write(root / "junk/x", "x")
    write(root / "src/other", "x")
    assert look(root, "junk\nsrc\n!src/main.py") == before
    (root / "src").chmod(0o700)
    assert look(root, "junk\nsrc\n!src/main.py").digest != before.digest


def test_a_directory_that_cannot_hold_anything_is_not_looked_into(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (seen.append(path), scandir(path))[1])
    assert names(root, "src\n!Dockerfile\n!docs/*.md") == ["Dockerfile", "link"]
    assert seen == [str(root)]


# memory


def test_a_file_is_read_once(root: Path, cache: Path, later: None) -> None:
    first = look(root, memory=Memory.of(root, True))
    again = look(root, memory=Memory.of(root, True))
    assert (first.read, again.read) == (19, 0)
    assert (again.digest, again.files, again.bytes) == (first.digest, 2, 19)
    (kept,) = (path for path in cache.rglob("*") if path.is_file())
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.parent.stat().st_mode & 0o077 == 0
    assert "print()" not in kept.read_text()


def test_a_young_file_is_read_again(root: Path) -> None:
    for _time in range(2):
        assert look(root, memory=Memory.of(root, True)).read == 19


def test_a_file_from_the_future_is_read_again(root: Path, later: None) -> None:
    os.utime(root / "Dockerfile", (time.time() + 2 * HOUR,) * 2)
    look(root, memory=Memory.of(root, True))
    assert look(root, memory=Memory.of(root, True)).read == len("FROM scratch")


@pytest.mark.parametrize("keep_time", [True, False])
def test_another_content_of_the_same_size_is_noticed(
    root: Path, later: None, keep_time: bool
) -> None:
    first = look(root, memory=Memory.of(root, True))
    path = root / "src/main.py"
    status = path.stat()
    path.write_text("PRINT()")
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = look(root, memory=Memory.of(root, True))
    assert second.digest != first.digest and second.read == 7
    assert look(root, memory=Memory.of(root, True)).digest == second.digest


def test_a_file_in_the_place_of_another_is_noticed(root: Path, later: None) -> None:
    first = look(root, memory=Memory.of(root, True))
    path = root / "src/main.py"
    status = path.stat()
    write(root / "next", "PRINT()")
    os.utime(root / "next", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(root / "next", path)
    assert look(root, memory=Memory.of(root, True)).digest != first.digest


def test_a_mode_alone_is_noticed(root: Path, later: None) -> None:
    first = look(root, memory=Memory.of(root, True))
    (root / "Dockerfile").chmod(0o600)
    assert look(root, memory=Memory.of(root, True)).digest != first.digest


def test_check_mode_reads_the_memory_and_writes_none(root: Path, cache: Path, later: None) -> None:
    assert look(root, memory=Memory.of(root, False)).read == 19
    assert not cache.exists()
    look(root, memory=Memory.of(root, True))
    before = {path: path.read_bytes() for path in cache.rglob("*.json")}
    write(root / "new", "x")
    assert look(root, memory=Memory.of(root, False)).read == 1
    assert {path: path.read_bytes() for path in cache.rglob("*.json")} == before


def test_what_is_gone_is_forgotten(root: Path, cache: Path, later: None) -> None:
    look(root, memory=Memory.of(root, True))
    (root / "Dockerfile").unlink()
    look(root, memory=Memory.of(root, True))
    (kept,) = cache.rglob("*.json")
    assert "Dockerfile" not in kept.read_text()


def test_each_context_has_its_own(root: Path, tmp_path: Path, cache: Path, later: None) -> None:
    write(tmp_path / "other" / "Dockerfile", "FROM scratch")
    look(root, memory=Memory.of(root, True))
    assert look(tmp_path / "other", memory=Memory.of(tmp_path / "other", True)).read == 12
    assert len(list(cache.rglob("*.json"))) == 2


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '"x"', "{}", '{"version": 1}', '{"version": 99, "kept": {"a": []}}']
    + [f'{{"version": 1, "kept": {one}}}' for one in ("[]", "null", "[1]", '{"Dockerfile": 7}')]
    + ['{"version": 1, "kept": {"Dockerfile": [], "src/main.py": [1, 2, "sha256:0"]}}'],
)
def test_a_memory_in_disorder_is_none(root: Path, cache: Path, later: None, content: str) -> None:
    wanted = look(root, memory=Memory.of(root, True))
    (kept,) = cache.rglob("*.json")
    kept.write_text(content)
    assert look(root, memory=Memory.of(root, True)) == wanted
    assert look(root, memory=Memory.of(root, True)).read == 0, "and it is mended"


def test_a_memory_that_cannot_be_written(root: Path, cache: Path, later: None) -> None:
    cache.write_text("a file is in its place")
    assert look(root, memory=Memory.of(root, True)).read == 19


def test_a_file_that_changes_while_it_is_read(
    root: Path, later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = _context._hash
    path = root / "Dockerfile"

    def meanwhile(full: str, buffer: memoryview) -> str:
        digest = hashed(full, buffer)
        if full == str(path):
            path.write_text("FROM changed")
        return digest

    monkeypatch.setattr(_context, "_hash", meanwhile)
    first = look(root, memory=Memory.of(root, True))
    monkeypatch.setattr(_context, "_hash", hashed)
    second = look(root, memory=Memory.of(root, True))
    assert second.digest != first.digest and second.read == 12


# what goes wrong


def test_a_file_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(full: str, _buffer: memoryview) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), full)

    monkeypatch.setattr(_context, "_hash", refused)
    with pytest.raises(ContextError) as raised:
        look(root)
    assert str(root / "Dockerfile") in str(raised.value)
    assert "Permission denied" in str(raised.value) and "leave it out" in str(raised.value)
    assert names(root, "Dockerfile\n**/*.py") == ["link", "src", "src/empty"]


def test_a_directory_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refused(path: str) -> object:
        if path == str(root / "src"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(ContextError, match="src cannot be read"):
        look(root)
    # One that stays out is left alone, even where something in it might be taken back.
    assert names(root, "src\n!**/*.py") == ["Dockerfile", "link"]
    with pytest.raises(PermissionError):
        names(root, "x\n!**/*.py")


def test_a_context_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="No such file or directory"):
        look(tmp_path / "none")


def test_memory_does_not_grow_with_the_files(root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(48 << 20)
    for number in range(500):
        write(root / "many" / str(number), "x")
    look(root)
    tracemalloc.start()
    assert look(root).files == 503
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a").startswith("sha256:ba7816bf8f01cfea")


def test_what_is_kept_is_json_of_statuses(root: Path, cache: Path, later: None) -> None:
    look(root, memory=Memory.of(root, True))
    (kept,) = cache.rglob("*.json")
    document = json.loads(kept.read_text())
    assert sorted(document["kept"]) == ["Dockerfile", "src/main.py"]
