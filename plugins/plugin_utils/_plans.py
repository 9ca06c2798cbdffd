# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which bundles to write for the plans of many hosts. Pure.

Hosts with the same plan share a bundle. Where there are more plans than bundles may be made, the
two whose union costs the fewest extra bytes on the hosts' links are united, again and again.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _lock
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """Hosts that get the same bundle: what is in it, for how many, and the IDs of their plans."""

    platform: str
    images: frozenset[str]
    blobs: frozenset[str]
    plans: frozenset[str]
    hosts: int

    def __or__(self, other: Group) -> Group:
        return Group(
            self.platform,
            self.images | other.images,
            self.blobs | other.blobs,
            self.plans | other.plans,
            self.hosts + other.hosts,
        )


def bundles(
    hosts: Iterable[Result],
    directory: str,
    locks: Mapping[str, Result],
    most: int = 8,
    full: bool = False,
) -> dict[str, dict[str, Any]]:
    """The bundles to write on each bastion, and which plan gets which.

    `hosts`: dicts of `bastion` and `plan` (the result of image_plan). `locks`: bastion -> the lock
    that it fetched. At most `most` bundles per bastion and platform. With `full` nothing is left
    out that the planned images need, nor their attestations where the Engine keeps those. Returns
    bastion -> `bundles` (entries for image_archive) and `paths` (plan ID -> path).
    """
    plans: dict[str, dict[str, Group]] = {}
    parsed = {bastion: _lock.load(lock) for bastion, lock in locks.items()}
    for host in hosts:
        plan, lock = host.get("plan") or {}, parsed.get(host["bastion"])
        if plan.get("plan_id") and lock is not None:
            one = _group(plan, lock, full)
            known = plans.setdefault(host["bastion"], {})
            before = known.get(plan["plan_id"])
            known[plan["plan_id"]] = before | one if before else one
    found = {}
    for bastion, groups in sorted(plans.items()):
        united = unite(groups.values(), _sizes(parsed[bastion]), most)
        found[bastion] = _entries(united, f"{directory.rstrip('/')}/", "-full" if full else "")
    return found


def _group(plan: Result, lock: _lock.Lock, full: bool) -> Group:
    platform = plan["engine"]["platform"]
    images = frozenset(one["lock_name"] for one in plan["images"] if one["action"] == "loaded")
    blobs = plan["blobs"]
    if full:
        keeps = plan["engine"].get("store") != CLASSIC  # That has no place for attestations.
        whole = [blob for name in images for blob in lock[name].blobs(platform)]
        spare = [blob for name in images for blob in lock[name].on(platform).attestations if keeps]
        blobs = [blob.digest for blob in (*whole, *spare)]
    return Group(platform, images, frozenset(blobs), frozenset({plan["plan_id"]}), 1)


def _sizes(lock: _lock.Lock) -> dict[str, int]:
    blobs = (blob for image in lock.values() for blob in image.all_blobs.values())
    return {blob.digest: blob.size for blob in blobs}


def unite(groups: Iterable[Group], sizes: Mapping[str, int], most: int) -> list[Group]:
    """At most `most` groups for each platform; those of different platforms stay apart.

    `sizes`: bytes of each blob. A union costs what its hosts receive beyond their own plans.
    """
    by_platform: dict[str, list[Group]] = {}
    for group in groups:
        by_platform.setdefault(group.platform, []).append(group)
    return [
        group
        for _platform, alike in sorted(by_platform.items())
        for group in _unite(alike, sizes, max(1, most))
    ]


def _unite(groups: list[Group], sizes: Mapping[str, int], most: int) -> list[Group]:
    alive = dict(enumerate(groups))
    if len(alive) <= most:
        return groups
    weights = {key: _weight(group.blobs, sizes) for key, group in alive.items()}
    heap: list[tuple[int, int, int]] = []

    def offer(one: int, other: int) -> None:
        a, b = alive[one], alive[other]
        both = _weight(a.blobs & b.blobs, sizes)
        extra = a.hosts * (weights[other] - both) + b.hosts * (weights[one] - both)
        heapq.heappush(heap, (extra, one, other))

    for one, other in itertools.combinations(alive, 2):
        offer(one, other)
    while len(alive) > most:
        _extra, one, other = heapq.heappop(heap)
        if one not in alive or other not in alive:
            continue
        key = max(weights) + 1
        union = alive.pop(one) | alive.pop(other)
        alive[key], weights[key] = union, _weight(union.blobs, sizes)
        for rest in list(alive)[:-1]:
            offer(rest, key)
    return list(alive.values())


def _weight(blobs: Iterable[str], sizes: Mapping[str, int]) -> int:
    return sum(sizes.get(blob, 0) for blob in blobs)


def _entries(groups: Iterable[Group], directory: str, suffix: str) -> dict[str, Any]:
    entries, paths = [], {}
    for group in sorted(groups, key=lambda group: min(group.plans)):
        path = f"{directory}{_name(group)}{suffix}.tar"
        paths.update(dict.fromkeys(sorted(group.plans), path))
        entries.append(
            {
                "path": path,
                "images": sorted(group.images),
                "blobs": sorted(group.blobs),
                "platform": group.platform,
            }
        )
    return {"bundles": entries, "paths": paths}


def _name(group: Group) -> str:
    """One plan's own ID; for several a name that is made of all of them."""
    plans = sorted(group.plans)
    if len(plans) == 1:
        return plans[0]
    return hashlib.sha256(" ".join(plans).encode()).hexdigest()[:16]
