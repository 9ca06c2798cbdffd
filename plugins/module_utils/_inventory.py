# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The images of one Engine and who uses them, in one form for all Engines. Pure: no I/O.

The readers take the Engine API's own JSON (GET /images/json, GET /containers/json), whatever the
Engine's age and image store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC, CONTAINERD
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    Reference,
    parse,
    platform_of,
    runnable,
)

Json = Mapping[str, Any]

# States in which a container has a process, as `State.Running` of its inspection says so.
_RUNNING = ("running", "paused", "restarting")
# Docker prints 12 digits of an ID; fewer could be a word.
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})\Z")
_GLOB = re.compile(r"[*?\[]")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)\Z")
_NO_YEAR = 1  # how Go spells a time that was never set


@dataclass(frozen=True)
class Container:
    """A container, and the ID of the image that it uses."""

    id: str
    name: str
    state: str
    image_id: str

    @property
    def running(self) -> bool:
        """Whether it has a process; a paused one has."""
        return self.state in _RUNNING

    def as_dict(self) -> dict[str, Any]:
        """The container as modules return it."""
        return {"id": self.id, "name": self.name, "state": self.state, "running": self.running}

    def __str__(self) -> str:
        return f"{self.name or self.id[:12]} ({self.state})"


@dataclass(frozen=True)
class Image:
    """An image as the Engine lists it.

    `references` and `digests` are fully spelled. `platforms` is None where the list does not tell.
    `shared`: bytes of unpacked layers that other images use too, None where that is not told.
    `size` in bytes: unpacked layers on the classic store, these and the blobs on containerd.
    `store`: the kind of the Engine's image store, since names keep an image in two ways.
    """

    id: str
    references: tuple[str, ...]
    digests: tuple[str, ...]
    parent: str
    created: str | None
    size: int
    shared: int | None
    labels: Mapping[str, str]
    platforms: tuple[str, ...] | None
    containers: tuple[Container, ...] = ()
    children: tuple[str, ...] = field(default=())
    store: str = CLASSIC

    @property
    def dangling(self) -> bool:
        """Whether `docker image prune` takes it, were no container using it.

        On the classic store: it has no tag, and no image is built upon it; a digest keeps nothing
        there. On containerd: it has no name at all; a name by digest is one
        (daemon/images/image_prune.go and daemon/containerd/image_prune.go of moby).
        """
        if self.store == CONTAINERD:
            return not (self.references or self.digests)
        return not (self.references or self.children)

    @property
    def name(self) -> str:
        """Its first reference, else its first digest, else its ID."""
        return (*self.references, *self.digests, self.id)[0]


def best(platforms: Sequence[str] | None, machine: str) -> str | None:
    """The platform that a machine of platform `machine` runs, else the first; None for none."""
    there = platforms or ()
    runs = [one for one in runnable(machine) if one in there]
    return (*runs, *there, None)[0]


def read(store: str, images: Sequence[Json], containers: Iterable[Json]) -> list[Image]:
    """The images of an Engine with this store, sorted by name.

    `images`: GET /images/json, `containers`: GET /containers/json?all=1.
    """
    users: dict[str, list[Container]] = {}
    for one in map(_container, containers):
        users.setdefault(one.image_id, []).append(one)
    children: dict[str, list[str]] = {}
    for entry in images:
        children.setdefault(entry.get("ParentId") or "", []).append(entry["Id"])
    found = [
        _image(store, entry, users.get(entry["Id"], ()), children.get(entry["Id"], ()))
        for entry in images
    ]
    return sorted(found, key=lambda image: (not image.references, image.name, image.id))


def _container(entry: Json) -> Container:
    # A container has a name for each link to it besides its own: `/web/db`.
    names = sorted(entry.get("Names") or [""], key=lambda name: name.count("/"))
    state = str(entry.get("State") or "")
    return Container(str(entry["Id"]), names[0].lstrip("/"), state, str(entry.get("ImageID") or ""))


def _image(store: str, entry: Json, users: Sequence[Container], children: Sequence[str]) -> Image:
    tags, digests = _names(entry.get("RepoTags")), _names(entry.get("RepoDigests"))
    # A containerd store lists a reference by digest among the tags, and names a digest for one of
    # the repositories only; there, each tag's digest is the image's ID.
    pinned = [one for one in tags if one.digest]
    tags = [one for one in tags if not one.digest]
    if store == CONTAINERD:
        digests += pinned + [Reference(one.registry, one.repository) for one in tags]
        digests = [one.pinned(one.digest or entry["Id"]) for one in digests]
    shared = entry.get("SharedSize", -1)
    return Image(
        id=entry["Id"],
        references=tuple(sorted(map(str, set(tags)))),
        digests=tuple(sorted(map(str, set(digests)))),
        parent=entry.get("ParentId") or "",
        created=_of_epoch(entry.get("Created")),
        size=int(entry.get("Size") or 0),
        shared=shared if shared >= 0 else None,
        labels=dict(entry.get("Labels") or {}),
        platforms=_platforms(entry),
        containers=tuple(sorted(users, key=lambda one: one.name)),
        children=tuple(children),
        store=store,
    )


def tags(inspection: Json) -> set[str]:
    """The references with tags of an image's inspection (GET /images/<id>/json), fully spelled."""
    return {str(one) for one in _names(inspection.get("RepoTags")) if not one.digest}


def _names(texts: Sequence[str] | None) -> list[Reference]:
    """What a list of names holds; Engine 20.10 lists `<none>:<none>` where there is none."""
    names = []
    for text in texts or ():
        try:
            names.append(parse(text))
        except InvalidReference:
            continue
    return names


def _platforms(entry: Json) -> tuple[str, ...] | None:
    """The platforms that are there whole, of an Engine that lists manifests."""
    if entry.get("Manifests") is None:
        return None
    found = [
        platform_of((one.get("ImageData") or {}).get("Platform") or {})
        for one in entry["Manifests"]
        if one.get("Kind") == "image" and one.get("Available")
    ]
    return tuple(dict.fromkeys(one for one in found if one))


def _of_epoch(seconds: Any) -> str | None:
    """ISO 8601 of seconds since 1970; None for the time that was never set (the year 1)."""
    if not isinstance(seconds, int) or seconds < 0:
        return None
    return _iso(datetime.fromtimestamp(seconds, timezone.utc))


def moment(text: str | None) -> str | None:
    """A time of the Engine in ISO 8601, UTC, in seconds; None where it was never set."""
    found = _TIME.match(text or "")
    if not found:
        return None
    zone = "+00:00" if found[2] == "Z" else found[2]
    when = datetime.fromisoformat(f"{found[1]}{zone}")
    return None if when.year == _NO_YEAR else _iso(when.astimezone(timezone.utc))


def _iso(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def unique(store: str, size: int, shared: int | None) -> int | None:
    """Bytes that only one image uses, of its size and its shared bytes; None where no API tells.

    On the classic store an image is its unpacked layers. On containerd it is blobs as well, and
    which of these are shared is told nowhere.
    """
    return size - shared if store == CLASSIC and shared is not None else None


@dataclass(frozen=True)
class Wanted:
    """What a user's text asks for: a reference, the first digits of an ID, or a glob.

    `any_tag`: the text has neither tag nor digest. A text of 12 to 63 hex digits may be a
    reference or an ID; as with Docker, a reference that is there comes first.
    """

    text: str
    reference: Reference | None = None
    digits: str = ""
    any_tag: bool = False

    def named(self, image: Image) -> bool:
        """Whether the reference, of any tag where the text has none, or the glob names it."""
        if self.reference is None:
            return not self.digits and _globbed(self.text, image)
        if not self.any_tag:
            return self.exact(image)
        name = self.reference.name
        return name in {parse(one).name for one in (*image.references, *image.digests)}

    def exact(self, image: Image) -> bool:
        """Whether the reference, `latest` where the text has no tag, names it."""
        wanted = self.reference
        if wanted is None:
            return False
        if wanted.tag is not None and wanted.tagged not in image.references:
            return False
        if wanted.digest is None or f"{wanted.name}@{wanted.digest}" in image.digests:
            return True
        # A classic store knows no other digest of what was loaded.
        return wanted.tag is not None and wanted.digest == image.id

    def identified(self, image: Image) -> bool:
        """Whether its ID begins with the digits, or these are the whole of one of its digests."""
        if not self.digits:
            return False
        begins = image.id.partition(":")[2].startswith(self.digits)
        return begins or any(one.endswith(f"@sha256:{self.digits}") for one in image.digests)


def wanted(text: str, globs: bool = True) -> Wanted:
    """What a user's text asks for; raises InvalidReference where it can be nothing of it."""
    text = text.strip()
    found = _ID.match(text)
    digits = found[1] if found else ""
    if len(digits) == 64 or text.startswith("sha256:"):
        if not digits:
            raise InvalidReference(f"{text!r} is no ID; wanted an ID of 12 to 64 hex digits")
        return Wanted(text, digits=digits)
    try:
        reference = parse(text)
    except InvalidReference as error:
        if globs and _GLOB.search(text):
            return Wanted(text)
        raise InvalidReference(f"{error}, or an ID of 12 to 64 hex digits") from error
    bare = "@" not in text and ":" not in text.rpartition("/")[2]
    return Wanted(text, reference, digits, any_tag=bare)


def select(asked: Sequence[Wanted], images: Sequence[Image]) -> tuple[list[Image], list[str]]:
    """The images that any of the texts asks for, each once, and the texts that found none."""
    chosen: dict[str, Image] = {}
    missing = []
    for one in asked:
        found = [image for image in images if one.named(image)]
        found = found or [image for image in images if one.identified(image)]
        chosen.update((image.id, image) for image in found)
        if not found:
            missing.append(one.text)
    return [image for image in images if image.id in chosen], missing


def _globbed(pattern: str, image: Image) -> bool:
    """Whether a glob names it, in full or as Docker prints it, with or without tag or digest."""
    texts = spellings((*image.references, *image.digests))
    return any(fnmatchcase(text, pattern) for text in texts)


def spellings(names: Iterable[str]) -> set[str]:
    """What a glob may name of these references: in full and as Docker prints them, with and
    without tag or digest."""
    texts = set()
    for one in map(parse, names):
        bare = Reference(one.registry, one.repository)
        texts |= {str(one), one.familiar, bare.name, bare.familiar}
    return texts
