# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a policy asks of a single image before it may go, and the words for it. Pure: no I/O.

Whatever is not known lets an image stay. All times are in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone

from ansible_collections.fleet.images.plugins.module_utils import (
    _inventory,
    _patterns,
    _removal,
    _versions,
)
from ansible_collections.fleet.images.plugins.module_utils._amounts import told
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image
from ansible_collections.fleet.images.plugins.module_utils._policy import (
    DANGLING,
    TIME,
    Policy,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import parse

# Build dates up to here (the end of 1980-01-02, UTC) are what reproducible builds write: the
# beginning of Unix's time, or that of ZIP and FAT. They say nothing about age.
PLACEHOLDER = 315_705_599
BUILT_UPON = "images are built upon it"


@dataclass(frozen=True)
class Subject:
    """An image and its times, in seconds since 1970; None where nobody knows.

    `built`: as its build says. `tagged`: last tagged, pulled or loaded here. `used`: when a
    container last used it. `since`: since when the ledger of this host has known it.
    """

    image: Image
    built: int | None = None
    tagged: int | None = None
    used: int | None = None
    since: int | None = None

    @property
    def last(self) -> int | None:
        """The last sign that somebody wanted it here; None where there is none."""
        known = [one for one in (self.used, self.tagged, self.since) if one is not None]
        return max(known, default=None)

    @property
    def dated(self) -> int | None:
        """Its build date, where that is no placeholder of a reproducible build."""
        return self.built if self.built is not None and self.built > PLACEHOLDER else None


def intermediate(image: Image) -> bool:
    """Whether an Engine keeps the nameless image for what was built upon it.

    A containerd store keeps nothing for that.
    """
    named = image.references or image.digests
    return image.store == CLASSIC and bool(image.children) and not named


class Conditions:
    """The conditions of a policy at the time `now`, for the images of one Engine.

    Raises PolicyError for a pattern of the policy that is none.
    """

    def __init__(self, policy: Policy, subjects: Collection[Subject], now: int) -> None:
        self._policy = policy
        self._repositories = _patterns.patterns(policy.repositories, ids=False)
        self._newest = _newest(subjects, policy)
        self._now = now

    def keep(self, one: Subject) -> str:
        """The first condition that does not hold, as the reason to stay; '' where all hold."""
        return (
            self._of_scope(one.image)
            or self._of_names(one.image)
            or self._of_build(one)
            or self._of_tag(one)
            or self._of_use(one)
            or self._newest.get(one.image.id, "")
        )

    def let_go(self, one: Subject) -> str:
        """Why an image goes for which all conditions hold: what the policy asks, and how it is."""
        policy, image, now = self._policy, one.image, self._now
        reasons = [] if image.references else ["no tag" if image.digests else "no name"]
        reasons.append("no container uses it")
        for asked, what, since in (
            (policy.built_before, "built {} ago", one.dated),
            (policy.tagged_before, "tagged {} ago", one.tagged),
            (policy.unused_for, "unused for {}", one.last),
        ):
            if asked is not None and since is not None:
                reasons.append(what.format(told(now - since)))
        if policy.keep_last and image.references:
            reasons.append(f"not one of the newest {policy.keep_last}")
        return ", ".join(reasons)

    def _of_scope(self, image: Image) -> str:
        if intermediate(image):
            return BUILT_UPON
        if self._policy.scope != DANGLING or image.dangling:
            return ""
        if image.references:
            return "it has a tag, and the scope is dangling"
        if image.store == CLASSIC:
            return BUILT_UPON
        return "it has a name by digest, and the scope is dangling"

    def _of_names(self, image: Image) -> str:
        if not self._repositories:
            return ""
        names = _removal.names(image)
        if not names:
            return "it has no name, so it is of none of repositories"
        for name in names:
            spelled = _inventory.spellings([name])
            if not any(one.matches(spelled) for one in self._repositories):
                return f"it has the name {name}, which is outside of repositories"
        return ""

    def _of_build(self, one: Subject) -> str:
        asked = self._policy.built_before
        if asked is None:
            return ""
        if one.built is None:
            return "it has no build date"
        if one.dated is None:
            day = datetime.fromtimestamp(max(one.built, 0), timezone.utc).date()
            return f"its build date, {day}, says nothing about its age"
        return self._young(one.dated, asked, "built", "built_before")

    def _of_tag(self, one: Subject) -> str:
        asked = self._policy.tagged_before
        if asked is None:
            return ""
        if one.tagged is None:
            return "the Engine does not know when it was tagged, pulled or loaded"
        return self._young(one.tagged, asked, "tagged, pulled or loaded", "tagged_before")

    def _of_use(self, one: Subject) -> str:
        asked, last = self._policy.unused_for, one.last
        if asked is None:
            return ""
        if last is None:
            return "nobody knows when it was used last"
        what = "first seen here"
        if last in (one.used, one.tagged):
            what = "used" if last == one.used else "tagged, pulled or loaded"
        return self._young(last, asked, what, "unused_for")

    def _young(self, since: int, asked: int, what: str, option: str) -> str:
        """Why something is not old enough; '' where it is at least as old as asked."""
        age = self._now - since
        if age >= asked:
            return ""
        # A clock that was set back; or a build that says so.
        when = f"{told(age)} ago" if age >= 0 else "in the future by this host's clock"
        return f"{what} {when}, {option} asks for {told(asked)}"


def _newest(subjects: Collection[Subject], policy: Policy) -> dict[str, str]:
    """Image ID -> why `keep_last` keeps it.

    Counted are all images with a tag in a repository, those included that stay anyway.
    """
    if not policy.keep_last:
        return {}
    groups: dict[str, dict[str, list[str]]] = {}
    for one in subjects:
        for reference in map(parse, one.image.references):
            group = groups.setdefault(reference.name, {})
            group.setdefault(one.image.id, []).append(reference.tag or "")
    by_id = {one.image.id: one for one in subjects}
    kept: dict[str, str] = {}
    for repository, group in sorted(groups.items()):
        for id_ in _ranked(group, by_id, policy.keep_last_by)[: policy.keep_last]:
            kept.setdefault(id_, f"one of the newest {policy.keep_last} of {repository}")
    return kept


def _ranked(group: dict[str, list[str]], by_id: dict[str, Subject], keep_last_by: str) -> list[str]:
    """The IDs of a repository's images (ID -> tags), newest first.

    By time, images of one time, and then those whose time nobody knows, go by version.
    """
    tags = _versions.newest_first(tag for own in group.values() for tag in own)
    places = {tag: place for place, tag in enumerate(tags)}

    def rank(id_: str) -> tuple[bool, int, int, str]:
        one = by_id[id_]
        best = min(places[tag] for tag in group[id_])
        when = one.tagged if one.tagged is not None else one.dated
        if keep_last_by != TIME:
            return False, 0, best, id_
        return when is None, -(when or 0), best, id_

    return sorted(group, key=rank)
