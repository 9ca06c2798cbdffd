# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images from their source into the store: documents first, then each blob that it lacks, once.

From registries several blobs at a time, largest first, each verified while it streams.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ansible_collections.fleet.images.plugins.module_utils import _local
from ansible_collections.fleet.images.plugins.module_utils._job import Job, Received, Task
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    BlobWriter,
    Layout,
    LayoutError,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob, LockError
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    Registry,
    RegistryError,
)
from ansible_collections.fleet.images.plugins.module_utils._resolve import Resolver

_FAILURES = (RegistryError, LayoutError, LockError, InvalidReference)


class Intake:
    """One run: looks at all images, then brings what the store lacks."""

    def __init__(
        self, layout: Layout, registry: Registry, connect: _local.Connect, task: Task
    ) -> None:
        self._layout = layout
        self._registry = registry
        self._connect = connect
        self._task = task
        self.received = Received()
        self._damaged: set[str] = set()

    def run(self, jobs: Sequence[Job]) -> None:
        """Brings the jobs' images; what fails is noted in its job. Raises OSError, SdkError."""
        if self._task.source != "daemon":
            with ThreadPoolExecutor(self._task.parallel) as pool:
                list(pool.map(self._look, jobs))
        if self._task.source == "daemon":
            self._take(jobs)
        if self._task.source == "auto":
            self._take([job for job in jobs if job.problems])
        if self._task.verify:
            self._verify(jobs)
        self._fetch(jobs)

    def _look(self, job: Job) -> None:
        """Resolves an image in its registry, down to its layers."""
        start, repeats = time.monotonic(), self._registry.repeats
        try:
            documents = _Stored(self._layout, job, self.received, self._task.dry_run)
            resolver = Resolver(self._registry, job.spec, documents, self._task.attestations)
            platforms = job.platforms or (self._task.own_platform,)
            job.image = resolver.resolve(job.digest, platforms)
        except _FAILURES as error:
            job.fail(error)
        except OSError as error:
            job.fail(self._disk(error))
        job.seconds += time.monotonic() - start
        job.attempts += self._registry.repeats - repeats

    def _take(self, jobs: Sequence[Job]) -> None:
        """Takes images from the Engine; where that fails too, both reasons are told."""
        told = [job.problems for job in jobs]
        for job in jobs:
            job.problems, job.source = [], "daemon"
        _local.take(self._connect, self._layout, jobs, self._task.dry_run)
        for job, before in zip(jobs, told):
            job.problems = before + job.problems if job.problems else []

    def _verify(self, jobs: Sequence[Job]) -> None:
        """Reads the wanted blobs that the store has; what is damaged is brought anew."""
        blobs = {
            digest: blob
            for job in jobs
            for digest, blob in (job.done.all_blobs if job.done else {}).items()
            if digest not in self.received.digests
        }
        with ThreadPoolExecutor(self._task.parallel) as pool:
            damaged = list(pool.map(self._layout.damaged, blobs.values()))
        self._damaged = {digest for digest, bad in zip(blobs, damaged) if bad}
        again = []
        for job in jobs:
            own = self._damaged.intersection(job.done.all_blobs if job.done else ())
            job.damaged += sorted(own)
            if own and job.source == "daemon":
                again.append(job)
                job.lacks = True
        if self._task.dry_run:
            return
        for digest in self._damaged:
            self._layout.discard(digest)
        self._take(again)

    def _fetch(self, jobs: Sequence[Job]) -> None:
        """Fetches the blobs that the store lacks, each once, largest first."""
        missing: dict[str, Blob] = {}
        users: dict[str, list[Job]] = {}
        taken = {
            one for job in jobs if job.source == "daemon" and job.done for one in job.done.all_blobs
        }
        for job in jobs:
            for blob in self._lacking(job, taken):
                job.lacks = True
                missing.setdefault(blob.digest, blob)
                users.setdefault(blob.digest, []).append(job)
        order = sorted(missing.values(), key=lambda blob: -blob.size)
        if self._task.dry_run:
            for blob in order:
                self.received.add(users[blob.digest][0], blob.digest, blob.size)
            return
        with ThreadPoolExecutor(self._task.parallel) as pool:
            list(pool.map(lambda blob: self._fetch_blob(blob, users[blob.digest]), order))

    def _lacking(self, job: Job, taken: set[str]) -> list[Blob]:
        """What the store lacks of a registry's image, aside of documents that were just read.

        `taken`: digests that come from the Engine; in a dry run they are not there yet.
        """
        if job.done is None or job.source == "daemon":
            return []
        lacking = []
        for digest, blob in job.done.all_blobs.items():
            whole = self._layout.has(digest, blob.size) and digest not in self._damaged
            if not whole and digest not in self.received.digests and digest not in taken:
                lacking.append(blob)
                if self._layout.has(digest):
                    job.damaged.append(digest)
        return lacking

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

    def reused(self, jobs: Sequence[Job]) -> int:
        """Bytes of the images that are done which the store had already, each blob once."""
        fetched: dict[str, int] = {}
        taken: dict[str, int] = {}
        for job in jobs:
            for digest, blob in (job.done.all_blobs if job.done else {}).items():
                (taken if job.source == "daemon" else fetched)[digest] = blob.size
        reused = sum(size for one, size in fetched.items() if one not in self.received.digests)
        of_engine = sum(size for one, size in taken.items() if one not in fetched)
        brought = sum(job.bytes for job in jobs if job.source == "daemon")
        return reused + max(0, of_engine - brought)

    def _disk(self, error: OSError) -> str:
        return (
            f"the store {self._layout.root} cannot be used ({error.strerror or error}); check its"
            " space and its owner"
        )


@dataclass(frozen=True)
class _Stored:
    """The store's documents for one image; what is damaged is read from the registry anew."""

    layout: Layout
    job: Job
    received: Received
    dry_run: bool

    def find(self, digest: str, size: int | None = None) -> bytes | None:
        """A document as the store has it; None where it is not there whole."""
        if not self.layout.has(digest, size):
            return None
        try:
            return self.layout.read(digest)
        except LayoutError:
            self.job.damaged.append(digest)
            return None

    def keep(self, digest: str, content: bytes) -> None:
        """Puts what the registry sent into the store; raises OSError."""
        self.job.lacks = True
        self.received.add_once(self.job, digest, len(content))
        if not self.dry_run:
            self.layout.put(content, anew=True)


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
