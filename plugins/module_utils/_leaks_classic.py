# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a killed Engine left in the directories of a classic store, and no prune frees.

A layer is unpacked into a directory of its own and noted in a set of files that is put in place at
the end (layer/layer_store.go and layer/filestore.go of moby). Who is killed in between leaves both
where nobody looks again.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils import _blocks, _bolt, _stock_classic
from ansible_collections.fleet.images.plugins.module_utils._daemon import Daemon
from ansible_collections.fleet.images.plugins.module_utils._places import ClassicPlaces
from ansible_collections.fleet.images.plugins.module_utils._reclaim import Stock

# How the Engine names directories (stringid.GenerateRandomID) and BuildKit does (identity.NewID).
_NAME = re.compile(r"[0-9a-f]{64}(-init)?|[0-9a-z]{25}")
_SHORT = re.compile(r"[0-9A-Z]{26}")


@dataclass
class Orphans:
    """Paths below the store that nothing names, and chain IDs of layers that nobody uses."""

    directories: list[Path] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)


def look(places: ClassicPlaces, daemon: Daemon) -> Orphans:
    """What is older than the daemon and belongs to nothing; raises OSError, ValueError, BoltError.

    In doubt it is not told: what is younger may be in flight, what is mounted or stands below
    another directory is in use, and what has another name than the Engine gives is not its own.
    """
    found = Orphans()
    known, cache = _known(places), _noted_by_build_cache(places)
    below, mounts = _below(places, known), daemon.mounts()
    for path in _directories(places.overlay2):
        # BuildKit's own list is searched as bytes: what it mentions anywhere is its own.
        if not _NAME.fullmatch(path.name) or path.name in known or path.name.encode() in cache:
            continue
        short = _short(path)
        in_use = path.name in mounts or (short and (short in mounts or short in below))
        if not in_use and _older(path, daemon.started):
            found.directories.append(path)
    for path in _directories(places.image / "layerdb" / "tmp"):
        if _older(path, daemon.started):
            found.unfinished.append(path)
    found.layers = _unused(places, _stock_classic.read(places), daemon.started)
    return found


def _directories(place: Path) -> Iterator[Path]:
    """The directories in a directory, links not followed."""
    if place.is_dir():
        yield from (path for path in sorted(place.iterdir()) if _is_directory(path))


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _known(places: ClassicPlaces) -> set[str]:
    """The names of the directories that layers and containers use."""
    known = {_stock_classic.text(path / "cache-id") for path in _directories(places.layers)}
    for path in _directories(places.mounts):
        known |= {_stock_classic.text(path / name) for name in ("mount-id", "init-id")}
    return known


def _noted_by_build_cache(places: ClassicPlaces) -> bytes:
    """BuildKit's list, its names as bytes; empty where there is none. Raises BoltError, OSError."""

    def names(root: _bolt.Bucket) -> bytes:
        found = []
        for name, bucket in root.items():
            found.append(name)
            if isinstance(bucket, _bolt.Bucket):
                found += [value for value in bucket.values() if isinstance(value, bytes)]
        return b"\n".join(found)

    try:
        return _bolt.view(places.build_cache, names)
    except FileNotFoundError:
        return b""


def _below(places: ClassicPlaces, known: set[str]) -> str:
    """The links of the directories that known ones stand upon, as text."""
    return "\n".join(_stock_classic.text(places.overlay2 / name / "lower") for name in known)


def _short(path: Path) -> str:
    """The name of the link to a directory's contents; '' where it has none yet."""
    short = _stock_classic.text(path / "link")
    return short if _SHORT.fullmatch(short) else ""


def _older(path: Path, started: float) -> bool:
    """Whether nothing near the top of a directory was made or changed since then."""
    seen = [path, *path.iterdir()]
    return all(max(one.st_ctime, one.st_mtime) < started for one in map(os.lstat, seen))


def _unused(places: ClassicPlaces, stock: Stock, started: float) -> list[str]:
    """Layers that are noted, and that no image, container or build cache has."""
    if stock.maybe is None:
        return []
    used = {key for keys in stock.parts.values() for key in keys} | stock.held | stock.maybe
    layers = {f"sha256:{path.name}": path for path in _directories(places.layers)}
    # BuildKit may have taken hold of what stands above a layer; then it has that too.
    todo = [chain for chain in layers if chain in used]
    while todo:
        parent = _stock_classic.text(layers[todo.pop()] / "parent")
        if parent in layers and parent not in used:
            used.add(parent)
            todo.append(parent)
    return [key for key, path in layers.items() if key not in used and _older(path, started)]


def size(places: ClassicPlaces, path: Path) -> int:
    """Bytes of a directory that nothing names, its link included; raises OSError."""
    return _blocks.allocated(path, *_link(places, path))


def _link(places: ClassicPlaces, path: Path) -> list[Path]:
    """The link to a directory's contents, if it really leads there."""
    short = _short(path)
    link = places.overlay2 / "l" / short
    try:
        return [link] if short and os.readlink(link) == f"../{path.name}/diff" else []
    except OSError:
        return []


def remove(places: ClassicPlaces, path: Path) -> None:
    """Removes such a directory, and the link to it first, as the Engine does; raises OSError."""
    for link in _link(places, path):
        link.unlink()
    shutil.rmtree(path)
