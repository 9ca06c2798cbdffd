# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_archive does: bundles from a store and its lock, or straight from an Engine."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from ansible_collections.fleet.images.plugins.module_utils import (
    _archive,
    _bundle,
    _bundle_files,
    _export,
    _holdings,
    _lock,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout, LayoutError
from ansible_collections.fleet.images.plugins.module_utils._parts import PartError, split_parts
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    ImageSpec,
    InvalidReference,
    parse_images,
    parse_platform,
)

_FAILURES = (LayoutError, _bundle.BundleError, _lock.LockError, InvalidReference, OSError)


@dataclass(frozen=True)
class Task:
    """One wanted bundle.

    `specs`: its images, None for all of the lock. `blobs`: digests of the layers that go in, None
    for all. `platform`: '' for the source's own. `problem`: why it cannot be wanted like that.
    """

    path: Path
    specs: tuple[ImageSpec, ...] | None = None
    blobs: frozenset[str] | None = None
    platform: str = ""
    problem: str = ""


@dataclass
class Outcome:
    """What came of a bundle: what stands there with which images, or the reason why not.

    `damaged`: digests of blobs that were removed from the store, to be fetched anew.
    """

    task: Task
    images: Sequence[tuple[_lock.LockedImage, str]] = ()
    written: _bundle_files.Written | None = None
    reason: str = ""
    damaged: list[str] = field(default_factory=list)

    def as_result(self) -> dict[str, Any]:
        """The entry of a bundle that stands, in the module's result."""
        written = cast("_bundle_files.Written", self.written)
        blobs = self.task.blobs
        layers = {one.digest: one.size for image, on in self.images for one in image.on(on).layers}
        left_out = 0 if blobs is None else sum(layers[one] for one in layers.keys() - blobs)
        return {
            "path": str(self.task.path),
            "changed": written.changed,
            "bytes": written.bytes,
            "sha256": written.sha256,
            "files": [str(file) for file in written.files],
            "file_sha256": list(written.sums),
            "images": [image.destination.tagged for image, _on in self.images],
            "left_out": left_out,
        }

    def image_results(self) -> list[dict[str, Any]]:
        """The entries of its images."""
        return [
            {
                "name": image.destination.tagged,
                "id": image.on(on).config.digest,
                "digest": image.target.digest,
                "action": "archived" if self.written and self.written.changed else "none",
                "path": str(self.task.path),
            }
            for image, on in self.images
        ]

    def as_failure(self) -> dict[str, Any]:
        """The entry of a bundle that does not stand."""
        return {"path": str(self.task.path), "reason": self.reason, "damaged": self.damaged}


def task(wanted: Mapping[str, Any]) -> Task:
    """A bundle as the user asks for it: `path`, `images`, `blobs`, `platform`."""
    path = Path(wanted["path"])
    try:
        specs = None if wanted["images"] is None else tuple(parse_images(wanted["images"]))
        platform = parse_platform(wanted["platform"]) if wanted["platform"] else ""
    except InvalidReference as error:
        return Task(path, problem=str(error))
    blobs = None if wanted["blobs"] is None else frozenset(wanted["blobs"])
    return Task(path, specs, blobs, platform)


@dataclass(frozen=True)
class Saver:
    """Writes bundles in one form; one that fails holds back no other."""

    form: _bundle_files.Form
    dry_run: bool

    def from_store(
        self, layout: Layout, lock: _lock.Lock, tasks: Sequence[Task], platform: str
    ) -> list[Outcome]:
        """The bundles, from what the store has of a lock. `platform`: of tasks without one."""
        with layout.using():
            return [self._try(layout, lock, one, platform, {}) for one in tasks]

    def from_engine(
        self, connect: Callable[[], Engine], store: str | None, tasks: Sequence[Task]
    ) -> list[Outcome]:
        """The bundles, from what the Engine has, through a store or a temporary one.

        Without a store, an archive that holds just the wanted images is left alone, and the Engine
        exports nothing for it. Raises OSError, EngineError.
        """
        done = {one: Outcome(one, reason=_unfit(one)) for one in tasks if _unfit(one)}
        left = [one for one in tasks if one not in done]
        engine = connect() if left else None
        if engine and not store:
            standing = {one: self._standing(engine, one) for one in left}
            done.update({one: outcome for one, outcome in standing.items() if outcome})
            left = [one for one in left if one not in done]
        if engine and left:
            with self._store(store, left[0].path) as layout:
                done.update(self._export(engine, layout, left))
        return [done[one] for one in tasks]

    @contextlib.contextmanager
    def _store(self, store: str | None, path: Path) -> Iterator[Layout]:
        """The user's store, or one beside the bundle that goes afterwards.

        Its name is always the same: what a killed run left is taken up, and goes then.
        """
        layout = Layout(store or path.with_name(f".{path.name}.store"))
        try:
            if not self.dry_run:
                layout.create()
            with layout.using():
                yield layout
        finally:
            if not store and not self.dry_run:
                shutil.rmtree(layout.root, ignore_errors=True)

    def _export(self, engine: Engine, layout: Layout, tasks: Sequence[Task]) -> dict[Task, Outcome]:
        own = engine.facts.platform
        done = {}
        for platform in dict.fromkeys(one.platform or own for one in tasks):
            here = [one for one in tasks if (one.platform or own) == platform]
            specs = {spec.key: spec for one in here for spec in one.specs or ()}
            wanted = [
                _export.Wanted(key, spec.reference, (platform,)) for key, spec in specs.items()
            ]
            taken = _export.take(engine, layout, wanted, self.dry_run)
            lock = {key: one.image for key, one in taken.items() if one.image}
            problems = {key: one.problem for key, one in taken.items() if one.problem}
            for one in here:
                done[one] = self._try(layout, lock, one, platform, problems)
        return done

    def _standing(self, engine: Engine, task: Task) -> Outcome | None:
        """The bundle as it stands, where it holds just what the Engine has now; else None."""
        platform = task.platform or engine.facts.platform
        try:
            there = _archive.read(split_parts(task.path)).images
            lock = {}
            for spec in task.specs or ():
                found = there[spec.destination.tagged]
                if not _is_current(engine, spec, found, platform):
                    return None
                lock[spec.key] = replace(found, name=spec.key)
            # Nothing is read from a store: the bundle itself is compared.
            outcome = replace(self, dry_run=True)._save(Layout(""), lock, task, platform)
        except (LookupError, PartError, EngineError, *_FAILURES):
            return None
        return None if outcome.written is None or outcome.written.changed else outcome

    def _try(
        self,
        layout: Layout,
        lock: _lock.Lock,
        task: Task,
        platform: str,
        problems: Mapping[str, str],
    ) -> Outcome:
        """One bundle. `problems`: image key -> why the source cannot give it."""
        reasons = [problems[spec.key] for spec in task.specs or () if spec.key in problems]
        if task.problem or reasons:
            return Outcome(task, reason=task.problem or "; ".join(reasons))
        try:
            return self._save(layout, lock, task, platform)
        except _FAILURES as error:
            return Outcome(task, reason=str(error))

    def _save(self, layout: Layout, lock: _lock.Lock, task: Task, platform: str) -> Outcome:
        if task.specs is not None:
            chosen = _lock.select(lock, [spec.key for spec in task.specs])
            renamed = {spec.key: spec.as_ for spec in task.specs if spec.as_}
            lock = {key: replace(one, as_=renamed.get(key, one.as_)) for key, one in chosen.items()}
        on = task.platform or platform
        images = [(image, on) for _name, image in sorted(lock.items())]
        members = _bundle.members(layout, images, task.blobs, foreseen=self.dry_run)
        try:
            written = _bundle_files.write(task.path, members, self.dry_run, self.form)
        except _bundle.DamagedBlob:
            return _damaged(layout, task, members)
        return Outcome(task, images, written)


def _damaged(layout: Layout, task: Task, members: Sequence[_bundle.Member]) -> Outcome:
    """Takes every damaged blob of a bundle out of the store."""
    found = _bundle_files.damaged(members)
    for digest in found:
        layout.discard(digest)
    blobs = ", ".join(f"{layout.path(digest)} holds other content" for digest in found)
    reason = f"the store {layout.root} is damaged ({blobs}); that was removed, fetch it anew"
    return Outcome(task, reason=reason, damaged=found)


def _unfit(task: Task) -> str:
    """Why an Engine cannot give this bundle; '' where it may."""
    if task.problem or task.specs:
        return task.problem
    return "wanted from the Engine, but no image is named; name them in images"


def _is_current(engine: Engine, spec: ImageSpec, found: _lock.LockedImage, platform: str) -> bool:
    """Whether an archive's image is the one that the Engine has under this name."""
    inspected = engine.inspect(spec.reference.tagged)
    if engine.facts.store == _holdings.CLASSIC:
        identity = found.on(platform).config.digest
    else:
        identity = found.target.digest
    return (
        inspected is not None
        and inspected["Id"] == identity
        and spec.reference.digest in (None, identity)
    )
