# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the images of a containerd store hold, read from its metadata and directories."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from ansible_collections.fleet.images.plugins.module_utils import _blocks, _bolt
from ansible_collections.fleet.images.plugins.module_utils._places import ContainerdPlaces
from ansible_collections.fleet.images.plugins.module_utils._reach import (
    INGEST,
    Metadata,
    is_snapshot,
)
from ansible_collections.fleet.images.plugins.module_utils._reclaim import UNKNOWN, Range, Stock

# Of this snapshotter it is known what a snapshot takes besides the size that it notes.
_OVERLAYFS = "overlayfs"


class Sizes(Mapping[str, Range]):
    """Allocated bytes of blobs and snapshots, by the keys of the metadata."""

    def __init__(self, places: ContainerdPlaces, metadata: Metadata) -> None:
        self._places = places
        self._keys = metadata.links
        self._names = metadata.backend
        self._snapshots = _snapshots(places, metadata)

    def __getitem__(self, key: str) -> Range:
        try:
            return self._snapshot(key) if is_snapshot(key) else self._file(key)
        except (OSError, KeyError):
            return UNKNOWN

    def _file(self, key: str) -> Range:
        if key.startswith(INGEST):
            size = _blocks.allocated(self._places.ingest(self._names[key]))
        else:
            size = _blocks.allocated(self._places.blobs / key.rpartition(":")[2])
        return Range(size, size)

    def _snapshot(self, key: str) -> Range:
        number, noted = self._snapshots[key]
        if key.partition("/")[0] != _OVERLAYFS:
            return Range(noted or 0, None)
        own = self._places.snapshots / "snapshots" / str(number)
        if noted is None:
            size = _blocks.allocated(own)
        else:
            # The noted size is that of `fs`, in blocks. A mount leaves a directory in `work`.
            size = noted + _blocks.alone(own) + _blocks.allocated(own / "work")
        return Range(size, size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def read(places: ContainerdPlaces, metadata: Metadata) -> Stock:
    """The stock of the images that containerd knows, those that the Engine hides included.

    Raises BoltError, OSError.
    """
    parts = {id_: tuple(sorted(keys)) for id_, keys in metadata.images().items()}
    held = frozenset(metadata.held(time.time()))
    maybe = None if metadata.unsure else frozenset[str]()
    return Stock(parts, Sizes(places, metadata), held, maybe)


def _snapshots(places: ContainerdPlaces, metadata: Metadata) -> dict[str, tuple[int, int | None]]:
    """Snapshot -> its number, and the bytes that it notes once nothing is written any more.

    The snapshotter's own database is that of core/snapshots/storage of containerd: numbers as
    varints. Raises BoltError, OSError.
    """
    names = {name: key for key, name in metadata.backend.items()}

    def work(root: _bolt.Bucket) -> dict[str, tuple[int, int | None]]:
        found: dict[str, tuple[int, int | None]] = {}
        for name, bucket in root[b"v1"][b"snapshots"].items():
            key = names.get(name.decode())
            if key is not None:
                size = bucket.get(b"size")
                found[key] = _unsigned(bucket[b"id"]), _signed(size) if size else None
        return found

    try:
        return _bolt.view(places.snapshots / "metadata.db", work)
    except (FileNotFoundError, KeyError):
        return {}


def _unsigned(content: bytes) -> int:
    """A number of Go's encoding/binary (PutUvarint): seven bits a byte, lowest first."""
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(content))


def _signed(content: bytes) -> int:
    """The same of PutVarint: the lowest bit is the sign."""
    number = _unsigned(content)
    return (number >> 1) ^ -(number & 1)
