# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_remove does: look, plan, remove name by name and never by force, look again.

Force is what removes the record of an image in use and leaves its layers on the disk.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _info, _inventory, _removal
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC
from ansible_collections.fleet.images.plugins.module_utils._hostlock import HostLock
from ansible_collections.fleet.images.plugins.module_utils._inventory import Container, Image
from ansible_collections.fleet.images.plugins.module_utils._reference import parse
from ansible_collections.fleet.images.plugins.module_utils._removal import Entry, Job, Removal

# A container that removes itself when it stops (--rm) needs a moment.
_PATIENCE = 10.0
_NOT_FOUND, _CONFLICT = 404, 409


@dataclass
class Before:
    """What has to be known before an image goes, to prove its bytes afterwards."""

    diff_ids: Sequence[str] = ()
    sizes: Sequence[int] = ()
    layers: int | None = None


class Remover:
    """Removes images from one Engine; `prune`: what they alone were built upon goes as well.

    `sweeping`: by a policy and not by name, so that bytes are not proved for each image, which
    costs calls, and what the Engine holds back is no failure. `deleted`: what the Engine's answers
    say that it deleted, image IDs and on a classic store chain IDs.
    """

    def __init__(self, engine: Engine, prune: bool, sweeping: bool = False) -> None:
        self._engine = engine
        self._classic = engine.facts.store == CLASSIC
        self._noprune = int(not prune)
        self._sweeping = sweeping
        self._sizes: dict[str, int] = {}
        self.deleted: list[str] = []

    def look(self) -> list[Image]:
        """All images, nameless ones included, and their containers; raises EngineError."""
        images = self._engine.get("/images/json", all=1, digests=1)
        users = self._engine.get("/containers/json", all=1)
        return _inventory.read(self._engine.facts.store, images, users)

    def run(self, removal: Removal, images: Sequence[Image]) -> None:
        """Does the plan and writes into its entries what became of them; raises nothing."""
        self._sizes = {image.id: image.size for image in images}
        done = [job for job in removal.jobs if self.do(job)]
        self.verify(done)

    def verify(self, done: Sequence[Job]) -> None:
        """Compares what was done with what the Engine has now, and says so in the entries."""
        try:
            there = {image.id: image for image in self.look()}
        except EngineError as error:
            for job in done:
                for entry in job.entries:
                    entry.end("failed", f"{entry.name} is not verified: {error}")
            return
        for job in done:
            verify(job, there.get(job.image.id))

    def do(self, job: Job) -> bool:
        """Whether there is something to verify; what the Engine refused is said in the entries."""
        planned, job.last.containers = job.containers, []
        left, deleted = list(job.entries), list[str]()
        last, before = job.last, Before()
        try:
            for one in planned:
                self._remove_container(one)
                last.containers.append(one)
            before = self._before(job)
            while left:
                deleted += self._remove(job, left[0])
                left.pop(0)
        except EngineError as error:
            # What went before is done, and the rest is not.
            held = self._sweeping and error.status == _CONFLICT
            for entry in left:
                entry.end("kept" if held else "failed", f"{entry.name}: {error}")
                entry.bytes = 0
            job.entries = [entry for entry in job.entries if entry not in left]
        self.deleted += deleted
        if job.goes and not left and not self._sweeping:
            last.bytes = self._freed(before, deleted)
        return bool(job.entries)

    def _remove_container(self, one: Container) -> None:
        """Stops and removes it; its volumes stay. One that is gone already is fine."""
        try:
            if one.running:
                self._engine.post("/containers/{0}/stop", one.id)
            self._engine.delete("/containers/{0}", one.id)
        except EngineError as error:
            if error.status not in (_NOT_FOUND, _CONFLICT) or not self._vanishes(one):
                raise

    def _vanishes(self, one: Container) -> bool:
        """Whether a container that the Engine is about to remove is gone soon."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            there = self._engine.get("/containers/json", all=1)
            if one.id not in [other["Id"] for other in there]:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)

    def _remove(self, job: Job, entry: Entry) -> list[str]:
        """Takes one name, or the image; the IDs that the Engine says it deleted."""
        image = job.image
        if entry.reference:
            return self._delete(entry.reference)
        deleted: list[str] = []
        named = [other.reference for other in job.entries]
        names = [name for name in _removal.names(image) if name not in named]
        taken: list[str] = []
        try:
            for name in names if len(names) > 1 else ():
                deleted += self._delete(name)
                taken.append(name)
            return deleted + self._delete(image.id)
        except EngineError:
            self._give_back(image, taken)
            raise

    def _give_back(self, image: Image, names: Sequence[str]) -> None:
        """The tags that an image lost before the Engine refused to let go of it.

        Only for as long as it is there; what the Engine refused is the error that counts.
        """
        for name in names:
            if name in image.references:
                with contextlib.suppress(EngineError):
                    self._engine.tag(image.id, parse(name))

    def _delete(self, name: str) -> list[str]:
        """DELETE without force; what is gone already is fine."""
        try:
            answer = self._engine.delete("/images/{0}", name, noprune=self._noprune)
        except EngineError as error:
            if error.status == _NOT_FOUND:
                return []
            raise
        return [one["Deleted"] for one in answer or () if "Deleted" in one]

    def _before(self, job: Job) -> Before:
        if not job.goes or self._sweeping:
            return Before()
        if not self._classic:
            return Before(layers=self._layers())
        try:
            found = self._engine.inspect(job.image.id) or {}
            history = self._engine.get("/images/{0}/history", job.image.id)
        except EngineError:
            return Before()
        diff_ids = (found.get("RootFS") or {}).get("Layers") or []
        return Before(diff_ids, [int(step.get("Size") or 0) for step in history])

    def _freed(self, before: Before, deleted: Sequence[str]) -> int:
        """Bytes that the Engine's own answers prove.

        A classic store names the layers that it released. A containerd store does not; there its
        disk usage before and after counts, and not more of it than the images weighed that went.
        """
        if self._classic:
            return _removal.released(deleted, before.diff_ids, before.sizes)
        after = self._layers()
        if before.layers is None or after is None:
            return 0
        most = sum(self._sizes.get(one, 0) for one in set(deleted))
        return max(0, min(before.layers - after, most))

    def _layers(self) -> int | None:
        """Bytes of all layers; None where the Engine does not tell, which proves nothing."""
        try:
            return _info.layers_bytes(_info.disk_usage(self._engine))
        except EngineError:
            return None


def verify(job: Job, there: Image | None) -> None:
    """Compares what was done with what the Engine lists now, and says so in the entries."""
    for entry in job.entries:
        if there is not None and (entry.reference in there.references or not entry.reference):
            entry.end("failed", f"{entry.name}: its removal was answered, the Engine still has it")
            entry.bytes = 0
    last = job.last
    if last.action == "removed" and there is not None:
        last.end("untagged", f"the Engine keeps the image as {there.name}")
        last.bytes = 0


def remove(params: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
    """The module's result and its `errors`.

    Raises EngineError, SdkError, LockTimeout, OSError where it cannot begin.
    """
    engine = Engine(params)
    if dry_run:
        return _remove(engine, params, dry_run)
    with HostLock(params["docker_host"], "image_remove", params["lock_timeout"]):
        return _remove(engine, params, dry_run)


def _remove(engine: Engine, params: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
    remover = Remover(engine, params["prune_parents"])
    images = remover.look()
    rules = _removal.Rules(
        engine.facts.store, params["in_use"], params["force"], params["prune_parents"]
    )
    removal = _removal.plan(params["images"], images, rules)
    if not dry_run:
        remover.run(removal, images)
    return report(removal.entries)


def report(entries: Sequence[Entry]) -> dict[str, Any]:
    """The module's result, and `errors`: the reasons of all that failed, each once."""
    gone = [entry for entry in entries if entry.action in ("removed", "untagged")]
    containers = [one for entry in entries for one in entry.containers]
    lines = [f"{_line(entry)}\n" for entry in gone]
    lines += [f"container {one.name or one.id}: {one.state}\n" for one in containers]
    sizes = [entry.bytes for entry in entries]
    known = [size for size in sizes if size is not None]
    return {
        "changed": bool(gone or containers),
        "images": [entry.as_dict() for entry in entries],
        "bytes": sum(known) if len(known) == len(sizes) else None,
        "diff": {"before": "".join(lines), "after": ""},
        "errors": list(dict.fromkeys(one.reason for one in entries if one.action == "failed")),
    }


def _line(entry: Entry) -> str:
    return f"image {entry.reference or entry.name}: {entry.image.id if entry.image else ''}"
