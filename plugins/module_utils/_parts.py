# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A large file in parts: how one is cut on the controller, and read as one on the host.

Parts travel one by one, each with a checksum, so that a broken transfer goes on where it
stopped; they are never put together, so the host needs the room only once.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

PART_SIZE = 64 << 20
CHUNK = 1 << 20


class PartError(Exception):
    """A file or a part that is not what its checksum says."""


@dataclass(frozen=True)
class Part:
    """One part of a file: bytes `offset` to `offset + size`, with their SHA-256 (hex)."""

    name: str
    offset: int
    size: int
    sha256: str


def cut(path: Path, part_size: int = PART_SIZE) -> tuple[list[Part], str]:
    """The parts of a file and the SHA-256 (hex) of the whole, in one reading.

    `part_size` in bytes. Raises OSError.
    """
    whole = hashlib.sha256()
    parts: list[Part] = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for number, offset in enumerate(range(0, size, part_size)):
            digest = hashlib.sha256()
            length = min(part_size, size - offset)
            for chunk in pieces(file, length):
                digest.update(chunk)
                whole.update(chunk)
            parts.append(Part(f"{number:05d}.part", offset, length, digest.hexdigest()))
    return parts, whole.hexdigest()


def pieces(file: BinaryIO | io.RawIOBase, length: int) -> Iterator[bytes]:
    """`length` bytes from where the file stands, at most 1 MiB at a time; fewer if it ends."""
    while length > 0:
        chunk = file.read(min(CHUNK, length))
        if not chunk:
            return
        length -= len(chunk)
        yield chunk


def sha256_of(path: Path) -> str:
    """The SHA-256 (hex) of a file; raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in pieces(file, os.fstat(file.fileno()).st_size):
            digest.update(chunk)
    return digest.hexdigest()


def check_sha256(path: Path, wanted: str) -> None:
    """Raises PartError where the file's SHA-256 is not the wanted one (hex); OSError."""
    found = sha256_of(path)
    if found != wanted.lower():
        raise PartError(
            f"{path}: wanted SHA-256 {wanted}, found {found}; it is damaged or another file, copy"
            " it anew"
        )


class Concatenated(io.RawIOBase):
    """Several files, read as if they were one. Raises OSError as files do."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._files: list[io.FileIO] = []
        self._starts = [0]
        self._at = 0
        # Where one cannot be opened, Python closes this object, and with it the ones before.
        for path in paths:
            self._files.append(path.open("rb", buffering=0))
            size = os.fstat(self._files[-1].fileno()).st_size
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
        file = self._files[number]
        file.seek(self._at - self._starts[number])
        count = file.readinto(memoryview(buffer)[:left]) or 0
        self._at += count
        return count

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
