# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one run of image_fetch is asked for, and what becomes of each image of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _lockfile
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Lock,
    LockedImage,
    LockError,
    load,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import ImageSpec, parse


@dataclass(frozen=True)
class Task:
    """What one run is asked for.

    `specs`: the wanted images; none means all of the lock. `lock` pins, and so does the file
    `lock_path`, which is written as well. `platform`: for images that name none of their own;
    None means the lock's platforms, and `own_platform` for an image that no lock has.
    `source`: registry, daemon, or auto, which is the registry where it has the image.
    `attestations`: whether those of the wanted platforms come along. `verify`: read the blobs that
    the store has. `keep`: the locks whose blobs stay, besides those of this run; None removes
    nothing. `lease`: what keeps this run's blobs. `parallel`: blobs at a time. `dry_run`: read from
    registries, write nothing.
    """

    store: str
    own_platform: str
    specs: Sequence[ImageSpec] = ()
    lock: Lock = field(default_factory=dict)
    lock_path: str | None = None
    update: bool = False
    platform: str | None = None
    source: str = "registry"
    attestations: bool = False
    verify: bool = False
    keep: Sequence[Lock] | None = None
    lease: str = ""
    parallel: int = 4
    dry_run: bool = False


@dataclass
class Job:
    """One wanted image, from its name to what became of it.

    `platforms`: none means those of the source's own machine. `digest`: what pins it, None where
    the tag is asked. `before`: the digest under its name in the store. `locked`: what the lock has
    under the name, where it pins. `source`: registry or daemon. `lacks`: the store has not all of
    it. `damaged`: blobs that the store had with other content. `bytes`: received for it, each blob
    counted for one image only. `problems`: why it is not done.
    """

    spec: ImageSpec
    platforms: tuple[str, ...]
    digest: str | None
    before: str | None
    locked: LockedImage | None = None
    source: str = "registry"
    image: LockedImage | None = None
    lacks: bool = False
    damaged: list[str] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0
    attempts: int = 1
    problems: list[str] = field(default_factory=list)

    @property
    def done(self) -> LockedImage | None:
        """The image, if it is whole."""
        return None if self.problems else self.image

    @property
    def action(self) -> str:
        """`failed`, `fetched` (in a dry run: would be) or `none`."""
        if self.problems or self.image is None:
            return "failed"
        moved = self.before != self.image.target.digest
        return "fetched" if self.lacks or moved else "none"

    @property
    def reason(self) -> str:
        """Why this action."""
        if self.problems or self.image is None:
            return "; ".join(dict.fromkeys(self.problems))
        if self.damaged:
            return f"damaged in the store: {', '.join(dict.fromkeys(self.damaged))}"
        if self.before is None:
            return "not in the store"
        if self.before != self.image.target.digest:
            return f"the store has this name with {self.before}"
        return "not whole in the store" if self.lacks else "in the store"

    def fail(self, problem: object) -> None:
        """Notes a problem as a sentence about this image; two images may share a blob's."""
        text = str(problem)
        own = text.startswith(self.spec.reference.name)
        self.problems.append(text if own else f"{self.spec.key}: {text}")

    def as_result(self) -> dict[str, Any]:
        """The image's entry in the module's result."""
        platforms = sorted(self.image.platforms.items()) if self.image else []
        return {
            "name": self.spec.key,
            "id": platforms[0][1].config.digest if platforms else "",
            "digest": self.image.target.digest if self.image else self.digest or "",
            "source": self.source,
            "action": self.action,
            "reason": self.reason,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "attempts": self.attempts,
        }


class Received:
    """The blobs that came into the store, and the bytes that each image cost. For threads."""

    def __init__(self) -> None:
        self.digests: set[str] = set()
        self.lock = threading.Lock()

    def add(self, job: Job, digest: str, count: int) -> None:
        """Counts bytes of a blob for this image; several parts of one blob add up."""
        with self.lock:
            job.bytes += count
            self.digests.add(digest)

    def add_once(self, job: Job, digest: str, count: int) -> None:
        """Counts a whole blob, unless another image has read the same one side by side."""
        with self.lock:
            job.bytes += 0 if digest in self.digests else count
            self.digests.add(digest)


def plan_jobs(task: Task, pins: Lock, before: Mapping[str, str]) -> list[Job]:
    """A job for each wanted image. `before`: name -> digest in the store. Raises LockError."""
    specs = task.specs
    if not specs:
        chosen = task.lock or pins
        specs = [ImageSpec(parse(name), as_=image.as_) for name, image in chosen.items()]
    if not specs:
        raise LockError("no image is wanted: there are no images, and no lock that has any")
    return [_plan_job(task, spec, pins.get(spec.key), before.get(spec.key)) for spec in specs]


def _plan_job(task: Task, spec: ImageSpec, locked: LockedImage | None, before: str | None) -> Job:
    of_task = (task.platform,) if task.platform else ()
    of_lock = tuple(locked.platforms) if locked else ()
    platforms = spec.platforms or of_task or of_lock
    if task.update:
        return Job(spec, platforms, spec.reference.digest, before)
    if locked and not spec.as_:
        spec = replace(spec, as_=locked.as_)
    digest = spec.reference.digest or (locked.target.digest if locked else None)
    return Job(spec, platforms, digest, before, locked)


def read_lock(path: str | None) -> dict[str, LockedImage]:
    """The lock in a file; an empty one where there is no file. Raises LockError, OSError."""
    if path is None:
        return {}
    try:
        return _lockfile.read(path)
    except FileNotFoundError:
        return {}


def read_keep(items: Sequence[Any]) -> list[Lock]:
    """The locks whose blobs stay: files (str) or contents (dict); raises LockError, OSError."""
    locks: list[Lock] = []
    for item in items:
        try:
            locks.append(_lockfile.read(item) if isinstance(item, str) else load(item))
        except FileNotFoundError as error:
            raise LockError(
                f"keep: wanted the lock file {item}, there is none; correct its path, nothing was"
                " removed"
            ) from error
    return locks
