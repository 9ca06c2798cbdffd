# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_fetch does: images from registries into the store, byte for byte, and their lock.

Look: names to digests, and the small documents (index, manifest, config). Plan: the layers that
the store lacks, each once. Apply: several at a time, each verified while it streams. Verify: only
images that are whole get a name in the store and an entry in the lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._job import (
    Job,
    Received,
    Task,
    plan_jobs,
    read_lock,
)
from ansible_collections.fleet.images.plugins.module_utils._known import known
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    IMAGE_NAME,
    BlobWriter,
    Layout,
    LayoutError,
    write_atomically,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    Lock,
    LockedImage,
    LockError,
    dump,
    dumps,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    Registry,
    RegistryError,
)
from ansible_collections.fleet.images.plugins.module_utils._resolve import Resolver

_FAILURES = (RegistryError, LayoutError, LockError, InvalidReference)


def run(task: Task, registry: Registry) -> dict[str, Any]:
    """Does the task and returns the module's result, with `failed` where an image failed.

    Raises LockError for an unusable lock, OSError where the store or the lock file cannot be
    written, SdkError where there is no `requests`.
    """
    start = time.monotonic()
    layout = Layout(task.store)
    filed = read_lock(task.lock_path)
    jobs = plan_jobs(task, {**filed, **task.lock}, _names(layout))
    if not task.dry_run:
        layout.create()
    fetch = _Fetch(layout, registry, task)
    fetch.look(jobs)
    fetch.apply(jobs)
    lock = {job.spec.key: job.done for job in jobs if job.done}
    recorded = layout.record(list(lock.values())) if lock and not task.dry_run else False
    merged = {**filed, **task.lock}
    merged.update({name: _with_platforms(image, merged.get(name)) for name, image in lock.items()})
    written = task.lock_path is not None and dump(merged) != dump(filed)
    if written and task.lock_path and not task.dry_run:
        write_atomically(Path(os.path.realpath(task.lock_path)), dumps(merged).encode())
    changed = recorded or written or bool(fetch.received.digests)
    if task.dry_run:
        changed = written or any(job.action == "fetched" for job in jobs)
    return {
        "changed": changed,
        "lock": dump(lock),
        "known": known(layout, lock),
        "images": [job.as_result() for job in jobs],
        "bytes_fetched": sum(job.bytes for job in jobs),
        "bytes_reused": fetch.reused(lock),
        "seconds": round(time.monotonic() - start, 3),
        "diff": _diff(jobs),
        **_verdict(jobs, task.dry_run),
    }


def _names(layout: Layout) -> dict[str, str]:
    """Name -> digest, as the store's index has them."""
    return {
        str((entry.get("annotations") or {}).get(IMAGE_NAME)): str(entry["digest"])
        for entry in layout.names()
    }


class _Fetch:
    """One run: looks at all images, then fetches what the store lacks."""

    def __init__(self, layout: Layout, registry: Registry, task: Task) -> None:
        self._layout = layout
        self._registry = registry
        self._task = task
        self.received = Received()
        self._resolver = Resolver(layout, registry, task, self.received)

    def look(self, jobs: Sequence[Job]) -> None:
        """Resolves every image down to its layers; what fails is noted in its job."""
        with ThreadPoolExecutor(self._task.parallel) as pool:
            list(pool.map(self._look, jobs))

    def _look(self, job: Job) -> None:
        start, repeats = time.monotonic(), self._registry.repeats
        try:
            job.image = self._resolver.resolve(job)
        except _FAILURES as error:
            job.fail(error)
        except OSError as error:
            job.fail(self._disk(error))
        job.seconds += time.monotonic() - start
        job.attempts += self._registry.repeats - repeats

    def apply(self, jobs: Sequence[Job]) -> None:
        """Fetches the blobs that the store lacks, each once, largest first."""
        missing: dict[str, Blob] = {}
        users: dict[str, list[Job]] = {}
        for job in jobs:
            for digest, blob in self._lacking(job):
                job.lacks = True
                missing.setdefault(digest, blob)
                users.setdefault(digest, []).append(job)
        order = sorted(missing.values(), key=lambda blob: -blob.size)
        if self._task.dry_run:
            for blob in order:
                self.received.add(users[blob.digest][0], blob.digest, blob.size)
            return
        with ThreadPoolExecutor(self._task.parallel) as pool:
            list(pool.map(lambda blob: self._fetch_blob(blob, users[blob.digest]), order))

    def _lacking(self, job: Job) -> list[tuple[str, Blob]]:
        """What the store lacks of an image, aside of documents that were just read."""
        return [
            (digest, blob)
            for digest, blob in (job.done.all_blobs if job.done else {}).items()
            if digest not in self.received.digests and not self._layout.has(digest, blob.size)
        ]

    def _fetch_blob(self, blob: Blob, users: Sequence[Job]) -> None:
        """Takes the blob from the first image's repository that gives it."""
        start, repeats = time.monotonic(), self._registry.repeats
        problems: list[str] = []
        sources: dict[str, Job] = {}
        for user in users:
            sources.setdefault(user.spec.reference.name, user)
        for job in sources.values():
            try:
                self._copy(job, blob)
                problems = []
                break
            except _FAILURES as error:
                problems.append(str(error))
            except OSError as error:
                problems = [f"blob {blob.digest}: {self._disk(error)}"]
                break
        with self.received.lock:
            users[0].seconds += time.monotonic() - start
            for user in users:
                user.attempts += self._registry.repeats - repeats
                for problem in problems:
                    user.fail(problem)

    def _copy(self, job: Job, blob: Blob, again: bool = False) -> None:
        counted = None
        try:
            with self._layout.writing(blob) as out:
                counted = _Counted(out)
                self._registry.copy_blob(job.spec.reference, blob, counted)
        except LayoutError:
            # What an earlier run left may be damaged, as by a power cut: it is forgotten now, and
            # the second time decides.
            if again or counted is None or not counted.took_up:
                raise
            self._copy(job, blob, again=True)
        finally:
            if counted and counted.bytes:
                self.received.add(job, blob.digest, counted.bytes)

    def reused(self, lock: Lock) -> int:
        """Bytes of the images in this lock that did not have to be fetched, each blob once."""
        blobs = {
            blob.digest: blob.size for image in lock.values() for blob in image.all_blobs.values()
        }
        return sum(size for one, size in blobs.items() if one not in self.received.digests)

    def _disk(self, error: OSError) -> str:
        return (
            f"the store {self._layout.root} cannot be used ({error.strerror or error}); check its"
            " space and its owner"
        )


class _Counted:
    """A sink that counts what it is given, whatever comes of it."""

    def __init__(self, out: BlobWriter) -> None:
        self._out = out
        self.bytes = 0
        self.took_up = out.offset > 0

    @property
    def offset(self) -> int:
        """Bytes that are there."""
        return self._out.offset

    def restart(self) -> None:
        """Forgets what is there."""
        self._out.restart()

    def write(self, chunk: bytes) -> None:
        """Appends and counts."""
        self.bytes += len(chunk)
        self._out.write(chunk)


def _with_platforms(image: LockedImage, former: LockedImage | None) -> LockedImage:
    """The image with the platforms that a lock has of the same index: other hosts' tasks."""
    if former is None or former.target.digest != image.target.digest:
        return image
    return replace(image, platforms={**former.platforms, **image.platforms})


def _diff(jobs: Sequence[Job]) -> dict[str, dict[str, str]]:
    after = {job.spec.key: job.image.target.digest for job in jobs if job.done and job.image}
    before = {job.spec.key: job.before for job in jobs if job.before}
    return {"before": before, "after": {**before, **after}}


def _verdict(jobs: Sequence[Job], dry_run: bool) -> dict[str, Any]:
    """`msg`, and `failed` where an image failed."""
    problems = [problem for job in jobs for problem in job.problems]
    if problems:
        failed = sum(job.action == "failed" for job in jobs)
        what = f"{failed} of {len(jobs)} images could not be fetched"
        return {"failed": True, "msg": f"{what}: {'; '.join(dict.fromkeys(problems))}"}
    fetched = [job for job in jobs if job.action == "fetched"]
    mebibytes = sum(job.bytes for job in jobs) / (1 << 20)
    verb = "to be fetched" if dry_run else "fetched"
    rest = len(jobs) - len(fetched)
    others = f", already in the store: {rest}" if rest else ""
    return {"msg": f"images {verb}: {len(fetched)} ({mebibytes:.1f} MiB){others}"}
