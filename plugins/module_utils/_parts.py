# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A large file in parts: how one is cut on the controller, and read as one on the host.

Parts travel one by one, each with a checksum, so that a broken transfer goes on where it
stopped; they are never put together, so the host needs the room only once.
"""

from __future__ import annotations

import bisect
import errno
import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

PART_SIZE = 64 << 20
CHUNK = 1 << 20
_PART = re.compile(r"(?P<whole>.+)\.part(?P<number>\d{3,})\Z")
# A line of sha256sum: the digest, a space, how the file was read, its name.
_SUM = re.compile(r"(?P<sha256>[0-9a-fA-F]{64}) [ *](?P<name>.+)\Z")


class PartError(Exception):
    """A file or a part that is not what its checksum says."""


@dataclass(frozen=True)
class Part:
    """One part of a file: bytes `offset` to `offset + size`, with their SHA-256 (hex)."""

    name: str
    offset: int
    size: int
    sha256: str


def cut(paths: Sequence[Path], part_size: int = PART_SIZE) -> tuple[list[Part], str]:
    """The parts of a file and the SHA-256 (hex) of the whole, in one reading.

    `paths` are read as one file; `part_size` in bytes. Raises OSError.
    """
    whole = hashlib.sha256()
    parts: list[Part] = []
    with Concatenated(paths) as file:
        for number, offset in enumerate(range(0, file.size, part_size)):
            digest = hashlib.sha256()
            length = min(part_size, file.size - offset)
            for chunk in pieces(file, length):
                digest.update(chunk)
                whole.update(chunk)
            parts.append(Part(part_file(number), offset, length, digest.hexdigest()))
    return parts, whole.hexdigest()


def part_file(number: int) -> str:
    """The name that a part travels under; `number` counts from 0."""
    return f"{number:05d}.part"


def pieces(file: IO[bytes] | io.RawIOBase, length: int) -> Iterator[bytes]:
    """`length` bytes from where the file stands, at most 1 MiB at a time; fewer if it ends."""
    while length > 0:
        chunk = file.read(min(CHUNK, length))
        if not chunk:
            return
        length -= len(chunk)
        yield chunk


def sha256_of(*paths: Path) -> str:
    """The SHA-256 (hex) of a file, or of several that are read as one; raises OSError."""
    digest = hashlib.sha256()
    with Concatenated(paths) as file:
        for chunk in pieces(file, file.size):
            digest.update(chunk)
    return digest.hexdigest()


def check_sha256(path: Path, wanted: str, *more: Path) -> None:
    """Raises PartError where the file's SHA-256 is not the wanted one (hex); OSError.

    `more` are files that go on where the first ends.
    """
    found = sha256_of(path, *more)
    if found != wanted.lower():
        raise PartError(
            f"{path}: wanted SHA-256 {wanted}, found {found}; it is damaged or another file, copy"
            " it anew"
        )


def part_name(path: Path, number: int) -> Path:
    """The file of one part of a split archive; `number` counts from 1."""
    return path.with_name(f"{path.name}.part{number:03d}")


def checksum_name(path: Path) -> Path:
    """The file of an archive's checksums, as sha256sum writes and checks them."""
    return path.with_name(f"{path.name}.sha256")


def split_parts(path: Path) -> list[Path]:
    """The files that hold an archive, in order: itself, or the parts that it was split into.

    `path` is the whole's (which need not be there) or that of the first part. Raises PartError for
    a part that is missing before the last; FileNotFoundError where nothing is there; OSError.
    """
    named = _PART.match(path.name)
    first = named is not None and int(named["number"]) == 1
    if path.is_file() and not first:
        return [path]
    whole = path.with_name(named["whole"]) if named and first else path
    there = parts_beside(whole)
    if not there:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    for number, file in enumerate(there, start=1):
        if file != part_name(whole, number):
            _want_part(part_name(whole, number))
    return there


def parts_beside(whole: Path) -> list[Path]:
    """The parts of a split archive that are there, in order; raises OSError."""
    there = {}
    for file in whole.parent.iterdir() if whole.parent.is_dir() else ():
        found = _PART.match(file.name)
        if found and found["whole"] == whole.name:
            there[int(found["number"])] = file
    return [there[number] for number in sorted(there)]


def _want_part(path: Path) -> None:
    if not path.is_file():
        raise PartError(
            f"{path}: this part of a split archive is wanted, it is not there; copy it beside the"
            " others"
        )


def check_sums(path: Path, files: Sequence[Path]) -> None:
    """Compares an archive's files with its checksum file, where that is there.

    `path` as for `split_parts`, and `files` what it returned. Raises PartError for a file that
    differs or is not named, and for a part that is named but missing; OSError.
    """
    named = _PART.match(files[0].name)
    whole = path.with_name(named["whole"]) if named else path
    sums = checksum_name(whole)
    if not sums.is_file():
        return
    wanted = _read_sums(sums)
    for name in wanted:
        if named and _PART.match(name):
            _want_part(whole.with_name(name))
    for file in files:
        if file.name not in wanted:
            raise PartError(
                f"{sums}: wanted a line for {file.name}, found none; make it anew with sha256sum,"
                " or remove it"
            )
        check_sha256(file, wanted[file.name])


def _read_sums(path: Path) -> dict[str, str]:
    """File name -> SHA-256 (hex). A file of checksums is small: 1 MiB of it is read."""
    with path.open("rb") as file:
        lines = file.read(CHUNK).decode("utf-8", "surrogateescape").splitlines()
    rows = [row for row in map(_SUM.match, lines) if row]
    return {Path(row["name"]).name: row["sha256"] for row in rows}


class Source(Protocol):
    """A file whose content may come later, but whose size in bytes is known."""

    @property
    def size(self) -> int:
        """Its bytes."""

    def open(self) -> io.FileIO:
        """The whole file, waited for."""


class Concatenated(io.RawIOBase):
    """Several files, read as if they were one. Raises OSError as files do, and as sources do."""

    def __init__(self, paths: Sequence[Path | Source]) -> None:
        super().__init__()
        self._sources = paths
        self._files: dict[int, io.FileIO] = {}
        self._starts = [0]
        self._at = 0
        # Where one cannot be opened, Python closes this object, and with it the ones before.
        for number, path in enumerate(paths):
            if isinstance(path, Path):
                self._files[number] = path.open("rb", buffering=0)
                size = os.fstat(self._files[number].fileno()).st_size
            else:
                size = path.size
            self._starts.append(self._starts[-1] + size)

    @property
    def size(self) -> int:
        """Bytes of all the files."""
        return self._starts[-1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self.size:
            return 0
        number = bisect.bisect_right(self._starts, self._at) - 1
        left = self._starts[number + 1] - self._at
        file = self._file(number)
        file.seek(self._at - self._starts[number])
        count = file.readinto(memoryview(buffer)[:left]) or 0
        self._at += count
        return count

    def _file(self, number: int) -> io.FileIO:
        if number not in self._files:
            self._files[number] = cast("Source", self._sources[number]).open()
        return self._files[number]

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        super().close()
