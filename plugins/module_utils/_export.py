# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of an Engine into the store, by its export stream, each blob once.

What the export names is known beforehand from the Engine's inspection: on a classic store the
config and the diff IDs, on a containerd store the manifest or index. So its own indexes are not
needed, and an export without its layers is noticed.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _diff_ids, _gzip, _holdings
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._export_stream import receive
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    Layout,
    LayoutError,
    to_json,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    LockedImage,
    PlatformImage,
)
from ansible_collections.fleet.images.plugins.module_utils._manifest import (
    CONFIG,
    INDEX,
    MANIFEST,
    blob_of,
    diff_ids_of,
    manifest_of,
    manifests_of,
    platform_image,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    Reference,
    platform_of,
    runnable,
)
from ansible_collections.fleet.images.plugins.module_utils._shelf import Lacking, Shelf, place

# Seconds of silence; a classic store copies all the images before it sends the first byte.
STALL = 600
# What a document raises that is not what it should be.
_WRONG = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, LayoutError)

# After a fetch from a registry, so that an Engine's layers are not compressed again.
note = _diff_ids.note


@dataclass(frozen=True)
class Wanted:
    """An image of the Engine: its key in the lock, its name there, and for which platforms.

    Without platforms: for the Engine's own.
    """

    key: str
    reference: Reference
    platforms: tuple[str, ...] = ()
    as_: Reference | None = None


@dataclass
class Taken:
    """What came of one image. `problem` is '' where it is whole.

    `lacked`: the store had not all of it, so that it was exported (in a dry run: was looked at).
    `bytes` were written to the store for it, in `seconds`.
    """

    image: LockedImage | None = None
    lacked: bool = False
    bytes: int = 0
    seconds: float = 0.0
    problem: str = ""


class _Unfit(Exception):
    """The Engine has the image for other platforms."""


@dataclass
class _Job:
    wanted: Wanted
    platforms: tuple[str, ...]
    inspected: Mapping[str, Any] = field(default_factory=dict)
    taken: Taken = field(default_factory=Taken)

    @property
    def id(self) -> str:
        """The Engine's ID: the digest of the config, or of the manifest or index."""
        return str(self.inspected["Id"])

    @property
    def diff_ids(self) -> list[str]:
        """The diff IDs of the Engine's own platform."""
        return list((self.inspected.get("RootFS") or {}).get("Layers") or ())

    def fail(self, problem: str) -> None:
        self.taken.problem = f"{self.wanted.key}: {problem}"


def take(
    engine: Engine, layout: Layout, wanted: Sequence[Wanted], dry_run: bool = False
) -> dict[str, Taken]:
    """Brings these images into the store; what came of each, by its key.

    One export for all that the store lacks, none where it has everything. An image with a problem
    holds back no other. A dry run writes nothing and tells the same. Raises OSError where the
    store cannot be written.
    """
    jobs = [_Job(one, one.platforms or (engine.facts.platform,)) for one in wanted]
    with place(layout, dry_run) as beside, _gzip.pool() as threads:
        intake = _Intake(engine, Shelf(layout, beside, threads))
        for job in jobs:
            with _timed(job):
                intake.look(job)
        lacking = [job for job in jobs if job.taken.lacked]
        if lacking:
            intake.export(lacking)
    for job in jobs:
        if job.taken.image and not dry_run:
            note(layout, job.taken.image)
    return {job.wanted.key: job.taken for job in jobs}


@contextlib.contextmanager
def _timed(job: _Job) -> Iterator[None]:
    start = time.monotonic()
    yield
    job.taken.seconds += time.monotonic() - start


class _Intake:
    """One run: looks at all images, then reads one export of those that the store lacks."""

    def __init__(self, engine: Engine, shelf: Shelf) -> None:
        self._engine = engine
        self._shelf = shelf
        self._classic = engine.facts.store == _holdings.CLASSIC
        self._platforms: dict[str, list[str]] | None = None
        # Every image is asked for anyway, and tells then what is wrong with the Engine.
        with contextlib.suppress(EngineError):
            self._platforms = engine.platforms()
        self._counted: set[str] = set()

    def look(self, job: _Job) -> None:
        """Finds the image in the Engine, and in the store if it has all of it."""
        reference = job.wanted.reference
        name = reference.tagged if reference.tag else str(reference)
        try:
            found = self._engine.inspect(name)
        except EngineError as error:
            return job.fail(str(error))
        if found is None:
            return job.fail(
                f"wanted from the Engine at {self._engine.host}, which has no such image; pull or"
                " load it there, or correct the name"
            )
        job.inspected = found
        problem = self._unfit(job)
        if problem:
            return job.fail(problem)
        try:
            self._finish(job)
        except _Unfit as unfit:
            job.fail(str(unfit))
        except (Lacking, *_WRONG):
            job.taken.lacked = True

    def _unfit(self, job: _Job) -> str:
        """Why the image that the Engine has is not the wanted one; '' where it may be."""
        digest = job.wanted.reference.digest
        if digest and digest not in (job.id, *_repo_digests(job)):
            return (
                f"wanted with digest {digest}, the Engine has it with {job.id}; pull or load that"
                " one there"
            )
        if self._classic:
            there = [_holdings.inspected_platform(job.inspected)]
        elif self._platforms is not None:
            there = self._platforms.get(job.id, [])
        else:
            return ""
        lacking = [one for one in job.platforms if not set(runnable(one)) & set(there)]
        return _no_platform(lacking, there) if lacking else ""

    def export(self, jobs: Sequence[_Job]) -> None:
        """Reads one export of these images, and finishes each of which all came."""
        start = time.monotonic()
        # Layers that come uncompressed: in the newer shape these are their names.
        plain = {one for job in jobs for one in job.diff_ids} if self._classic else set()
        stream = self._engine.export(list(dict.fromkeys(job.id for job in jobs)), STALL)
        broken = receive(stream, self._shelf, self._classic, plain)
        for job in jobs:
            self._judge(job, broken)
            job.taken.seconds += time.monotonic() - start

    def _judge(self, job: _Job, broken: str) -> None:
        try:
            self._finish(job)
        except _Unfit as unfit:
            job.fail(str(unfit))
        except Lacking as lacking:
            why = f"broke ({broken}) before" if broken else "lacks"
            job.fail(
                f"wanted for {', '.join(job.platforms)}, the Engine's export {why} {lacking}; run"
                " it again, or pull or load the image anew there"
            )
        except _WRONG as error:
            job.fail(
                f"the Engine's image is not whole ({type(error).__name__}: {error}); pull or load"
                " it anew there"
            )

    def _finish(self, job: _Job) -> None:
        """The image, from what the store has and what was brought.

        Raises Lacking, _Unfit, and one of _WRONG where a document is not what it should be.
        """
        if self._classic:
            target, platforms = self._from_classic(job)
        else:
            target, platforms = self._from_target(job, job.id)
        image = LockedImage(job.wanted.key, target, platforms, job.wanted.as_)
        blobs = [blob for platform in platforms for blob in image.blobs(platform)]
        self._shelf.settle(blobs)
        fresh = {blob.digest for blob in blobs} & set(self._shelf.written) - self._counted
        self._counted |= fresh
        job.taken.bytes = sum(self._shelf.written[digest] for digest in fresh)
        job.taken.image = image

    def _from_classic(self, job: _Job) -> tuple[Blob, dict[str, PlatformImage]]:
        """The image behind a config: as a registry has it where the store knows, else our own."""
        for digest in _repo_digests(job):
            with contextlib.suppress(_Unfit, Lacking, *_WRONG):
                target, platforms = self._from_target(job, digest)
                if {one.config.digest for one in platforms.values()} == {job.id}:
                    return target, platforms
        content = self._shelf.document(job.id)
        settings = json.loads(content)
        layers = tuple(self._shelf.layer(one) for one in diff_ids_of(settings))
        config = Blob(job.id, len(content), CONFIG)
        manifest = self._shelf.put(to_json(manifest_of(config, layers)), MANIFEST)
        platform = platform_of(settings)
        return manifest, {platform: PlatformImage(platform, manifest, config, layers)}

    def _from_target(self, job: _Job, digest: str) -> tuple[Blob, dict[str, PlatformImage]]:
        """What a manifest or an index leads to, for the job's platforms."""
        content = self._shelf.document(digest)
        document = json.loads(content)
        kind = INDEX if "manifests" in document else MANIFEST
        target = Blob(digest, len(content), str(document.get("mediaType") or kind))
        if "manifests" not in document:
            one = self._platform_image(target, document)
            offered, images = {one.platform: target}, {one.platform: one}
        else:
            offered, images = manifests_of(document), {}
        platforms = {}
        for wanted in job.platforms:
            best = next((one for one in runnable(wanted) if one in offered), None)
            if best is None:
                raise _Unfit(_no_platform([wanted], offered))
            manifest = offered[best]
            platforms[best] = images.get(best) or self._platform_image(
                manifest, json.loads(self._shelf.document(manifest.digest)), best
            )
        return target, platforms

    def _platform_image(
        self, manifest: Blob, document: Mapping[str, Any], platform: str = ""
    ) -> PlatformImage:
        settings = json.loads(self._shelf.document(blob_of(document["config"]).digest))
        found = platform_image(manifest, document, settings, platform)
        for layer in found.layers:
            if not self._shelf.has(layer.digest, layer.size):
                raise Lacking(f"blob {layer.digest} with {layer.size} bytes")
        return found


def _repo_digests(job: _Job) -> list[str]:
    """The digests under which the Engine has the image from registries."""
    return [str(one).rpartition("@")[2] for one in job.inspected.get("RepoDigests") or ()]


def _no_platform(lacking: Sequence[str], there: Any) -> str:
    return (
        f"wanted for {', '.join(lacking)}, the Engine has it for"
        f" {', '.join(sorted(there)) or 'none'}; choose one of these with platforms"
    )
