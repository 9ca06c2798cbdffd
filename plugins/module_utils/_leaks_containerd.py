# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a killed Engine left in containerd, held by leases that nobody gives back.

A pull or load holds what it writes by a lease, which ends after a day where nobody ends it. Until
then nothing of it is freed; afterwards containerd's garbage collector does it by itself.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence

from ansible_collections.fleet.images.plugins.module_utils._daemon import Daemon
from ansible_collections.fleet.images.plugins.module_utils._places import ContainerdPlaces
from ansible_collections.fleet.images.plugins.module_utils._reach import Lease, Metadata
from ansible_collections.fleet.images.plugins.module_utils._reclaim import Range, Reclaim, Stock
from ansible_collections.fleet.images.plugins.module_utils._stock_containerd import Sizes

# For one command of containerd's client; it waits for the garbage collector.
_PATIENCE = 120


def dead(metadata: Metadata, daemon: Daemon, now: float) -> list[Lease]:
    """The leases that will expire and are older than the daemon: whoever took them is gone.

    What never expires belongs to containers and build cache.
    """
    return [
        lease
        for lease in metadata.leases
        if lease.expires is not None
        and lease.expires > now
        and lease.created is not None
        and lease.created < daemon.started
    ]


def weigh(
    places: ContainerdPlaces, metadata: Metadata, leases: Sequence[Lease]
) -> list[tuple[Lease, Range]]:
    """The leases that alone hold something, and the bytes that go with each, one after the other.

    Two may hold the same: it goes with the second.
    """
    ids = [lease.id for lease in leases]
    images = {key for keys in metadata.images().values() for key in keys}
    held = frozenset(images | metadata.held(time.time(), ids))
    reached = {lease.id: metadata.reach(lease.keys, lease.flat) - held for lease in leases}
    parts = {id_: sorted(keys) for id_, keys in reached.items() if keys}
    maybe = None if metadata.unsure else frozenset[str]()
    reclaim = Reclaim(Stock(parts, Sizes(places, metadata), frozenset(), maybe))
    return [(lease, reclaim.remove(lease.id)) for lease in leases if lease.id in parts]


def unreached(metadata: Metadata, now: float) -> list[str]:
    """The parts that nothing reaches: the garbage collector takes them at its next turn."""
    if metadata.unsure:
        return []
    reached = metadata.held(now)
    for keys in metadata.images().values():
        reached |= keys
    records = metadata.targets
    return sorted(key for key in metadata.links if key not in reached and key not in records)


def client() -> str | None:
    """containerd's own command-line client; None where it is not there."""
    return shutil.which("ctr")


def end(places: ContainerdPlaces, lease_id: str) -> str:
    """Ends a lease and has containerd free at once what it held; what went wrong, '' if nothing."""
    program = client()
    if program is None:
        return "containerd's client ctr is not there"
    command = [program, "--address", places.address, "--namespace", places.namespace]
    command += ["leases", "rm", "--sync", lease_id]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_PATIENCE
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return "" if done.returncode == 0 else " ".join(done.stderr.split()) or "ctr failed"
