# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the images of a classic store hold, read from its directories."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils import _blocks, _bolt
from ansible_collections.fleet.images.plugins.module_utils._holdings import chain_ids
from ansible_collections.fleet.images.plugins.module_utils._places import ClassicPlaces
from ansible_collections.fleet.images.plugins.module_utils._reclaim import Range, Stock

_RECORD = "record of "


class _Sizes(Mapping[str, Range]):
    """Allocated bytes of layers and records, counted when they are asked for, and then kept."""

    def __init__(self, places: ClassicPlaces, keys: Sequence[str]) -> None:
        self._places = places
        self._keys = keys
        self._known: dict[str, Range] = {}

    def __getitem__(self, key: str) -> Range:
        if key not in self._known:
            paths = record_paths if key.startswith(_RECORD) else layer_paths
            digits = key.rpartition(":")[2]
            try:
                size = _blocks.allocated(*paths(self._places, digits))
                self._known[key] = Range(size, size)
            except OSError:
                self._known[key] = Range(0, None)
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def read(places: ClassicPlaces) -> Stock:
    """The stock of all images that have a record; raises OSError, ValueError."""
    parts: dict[str, tuple[str, ...]] = {}
    same: dict[str, str] = {}
    for id_ in places.image_ids():
        chains = (same.setdefault(chain, chain) for chain in _chains(places, id_))
        parts[id_] = (*chains, f"{_RECORD}{id_}")
    keys = list(dict.fromkeys(key for keys in parts.values() for key in keys))
    return Stock(parts, _Sizes(places, keys), frozenset(_held(places)), _maybe(places))


def _chains(places: ClassicPlaces, image_id: str) -> list[str]:
    config = json.loads((places.configs / image_id.rpartition(":")[2]).read_bytes())
    return chain_ids((config.get("rootfs") or {}).get("diff_ids") or [])


def layer_paths(places: ClassicPlaces, digits: str) -> tuple[Path, ...]:
    """All that belongs to a layer, of whose chain ID these are the digits; raises OSError."""
    record = places.layers / digits
    directory = places.overlay2 / (record / "cache-id").read_text(encoding="ascii").strip()
    short = (directory / "link").read_text(encoding="ascii").strip()
    return directory, places.overlay2 / "l" / short, record


def record_paths(places: ClassicPlaces, digits: str) -> tuple[Path, ...]:
    """The files of an image besides its layers."""
    metadata = places.image / "imagedb" / "metadata" / "sha256" / digits
    return places.configs / digits, metadata


def _held(places: ClassicPlaces) -> set[str]:
    """The chain IDs that containers stand on, whether or not their image is there."""
    held: set[str] = set()
    for mount in places.mounts.iterdir() if places.mounts.exists() else ():
        chain = _text(mount / "parent")
        while chain and chain not in held:
            held.add(chain)
            chain = _text(places.layers / chain.rpartition(":")[2] / "parent")
    return held


def _maybe(places: ClassicPlaces) -> frozenset[str] | None:
    """The chain IDs that build cache uses: it takes hold of them when it next needs them.

    BuildKit notes a layer under its chain ID, or the chain ID under a name of its own
    (builder/builder-next/adapters/snapshot of moby).
    """
    try:
        return _bolt.view(places.build_cache, _build_cache)
    except FileNotFoundError:
        return frozenset()
    except (OSError, _bolt.BoltError):
        return None


def _build_cache(root: _bolt.Bucket) -> frozenset[str]:
    found = set()
    for name, bucket in root.items():
        found.add(name.decode())
        if isinstance(bucket, _bolt.Bucket):
            found.update(bucket[key].decode() for key in (b"chainid", b"parent") if bucket.get(key))
    return frozenset(key for key in found if key.startswith("sha256:"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
