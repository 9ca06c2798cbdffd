# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the images of one Engine hold and what of it would go with them, in few calls.

On the Engine's own host, with the right to read its directories, to the block; else a range, by
what the API tells.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils import (
    _bolt,
    _build_cache,
    _places,
    _stock_classic,
    _stock_containerd,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC, chain_ids
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image
from ansible_collections.fleet.images.plugins.module_utils._reclaim import Range, Stock

# How many images are asked for at once.
_AT_ONCE = 4
_BLOCK = 4096
_BESIDE = 16 * _BLOCK
_CONTENT = "content of "


@dataclass(frozen=True)
class Disk:
    """The file system that holds the images: a directory on it, its size and free bytes."""

    path: str
    total: int
    free: int


def disk(engine: Engine) -> Disk | None:
    """The file system that holds the images, as it is now; None where it cannot be read.

    `free` is what users may fill, as df tells it.
    """
    if not engine.host.startswith("unix://"):
        return None
    facts = engine.facts
    # Each may be a mount of its own below the data directory.
    inner = facts.driver if facts.store == CLASSIC else _places.CONTENT
    for path in (Path(facts.data_path) / inner, Path(facts.data_path)):
        try:
            usage = shutil.disk_usage(path)
        except OSError:
            continue
        return Disk(str(path), usage.total, usage.free)
    return None


def read(
    engine: Engine,
    images: Sequence[Image],
    doomed: Collection[str] = (),
    diff_ids: Mapping[str, Sequence[str]] | None = None,
) -> Stock:
    """The stock of an Engine; raises EngineError.

    `images`: all that it has, intermediates included (`_info.inventory`). `doomed`: IDs of those
    that may go. `diff_ids`: image ID -> its layers, as far as inspections told them already. Both
    matter only where the Engine's directories cannot be read: then it is asked for what is lacking.
    """
    ids = [image.id for image in images]
    try:
        classic = _places.classic(engine, ids)
        if classic is not None:
            return _stock_classic.read(classic)
        containerd = _places.containerd(engine, ids)
        if containerd is not None:
            return _stock_containerd.read(*containerd)
    except (OSError, ValueError, _bolt.BoltError):
        pass  # What was there a moment ago may be gone.
    return _asked(engine, images, doomed, diff_ids or {})


def _asked(
    engine: Engine,
    images: Sequence[Image],
    doomed: Collection[str],
    diff_ids: Mapping[str, Sequence[str]],
) -> Stock:
    """The stock by the API alone."""
    known = dict(diff_ids)
    lacking = [image.id for image in images if image.id not in known]
    wanted = [image.id for image in images if image.id in doomed]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        known.update(zip(lacking, pool.map(lambda id_: _diff_ids(engine, id_), lacking)))
        steps = dict(zip(wanted, pool.map(lambda id_: _history(engine, id_), wanted)))
    parts = {image.id: tuple(chain_ids(known[image.id])) for image in images}
    sizes: dict[str, Range] = {}
    for id_ in wanted:
        for chain, size in zip(parts[id_], layer_sizes(engine.facts.store, parts[id_], steps[id_])):
            sizes[chain] = _either(sizes.get(chain, size), size)
    if engine.facts.store != CLASSIC:
        for image in images:
            sizes[f"{_CONTENT}{image.id}"] = _content(image, parts[image.id], sizes)
            parts[image.id] = (*parts[image.id], f"{_CONTENT}{image.id}")
    unsure = _build_cache.there(engine) or _foreign_users(engine, images)
    return Stock(parts, sizes, frozenset(), None if unsure else frozenset())


def _diff_ids(engine: Engine, image_id: str) -> list[str]:
    return ((engine.inspect(image_id) or {}).get("RootFS") or {}).get("Layers") or []


def _history(engine: Engine, image_id: str) -> list[int]:
    """The sizes of an image's steps, lowest first."""
    steps = engine.get("/images/{0}/history", image_id)
    return [int(step.get("Size") or 0) for step in reversed(steps)]


def layer_sizes(store: str, chains: Sequence[str], steps: Sequence[int]) -> list[Range]:
    """Bytes of each layer, lowest first, of the sizes of the steps in an image's history.

    A step of 0 bytes may be an empty layer or none. Where that leaves open which layer a size
    belongs to, sizes are given to the lowest ones: what goes is always the upper end of a chain,
    so its sum is never told too large.
    """
    known = [size for size in steps if size > 0][: len(chains)]
    certain = len(known) == len(chains)
    known += [0] * (len(chains) - len(known))
    if store == CLASSIC or not certain:
        # Bytes in files; what these take on the disk is told nowhere.
        return [Range(size, None) for size in known]
    # Allocated blocks of a snapshot without its own directories; and an image that was committed
    # stands on a small snapshot of the container's besides.
    return [Range(size, size + _BESIDE) for size in known]


def _either(one: Range, other: Range) -> Range:
    known = [most for most in (one.most, other.most) if most is not None]
    return Range(min(one.least, other.least), max(known) if len(known) == 2 else None)


def _content(image: Image, chains: Sequence[str], sizes: Mapping[str, Range]) -> Range:
    """Bytes of an image's blobs, of which any may be another image's as well.

    The size of an image on the containerd store is that of its blobs and snapshots.
    """
    unpacked = sum(sizes[chain].least for chain in chains if chain in sizes)
    # Each blob fills its last block: layers, their config, manifest and perhaps index.
    return Range(0, max(0, image.size - unpacked) + (len(chains) + 3) * _BLOCK)


def _foreign_users(engine: Engine, images: Sequence[Image]) -> bool:
    """Whether containers use images that are not there any more, and so hold unknown layers."""
    there = {image.id for image in images}
    users = engine.get("/containers/json", all=1)
    return any(str(one.get("ImageID") or "") not in there for one in users)
