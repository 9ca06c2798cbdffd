# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads bbolt databases (containerd's and BuildKit's) beside the daemon that writes them.

Nothing is locked and nothing written. The format is that of go.etcd.io/bbolt: pages of a B+ tree;
a change writes new pages and then one of two meta pages, so the pages of the tree that a meta page
names stay as they are until the change after the next one.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_MAGIC, _VERSION = 0xED0CDAED, 2
_BRANCH, _LEAF = 1, 2
_HEADER = struct.Struct("<QHHI")  # of a page: ID, flags, count, overflow
_META = struct.Struct("<IIII QQ QQQQ")
_BRANCH_ELEMENT = struct.Struct("<IIQ")  # position, bytes of the key, page
_LEAF_ELEMENT = struct.Struct("<IIII")  # flags, position, bytes of the key, bytes of the value
_BUCKET = struct.Struct("<QQ")  # root page, sequence
_TRIES = 5


class BoltError(Exception):
    """A file that is no such database, or one that changes faster than it can be read."""


class Bucket(Mapping[bytes, Any]):
    """A bucket: keys in order, values as bytes, buckets within it as Bucket; read when asked."""

    def __init__(self, data: Any, page_size: int, offset: int) -> None:
        self._data = data
        self._page_size = page_size
        self._offset = offset

    def _pairs(self, offset: int) -> Iterator[tuple[bytes, Any]]:
        _id, flags, count, _overflow = _HEADER.unpack_from(self._data, offset)
        first = offset + _HEADER.size
        if flags & _BRANCH:
            for number in range(count):
                at = first + number * _BRANCH_ELEMENT.size
                page = _BRANCH_ELEMENT.unpack_from(self._data, at)[2]
                yield from self._pairs(page * self._page_size)
        elif flags & _LEAF:
            for number in range(count):
                yield self._pair(first + number * _LEAF_ELEMENT.size)
        else:
            raise BoltError(f"a page of a tree was wanted at byte {offset}, its flags are {flags}")

    def _pair(self, at: int) -> tuple[bytes, Any]:
        flags, position, key_bytes, value_bytes = _LEAF_ELEMENT.unpack_from(self._data, at)
        start = at + position + key_bytes
        key = self._data[at + position : start]
        if not flags & 1:
            return key, self._data[start : start + value_bytes]
        # A small bucket stands in its parent's page, as a page without a number.
        root = _BUCKET.unpack_from(self._data, start)[0]
        offset = root * self._page_size if root else start + _BUCKET.size
        return key, Bucket(self._data, self._page_size, offset)

    def items(self) -> Iterator[tuple[bytes, Any]]:  # type: ignore[override]
        """Keys and values, in one pass."""
        return self._pairs(self._offset)

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, _value in self.items())

    def __len__(self) -> int:
        return sum(1 for _key in self)

    def __getitem__(self, key: bytes) -> Any:
        for there, value in self.items():
            if there == key:
                return value
        raise KeyError(key)


def buckets(bucket: Mapping[bytes, Any]) -> Iterator[tuple[bytes, Mapping[bytes, Any]]]:
    """The buckets within a bucket, and their names."""
    return ((key, value) for key, value in bucket.items() if isinstance(value, Mapping))


def view(path: str | os.PathLike[str], work: Callable[[Bucket], T]) -> T:
    """What `work` makes of the database's root bucket, all of one moment.

    `work` may run several times, and must keep no bucket. Raises BoltError, OSError.
    """
    reason = "it changes faster than it can be read"
    for _try in range(_TRIES):
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < 2 * _HEADER.size + _META.size:
                raise BoltError(f"{os.fspath(path)}: a database was wanted, the file is too short")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                before = _meta(data)
                if before is None:
                    raise BoltError(f"{os.fspath(path)}: a bbolt database was wanted, it is none")
                try:
                    found = work(Bucket(data, before[1], before[2] * before[1]))
                except (struct.error, BoltError, RecursionError) as error:
                    reason = str(error)
                    continue
                if _meta(data) == before:
                    return found
    raise BoltError(f"{os.fspath(path)} could not be read: {reason}")


def _meta(data: Any) -> tuple[int, int, int] | None:
    """Number of the last change, page size and root page, of the newer meta page that is whole."""
    first = _read_meta(data, 0)
    # The second meta page is the second page, and a broken first one does not tell where that is.
    sizes = [first[1]] if first else [1 << bits for bits in range(9, 17)]
    found = [first, *(_read_meta(data, size) for size in sizes)]
    return max((one for one in found if one), default=None)


def _read_meta(data: Any, offset: int) -> tuple[int, int, int] | None:
    start = offset + _HEADER.size
    if start + _META.size > len(data):
        return None
    fields = _META.unpack_from(data, start)
    magic, version, page_size, _flags, root, _sequence, _free, _high, change, checksum = fields
    if (magic, version) != (_MAGIC, _VERSION):
        return None
    if checksum != _fnv1a(data[start : start + _META.size - 8]):
        return None
    return change, page_size, root


def _fnv1a(content: bytes) -> int:
    """FNV-1a in 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/), which bbolt checks with."""
    value = 0xCBF29CE484222325
    for byte in content:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
