# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which images and containers go for a list of names, and which bytes that proves. Pure: no I/O.

The rules are those of the Engine (daemon/images/image_delete.go and
daemon/containerd/image_delete.go of moby), told beforehand: an image loses one name at a time and
goes with the last one, unless containers use it or images were built upon it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _inventory
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC, chain_ids
from ansible_collections.fleet.images.plugins.module_utils._inventory import (
    Container,
    Image,
    Wanted,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    parse,
)

FAIL, SKIP, REMOVE_STOPPED, REMOVE_CONTAINERS = IN_USE = (
    "fail",
    "skip",
    "remove_stopped",
    "remove_containers",
)


@dataclass
class Entry:
    """What becomes of one text of the user's list.

    `reference`: the tag that it takes from the image, '' for the image as a whole. `action`: none,
    untagged, removed, kept or failed. `bytes`: freed, None where nobody has proved it yet.
    """

    name: str
    image: Image | None = None
    reference: str = ""
    action: str = "none"
    reason: str = ""
    bytes: int | None = 0
    containers: list[Container] = field(default_factory=list)

    def end(self, action: str, reason: str) -> None:
        """Says what became of it."""
        self.action, self.reason = action, reason

    def as_dict(self) -> dict[str, Any]:
        """The entry of the module's `images`."""
        image = self.image
        return {
            "name": self.name,
            "id": image.id if image else "",
            "digest": _digest(image) if image else "",
            "action": self.action,
            "reason": self.reason,
            "bytes": self.bytes,
            "containers": [one.as_dict() for one in self.containers],
        }


def _digest(image: Image) -> str:
    return image.digests[0].rpartition("@")[2] if image.digests else ""


@dataclass
class Job:
    """What is to be done about one image: containers go first, then names, in this order.

    `goes`: whether the image itself goes with its last name.
    """

    image: Image
    entries: list[Entry]
    containers: list[Container]
    goes: bool

    @property
    def last(self) -> Entry:
        """The entry that takes the last name, or the image itself."""
        return self.entries[-1]


@dataclass
class Removal:
    """The plan: one entry per text, in the user's order, and jobs in the order to do them."""

    entries: list[Entry]
    jobs: list[Job]


@dataclass(frozen=True)
class Rules:
    """What may go. `in_use`: one of IN_USE.

    `force`: an image that is asked for by ID may have several names. `prune`: nameless images that
    one was built upon go with it.
    """

    store: str
    in_use: str = FAIL
    force: bool = False
    prune: bool = True


def plan(texts: Sequence[str], images: Sequence[Image], rules: Rules) -> Removal:
    """Names less what has to stay. `images`: all of the Engine, nameless ones included."""
    return _planned([_resolve(text, images) for text in dict.fromkeys(texts)], images, rules)


def whole(gone: Iterable[Image], images: Sequence[Image], rules: Rules) -> Removal:
    """As `plan`, of images as a whole, with all their names where the rules say so."""
    return _planned([Entry(image.name, image) for image in gone], images, rules)


def _planned(entries: list[Entry], images: Sequence[Image], rules: Rules) -> Removal:
    todo = _once([entry for entry in entries if entry.image is not None and not entry.reason])
    below = {image.id: image for image in images}
    asked: dict[str, list[Entry]] = {}
    for entry in todo:
        asked.setdefault(entry.image.id if entry.image else "", []).append(entry)
    # What was built upon another goes first; else the order of the list.
    order = sorted((below[id_] for id_ in asked), key=lambda image: -_depth(image, below))
    jobs, gone = [], set[str]()
    for image in order:
        job = _job(image, asked[image.id], gone, rules)
        if job is not None:
            jobs.append(job)
            if job.goes:
                gone.add(image.id)
                gone |= pruned(image, below, gone) if rules.prune else set()
    return Removal(entries, jobs)


def _resolve(text: str, images: Sequence[Image]) -> Entry:
    """The image that a text means; an entry with a reason is settled."""
    entry = Entry(text)
    try:
        wanted = _inventory.wanted(text, globs=False)
    except InvalidReference as error:
        entry.end("failed", str(error))
        return entry
    found = [image for image in images if wanted.exact(image)]
    if found and wanted.reference and wanted.reference.tag:
        entry.reference = wanted.reference.tagged
    found = found or [image for image in images if wanted.identified(image)]
    if len(found) > 1:
        ids = ", ".join(image.id for image in found)
        entry.end("failed", f"{text}: one image was wanted, {ids} fit; write more digits")
    elif found:
        entry.image = found[0]
    else:
        entry.reason = _absence(wanted, images)
    return entry


def _once(entries: Sequence[Entry]) -> list[Entry]:
    """Each image and each of its names once; what means the same again is settled."""
    first: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        same = first.setdefault((entry.image.id if entry.image else "", entry.reference), entry)
        if same is not entry:
            entry.reason = f"the same as {same.name}"
    return list(first.values())


def _absence(wanted: Wanted, images: Sequence[Image]) -> str:
    reference = wanted.reference
    if reference and reference.tag and reference.digest:
        for image in images:
            if reference.tagged in image.references:
                return f"{reference.tagged} is {image.id}, not {reference.digest}"
    return f"the Engine has no image {wanted.text}"


def _depth(image: Image, below: Mapping[str, Image]) -> int:
    depth, seen = 0, {image.id}
    while image.parent in below and image.parent not in seen:
        image, depth = below[image.parent], depth + 1
        seen.add(image.id)
    return depth


def names(image: Image) -> list[str]:
    """The names that keep an image: its tags, and digests of repositories without a tag.

    The Engine drops the digests of a repository with its last tag.
    """
    tagged = {parse(one).name for one in image.references}
    return [*image.references, *(one for one in image.digests if parse(one).name not in tagged)]


def _job(image: Image, own: Sequence[Entry], gone: Collection[str], rules: Rules) -> Job | None:
    """The job of one image; None where nothing of it may be touched, and its entries say why."""
    known = names(image)
    taken = [entry.reference for entry in own if entry.reference]
    left = [name for name in known if name not in taken]
    built = [one for one in image.children if one not in gone]
    for entry in own:
        if entry.reference:
            continue
        if len(left) > 1 and not rules.force:
            entry.end("failed", f"{entry.name} has the names {', '.join(left)}; {_FORCE}")
        elif built and rules.store == CLASSIC:
            entry.end("failed", f"{entry.name}: {_built(built)}; remove what is built upon it")
    todo = [entry for entry in own if not entry.reason]
    # A name that is asked for beside the image itself goes first.
    todo.sort(key=lambda entry: not entry.reference)
    whole = bool(todo) and not todo[-1].reference
    nameless = whole or not left
    users = list(image.containers) if nameless else []
    if not todo or not _may(todo, users, rules.in_use):
        return None
    # A containerd store keeps nothing of a parent for what was built upon it.
    job = Job(image, todo, users, whole or not (left or built))
    foretell(job, left, built)
    return job


_FORCE = "give these, or set force to remove it with all of them"


def _built(children: Sequence[str]) -> str:
    return f"{', '.join(children)} {'is' if len(children) == 1 else 'are'} built upon it"


def _may(todo: Sequence[Entry], users: Sequence[Container], in_use: str) -> bool:
    """Whether the containers that use an image may be removed; its entries say why not."""
    blocking = users
    if in_use == REMOVE_CONTAINERS:
        blocking = []
    elif in_use == REMOVE_STOPPED:
        blocking = [one for one in users if one.running]
    if not blocking:
        return True
    held = f"used by {told(users)}"
    for entry in todo:
        if in_use == SKIP:
            entry.end("kept", held)
        else:
            entry.end("failed", f"{entry.name} is {held}; {_NEXT[in_use]}")
    return False


_NEXT = {
    FAIL: "remove these containers, or set in_use",
    REMOVE_STOPPED: "stop what runs, or set in_use to remove_containers",
}


def told(users: Iterable[Container]) -> str:
    """Containers in words, whether they run as well."""
    texts = [
        f"{one.name or one.id[:12]} ({'running' if one.running else 'not running'}, {one.state})"
        if one.state != "running"
        else f"{one.name or one.id[:12]} (running)"
        for one in users
    ]
    return f"the container{'s' if len(texts) > 1 else ''} {', '.join(texts)}"


def foretell(job: Job, left: Sequence[str], built: Sequence[str]) -> None:
    """Writes into the job's entries what will become of them; nobody has proved bytes yet."""
    for entry in job.entries:
        entry.end("untagged", "the image has other names")
    if job.goes:
        job.last.end("removed", "no container uses it")
        job.last.bytes = None
    elif built:
        job.last.reason = f"the image stays without a name: {_built(built)}"
    elif left:
        job.last.reason = f"the image stays as {', '.join(left)}"
    if job.containers:
        job.last.containers = list(job.containers)
        job.last.reason += f", once {told(job.containers)} is removed"


def pruned(image: Image, below: Mapping[str, Image], gone: Collection[str]) -> set[str]:
    """The IDs of the nameless images below one that goes, as far as they go with it.

    `below`: all images by ID. `gone`: the IDs that are gone by then.
    """
    found: set[str] = set()
    while image.parent in below and image.parent not in found:
        image = below[image.parent]
        kept = [one for one in image.children if one not in gone and one not in found]
        if names(image) or kept or image.containers:
            break
        found.add(image.id)
    return found


def released(deleted: Collection[str], diff_ids: Sequence[str], sizes: Sequence[int]) -> int:
    """Bytes of an image's layers that a classic store released, as far as that is proved.

    `deleted`: what the answer of DELETE names, the chain IDs of released layers among it. `sizes`:
    of the steps in the image's history (GET /images/<id>/history), newest first. A step of 0 bytes
    may be a layer or none. So if some layers stay, and fewer sizes than layers are known, only the
    sizes count that cannot belong to a layer that stays; otherwise the sum is exact.
    """
    stay = sum(chain not in deleted for chain in chain_ids(diff_ids))
    known = [size for size in sizes if size > 0]
    if not stay:
        return sum(known)
    return sum(known[: max(0, len(known) - stay)])
