# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be pulled: wanted images less what an Engine has, decided before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _holdings
from ansible_collections.fleet.images.plugins.module_utils._holdings import (
    CONTAINERD,
    Holdings,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage, LockError
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    DEFAULT_TAG,
    ImageSpec,
    InvalidReference,
    Reference,
    parse,
    runnable,
)


@dataclass(frozen=True)
class Want:
    """One image that is wanted.

    `name`: as the list or the lock has it. `source`: what the Engine pulls, with a tag or a digest.
    `destination`: the name that the image gets, without digest. `digest`: '' where whatever the tag
    names is wanted. `platform`: '' for the Engine's own. `locked`: what a lock says of it.
    """

    name: str
    source: Reference
    destination: Reference
    digest: str = ""
    platform: str = ""
    locked: LockedImage | None = None

    @property
    def here(self) -> str:
        """What the Engine lists it under: its tag, or name@digest where it has none."""
        if self.destination.tag:
            return self.destination.tagged
        return f"{self.destination.name}@{self.digest}"

    @property
    def unpredictable(self) -> bool:
        """Whether nothing says which image it is: no digest, and no tag but `latest`."""
        return not self.digest and self.source.tag == DEFAULT_TAG


@dataclass(frozen=True)
class Decision:
    """What is to be done about one image: `action` is none, tag, pull or failed.

    `state`: present, missing or stale. `identity`: the image's ID on this Engine, '' where only
    the pull tells. `bytes` of the blobs that are lacking, None where only the pull tells.
    """

    want: Want
    state: str
    action: str
    reason: str
    identity: str = ""
    bytes: int | None = 0


def wanted(spec: ImageSpec, locked: LockedImage | None, via: str, own: str) -> Want:
    """What a list entry means on a machine of the platform `own`.

    `via`: a registry, or a prefix in one, that serves the images in the place of theirs; '' for
    none. Raises InvalidReference, and LockError where list and lock contradict each other.
    """
    digest = spec.reference.digest or ""
    if locked is not None:
        if digest and digest != locked.target.digest:
            raise LockError(
                f"{spec.key}: wanted {digest}, the lock has {locked.target.digest}; resolve it anew"
                " with image_lock and update: true, or take the digest from the list"
            )
        digest = locked.target.digest
    source = through(spec.reference, via)
    source = replace(source, tag=None, digest=digest) if digest else source
    destination = locked.destination if locked is not None else spec.destination
    platform = "" if locked is not None else _platform(spec, own)
    return Want(spec.key, source, replace(destination, digest=None), digest, platform, locked)


def through(reference: Reference, via: str) -> Reference:
    """The same image behind a prefix such as `mirror.example:5000/hub`; raises InvalidReference."""
    if not via:
        return reference
    prefix = parse(f"{via.rstrip('/')}/{reference.repository}")
    return replace(reference, registry=prefix.registry, repository=prefix.repository)


def _platform(spec: ImageSpec, own: str) -> str:
    """The platform to ask for; '' where the Engine takes its own anyway."""
    if not spec.platforms or set(runnable(own)) & set(spec.platforms):
        return ""
    if len(spec.platforms) > 1:
        raise InvalidReference(
            f"{spec.key}: wanted for {', '.join(spec.platforms)}, this Engine's platform is {own};"
            " name one platform that it is to have"
        )
    return spec.platforms[0]


def decide(want: Want, images: Sequence[Mapping[str, Any]], holdings: Holdings) -> Decision:
    """What is to be done. `images`: GET /images/json; `holdings`: of the platform wanted."""
    if want.locked is not None:
        return _decide_locked(want, want.locked, holdings)
    there = holdings.tags.get(want.here, "") if want.destination.tag else ""
    if not want.digest:
        if there in holdings.whole:
            return Decision(want, "present", "none", "the tag is there", there)
        return _pull(want, there)
    same = having(want.digest, images) & holdings.whole
    if there in same or (not want.destination.tag and want.here in digests(images)):
        identity = there or digests(images)[want.here]
        return Decision(want, "present", "none", "the digest is there", identity)
    if same and want.destination.tag:
        state, reason = _state(want, there)
        return Decision(want, state, "tag", f"{reason}; the digest is there", min(same))
    return _pull(want, there)


def _pull(want: Want, there: str) -> Decision:
    state, reason = _state(want, there)
    return Decision(want, state, "pull", reason, "", None)


def _state(want: Want, there: str) -> tuple[str, str]:
    if not there:
        return "missing", f"no image has the name {want.here}"
    if not want.digest:
        return "missing", f"{want.here} is there, its content is not whole"
    return "stale", f"{want.here} is {there}, wanted is the digest {want.digest}"


def _decide_locked(want: Want, locked: LockedImage, holdings: Holdings) -> Decision:
    plan = _holdings.plan({want.name: locked}, holdings).images[0]
    action = "pull" if plan.action == "load" else plan.action
    return Decision(want, plan.state, action, plan.reason, plan.identity, plan.bytes)


def having(digest: str, images: Iterable[Mapping[str, Any]]) -> set[str]:
    """IDs of the images of which a registry, or the containerd store, knows this digest."""
    found = set()
    for image in images:
        named = {text.rpartition("@")[2] for text in image.get("RepoDigests") or ()}
        if digest in named or digest == image["Id"]:
            found.add(image["Id"])
    return found


def digests(images: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Full `name@digest` -> image ID. Engine 20.10 lists `<none>@<none>`."""
    found = {}
    for image in images:
        for text in image.get("RepoDigests") or ():
            try:
                found[str(parse(text))] = str(image["Id"])
            except InvalidReference:
                continue
    return found


def keeps_digest(want: Want, store: str) -> bool:
    """Whether the pulled `name@digest` stays beside the tag.

    On the classic store it is how the Engine remembers the digest, and goes with the last tag. The
    containerd store knows the digest anyway.
    """
    return want.source.name == want.destination.name and store != CONTAINERD
