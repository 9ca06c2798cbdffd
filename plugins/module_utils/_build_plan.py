# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an image is to be built, by what goes in and what is there, and why. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.fleet.images.plugins.module_utils._fingerprint import (
    Fingerprint,
    of_labels,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import parse_platform

AUTO, ALWAYS, NEVER = "auto", "always", "never"


@dataclass(frozen=True)
class There:
    """What is under one tag in one place: its labels, and platform -> digest of its manifest.

    `own_names`: an Engine names images in its own way; only those of one are compared.
    `tells_platforms`: whether `platforms` has all that are there.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: Mapping[str, str] = field(default_factory=dict)
    own_names: bool = False
    tells_platforms: bool = True


@dataclass(frozen=True)
class Decision:
    """`build`: whether to build; `reason`: why, in words.

    `same`: everything that can be seen is as it was, so that the result may be the one that is
    there. Then it is compared before it goes anywhere.
    """

    build: bool
    reason: str
    same: bool = False


def decide(
    rebuild: str,
    fingerprint: Fingerprint,
    there: Mapping[str, There | None],
    platforms: Sequence[str] = (),
    moving: Sequence[str] = (),
) -> Decision:
    """What to do. `there`: by the place and tag in words, None where nothing is under it.

    `platforms`: those that are wanted, none for the builder's own. `moving`: base images that will
    be others by the time of the build.
    """
    missing = [name for name, one in there.items() if one is None]
    if missing:
        return Decision(True, f"not there yet: {', '.join(missing)}")
    found = {name: one for name, one in there.items() if one is not None}
    if rebuild == NEVER:
        return Decision(False, "it is there, and rebuild is never")
    for name, one in found.items():
        reason = _difference(name, one, fingerprint, platforms)
        if reason:
            return Decision(True, reason)
    different = {(one.own_names, *sorted(one.platforms.items())) for one in found.values()}
    if len(different) > len({one.own_names for one in found.values()}):
        places = ", ".join(found)
        return Decision(True, f"not the same image in all places: {places}", True)
    if moving:
        return Decision(True, f"it builds on what changes: {', '.join(moving)}")
    if rebuild == ALWAYS:
        return Decision(True, "rebuild is always", True)
    if fingerprint.unseen:
        unseen = "; ".join(fingerprint.unseen)
        return Decision(True, f"only a build can tell: {unseen}", True)
    return Decision(False, "nothing that goes in has changed")


def _difference(name: str, there: There, fingerprint: Fingerprint, platforms: Sequence[str]) -> str:
    """Why what is there is not what a build would give; '' where it may be.

    Raises InvalidReference for a platform that is none.
    """
    if of_labels(there.labels) == fingerprint.digest:
        wanted = {parse_platform(one) for one in platforms}
        if wanted and there.tells_platforms and wanted != set(there.platforms):
            return f"{name} has {', '.join(sorted(there.platforms)) or 'no platform'} only"
        return ""
    changes = fingerprint.changes(there.labels)
    if changes:
        return f"changed since it was built: {', '.join(changes)}"
    return f"{name} does not say what it was built from"
