# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which images of one Engine stay and why; which go, and in which order. Pure: no I/O.

An image goes as a whole or stays as a whole; it never loses single names. Whatever is not known
lets it stay. All times are in seconds since 1970, and `now` is the host's own clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ansible_collections.fleet.images.plugins.module_utils import (
    _patterns,
    _reclaim,
    _removal,
)
from ansible_collections.fleet.images.plugins.module_utils._conditions import (
    BUILT_UPON,
    Conditions,
    Subject,
    intermediate,
)
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image
from ansible_collections.fleet.images.plugins.module_utils._policy import Policy

_BUILT_UPON_BY_STAYERS = "images that stay are built upon it"
_NEXT_BUNDLE = "the next thin bundle builds on its layers"
_REACHED = "the target is reached without it"

_Key = tuple[int, bool, int, str, str]


@dataclass(frozen=True)
class Verdict:
    """What becomes of an image; `reason` says why, in a few words without the image's name."""

    image: Image
    goes: bool
    reason: str


@dataclass(frozen=True)
class Budgets:
    """Past these a plan is refused. `max_bytes`: of what it may free at most.

    `min_images_left`: so many images with a tag have to stay, wherever one with a tag goes; so a
    plan that takes all is refused unless this is 0.
    """

    max_images: int | None = None
    max_bytes: int | None = None
    min_images_left: int = 1


def decide(
    subjects: Sequence[Subject], policy: Policy, now: int, protected: Mapping[str, str]
) -> list[Verdict]:
    """One verdict per image: those that go, in the order of removal, then those that stay, by name.

    `subjects`: all images of the Engine, intermediate ones included, each once. `now`: seconds
    since 1970. `protected`: image ID -> why it stays whatever the policy says. An image that
    containers use stays in any case. Intermediate images (no name, others built upon them) never
    go by themselves; `along` tells which of them the Engine takes along. Raises PolicyError for a
    pattern of the policy that is none.
    """
    images = {one.image.id: one.image for one in subjects}
    shields = _shields(images.values(), policy, protected)
    conditions = Conditions(policy, subjects, now)
    kept = dict(shields)
    for one in subjects:
        if one.image.id not in kept:
            reason = conditions.keep(one) or _shielded_below(one.image, images, shields)
            if reason:
                kept[one.image.id] = reason
    kept = _upheld(images, kept)
    goers = [one for one in subjects if one.image.id not in kept]
    gone = [Verdict(one.image, True, conditions.let_go(one)) for one in _ordered(goers, images)]
    return gone + _by_name(Verdict(images[id_], False, reason) for id_, reason in kept.items())


def _by_name(stays: Iterable[Verdict]) -> list[Verdict]:
    return sorted(stays, key=lambda one: (not one.image.references, one.image.name, one.image.id))


def _shields(
    images: Iterable[Image], policy: Policy, protected: Mapping[str, str]
) -> dict[str, str]:
    """Image ID -> why it stays whatever its age, name and place."""
    patterns = _patterns.patterns(policy.protect)
    shields = {}
    for image in images:
        reason = f"used by {_removal.told(image.containers)}" if image.containers else ""
        reason = reason or protected.get(image.id, "")
        if not reason and image.id in protected:
            reason = "it is protected"
        found = "" if reason else _patterns.first(patterns, image)
        if found:
            reason = f"protect names it: {found}"
        found = "" if reason else _label(image, policy)
        if found:
            reason = f"it has the label {found}, which protect_labels names"
        if reason:
            shields[image.id] = reason
    return shields


def _label(image: Image, policy: Policy) -> str:
    """The first of `protect_labels` that the image has."""
    for text in policy.protect_labels:
        key, equals, value = text.partition("=")
        if key in image.labels and (not equals or image.labels[key] == value):
            return text
    return ""


def _shielded_below(image: Image, images: Mapping[str, Image], shields: Mapping[str, str]) -> str:
    """Why an image stays since a shielded intermediate one would go along with it; '' if none."""
    for below in _chain(image, images):
        if not intermediate(below) or below.containers:
            break  # The Engine takes nothing along from here on.
        if below.id in shields:
            return f"it is built upon {below.id[:19]}, which is kept: {shields[below.id]}"
    return ""


def _chain(image: Image, images: Mapping[str, Image]) -> list[Image]:
    """What an image was built upon, nearest first; ends where parents go round in circles."""
    chain, seen = [], {image.id}
    while image.parent in images and image.parent not in seen:
        image = images[image.parent]
        seen.add(image.id)
        chain.append(image)
    return chain


def _upheld(images: Mapping[str, Image], kept: Mapping[str, str]) -> dict[str, str]:
    """`kept`, and what a classic store keeps for images that stay and were built upon it."""
    kept, gone = dict(kept), set[str]()
    order = sorted(images.values(), key=lambda one: (-len(_chain(one, images)), one.id))
    for image in order:
        held = image.store == CLASSIC and any(child not in gone for child in image.children)
        if image.id in kept:
            # An intermediate image goes along with the last of what was built upon it.
            if kept[image.id] == BUILT_UPON and intermediate(image) and not held:
                gone.add(image.id)
        elif held:
            kept[image.id] = _BUILT_UPON_BY_STAYERS
        else:
            gone.add(image.id)
    return kept


def _ordered(goers: Sequence[Subject], images: Mapping[str, Image]) -> list[Subject]:
    """Cheapest to get back first, then the longest unused; a child before what it is built upon."""
    keys = {one.image.id: _cheapness(one) for one in goers}
    chains = {one.image.id: _chain(one.image, images) for one in goers}
    # Not before the last of what was built upon it.
    latest = dict(keys)
    for one in goers:
        for below in chains[one.image.id]:
            if below.id in latest:
                latest[below.id] = max(latest[below.id], keys[one.image.id])

    def place(one: Subject) -> tuple[_Key, int, _Key]:
        id_ = one.image.id
        return latest[id_], -len(chains[id_]), keys[id_]

    return sorted(goers, key=place)


def _cheapness(one: Subject) -> _Key:
    """Nothing names it; a registry may serve it again; it is known only here.

    On containerd every name has a digest, pulled or not: nobody can tell the last two apart.
    """
    image, last = one.image, one.last
    if not (image.references or image.digests):
        cost = 0
    else:
        cost = 1 if image.digests else 2
    return cost, last is not None, last or 0, image.name, image.id


def along(verdicts: Sequence[Verdict]) -> list[str]:
    """IDs of intermediate images that a classic Engine removes along with those that go.

    With DELETE it takes the nameless images below one that goes, as far as nothing else was built
    upon them and no container uses them.
    """
    images = [one.image for one in verdicts]
    order = [one.image.id for one in verdicts if one.goes and one.image.store == CLASSIC]
    return [id_ for _goer, *along in _reclaim.along(order, images) for id_ in along]


def _staying(verdicts: Sequence[Verdict], reasons: Mapping[str, str]) -> list[Verdict]:
    """The verdicts, where images with a reason stay, and what a classic store keeps for them."""
    kept = {one.image.id: one.reason for one in verdicts if not one.goes}
    kept = _upheld({one.image.id: one.image for one in verdicts}, {**kept, **reasons})
    gone = [one for one in verdicts if one.image.id not in kept]
    stays = [one for one in verdicts if one.image.id in kept]
    return gone + _by_name(replace(one, goes=False, reason=kept[one.image.id]) for one in stays)


def keep_bases(
    verdicts: Sequence[Verdict], needed: Collection[str], parts: Mapping[str, Collection[str]]
) -> list[Verdict]:
    """The verdicts, with images kept so that every needed layer stays that is there.

    `needed`: keys of the layers that the next thin bundle builds on. `parts`: image ID -> keys of
    its layers. Each time the image stays that has the most layers still missing, of several the one
    that would go last.
    """
    taken = {*along(verdicts), *(one.image.id for one in verdicts if one.goes)}
    missing = set(needed)
    for one in verdicts:
        if one.image.id not in taken:
            missing.difference_update(parts.get(one.image.id, ()))
    last_first = [one.image.id for one in reversed(verdicts) if one.goes]
    holds = {id_: missing.intersection(parts.get(id_, ())) for id_ in last_first}
    reasons = {}
    while any(holds.values()):
        best = max(last_first, key=lambda id_: len(holds[id_]))
        reasons[best] = _NEXT_BUNDLE
        covered = holds[best]
        holds = {id_: own - covered for id_, own in holds.items()}
    return _staying(verdicts, reasons)


def until(verdicts: Sequence[Verdict], freed: Callable[[str], int], wanted: int) -> list[Verdict]:
    """The verdicts, where images go in their order only until `wanted` bytes are freed.

    `freed`: bytes that an image's removal frees, by its ID, after all before it went; asked in the
    order of removal, once each, and not beyond the target.
    """
    total, reasons = 0, {}
    for one in verdicts:
        if not one.goes:
            break
        if total >= wanted:
            reasons[one.image.id] = _REACHED
        else:
            total += freed(one.image.id)
    return _staying(verdicts, reasons)


def exceeded(verdicts: Sequence[Verdict], budgets: Budgets, most_bytes: int | None) -> list[str]:
    """Why the plan is refused, a sentence per budget; none if it is within them.

    `most_bytes`: what the plan frees at most, None where that is not known, which is past any
    `max_bytes`.
    """
    tagged = Counter(one.goes for one in verdicts if one.image.references)
    goes = sum(one.goes for one in verdicts)
    said = []
    if budgets.max_images is not None and goes > budgets.max_images:
        said.append(
            f"{goes} images would go, max_images allows {budgets.max_images}: narrow the policy, or"
            " raise max_images"
        )
    if budgets.max_bytes is not None and goes and most_bytes is None:
        said.append(
            "how many bytes would be freed is not known, so nobody can say whether max_bytes"
            f" ({budgets.max_bytes}) holds: take max_bytes out, or let the module read more"
        )
    elif budgets.max_bytes is not None and (most_bytes or 0) > budgets.max_bytes:
        said.append(
            f"up to {most_bytes} bytes would be freed, max_bytes allows {budgets.max_bytes}:"
            " narrow the policy, or raise max_bytes"
        )
    if tagged[True] and tagged[False] < budgets.min_images_left:
        said.append(
            f"{tagged[False]} images with a tag would be left, min_images_left asks for"
            f" {budgets.min_images_left}: narrow the policy, or set min_images_left to"
            f" {tagged[False]} if that is meant"
        )
    return said
