# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the images of a classic store hold, read from its directories."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils import _blocks, _bolt
from ansible_collections.fleet.images.plugins.module_utils._holdings import chain_ids
from ansible_collections.fleet.images.plugins.module_utils._places import ClassicPlaces
from ansible_collections.fleet.images.plugins.module_utils._reclaim import Range, Stock

_RECORD = "record of "


class Sizes(Mapping[str, Range]):
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
    return Stock(parts, Sizes(places, keys), _held(places), _maybe(places))


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


def _held(places: ClassicPlaces) -> frozenset[str]:
    """The chain IDs that containers stand on, whether or not their image is there."""
    mounts = places.mounts.iterdir() if places.mounts.exists() else ()
    return _with_lower(places, (text(mount / "parent") for mount in mounts))


def _with_lower(places: ClassicPlaces, chains: Iterable[str]) -> frozenset[str]:
    """These chain IDs, and those of all layers below."""
    found: set[str] = set()
    for chain in chains:
        while chain and chain not in found:
            found.add(chain)
            chain = text(places.layers / chain.rpartition(":")[2] / "parent")  # noqa: PLW2901
    return frozenset(found)


def _maybe(places: ClassicPlaces) -> frozenset[str] | None:
    """The chain IDs that build cache uses: it takes hold of them when it next needs them.

    None where that cannot be read. Every record of the cache has a lease on a snapshot, which is
    noted with its chain ID, or is called after it (builder/builder-next/adapters/snapshot of moby,
    cache/manager.go of buildkit); a snapshot without a lease is what BuildKit forgot to note away.
    """
    try:
        leased = _bolt.view(places.build_leases, _leased)
        chains = _bolt.view(places.build_cache, lambda root: _chains_of(root, leased))
    except FileNotFoundError:
        return None if places.build_cache.exists() else frozenset()
    except (OSError, _bolt.BoltError):
        return None
    return _with_lower(places, chains)


def _leased(root: _bolt.Bucket) -> set[str]:
    """The snapshots that leases hold, in all namespaces."""
    found: set[str] = set()
    for _name, space in _bolt.buckets(root.get(b"v1") or {}):
        for _id, lease in _bolt.buckets(space.get(b"leases") or {}):
            for _snapshotter, snapshots in _bolt.buckets(lease.get(b"snapshots") or {}):
                found.update(key.decode() for key in snapshots)
    return found


def _chains_of(root: _bolt.Bucket, leased: set[str]) -> list[str]:
    """The chain IDs of snapshots, or of what they stand upon where they have none."""
    noted = dict(_bolt.buckets(root))
    found, todo, seen = [], list(leased), set[str]()
    while todo:
        key = todo.pop()
        bucket = noted.get(key.encode()) or {}
        chain = (bucket.get(b"chainid") or key.encode()).decode()
        if chain.startswith("sha256:"):
            found.append(chain)
        elif key not in seen:
            seen.add(key)
            todo += [
                bucket[name].decode() for name in (b"committed", b"parent") if bucket.get(name)
            ]
    return found


def text(path: Path) -> str:
    """What a small file says; '' where there is none. Raises OSError, ValueError."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
