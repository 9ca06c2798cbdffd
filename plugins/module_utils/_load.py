# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loading an archive into an Engine: without names, verified by state, and only then tagged.

Whatever fails, every tag is what it was before, and nothing nameless is left behind.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _bundle
from ansible_collections.fleet.images.plugins.module_utils._archive import Archive
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._holdings import (
    CONTAINERD,
    Holdings,
    ImagePlan,
    Plan,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob, LockedImage
from ansible_collections.fleet.images.plugins.module_utils._parts import PartError

Known = Sequence[Mapping[str, Any]]


# The first Engine that unpacks zstd (https://docs.docker.com/engine/release-notes/23.0/).
FIRST_ZSTD = 23


class LoadError(Exception):
    """A bundle that does not fit this Engine; the message names the image and what is missing."""


@dataclass
class Outcome:
    """What became of one image. `bytes` of blobs that went into the Engine for it, seconds.

    `missing`: digests of blobs that neither the Engine nor the archive has, where that failed it;
    not of attestations, without which it runs.
    """

    plan: ImagePlan
    error: str = ""
    missing: tuple[str, ...] = ()
    bytes: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The entry of the module's `images`."""
        done = "none" if self.plan.action == "none" else "loaded"
        return {
            "name": self.plan.name,
            "id": self.plan.identity,
            "digest": self.plan.image.target.digest,
            "action": "failed" if self.error else done,
            "reason": self.error or self.plan.reason,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Loader:
    """One run of loads into one Engine. `parallel` streams at once, silence in seconds."""

    engine: Engine
    archive: Archive
    known: Known = ()
    parallel: int = 2
    stall_timeout: int = 600
    before: Holdings = field(init=False)

    def run(self, plan: Plan, before: Holdings) -> list[Outcome]:
        """Does the plan and returns one outcome per image, failed ones included.

        What cannot be verified, because the Engine no longer answers, counts as failed.
        """
        outcomes = self.foresee(plan, before)
        todo = [outcome for outcome in outcomes if outcome.plan.action in ("tag", "load")]
        loads = [one for one in todo if one.plan.action == "load" and not one.error]
        groups = grouped(loads)
        if groups:
            with ThreadPoolExecutor(max(1, self.parallel)) as pool:
                list(pool.map(self._load, groups))
        try:
            self._finish(todo, loads)
        except EngineError as error:
            for outcome in todo:
                outcome.error = outcome.error or f"{outcome.plan.image.name}: {error}"
        return outcomes

    def foresee(self, plan: Plan, before: Holdings) -> list[Outcome]:
        """The outcomes as far as they can be told beforehand; changes nothing."""
        self.before = before
        outcomes = [Outcome(image) for image in plan.images]
        for outcome in outcomes:
            if outcome.plan.action == "failed":
                outcome.error = outcome.plan.reason
            if outcome.plan.action == "load":
                outcome.bytes = outcome.plan.bytes
                outcome.error = self._unfit(outcome.plan)
                outcome.missing = self._missing(outcome, before)
        return outcomes

    def _missing(self, outcome: Outcome, holdings: Holdings) -> tuple[str, ...]:
        if not outcome.error:
            return ()
        image = outcome.plan.image
        return tuple(absent(self._needed(image, holdings.lacking(image)), self.archive))

    def _needed(self, image: LockedImage, lacking: Iterable[Blob]) -> list[Blob]:
        """An image runs without its attestations: a bundle may leave them out."""
        spared = {blob.digest for blob in image.on(self.before.platform).attestations}
        return [blob for blob in lacking if blob.digest not in spared]

    def _unfit(self, plan: ImagePlan) -> str:
        """Why the archive cannot bring this image; '' where it can."""
        name = plan.image.name
        wanted = plan.image.on(self.before.platform)
        for blob in (plan.image.target, wanted.manifest, wanted.config):
            if not self.archive.has(blob.digest):
                return (
                    f"{name}: wanted {blob.digest}, the bundle {self.archive.name} does not hold"
                    " this image; make it anew from the same lock"
                )
        lacking = self._needed(plan.image, plan.lacking)
        told = tells_layers(self.before.store, bool(self.known))
        return unfit(name, lacking, self.archive, self.engine.facts.version, told)

    def _load(self, group: list[Outcome]) -> None:
        """Streams one group of images that share layers; notes the error with each of them."""
        platform = self.before.platform
        images = [(outcome.plan.image, platform) for outcome in group]
        lacking = {blob.digest for outcome in group for blob in outcome.plan.lacking}
        here = [image.on(platform) for image, _on in images]
        blobs = {blob.digest for one in here for blob in (*one.layers, *one.attestations)}
        held = frozenset(blobs - lacking)
        members = self.archive.nameless(images, held)
        started = time.monotonic()
        try:
            told = self.engine.load(_bundle.stream(members), self.stall_timeout)
            refused = f"the Engine said: {told.error}" if told.error else ""
            error = ""
        except (EngineError, _bundle.BundleError, PartError, OSError) as caught:
            refused, error = "", str(caught)
        for outcome in group:
            outcome.seconds = time.monotonic() - started
            if refused or error:
                hint = self._left_out(outcome.plan) if refused else ""
                outcome.error = f"{outcome.plan.image.name}: not loaded, {refused or error}{hint}"

    def _finish(self, todo: list[Outcome], loads: list[Outcome]) -> None:
        """Verifies by state, tags what is right, removes what is not."""
        after = self.engine.holdings(self.known)
        for outcome in todo:
            outcome.error = outcome.error or self._mismatch(outcome.plan, after)
            if not outcome.error:
                outcome.error = self._tag(outcome.plan)
        final = self.engine.holdings(self.known) if todo else after
        for outcome in todo:
            outcome.missing = self._missing(outcome, final)
            tag = outcome.plan.image.destination.tagged
            if not outcome.error and final.tags.get(tag) != outcome.plan.identity:
                outcome.error = (
                    f"{tag}: wanted {outcome.plan.identity}, the Engine has {final.tags.get(tag)}"
                    " after tagging; is another program changing it?"
                )
        self._sweep((one for one in loads if one.error), final)

    def _mismatch(self, plan: ImagePlan, after: Holdings) -> str:
        """How what the Engine has now differs from the lock; '' where it does not."""
        wanted = plan.image.on(after.platform)
        try:
            found = self.engine.inspect(plan.identity)
        except EngineError as error:
            return f"{plan.image.name}: not verified, {error}"
        if found is not None and plan.identity in after.whole:
            there = (found.get("RootFS") or {}).get("Layers") or []
            if list(wanted.diff_ids) == there:
                return ""
        hint = self._left_out(plan) or "; plan again, or bring a full bundle"
        state = "it is there but not whole" if found is not None else "it is not there"
        return f"{plan.image.name}: wanted {plan.identity} after the load, {state}{hint}"

    def _left_out(self, plan: ImagePlan) -> str:
        """What to do about an image of which the bundle leaves layers out; '' where it does not."""
        wanted = plan.image.on(self.before.platform)
        gone = [one.digest for one in wanted.layers if not self.archive.has(one.digest)]
        layers = ", ".join(gone)
        what = f"; the bundle leaves out layer {layers}; plan again, or bring a full bundle"
        return what if gone else ""

    def _tag(self, plan: ImagePlan) -> str:
        try:
            self.engine.tag(plan.identity, plan.image.destination)
        except EngineError as error:
            return str(error)
        return ""

    def _sweep(self, failed: Iterable[Outcome], final: Holdings) -> None:
        """Removes by ID what a failed load left: only what was not there before, without tags.

        Engine 26.1 with the containerd store does not list it; it is there if it can be inspected.
        """
        named = set(final.tags.values())
        for outcome in failed:
            left = outcome.plan.identity
            if left not in self.before.ids and left not in named:
                try:
                    if self.engine.inspect(left) is not None:
                        self.engine.remove(left)
                except EngineError as error:
                    outcome.error += f"; {left} is left behind: {error}"


def tells_layers(store: str, known: bool) -> bool:
    """Whether an Engine with this store tells which layers it has; `known`: by lists of blobs.

    The API of a containerd store names no layers: without lists a load is tried, and judged by
    state.
    """
    return known or store != CONTAINERD


def absent(lacking: Iterable[Blob], archive: Archive) -> list[str]:
    """Digests of the blobs that the Engine lacks, and the archive too."""
    return [blob.digest for blob in lacking if not archive.has(blob.digest)]


def unfit(name: str, lacking: Sequence[Blob], archive: Archive, version: str, told: bool) -> str:
    """Why an archive cannot bring an image what an Engine of this version lacks; '' where it can.

    `lacking`: blobs without which the image does not run. `told`: whether the Engine tells of them,
    as `tells_layers` says; '' also where it does not, since that is tried.
    """
    reason = unreadable(name, lacking, version)
    gone = absent(lacking, archive) if told else []
    if reason or not gone:
        return reason
    return (
        f"{name}: layer {', '.join(gone)} is missing, the bundle leaves it out and this Engine"
        " does not have it; plan again, or bring a full bundle"
    )


def unreadable(name: str, blobs: Iterable[Blob], version: str) -> str:
    """Why an Engine of this version cannot unpack these blobs of an image; '' where it can."""
    major = version.partition(".")[0]
    zstd = any(blob.media_type.endswith("zstd") for blob in blobs)
    if not zstd or not major.isdigit() or int(major) >= FIRST_ZSTD:
        return ""
    return (
        f"{name}: Engine {FIRST_ZSTD} or newer is wanted for its layers, which are compressed with"
        f" zstd, this one is {version}; upgrade it, or make the image with gzip layers"
    )


def grouped(loads: Sequence[Outcome]) -> list[list[Outcome]]:
    """The images in groups that share no lacking blob; a group goes in one stream."""
    groups: list[tuple[set[str], list[Outcome]]] = []
    for outcome in loads:
        blobs = {blob.digest for blob in outcome.plan.lacking}
        together = [outcome]
        apart = []
        for group in groups:
            if group[0] & blobs:
                blobs |= group[0]
                together = group[1] + together
            else:
                apart.append(group)
        groups = [*apart, (blobs, together)]
    return [group for _blobs, group in groups]


def check_space(plan: Plan, free: int | None, path: str) -> None:
    """Refuses what surely does not fit; raises LoadError.

    An Engine keeps the blobs (or a copy of them while it unpacks) and their content, which is at
    least as large again: twice the lacking bytes is the least that a load needs.
    """
    need = 2 * plan.bytes
    if free is not None and need > free:
        raise LoadError(
            f"{path}: at least {need} bytes are wanted free for the load, {free} are; remove images"
            " (docker image prune), or enlarge the disk"
        )


def report(outcomes: Sequence[Outcome], before: Holdings) -> dict[str, Any]:
    """The module's result: images, whether anything changed, bytes, diff, and the errors."""
    errors = [outcome.error for outcome in outcomes if outcome.error]
    done = [one for one in outcomes if not one.error and one.plan.action != "none"]
    loaded = {blob.digest: blob.size for one in done for blob in one.plan.lacking}
    return {
        "changed": bool(done),
        "images": [outcome.as_dict() for outcome in outcomes],
        "bytes": sum(loaded.values()),
        "missing_layers": sorted({digest for one in outcomes for digest in one.missing}),
        "diff": _diff(done, before),
        "errors": errors,
    }


def _diff(done: Sequence[Outcome], before: Holdings) -> dict[str, str]:
    tags = [one.plan.image.destination.tagged for one in done]
    return {
        "before": "".join(f"{tag}: {before.tags[tag]}\n" for tag in tags if tag in before.tags),
        "after": "".join(
            f"{one.plan.image.destination.tagged}: {one.plan.identity}\n" for one in done
        ),
    }
