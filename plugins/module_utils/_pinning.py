# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_lock does: references to a lock, without pulling; and what a registry serves instead.

Look: what the lock pins, what the registries serve, several images at a time. Plan: the new lock.
Apply: its file, if that changes and nothing failed. There is nothing else to verify: the documents
that a lock is made of were verified by their digests when they were read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _lockfile
from ansible_collections.fleet.images.plugins.module_utils._layout import write_atomically
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Lock,
    LockedImage,
    LockError,
    dump,
    dumps,
    loads,
    merge,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    ImageSpec,
    InvalidReference,
    parse,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    Registry,
    RegistryError,
)
from ansible_collections.fleet.images.plugins.module_utils._resolve import InMemory, Resolver

_FAILURES = (RegistryError, LockError, InvalidReference)


@dataclass(frozen=True)
class Task:
    """What one run is asked for.

    `specs`: the wanted images; none means all of the lock. `lock`: what pins. `platforms`: for
    images that name none; none means the lock's, and for a new image all that its index has.
    `everything`: all that its index has in any case. `update`: tags are asked anew.
    `fail_on_drift`: tags are asked too, and one that names something else than the lock is a
    failure. `dest`: the file that is written. `parallel`: images at a time. `dry_run`: nothing is
    written.
    """

    specs: Sequence[ImageSpec] = ()
    lock: Lock = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    everything: bool = False
    update: bool = False
    fail_on_drift: bool = False
    dest: str | None = None
    parallel: int = 4
    dry_run: bool = False


@dataclass
class Pin:
    """One wanted image, from its name to its entry in the lock.

    `locked`: its entry in the lock that pins. `filed`: in the file that is to be written. `served`:
    the digest that its tag names, where the registry was asked.
    """

    spec: ImageSpec
    locked: LockedImage | None
    filed: LockedImage | None = None
    image: LockedImage | None = None
    served: str = ""
    seconds: float = 0.0
    attempts: int = 1
    problem: str = ""

    @property
    def former(self) -> LockedImage | None:
        """Its entry before this run."""
        return self.locked or self.filed

    @property
    def before(self) -> str:
        """The digest of its entry before this run; '' where there was none."""
        return self.former.target.digest if self.former else ""

    @property
    def has_drifted(self) -> bool:
        """Whether the registry serves something else under the tag than its entry has."""
        return bool(self.before and self.served and self.served != self.before)

    def action(self, fail_on_drift: bool) -> str:
        """`none`, `locked`, `updated`, `drifted` or `failed`."""
        if self.problem or self.image is None:
            return "failed"
        if fail_on_drift and self.has_drifted:
            return "drifted"
        if self.former is None:
            return "locked"
        return "none" if self.image == self.former else "updated"

    def reason(self, action: str) -> str:
        """Why this action."""
        if action == "failed":
            return self.problem
        if action == "drifted":
            return f"the lock has {self.before}, the registry serves {self.served}"
        if action == "locked":
            return "not in the lock"
        if action == "none":
            return "the registry serves what the lock has" if self.served else "in the lock"
        if self.image and self.image.target.digest != self.before:
            return f"the lock had {self.before}"
        return "the lock had it for other platforms, or with another name at its destination"


class Pinner:
    """Resolves pins, one image at a time; may be used by several threads."""

    def __init__(self, registry: Registry, task: Task) -> None:
        self._registry = registry
        self._task = task

    def run(self, pin: Pin) -> None:
        """Looks at one image; what fails is noted in its pin. Raises SdkError."""
        start, repeats = time.monotonic(), self._registry.repeats
        try:
            pin.image = self._resolve(pin)
        except _FAILURES as error:
            text = str(error)
            own = text.startswith(pin.spec.reference.name)
            pin.problem = text if own else f"{pin.spec.key}: {text}"
        pin.seconds = time.monotonic() - start
        pin.attempts += self._registry.repeats - repeats

    def _resolve(self, pin: Pin) -> LockedImage:
        spec, locked, task = pin.spec, pin.locked, self._task
        tag = replace(spec.reference, digest=None) if spec.reference.tag else spec.reference
        digest = spec.reference.digest or (pin.before if locked and not task.update else "")
        if not digest or (locked and task.fail_on_drift):
            pin.served = self._registry.resolve(tag).digest
        digest = digest or pin.served
        of_lock = tuple(locked.platforms) if locked else ()
        platforms = () if task.everything else spec.platforms or task.platforms or of_lock
        spec = replace(spec, as_=spec.as_ or (locked.as_ if locked else None))
        same = locked and digest == locked.target.digest
        if locked and same and platforms and all(locked.runs_on(one) for one in platforms):
            return replace(locked, as_=spec.as_)
        image = Resolver(self._registry, spec, InMemory()).resolve(digest, platforms)
        return merge({locked.name: locked} if locked else {}, {image.name: image})[image.name]


def run(task: Task, registry: Registry) -> dict[str, Any]:
    """Does the task and returns the module's result, with `failed` where an image failed.

    Raises LockError for an unusable lock and where nothing is wanted, OSError where the file cannot
    be read or written, SdkError where there is no `requests`.
    """
    start = time.monotonic()
    content, filed = _read(task.dest)
    pins = plan(task, filed)
    with ThreadPoolExecutor(task.parallel) as pool:
        list(pool.map(Pinner(registry, task).run, pins))
    lock = {pin.spec.key: pin.image for pin in pins if pin.image}
    merged = merge(task.lock, lock)
    images = [_entry(pin, task.fail_on_drift) for pin in pins]
    failed = [one for one in images if one["action"] in ("failed", "drifted")]
    wanted = dumps(merged).encode()
    changed = bool(task.dest) and not failed and wanted != content
    if changed and task.dest and not task.dry_run:
        write_atomically(Path(os.path.realpath(task.dest)), wanted, mode=0o644)
    return {
        "changed": changed,
        "lock": dump(lock),
        "images": images,
        "drift": [
            {"name": pin.spec.key, "locked_digest": pin.before, "digest": pin.served}
            for pin in pins
            if pin.has_drifted
        ],
        "seconds": round(time.monotonic() - start, 3),
        "diff": {
            "before": _digests(filed if task.dest else task.lock),
            "after": _digests(merged if not failed else filed if task.dest else task.lock),
        },
        **_verdict(images, changed, task),
    }


def plan(task: Task, filed: Lock) -> list[Pin]:
    """A pin for each wanted image. `filed`: the lock at `dest`. Raises LockError."""
    if task.fail_on_drift and not task.lock:
        raise LockError(
            "fail_on_drift: wanted a lock to compare the registry with, there is none, or it is"
            " empty; give lock or lock_path"
        )
    specs = task.specs
    if not specs:
        specs = [ImageSpec(parse(name), as_=image.as_) for name, image in task.lock.items()]
    if not specs:
        raise LockError("no image is wanted: there are no images, and no lock that has any")
    return [Pin(spec, task.lock.get(spec.key), filed.get(spec.key)) for spec in specs]


def read_pins(lock_path: str, needed: bool) -> Lock:
    """The lock in a file; an empty one where there is no file, unless one is needed.

    Raises LockError, OSError.
    """
    try:
        return _lockfile.read(lock_path)
    except FileNotFoundError as error:
        if not needed:
            return {}
        raise LockError(
            f"lock_path: wanted the lock file {lock_path}, there is none; correct its path, or make"
            " it with images and dest"
        ) from error


def _read(dest: str | None) -> tuple[bytes | None, Lock]:
    """What is at `dest`; only a lock is ever replaced. Raises LockError, OSError."""
    if dest is None:
        return None, {}
    try:
        content = Path(dest).read_bytes()
        return content, loads(content)
    except FileNotFoundError:
        return None, {}
    except LockError as error:
        raise LockError(
            f"dest: wanted a lock or nothing at {dest}, found another file ({error}); remove it, or"
            " name another path"
        ) from error


def _entry(pin: Pin, fail_on_drift: bool) -> dict[str, Any]:
    """The image's entry in the module's result."""
    platforms = sorted(pin.image.platforms.items()) if pin.image else []
    action = pin.action(fail_on_drift)
    digest = pin.image.target.digest if pin.image else ""
    return {
        "name": pin.spec.key,
        "id": platforms[0][1].config.digest if platforms else "",
        "digest": pin.served if action == "drifted" else digest,
        "locked_digest": pin.before,
        "platforms": [platform for platform, _image in platforms],
        "action": action,
        "reason": pin.reason(action),
        "seconds": round(pin.seconds, 3),
        "attempts": pin.attempts,
    }


def _digests(lock: Lock) -> dict[str, str]:
    return {name: image.target.digest for name, image in sorted(lock.items())}


def _verdict(images: Sequence[dict[str, Any]], changed: bool, task: Task) -> dict[str, Any]:
    """`msg`, and `failed` where an image failed or drifted."""
    failed = [one["reason"] for one in images if one["action"] == "failed"]
    drifted = [f"{one['name']}: {one['reason']}" for one in images if one["action"] == "drifted"]
    parts = []
    if failed:
        parts.append(f"{len(failed)} of {len(images)} images not resolved: {'; '.join(failed)}")
    if drifted:
        what = f"{len(drifted)} of {len(images)} images drifted: {'; '.join(drifted)}"
        parts.append(f"{what}; take what is served with update: true, or keep the lock")
    if parts:
        return {"failed": True, "msg": "; besides, ".join(parts)}
    counts = {one["action"]: 0 for one in images}
    for one in images:
        counts[one["action"]] += 1
    told = ", ".join(f"{action}: {count}" for action, count in sorted(counts.items()))
    verb = "to be written" if task.dry_run else "written"
    return {"msg": f"images {told}{f', lock {verb}' if changed else ''}"}
