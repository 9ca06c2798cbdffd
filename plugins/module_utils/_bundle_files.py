# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bundle on disk: in one file or split into parts, with its checksums where they are wanted.

Parts are for disks whose file system takes no large files; `cat` of them all is the bundle.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils._bundle import (
    BundleError,
    DamagedBlob,
    Member,
    size_of,
    skeleton,
    stream,
)
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    sync_directory,
    write_atomically,
)
from ansible_collections.fleet.images.plugins.module_utils._parts import (
    Concatenated,
    checksum_name,
    part_name,
    parts_beside,
    pieces,
)

# More than these do not stand in order where a shell lists them by name.
_MOST_PARTS = 999


@dataclass(frozen=True)
class Form:
    """How a bundle stands on disk: bytes of each part (0: one file), and whether with checksums.

    `passing`: somebody takes the files away at once. Then each part is there as soon as it is
    whole, while the next one is written, and nothing is flushed to disk.
    """

    split_size: int = 0
    checksum: bool = False
    passing: bool = False

    def files(self, path: Path, size: int) -> list[Path]:
        """The files of a bundle of `size` bytes; raises BundleError for too many."""
        if not self.split_size:
            return [path]
        if size > self.split_size * _MOST_PARTS:
            raise BundleError(
                f"{path}: wanted in parts of {self.split_size} bytes, {_MOST_PARTS} of them hold"
                f" less than its {size} bytes; set a larger split_size"
            )
        return [
            part_name(path, 1 + at // self.split_size) for at in range(0, size, self.split_size)
        ]


@dataclass(frozen=True)
class Written:
    """What stands at a bundle's path: whether it was written now, bytes, SHA-256 (hex), files.

    `sums`: the SHA-256 of each file, none where that of the bundle is ''.
    """

    changed: bool
    bytes: int
    sha256: str
    files: tuple[Path, ...]
    sums: tuple[str, ...] = ()


class _Sums:
    """SHA-256 of a bundle, and of each file that holds it."""

    def __init__(self, split_size: int) -> None:
        self.whole = hashlib.sha256()
        self._split_size = split_size
        self._left = 0
        self._files: list[hashlib._Hash] = []

    def update(self, chunk: bytes) -> None:
        self.whole.update(chunk)
        rest = memoryview(chunk)
        while rest and self._split_size:
            if not self._left:
                self._files.append(hashlib.sha256())
                self._left = self._split_size
            now = rest[: self._left]
            self._files[-1].update(now)
            self._left -= len(now)
            rest = rest[len(now) :]

    def of_files(self) -> tuple[str, ...]:
        """In hex, in the order of the files."""
        return tuple(one.hexdigest() for one in self._files or [self.whole])

    def text(self, files: Sequence[Path]) -> bytes:
        """As sha256sum writes and checks it."""
        lines = (f"{one}  {file.name}\n" for one, file in zip(self.of_files(), files))
        return "".join(lines).encode()


def write(
    path: Path, members: Sequence[Member], dry_run: bool = False, form: Form | None = None
) -> Written:
    """Puts the bundle at `path`, or leaves alone one that is the same to the byte.

    Written beside, flushed to disk and renamed; what an earlier bundle of another form left goes.
    With `dry_run` nothing is written, and the SHA-256 of a bundle that would be is ''.
    Raises OSError, BundleError.
    """
    form = form or Form()
    size = size_of(members)
    files = form.files(path, size)
    leftovers = [one for one in (path, *parts_beside(path)) if one.is_file() and one not in files]
    sums = _compare(files, members, form)
    checked = sums is not None and (not form.checksum or _has_text(path, sums.text(files)))
    changed = sums is None or not checked or bool(leftovers)
    if dry_run or not changed:
        return _written(changed, size, sums, files)
    path.parent.mkdir(parents=True, exist_ok=True)
    if sums is None:
        sums = _write_files(path, files, members, form)
    for file in leftovers:
        file.unlink(missing_ok=True)
    if form.checksum:
        write_atomically(checksum_name(path), sums.text(files))
    if not form.passing:
        sync_directory(path.parent)
    return _written(True, size, sums, files)


def _written(changed: bool, size: int, sums: _Sums | None, files: Sequence[Path]) -> Written:
    if sums is None:
        return Written(changed, size, "", tuple(files))
    return Written(changed, size, sums.whole.hexdigest(), tuple(files), sums.of_files())


def damaged(members: Iterable[Member]) -> list[str]:
    """The digests of the blobs whose content is another; reads all of them."""
    found = []
    for member in members:
        try:
            for _chunk in stream([member]):
                pass
        except DamagedBlob as error:
            found.append(error.digest)
    return found


def _write_files(path: Path, files: Sequence[Path], members: Sequence[Member], form: Form) -> _Sums:
    sums = _Sums(form.split_size)
    source = _Taken(stream(members))
    beside = [file.with_name(f".{file.name}.{os.getpid()}.tmp") for file in files]
    # The sums of what was there are not those of what will be, nor are its parts.
    for old in (checksum_name(path), *files) if form.passing else ():
        old.unlink(missing_ok=True)
    try:
        for place, final in zip(beside, files):
            with place.open("wb") as file:
                for chunk in source.take(form.split_size or sys.maxsize):
                    sums.update(chunk)
                    file.write(chunk)
                if not form.passing:
                    file.flush()
                    os.fsync(file.fileno())
            if form.passing:
                os.replace(place, final)
        if not form.passing:
            checksum_name(path).unlink(missing_ok=True)
            for place, final in zip(beside, files):
                os.replace(place, final)
    except BaseException:
        for final in files if form.passing else ():
            final.unlink(missing_ok=True)
        raise
    finally:
        for place in beside:
            place.unlink(missing_ok=True)
    return sums


class _Taken:
    """Chunks, taken by the length that is wanted of them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def take(self, length: int) -> Iterator[bytes]:
        """At most so many bytes."""
        while length:
            # Padding may be an empty chunk: that is no end.
            chunk = self._rest or next(self._chunks, None)
            if chunk is None:
                return
            now, self._rest = chunk[:length], chunk[length:]
            length -= len(now)
            yield now


def _compare(files: Sequence[Path], members: Sequence[Member], form: Form) -> _Sums | None:
    """The sums of these files, where together they are just the bundle of these members.

    Blobs are compared by their digest, so the store is not read a second time.
    """
    sizes = [file.stat().st_size for file in files if file.is_file()]
    whole = form.split_size or size_of(members)
    if len(sizes) < len(files) or sum(sizes) != size_of(members) or set(sizes[:-1]) - {whole}:
        return None
    sums = _Sums(form.split_size)
    with contextlib.closing(Concatenated(files)) as found:
        for piece in skeleton(members):
            good = (
                _is(found, sums, piece) if isinstance(piece, bytes) else _holds(found, sums, piece)
            )
            if not good:
                return None
    return sums


def _is(file: Concatenated, sums: _Sums, expected: bytes) -> bool:
    found = b"".join(pieces(file, len(expected)))
    sums.update(found)
    return found == expected


def _holds(file: Concatenated, sums: _Sums, member: Member) -> bool:
    digest = hashlib.sha256()
    for chunk in pieces(file, member.size):
        digest.update(chunk)
        sums.update(chunk)
    return f"sha256:{digest.hexdigest()}" == member.digest


def _has_text(path: Path, text: bytes) -> bool:
    try:
        with checksum_name(path).open("rb") as file:
            return file.read(len(text) + 1) == text
    except OSError:
        return False
