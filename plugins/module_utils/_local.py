# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images that image_fetch takes from the local Engine; what a lock pins is taken from the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ansible_collections.fleet.images.plugins.module_utils import _export
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._job import Job
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage

Connect = Callable[[], Engine]


def take(connect: Connect, layout: Layout, jobs: Sequence[Job], dry_run: bool) -> None:
    """Brings the jobs' images from the Engine; what fails is noted in its job.

    The Engine is only asked for what no pin and the store tell. Raises SdkError, OSError.
    """
    wanted = []
    for job in jobs:
        job.image = _pinned(layout, job)
        if job.image is None:
            wanted.append(job)
    if not wanted:
        return
    try:
        engine = connect()
    except EngineError as error:
        for job in wanted:
            job.fail(error)
        return
    asked = [
        _export.Wanted(job.spec.key, job.spec.reference, job.platforms, job.spec.as_)
        for job in wanted
    ]
    taken = _export.take(engine, layout, asked, dry_run)
    for job in wanted:
        _note(job, taken[job.spec.key])


def _pinned(layout: Layout, job: Job) -> LockedImage | None:
    """The lock's image, where it is what the job wants and the store has all of it."""
    locked = job.locked
    if locked is None or locked.target.digest != job.digest:
        return None
    platforms = job.platforms or tuple(locked.platforms)
    if not all(locked.runs_on(platform) for platform in platforms):
        return None
    chosen = [locked.on(platform) for platform in platforms]
    image = replace(locked, platforms={one.platform: one for one in chosen}, as_=job.spec.as_)
    whole = all(layout.has(blob.digest, blob.size) for blob in image.all_blobs.values())
    return image if whole else None


def _note(job: Job, taken: _export.Taken) -> None:
    """Notes what came of it. A pin holds: the Engine may have an older or newer image."""
    job.image = taken.image
    job.lacks = job.lacks or taken.lacked
    job.bytes += taken.bytes
    job.seconds += taken.seconds
    if taken.problem:
        job.fail(taken.problem)
    elif taken.image and job.digest not in (None, taken.image.target.digest):
        job.fail(
            f"wanted {job.digest}, the Engine's image is {taken.image.target.digest} in the store;"
            " take it from the registry, or set update: true (for a digest in images, leave it out)"
        )
