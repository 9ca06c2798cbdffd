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
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._documents import (
    Json,
    best,
    choose,
    descriptor,
    diff_ids,
    parse_object,
    read_layers,
)
from ansible_collections.fleet.images.plugins.module_utils._known import known, layers_of
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    IMAGE_NAME,
    BlobWriter,
    Layout,
    LayoutError,
    write_atomically,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    Layer,
    Lock,
    LockedImage,
    LockError,
    PlatformImage,
    dump,
    dumps,
    loads,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    ImageSpec,
    InvalidReference,
    parse,
    platform_of,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    INDEXES,
    Registry,
    RegistryError,
    media_type_of,
)

# Configs hold history and labels: some kB. Layout.read takes no more either.
_CONFIG_LIMIT = 16 << 20
_FAILURES = (RegistryError, LayoutError, LockError, InvalidReference)


@dataclass(frozen=True)
class Task:
    """What one run is asked for.

    `specs`: the wanted images; none means all of the lock. `lock` pins, and so does the file
    `lock_path`, which is written as well. `platform`: for images that name none of their own;
    None means the lock's platforms, and `own_platform` for an image that no lock has.
    `parallel`: blobs at a time. `dry_run`: read from registries, write nothing.
    """

    store: str
    own_platform: str
    specs: Sequence[ImageSpec] = ()
    lock: Lock = field(default_factory=dict)
    lock_path: str | None = None
    update: bool = False
    platform: str | None = None
    parallel: int = 4
    dry_run: bool = False


@dataclass
class Job:
    """One wanted image, from its name to what became of it.

    `digest`: what pins it, None where the tag is asked. `before`: the digest under its name in the
    store. `lacks`: the store has not all of it. `bytes`: received for it, each blob counted for one
    image only. `problems`: why it is not done.
    """

    spec: ImageSpec
    platforms: tuple[str, ...]
    digest: str | None
    before: str | None
    image: LockedImage | None = None
    lacks: bool = False
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
        if self.before is None:
            return "not in the store"
        if self.before != self.image.target.digest:
            return f"the store has this name with {self.before}"
        return "not whole in the store" if self.lacks else "in the store"

    def as_result(self) -> dict[str, Any]:
        """The image's entry in the module's result."""
        platforms = sorted(self.image.platforms.items()) if self.image else []
        return {
            "name": self.spec.key,
            "id": platforms[0][1].config.digest if platforms else "",
            "digest": self.image.target.digest if self.image else self.digest or "",
            "action": self.action,
            "reason": self.reason,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "attempts": self.attempts,
        }


def run(task: Task, registry: Registry) -> dict[str, Any]:
    """Does the task and returns the module's result, with `failed` where an image failed.

    Raises LockError for an unusable lock, OSError where the store or the lock file cannot be
    written, SdkError where there is no `requests`.
    """
    start = time.monotonic()
    layout = Layout(task.store)
    filed = read_lock(task.lock_path)
    jobs = _plan_jobs(task, {**filed, **task.lock}, layout)
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
    changed = recorded or written or fetch.received > 0
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


def read_lock(path: str | None) -> dict[str, LockedImage]:
    """The lock in a file; an empty one where there is no file. Raises LockError, OSError."""
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise LockError(
            f"{path}: the lock is no UTF-8 text; make it anew with image_fetch"
        ) from error
    try:
        return loads(text)
    except LockError as error:
        raise LockError(f"{path}: {error}") from error


def _plan_jobs(task: Task, pins: Lock, layout: Layout) -> list[Job]:
    specs = task.specs
    if not specs:
        chosen = task.lock or pins
        specs = [ImageSpec(parse(name), as_=image.as_) for name, image in chosen.items()]
    if not specs:
        raise LockError("no image is wanted: there are no images, and no lock that has any")
    before = {
        str((entry.get("annotations") or {}).get(IMAGE_NAME)): str(entry["digest"])
        for entry in layout.names()
    }
    return [_plan_job(task, spec, pins.get(spec.key), before.get(spec.key)) for spec in specs]


def _plan_job(task: Task, spec: ImageSpec, locked: LockedImage | None, before: str | None) -> Job:
    of_task = (task.platform,) if task.platform else ()
    of_lock = tuple(locked.platforms) if locked else ()
    platforms = spec.platforms or of_task or of_lock or (task.own_platform,)
    pinned = locked.target.digest if locked and not task.update else None
    if locked and not task.update and not spec.as_:
        spec = replace(spec, as_=locked.as_)
    return Job(spec, platforms, spec.reference.digest or pinned, before)


class _Fetch:
    """One run: looks at all images, then fetches what the store lacks."""

    def __init__(self, layout: Layout, registry: Registry, task: Task) -> None:
        self._layout = layout
        self._registry = registry
        self._task = task
        self._received: set[str] = set()
        self._lock = threading.Lock()

    @property
    def received(self) -> int:
        """How many blobs came from a registry."""
        return len(self._received)

    def look(self, jobs: Sequence[Job]) -> None:
        """Resolves every image down to its layers; what fails is noted in its job."""
        with ThreadPoolExecutor(self._task.parallel) as pool:
            list(pool.map(self._look, jobs))

    def _look(self, job: Job) -> None:
        start, repeats = time.monotonic(), self._registry.repeats
        try:
            job.image = self._resolve(job)
        except _FAILURES as error:
            job.problems.append(_about(job, error))
        except OSError as error:
            job.problems.append(f"{job.spec.key}: {self._disk(error)}")
        job.seconds += time.monotonic() - start
        job.attempts += self._registry.repeats - repeats

    def _resolve(self, job: Job) -> LockedImage:
        reference = job.spec.reference
        digest = job.digest or self._registry.resolve(reference).digest
        content, document = self._document(job, digest)
        target = Blob(digest, len(content), media_type_of(str(reference), content))
        if target.media_type in INDEXES:
            chosen = choose(reference.pinned(digest).familiar, document, job.platforms)
        else:
            chosen = {"": target}
        platforms = {}
        for platform, manifest in chosen.items():
            image = self._platform_image(job, manifest, platform)
            platforms[image.platform] = image
        best(job.spec.key, job.platforms, platforms)
        return LockedImage(job.spec.key, target, platforms, job.spec.as_)

    def _platform_image(self, job: Job, manifest: Blob, platform: str) -> PlatformImage:
        """`platform`: as the index states it; '' where only the config tells."""
        name = job.spec.key
        content, document = self._document(job, manifest.digest)
        own = Blob(manifest.digest, len(content), media_type_of(name, content))
        blobs = read_layers(name, document)
        config = descriptor(name, document.get("config"))
        settings = parse_object(name, self._small_blob(job, config))
        layers = tuple(
            Layer(blob.digest, blob.size, blob.media_type, diff_id)
            for blob, diff_id in zip(blobs, diff_ids(name, settings, len(blobs), config))
        )
        return PlatformImage(platform or platform_of(settings), own, config, layers)

    def _document(self, job: Job, digest: str) -> tuple[bytes, Json]:
        """An index or a manifest: from the store, else from the registry."""
        if self._layout.has(digest):
            content = self._layout.read(digest)
        else:
            content = self._registry.manifest(job.spec.reference, digest)
            self._keep(job, digest, content)
        return content, parse_object(job.spec.key, content)

    def _small_blob(self, job: Job, blob: Blob) -> bytes:
        if self._layout.has(blob.digest, blob.size):
            return self._layout.read(blob.digest)
        if blob.size > _CONFIG_LIMIT:
            raise RegistryError(
                f"{job.spec.key}: its config has {blob.size} bytes, wanted {_CONFIG_LIMIT} at most;"
                " it is no image"
            )
        content = self._registry.read_blob(job.spec.reference, blob)
        self._keep(job, blob.digest, content)
        return content

    def _keep(self, job: Job, digest: str, content: bytes) -> None:
        job.lacks = True
        with self._lock:
            # Two images may have read the same document side by side: it counts once.
            job.bytes += 0 if digest in self._received else len(content)
            self._received.add(digest)
        if not self._task.dry_run:
            self._layout.put(content)

    def apply(self, jobs: Sequence[Job]) -> None:
        """Fetches the layers that the store lacks, each once, largest first."""
        missing: dict[str, Layer] = {}
        users: dict[str, list[Job]] = {}
        for job in jobs:
            for layer in layers_of(job.done):
                if not self._layout.has(layer.digest, layer.size):
                    job.lacks = True
                    missing.setdefault(layer.digest, layer)
                    users.setdefault(layer.digest, []).append(job)
        order = sorted(missing.values(), key=lambda layer: -layer.size)
        if self._task.dry_run:
            for layer in order:
                users[layer.digest][0].bytes += layer.size
                self._received.add(layer.digest)
            return
        with ThreadPoolExecutor(self._task.parallel) as pool:
            list(pool.map(lambda layer: self._fetch_layer(layer, users[layer.digest]), order))

    def _fetch_layer(self, layer: Layer, users: Sequence[Job]) -> None:
        """Takes the layer from the first image's repository that gives it."""
        start, repeats = time.monotonic(), self._registry.repeats
        problems: list[str] = []
        sources: dict[str, Job] = {}
        for user in users:
            sources.setdefault(user.spec.reference.name, user)
        for job in sources.values():
            try:
                self._copy(job, layer)
                problems = []
                break
            except _FAILURES as error:
                problems.append(str(error))
            except OSError as error:
                problems = [f"blob {layer.digest}: {self._disk(error)}"]
                break
        with self._lock:
            users[0].seconds += time.monotonic() - start
            for user in users:
                user.attempts += self._registry.repeats - repeats
                user.problems.extend(_about(user, problem) for problem in problems)

    def _copy(self, job: Job, layer: Layer, again: bool = False) -> None:
        counted = None
        try:
            with self._layout.writing(layer) as out:
                counted = _Counted(out)
                self._registry.copy_blob(job.spec.reference, layer, counted)
        except LayoutError:
            # What an earlier run left may be damaged, as by a power cut: it is forgotten now, and
            # the second time decides.
            if again or counted is None or not counted.took_up:
                raise
            self._copy(job, layer, again=True)
        finally:
            if counted and counted.bytes:
                with self._lock:
                    job.bytes += counted.bytes
                    self._received.add(layer.digest)

    def reused(self, lock: Lock) -> int:
        """Bytes of the images in this lock that did not have to be fetched, each blob once."""
        blobs = {
            blob.digest: blob.size
            for image in lock.values()
            for platform in image.platforms
            for blob in image.blobs(platform)
        }
        return sum(size for digest, size in blobs.items() if digest not in self._received)

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


def _about(job: Job, problem: object) -> str:
    """The problem as a sentence about this image; two images may share a blob's problem."""
    text = str(problem)
    return text if text.startswith(job.spec.reference.name) else f"{job.spec.key}: {text}"


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
