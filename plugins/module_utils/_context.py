# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A build context as it goes to the builder: one digest of its paths, modes and contents.

Owners and times do not count: the builder sets the first to root and takes the second for nothing
new (https://docs.docker.com/build/cache/invalidation/). A file is read again only where its status
(inode, size, times) is not that of the last time, as git does it with its index.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils import _cache
from ansible_collections.fleet.images.plugins.module_utils._dockerignore import Ignore

_PIECE = 1 << 20
_KIND = "contexts"
# A file that was written within this time before it was read may be written again without a new
# time of its status: file systems keep these times in steps.
_YOUNG = 2_000_000_000


class ContextError(Exception):
    """A context that cannot be read; the message says which file, and why."""


@dataclass
class Tree:
    """What was found: `digest` of everything, `files` in it, their `bytes`, and those `read`."""

    digest: str = ""
    files: int = 0
    bytes: int = 0
    read: int = 0


@dataclass
class Memory:
    """What is known of files from the last time, kept in the user's cache directory.

    `key`: of the cache, None to write nothing. Losing it costs the time to read all files again.
    """

    key: str | None = None
    known: dict[str, list[int | str]] = field(default_factory=dict)
    seen: dict[str, list[int | str]] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, writable: bool) -> Memory:
        """The memory of a context directory; nothing is written where `writable` is not set."""
        key = os.fspath(root.resolve())
        return cls(key if writable else None, _cache.read(_KIND, key))

    def digest(self, path: str, status: os.stat_result) -> str | None:
        """The digest of a file whose status has not changed, None where it has."""
        known = self.known.get(path)
        if not isinstance(known, list) or known[:-1] != _status(status):
            return None
        self.seen[path] = known
        return str(known[-1])

    def note(self, path: str, status: os.stat_result, digest: str, read_at: int) -> None:
        """Remembers a digest, unless the file is so young that its next change may not show."""
        if max(status.st_ctime_ns, status.st_mtime_ns) < read_at - _YOUNG:
            self.seen[path] = [*_status(status), digest]

    def keep(self) -> None:
        """Writes what was seen, if that is new."""
        if self.key is not None and self.seen != self.known:
            _cache.write(_KIND, self.key, self.seen)


def _status(status: os.stat_result) -> list[int | str]:
    found = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return list(found)


def read(root: Path, ignore: Ignore, memory: Memory | None = None) -> Tree:
    """The tree under a directory, without what .dockerignore leaves out; raises ContextError."""
    memory = memory or Memory()
    tree, whole = Tree(), hashlib.sha256()
    buffer = memoryview(bytearray(_PIECE))
    try:
        for path, status, full in _entries(root, ignore):
            kind = stat.S_IFMT(status.st_mode)
            content = ""
            if kind == stat.S_IFREG:
                content = _file(path, full, status, memory, tree, buffer)
            elif kind == stat.S_IFLNK:
                content = os.readlink(full)
            mode = 0 if kind == stat.S_IFLNK else stat.S_IMODE(status.st_mode)
            # No name and no target holds a zero byte, so that no two trees give the same text.
            text = f"{path}\0{kind:o}\0{mode:o}\0{content}\0"
            whole.update(text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise ContextError(
            f"context {root}: wanted all of its files, {error.filename or 'one'} cannot be read"
            f" ({error.strerror}); mend it, or leave it out with .dockerignore"
        ) from error
    tree.digest = f"sha256:{whole.hexdigest()}"
    memory.keep()
    return tree


def file_digest(path: Path) -> str:
    """The digest of one file's content; raises OSError."""
    return _hash(os.fspath(path), memoryview(bytearray(_PIECE)))


def _file(
    path: str, full: str, status: os.stat_result, memory: Memory, tree: Tree, buffer: memoryview
) -> str:
    tree.files += 1
    tree.bytes += status.st_size
    digest = memory.digest(path, status)
    if digest is None:
        read_at = time.time_ns()
        digest = _hash(full, buffer)
        tree.read += status.st_size
        memory.note(path, status, digest, read_at)
    return digest


def _hash(path: str, buffer: memoryview) -> str:
    whole = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            whole.update(buffer[:count])
    return f"sha256:{whole.hexdigest()}"


def _entries(root: Path, ignore: Ignore) -> Iterator[tuple[str, os.stat_result, str]]:
    """Path, status and full path of all that goes in, in one order on every machine.

    A directory that stays out goes in all the same where something in it is taken back.
    """
    pending: list[tuple[str, os.stat_result, str]] = []

    def below(prefix: str, place: str) -> Iterator[tuple[str, os.stat_result, str]]:
        for child in _children(place, bool(pending)):
            path = f"{prefix}{child.name}"
            out = bool(ignore.patterns) and ignore.leaves_out(path)
            is_directory = child.is_dir(follow_symlinks=False)
            if out and not (is_directory and ignore.takes_back(path)):
                continue
            entry = (path, child.stat(follow_symlinks=False), child.path)
            if out:
                pending.append(entry)
            else:
                yield from _taken(pending, entry)
            if is_directory:
                yield from below(f"{path}/", child.path)
                if out and pending and pending[-1] is entry:
                    pending.pop()

    yield from below("", os.fspath(root))


def _children(place: str, is_out: bool) -> list[os.DirEntry[str]]:
    """What is in a directory; a closed one that stays out is none of the builder's business."""
    try:
        with os.scandir(place) as listing:
            return sorted(listing, key=lambda one: one.name)
    except PermissionError:
        if is_out:
            return []
        raise


def _taken(
    pending: list[tuple[str, os.stat_result, str]], entry: tuple[str, os.stat_result, str]
) -> Iterator[tuple[str, os.stat_result, str]]:
    """An entry that goes in, and before it those of its directories that have not yet."""
    yield from pending
    pending.clear()
    yield entry
