# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store stays small: what nobody needs any more, and its removal.

Layers, configs and half-fetched blobs go. The small indexes and manifests of former images stay,
without a name: Engines out there may still have these images, and an Engine with the containerd
store tells only which manifests it has. `_known` reads from these documents which layers that
means.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils import _diff_ids
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    Layout,
    LayoutError,
    name_of,
    to_json,
    write_atomically,
)

# Seconds after which a lease is one that a broken run has left.
LEASE = 24 * 3600
# Seconds to wait for those who use the store.
PATIENCE = 3.0
_LEASES = ".leases"
_LEASE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_BLOB = re.compile(r"(\.?)([0-9a-f]{64})(\.part)?\Z")
_BESIDE = re.compile(r"\..*\.tmp\Z")


@dataclass(frozen=True)
class Waste:
    """What can go: files with their sizes in bytes, names with the digests they stand for, and
    names of relays that runs have left."""

    files: Mapping[Path, int]
    names: Mapping[str, str]
    relays: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.names or self.relays)

    @property
    def bytes(self) -> int:
        """Bytes of all the files."""
        return sum(self.files.values())


def lease(layout: Layout, name: str, digests: Iterable[str]) -> None:
    """Keeps these blobs until the file `.leases/<name>` of the store is removed, a day at most.

    For a run of several tasks, between which it does not use the store. Raises LayoutError for a
    name that is no file name, OSError.
    """
    check_lease_name(name)
    path = layout.root / _LEASES / name
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, to_json(sorted(digests)))


def hold(layout: Layout, name: str, digests: Iterable[str]) -> None:
    """Keeps a lease that is there for another day; makes it where it is not. Raises as `lease`."""
    check_lease_name(name)
    try:
        os.utime(layout.root / _LEASES / name)
    except FileNotFoundError:
        lease(layout, name, digests)


def is_over(root: Path, name: str) -> bool:
    """Whether the run of this lease has ended, or was killed a day ago. `root`: of the store."""
    try:
        return time.time() - (root / _LEASES / name).stat().st_mtime >= LEASE
    except FileNotFoundError:
        return True


def check_lease_name(name: str) -> None:
    """Raises LayoutError for a lease's name that is no plain file name."""
    if not _LEASE_NAME.match(name):
        raise LayoutError(
            f"lease {name!r}: wanted letters, digits, dots, dashes and underscores; choose another"
            " name"
        )


def leased(layout: Layout) -> set[str]:
    """Digests of the blobs that somebody's lease keeps; a lease that cannot be read keeps none."""
    found: set[str] = set()
    for path in (layout.root / _LEASES).glob("*"):
        try:
            if time.time() - path.stat().st_mtime < LEASE:
                found.update(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue
    return found


def look(layout: Layout, needed: Container[str], moving: Container[str] = ()) -> Waste:
    """What of the store can go. `needed`: digests; `moving`: names that this run sets itself."""
    entries = layout.names()
    documents = {one for entry in entries for one in _documents(layout, str(entry["digest"]))}
    files = {}
    for path in sorted((layout.root / "blobs" / "sha256").glob("*")):
        if _is_waste(path, needed, documents):
            files[path] = path.stat().st_size
    names = {
        name_of(entry): str(entry["digest"])
        for entry in entries
        if name_of(entry) and name_of(entry) not in moving and entry["digest"] not in needed
    }
    return Waste(files, names)


def _is_waste(path: Path, needed: Container[str], documents: Container[str]) -> bool:
    """Whether a file among the blobs can go; what is none of the store's own stays."""
    found = _BLOB.match(path.name)
    if not found:
        # What a killed process was writing: nobody else uses the store now.
        return bool(_BESIDE.match(path.name))
    digest = f"sha256:{found[2]}"
    if found[3]:
        return digest not in needed or path.with_name(found[2]).exists()
    return not found[1] and digest not in needed and digest not in documents


def _documents(layout: Layout, target: str) -> Iterator[str]:
    """Digests of the documents that tell which layers an image had: index, manifests.

    A manifest does not say its platform; where there is no index, its config does.
    """
    yield target
    try:
        document = json.loads(layout.read(target))
        for child in document.get("manifests") or ():
            yield str(child["digest"])
        if "config" in document:
            yield str(document["config"]["digest"])
    except (LayoutError, ValueError, LookupError, TypeError, AttributeError):
        return


def clear(layout: Layout, waste: Waste) -> None:
    """Removes it, and notes and leases that have no meaning any more; raises OSError.

    Only for one who has the store alone.
    """
    layout.unname(waste.names)
    for path in waste.files:
        path.unlink(missing_ok=True)
    for path in (layout.root / "diff-ids" / "sha256").glob("*"):
        if _diff_ids.find(layout, f"sha256:{path.name}") is None:
            path.unlink(missing_ok=True)
    for path in (layout.root / _LEASES).glob("*"):
        if time.time() - path.stat().st_mtime >= LEASE:
            path.unlink(missing_ok=True)
