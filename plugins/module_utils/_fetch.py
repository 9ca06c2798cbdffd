# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_fetch does: images into the store, byte for byte, and their lock.

Look: names to digests, and the small documents (index, manifest, config). Plan: the blobs that
the store lacks, each once. Apply: several at a time, each verified while it streams. Verify: only
images that are whole get a name in the store and an entry in the lock. Then, if that is wanted,
what nobody needs any more is cleared away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import (
    _diff_ids,
    _relay_sweep,
    _sweep,
)
from ansible_collections.fleet.images.plugins.module_utils._intake import Intake
from ansible_collections.fleet.images.plugins.module_utils._job import (
    Job,
    Task,
    plan_jobs,
    read_lock,
)
from ansible_collections.fleet.images.plugins.module_utils._known import known
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    Layout,
    name_of,
    write_atomically,
)
from ansible_collections.fleet.images.plugins.module_utils._local import Connect
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Lock,
    dump,
    dumps,
    merge,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import Registry


def run(task: Task, registry: Registry, connect: Connect) -> dict[str, Any]:
    """Does the task and returns the module's result, with `failed` where an image failed.

    `connect` is called where the Engine is needed. Raises LockError for an unusable lock,
    LayoutError for an unusable store or lease, OSError where the store or the lock file cannot be
    written, SdkError where there is no `requests`.
    """
    start = time.monotonic()
    layout = Layout(task.store)
    filed = read_lock(task.lock_path)
    before = {name_of(entry): str(entry["digest"]) for entry in layout.names()}
    jobs = plan_jobs(task, {**filed, **task.lock}, before)
    if not task.dry_run:
        layout.create()
    intake = Intake(layout, registry, connect, task)
    with layout.using():
        intake.run(jobs)
        lock = {job.spec.key: job.done for job in jobs if job.done}
        recorded = not task.dry_run and _record(layout, task, jobs, lock)
        merged = merge({**filed, **task.lock}, lock)
        written = task.lock_path is not None and dump(merged) != dump(filed)
        if written and task.lock_path and not task.dry_run:
            write_atomically(Path(os.path.realpath(task.lock_path)), dumps(merged).encode())
    cleared = _clear(layout, task, jobs, merged)
    fetched = any(job.action == "fetched" for job in jobs)
    came = fetched if task.dry_run else recorded or any(job.bytes for job in jobs)
    return {
        "changed": came or written or bool(cleared),
        "lock": dump(lock),
        "known": known(layout, lock),
        "images": [job.as_result() for job in jobs],
        "bytes_fetched": sum(job.bytes for job in jobs),
        "bytes_reused": intake.reused(jobs),
        **({} if task.keep is None else _removed(cleared)),
        "seconds": round(time.monotonic() - start, 3),
        "diff": _diff(jobs, cleared),
        **_verdict(task, jobs, cleared),
    }


def _record(layout: Layout, task: Task, jobs: Sequence[Job], lock: Lock) -> bool:
    """Names the images in the store, and notes what keeps them; whether a name changed."""
    if task.lease:
        blobs = {one for job in jobs if job.image for one in job.image.all_blobs}
        _sweep.lease(layout, task.lease, blobs)
    for image in lock.values():
        _diff_ids.note(layout, image)
    return layout.record(list(lock.values())) if lock else False


def _clear(layout: Layout, task: Task, jobs: Sequence[Job], merged: Lock) -> _sweep.Waste | None:
    """Removes what nobody needs (in a dry run: tells it); None where nothing may be removed."""
    if task.keep is None or any(job.action == "failed" for job in jobs):
        return None
    needed = {
        digest
        for lock in (merged, *task.keep)
        for image in lock.values()
        for digest in image.all_blobs
    }
    names = {job.spec.key for job in jobs}
    relays = _relay_sweep.sweep(layout.root, None, task.dry_run)
    if task.dry_run:
        waste = _sweep.look(layout, needed | _sweep.leased(layout), names)
        return replace(waste, relays=relays)
    with layout.alone(_sweep.PATIENCE) as alone:
        if not alone:
            return None
        waste = _sweep.look(layout, needed | _sweep.leased(layout), names)
        _sweep.clear(layout, waste)
        return replace(waste, relays=relays)


def _removed(cleared: _sweep.Waste | None) -> dict[str, Any]:
    return {
        "removed_relays": list(cleared.relays) if cleared else [],
        "removed_blobs": len(cleared.files) if cleared else 0,
        "removed_bytes": cleared.bytes if cleared else 0,
    }


def _diff(jobs: Sequence[Job], cleared: _sweep.Waste | None) -> dict[str, Mapping[str, str]]:
    after = {job.spec.key: job.image.target.digest for job in jobs if job.done and job.image}
    before = {job.spec.key: job.before for job in jobs if job.before}
    gone = dict(cleared.names) if cleared else {}
    if cleared and cleared.files:
        gone["blobs that nobody needs"] = f"{len(cleared.files)} ({cleared.bytes} bytes)"
    if cleared and cleared.relays:
        gone["relays of runs that are over"] = ", ".join(cleared.relays)
    return {"before": {**before, **gone}, "after": {**before, **after}}


def _verdict(task: Task, jobs: Sequence[Job], cleared: _sweep.Waste | None) -> dict[str, Any]:
    """`msg`, and `failed` where an image failed."""
    problems = [problem for job in jobs for problem in job.problems]
    if problems:
        failed = sum(job.action == "failed" for job in jobs)
        what = f"{failed} of {len(jobs)} images could not be fetched"
        return {"failed": True, "msg": f"{what}: {'; '.join(dict.fromkeys(problems))}"}
    fetched = [job for job in jobs if job.action == "fetched"]
    verb = "to be fetched" if task.dry_run else "fetched"
    rest = len(jobs) - len(fetched)
    others = f", already in the store: {rest}" if rest else ""
    size = _mebibytes(sum(job.bytes for job in jobs))
    return {"msg": f"images {verb}: {len(fetched)} ({size}){others}{_swept(task, cleared)}"}


def _swept(task: Task, cleared: _sweep.Waste | None) -> str:
    if task.keep is None:
        return ""
    if cleared is None:
        return ", nothing removed: another run uses the store"
    verb = "to be removed" if task.dry_run else "removed"
    return f", blobs {verb}: {len(cleared.files)} ({_mebibytes(cleared.bytes)})"


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
