# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_push does: the store's images into a registry, only what it lacks.

Look: what the destination has, from the tag down to the blobs. Plan: what it lacks, each blob once,
taken over from another repository of this run where the registry has it there. Apply: blobs,
several at a time, then manifests, then the index under its tag. Verify: the tag names what the lock
has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _registry_push, _shipment
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout, LayoutError
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob, LockError
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    Reference,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    Registry,
    RegistryError,
)
from ansible_collections.fleet.images.plugins.module_utils._shipment import Shipment, StoredBlob

_FAILURES = (RegistryError, LayoutError, LockError, InvalidReference)


@dataclass
class Cargo:
    """A blob that a repository lacks or has, and the images that need it there."""

    to: Reference
    blob: Blob
    shipments: list[Shipment] = field(default_factory=list)
    is_there: bool = False
    problem: str = ""


class Push:
    """One run."""

    def __init__(self, layout: Layout, registry: Registry, parallel: int, dry_run: bool) -> None:
        self._layout = layout
        self._registry = registry
        self._parallel = parallel
        self._dry_run = dry_run
        self._mutex = threading.Lock()
        self._held: dict[tuple[str, str], str] = {}

    def run(self, shipments: Sequence[Shipment]) -> None:
        """Pushes the images; what fails is noted. Raises SdkError, OSError."""
        self._each(self._look, shipments)
        good = [one for one in shipments if not one.problems]
        for shipment in good:
            for digest in shipment.held():
                self._held[shipment.to.registry, digest] = shipment.to.repository
        cargo = self._cargo(good)
        self._each(self._find, cargo)
        groups: dict[tuple[str, str], list[Cargo]] = {}
        for one in cargo:
            groups.setdefault((one.to.registry, one.blob.digest), []).append(one)
        # Largest first, or the last one would be on its way alone.
        order = sorted(groups.values(), key=lambda group: -group[0].blob.size)
        self._each(self._bring, order)
        self._each(self._finish, shipments)

    def _each(self, work: Callable[[Any], None], items: Iterable[Any]) -> None:
        with ThreadPoolExecutor(self._parallel) as pool:
            list(pool.map(work, items))

    def _look(self, shipment: Shipment) -> None:
        """What the destination has of an image, and whether the store has what it lacks."""
        known: dict[str, bool] = {}

        def has(manifest: Blob) -> bool:
            digest = manifest.digest
            if digest not in known:
                known[digest] = _registry_push.has_manifest(self._registry, shipment.to, digest)
            return known[digest]

        def look() -> None:
            shipment.before = _registry_push.digest_under(self._registry, shipment.to)
            same = shipment.before == shipment.image.target.digest
            if not same or not all(map(has, shipment.image_manifests())):
                shipment.plan(self._layout, has)

        if not shipment.problems:
            self._timed([shipment], look)

    def _cargo(self, shipments: Sequence[Shipment]) -> list[Cargo]:
        """Each blob that has to be looked for, once for each repository."""
        found: dict[tuple[str, str], Cargo] = {}
        for shipment in shipments:
            for blob in shipment.blobs.values():
                key = (shipment.to.name, blob.digest)
                found.setdefault(key, Cargo(shipment.to, blob)).shipments.append(shipment)
        return list(found.values())

    def _find(self, cargo: Cargo) -> None:
        def find() -> None:
            digest = cargo.blob.digest
            cargo.is_there = _registry_push.has_blob(self._registry, cargo.to, digest)

        self._timed(cargo.shipments, find)

    def _bring(self, group: Sequence[Cargo]) -> None:
        """One blob into all repositories of a registry that lack it, over the wire once."""
        key = (group[0].to.registry, group[0].blob.digest)
        source = next((one.to.repository for one in group if one.is_there), self._held.get(key, ""))
        for cargo in group:
            users = [one for one in cargo.shipments if not one.problems]
            if cargo.is_there or not users:
                continue
            if self._dry_run:
                self._sent(users[0], 0 if source else cargo.blob.size)
            else:
                self._timed(users, partial(self._transfer, cargo, users[0], source))
            if not users[0].problems:
                source = source or cargo.to.repository

    def _transfer(self, cargo: Cargo, payer: Shipment, source: str) -> None:
        upload = _registry_push.Upload(self._registry, cargo.to, cargo.blob)
        try:
            if not source or not upload.mount(source):
                upload.send(StoredBlob(self._layout, cargo.blob))
        finally:
            self._sent(payer, upload.sent)
        payer.wrote = True

    def _sent(self, shipment: Shipment, count: int) -> None:
        with self._mutex:
            shipment.bytes += count

    def _finish(self, shipment: Shipment) -> None:
        """Manifests, children first; then the tag, and whether it names what it should."""
        if shipment.problems or not shipment.manifests:
            return
        if self._dry_run:
            shipment.bytes += sum(blob.size for blob in shipment.manifests)
            return
        self._timed([shipment], lambda: self._name(shipment))

    def _name(self, shipment: Shipment) -> None:
        to, target = shipment.to, shipment.image.target
        for blob in shipment.manifests:
            content = self._layout.read(blob.digest)
            tag = to.tag if blob.digest == target.digest else None
            reference = Reference(to.registry, to.repository, tag)
            _registry_push.put_manifest(self._registry, reference, content, blob.media_type)
            shipment.wrote = True
            shipment.bytes += len(content)
        found = _registry_push.digest_under(self._registry, to)
        if found != target.digest:
            raise RegistryError(
                f"{to}: wanted {target.digest} there after the push, the registry has"
                f" {found or 'nothing'}; see whether something else pushes to this tag"
            )

    def _timed(self, shipments: Sequence[Shipment], work: Callable[[], None]) -> None:
        """Does the work for these images; its time is the first one's, its failure everyone's."""
        start, repeats = time.monotonic(), self._registry.repeats
        problem = ""
        try:
            work()
        except _FAILURES as error:
            problem = str(error)
        seconds, attempts = time.monotonic() - start, self._registry.repeats - repeats
        with self._mutex:
            for number, shipment in enumerate(shipments):
                shipment.note(problem, 0.0 if number else seconds, attempts)


def run(
    layout: Layout,
    registry: Registry,
    shipments: Sequence[Shipment],
    parallel: int = 4,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Pushes and returns the module's result, with `failed` where an image failed.

    Raises OSError where the store cannot be used, SdkError where there is no `requests`.
    """
    start = time.monotonic()
    _shipment.refuse_conflicts(shipments)
    with layout.using():
        Push(layout, registry, parallel, dry_run).run(shipments)
    moved = [one for one in shipments if one.action == "pushed"]
    wrote = any(one.wrote for one in shipments)
    before = {str(one.to): one.before for one in shipments if one.before}
    after = {str(one.to): one.image.target.digest for one in moved}
    return {
        "changed": bool(moved) if dry_run else wrote,
        "images": [one.as_result() for one in shipments],
        "bytes_sent": sum(one.bytes for one in shipments),
        "seconds": round(time.monotonic() - start, 3),
        "diff": {"before": before, "after": {**before, **after}},
        **_verdict(shipments, dry_run),
    }


def _verdict(shipments: Sequence[Shipment], dry_run: bool) -> dict[str, Any]:
    """`msg`, and `failed` where an image failed."""
    problems = [problem for one in shipments for problem in one.problems]
    if problems:
        failed = sum(bool(one.problems) for one in shipments)
        what = f"{failed} of {len(shipments)} images could not be pushed"
        return {"failed": True, "msg": f"{what}: {'; '.join(dict.fromkeys(problems))}"}
    pushed = sum(one.action == "pushed" for one in shipments)
    verb = "to be pushed" if dry_run else "pushed"
    rest = f", already there: {len(shipments) - pushed}" if pushed < len(shipments) else ""
    size = sum(one.bytes for one in shipments) / (1 << 20)
    return {"msg": f"images {verb}: {pushed} ({size:.1f} MiB){rest}"}
