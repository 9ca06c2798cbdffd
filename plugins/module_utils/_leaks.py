# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an Engine that was killed left on the disk and no prune frees: found, told, never guessed.

Only root, on the Engine's own host, sees enough to tell. What belongs to nothing that the Engine
knows, and is older than the running daemon, is a leak: whatever is in flight is younger.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils import (
    _bolt,
    _daemon,
    _leaks_classic,
    _leaks_containerd,
    _places,
    _stock_classic,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC
from ansible_collections.fleet.images.plugins.module_utils._places import (
    ClassicPlaces,
    ContainerdPlaces,
)
from ansible_collections.fleet.images.plugins.module_utils._stock_containerd import Sizes

DIRECTORY, UNFINISHED, LAYER, LEASE, GARBAGE = (
    "directory",
    "unfinished",
    "layer",
    "lease",
    "garbage",
)
_ERRORS = (OSError, ValueError, _bolt.BoltError)


@dataclass(frozen=True)
class Leak:
    """Something on the disk that belongs to nothing.

    `kind`: `directory` (of a layer that was never finished), `unfinished` (what was noted about
    it), `layer` (finished, no image has it), `lease` (of containerd), `garbage` (containerd frees
    it at its next turn). `id`: a path, a chain ID, the ID of a lease, or a key of the metadata.
    `bytes`: freed with it. `removable`: whether `remove` can take it away.
    """

    kind: str
    id: str
    bytes: int
    reason: str
    removable: bool


@dataclass(frozen=True)
class Found:
    """The leaks; `blind` says why nobody could look, '' where somebody did."""

    leaks: tuple[Leak, ...] = ()
    blind: str = ""

    @property
    def bytes(self) -> int:
        """Of all leaks."""
        return sum(leak.bytes for leak in self.leaks)


@dataclass(frozen=True)
class Outcome:
    """What became of a leak: whether it is gone, and if not, why it was left."""

    leak: Leak
    gone: bool
    reason: str = ""


@dataclass(frozen=True)
class _Seen:
    """The places of one Engine and its daemon, or why they are not seen."""

    classic: ClassicPlaces | None = None
    containerd: ContainerdPlaces | None = None
    daemon: _daemon.Daemon | None = None


def find(engine: Engine) -> Found:
    """The leaks of an Engine, the largest first; raises EngineError."""
    seen = _see(engine)
    if seen.daemon is None:
        return Found(blind=_blind(engine, seen))
    try:
        if seen.classic:
            found = list(_in_classic(seen.classic, seen.daemon))
        else:
            found = list(_in_containerd(seen.containerd, seen.daemon)) if seen.containerd else []
    except _ERRORS as error:
        return Found(blind=f"the directories of the Engine could not be read: {error}")
    return Found(tuple(sorted(found, key=lambda leak: (-leak.bytes, leak.id))))


def _see(engine: Engine) -> _Seen:
    ids = [image["Id"] for image in engine.get("/images/json", all=1)]
    socket = engine.host.partition("://")[2]
    classic = _places.classic(engine, ids)
    if classic is not None:
        return _Seen(classic=classic, daemon=_daemon.find(classic.root, socket))
    containerd = _places.containerd(engine, ids)
    if containerd is None:
        return _Seen()
    places = containerd[0]
    return _Seen(containerd=places, daemon=_daemon.find(places.engine_root, socket))


def _blind(engine: Engine, seen: _Seen) -> str:
    if seen.classic or seen.containerd:
        return "the daemon's process could not be seen, so nobody knows since when it runs"
    facts = engine.facts
    if facts.store == CLASSIC and facts.driver != "overlay2":
        return f"the storage driver {facts.driver} is not known, only overlay2 is"
    return f"{facts.data_path} could not be read as this Engine's: only root on its host can"


def _in_classic(places: ClassicPlaces, daemon: _daemon.Daemon) -> Iterator[Leak]:
    found = _leaks_classic.look(places, daemon)
    for path in found.directories:
        reason = "no layer, container or build cache has this directory"
        yield Leak(DIRECTORY, str(path), _leaks_classic.size(places, path), reason, True)
    for path in found.unfinished:
        reason = "a layer that was never finished"
        yield Leak(UNFINISHED, str(path), _leaks_classic.size(places, path), reason, True)
    sizes = _stock_classic.Sizes(places, found.layers)
    for chain in found.layers:
        # The daemon knows of it, so it is not to be touched.
        reason = "no image has this layer; it goes with an image that is loaded upon it and removed"
        yield Leak(LAYER, chain, sizes[chain].least, reason, False)


def _in_containerd(places: ContainerdPlaces, daemon: _daemon.Daemon) -> Iterator[Leak]:
    metadata, now = places.metadata(), time.time()
    if metadata is None:
        return
    leases = _leaks_containerd.dead(metadata, daemon, now)
    able = _leaks_containerd.client() is not None
    for lease, size in _leaks_containerd.weigh(places, metadata, leases):
        reason = f"held until {_when(lease.expires)} for a pull or load that does not run any more"
        reason += "" if able else "; containerd's client ctr, which could end it, is not there"
        yield Leak(LEASE, lease.id, size.least, reason, able)
    sizes = Sizes(places, metadata)
    for key in _leaks_containerd.unreached(metadata, now):
        reason = "nothing holds it; containerd frees it when the next image goes"
        yield Leak(GARBAGE, key, sizes[key].least, reason, False)


def _when(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def remove(engine: Engine, leaks: Sequence[Leak]) -> list[Outcome]:
    """Removes leaks that `find` told, each only if it is one still; raises EngineError."""
    return [_remove(engine, leak) for leak in leaks]


def _remove(engine: Engine, leak: Leak) -> Outcome:
    """Looks again right before; what is not removable or in doubt by now is left."""
    if not leak.removable:
        return Outcome(leak, False, leak.reason)
    seen = _see(engine)
    if seen.daemon is None:
        return Outcome(leak, False, _blind(engine, seen))
    try:
        if seen.classic:
            found = _leaks_classic.look(seen.classic, seen.daemon)
            if leak.id not in map(str, (*found.directories, *found.unfinished)):
                return Outcome(leak, False, _CHANGED)
            _leaks_classic.remove(seen.classic, Path(leak.id))
            return Outcome(leak, True)
        return _end(seen.containerd, seen.daemon, leak)
    except _ERRORS as error:
        return Outcome(leak, False, str(error))


_CHANGED = "it is no leak any more"


def _end(places: ContainerdPlaces | None, daemon: _daemon.Daemon, leak: Leak) -> Outcome:
    metadata = places.metadata() if places else None
    if places is None or metadata is None:
        return Outcome(leak, False, _CHANGED)
    dead = _leaks_containerd.dead(metadata, daemon, time.time())
    if leak.kind != LEASE or leak.id not in [lease.id for lease in dead]:
        return Outcome(leak, False, _CHANGED)
    wrong = _leaks_containerd.end(places, leak.id)
    return Outcome(leak, not wrong, wrong)
