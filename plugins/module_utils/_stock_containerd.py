# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the images of a containerd store hold, read from its metadata and directories."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping

from ansible_collections.fleet.images.plugins.module_utils import _blocks, _bolt
from ansible_collections.fleet.images.plugins.module_utils._places import ContainerdPlaces
from ansible_collections.fleet.images.plugins.module_utils._reach import Metadata
from ansible_collections.fleet.images.plugins.module_utils._reclaim import UNKNOWN, Range, Stock

# Of this snapshotter it is known what a snapshot takes besides the size that it notes.
_OVERLAYFS = "overlayfs"


class Sizes(Mapping[str, Range]):
    """Allocated bytes of blobs and snapshots, by the keys of the metadata."""

    def __init__(self, places: ContainerdPlaces, metadata: Metadata) -> None:
        self._places = places
        self._keys = metadata.links
        self._snapshots = _snapshots(places, metadata)

    def __getitem__(self, key: str) -> Range:
        snapshotter, slash, _name = key.partition("/")
        try:
            if not slash:
                size = _blocks.allocated(self._places.blobs / key.rpartition(":")[2])
                return Range(size, size)
            id_, noted = self._snapshots[key]
            if snapshotter != _OVERLAYFS:
                return Range(noted, None)
            # The size is that of `fs`, in blocks; two directories more are its own.
            own = self._places.snapshots / "snapshots" / str(id_)
            size = noted + sum(os.lstat(path).st_blocks * 512 for path in (own, own / "work"))
            return Range(size, size)
        except (OSError, KeyError):
            return UNKNOWN

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


def _snapshots(places: ContainerdPlaces, metadata: Metadata) -> dict[str, tuple[int, int]]:
    """Snapshot -> its number and the bytes that it notes; raises BoltError, OSError.

    The snapshotter's own database is that of core/snapshots/storage of containerd: numbers as
    varints.
    """
    names = {name: key for key, name in metadata.backend.items()}

    def work(root: _bolt.Bucket) -> dict[str, tuple[int, int]]:
        found = {}
        for name, bucket in root[b"v1"][b"snapshots"].items():
            key = names.get(name.decode())
            if key is not None:
                size = _varint(bucket.get(b"size") or b"\0")
                found[key] = _varint(bucket[b"id"]), (size >> 1) ^ -(size & 1)
        return found

    try:
        return _bolt.view(places.snapshots / "metadata.db", work)
    except (FileNotFoundError, KeyError):
        return {}


def _varint(content: bytes) -> int:
    """An unsigned number of Go's encoding/binary: seven bits a byte, lowest first."""
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(content))
