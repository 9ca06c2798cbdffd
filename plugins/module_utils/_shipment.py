# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One image of the store on its way into a registry: where it goes, and what goes along."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._documents import stated_platform
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout, LayoutError
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    Lock,
    LockedImage,
    LockError,
)
from ansible_collections.fleet.images.plugins.module_utils._manifest import blob_of
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    ImageSpec,
    InvalidReference,
    Reference,
    parse,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import INDEXES

# Small, since the limit on silence holds for each piece as a whole, on a slow line too.
_PIECE = 64 << 10
# What a damaged or foreign document may raise.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, LayoutError)


@dataclass(frozen=True)
class StoredBlob:
    """A blob of the store, hashed while it is read."""

    layout: Layout
    blob: Blob

    def read(self, offset: int) -> Iterator[bytes]:
        """The content from there on; raises LayoutError where it is not that of the digest."""
        whole = hashlib.sha256()
        left = offset
        try:
            with self.layout.path(self.blob.digest).open("rb") as file:
                while chunk := file.read(min(_PIECE, left) if left else _PIECE):
                    whole.update(chunk)
                    if left:
                        left -= len(chunk)
                    else:
                        yield chunk
        except OSError as error:
            raise LayoutError(
                f"blob {self.blob.digest}: wanted to read it in the store {self.layout.root}, it"
                f" cannot be ({error}); check the store's disk and its owner"
            ) from error
        if f"sha256:{whole.hexdigest()}" != self.blob.digest:
            raise LayoutError(
                f"blob {self.blob.digest}: {self.layout.path(self.blob.digest)} holds other"
                " content; run image_fetch with verify: true, it fetches the blob anew"
            )


@dataclass
class Shipment:
    """One image, from the lock to what became of it.

    `before`: the digest under its tag at the destination, '' for none. `manifests`: what is to be
    put, children first, the one with the tag last. `blobs`: what these name. `bytes`: sent for it,
    or to be sent, each blob counted for one image only. `wrote`: whether the registry was changed.
    """

    image: LockedImage
    to: Reference
    before: str = ""
    manifests: list[Blob] = field(default_factory=list)
    blobs: dict[str, Blob] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0
    attempts: int = 1
    wrote: bool = False
    problems: list[str] = field(default_factory=list)

    def image_manifests(self) -> list[Blob]:
        """The manifests of the lock's platforms, besides the one that the tag names itself."""
        own = self.image.target.digest
        manifests = (one.manifest for one in self.image.platforms.values())
        return [blob for blob in manifests if blob.digest != own]

    def plan(self, layout: Layout, is_there: Callable[[Blob], bool]) -> None:
        """Notes what is to be put. `is_there`: whether the destination has a manifest.

        Raises LayoutError where the store lacks something, RegistryError from `is_there`.
        """
        target = self.image.target
        self._demand(layout)
        manifests = [target]
        if target.media_type in INDEXES:
            children = _children(layout, target)
            lacking = [(blob, entry) for blob, entry in children if not is_there(blob)]
            self._refuse_gaps([one for one in lacking if _parts(layout, one[0]) is None])
            manifests = [*(blob for blob, _entry in lacking), target]
        for blob in manifests:
            if blob.media_type not in INDEXES:
                for part in _parts(layout, blob) or ():
                    self.blobs[part.digest] = part
        self.manifests = list({blob.digest: blob for blob in manifests}.values())

    def _demand(self, layout: Layout) -> None:
        """The store has all that the lock names."""
        blobs = self.image.all_blobs.values()
        lacking = [blob.digest for blob in blobs if not layout.has(blob.digest, blob.size)]
        if lacking:
            raise LayoutError(
                f"{self.image.name}: the store {layout.root} lacks {len(lacking)} of its"
                f" {len(blobs)} blobs, as {lacking[0]}; run image_fetch with this lock first"
            )

    def _refuse_gaps(self, gaps: Sequence[tuple[Blob, Mapping[str, Any]]]) -> None:
        """Registries refuse an index of which they have not all manifests."""
        if not gaps:
            return
        platforms = sorted({stated_platform(entry) for _blob, entry in gaps} - {""})
        others = [blob.digest for blob, entry in gaps if not stated_platform(entry)]
        here = sorted(self.image.platforms)
        steps = []
        if platforms:
            steps.append(f"platforms: [{', '.join(sorted({*here, *platforms}))}]")
        if others:
            steps.append("attestations: true")
        lacking = [*platforms, *([f"{len(others)} attestations or the like"] if others else [])]
        raise LayoutError(
            f"{self.image.name}: a registry takes an index only with all of its manifests, and"
            f" neither the store nor {self.to.registry} has those of {', '.join(lacking)}; run"
            f" image_fetch with {' and '.join(steps)} first"
        )

    def held(self) -> dict[str, Blob]:
        """The blobs that the destination has, since it has the manifests that name them."""
        put = {blob.digest for blob in self.manifests}
        images = [one for one in self.image.platforms.values() if one.manifest.digest not in put]
        return {blob.digest: blob for one in images for blob in (one.config, *one.layers)}

    @property
    def action(self) -> str:
        """`failed`, `pushed` (in a dry run: would be) or `none`."""
        if self.problems:
            return "failed"
        return "pushed" if self.manifests else "none"

    @property
    def reason(self) -> str:
        """Why this action."""
        if self.problems:
            return "; ".join(dict.fromkeys(self.problems))
        if not self.manifests:
            return "at the destination"
        if not self.before:
            return "not at the destination"
        if self.before == self.image.target.digest:
            return "not whole at the destination"
        return f"the destination has this name with {self.before}"

    def note(self, problem: str, seconds: float, attempts: int) -> None:
        """Adds what a piece of work for it took, and what failed ('' for nothing)."""
        self.seconds += seconds
        self.attempts += attempts
        if problem:
            own = problem.startswith((self.image.name, self.to.name))
            self.problems.append(problem if own else f"{self.image.name}: {problem}")

    def as_result(self) -> dict[str, Any]:
        """The image's entry in the module's result."""
        platforms = sorted(self.image.platforms.items())
        return {
            "name": self.image.name,
            "to": str(self.to),
            "id": platforms[0][1].config.digest if platforms else "",
            "digest": self.image.target.digest,
            "action": self.action,
            "reason": self.reason,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "attempts": self.attempts,
        }


def shipments(lock: Lock, specs: Sequence[ImageSpec], prefix: str | None) -> list[Shipment]:
    """One for each image. `prefix`: a registry, perhaps with a path; None for the images' `as`.

    `specs`: the images that are chosen, all of the lock where there are none. Raises LockError for
    one that the lock lacks and where there is nothing to push, InvalidReference.
    """
    chosen = specs or [ImageSpec(parse(name)) for name in lock]
    if not chosen:
        raise LockError("no image is wanted: there are no images, and no lock that has any")
    found = []
    for spec in chosen:
        if spec.key not in lock:
            raise LockError(f"{spec.key} is not in the lock; run image_fetch with this image")
        image = lock[spec.key]
        image = replace(image, as_=spec.as_ or image.as_)
        found.append(Shipment(image, _destination(image, prefix)))
    return found


def refuse_conflicts(found: Sequence[Shipment]) -> None:
    """Two images cannot have one tag: both fail, and nothing of them is sent."""
    names: dict[str, set[str]] = {}
    for one in found:
        names.setdefault(str(one.to), set()).add(one.image.target.digest)
    for one in found:
        if one.to.tag and len(names[str(one.to)]) > 1:
            one.problems.append(
                f"{one.image.name}: other images are to be pushed to {one.to} as well; give each a"
                " name of its own with as"
            )


def check_prefix(text: str) -> str:
    """A registry, perhaps with a path behind it; raises InvalidReference."""
    prefix = text.strip().rstrip("/")
    host = prefix.partition("/")[0]
    try:
        reference = parse(f"{prefix}/image")
    except InvalidReference:
        reference = None
    if reference is None or reference.registry != host:
        raise InvalidReference(
            f"to: {text!r} is no registry; wanted host or host:port, perhaps with a path, as"
            " harbor.example:443/mirror"
        )
    return prefix


def _destination(image: LockedImage, prefix: str | None) -> Reference:
    name = image.destination
    if prefix is None:
        if image.as_ is None:
            raise InvalidReference(
                f"{image.name}: wanted a destination, there is none; give to, or as for this image"
            )
        to = name
    else:
        host, _slash, path = prefix.partition("/")
        to = Reference(host, f"{path}/{name.repository}" if path else name.repository, name.tag)
    digest = None if to.tag else image.target.digest
    return Reference(to.registry, to.repository, to.tag, digest)


def _children(layout: Layout, index: Blob) -> list[tuple[Blob, Mapping[str, Any]]]:
    """The manifests that an index of the store names, with its entries about them."""
    try:
        entries = json.loads(layout.read(index.digest))["manifests"]
        return [(blob_of(entry), entry) for entry in entries]
    except LayoutError:
        raise
    except _UNREADABLE as error:
        raise LayoutError(
            f"blob {index.digest}: wanted an index, it cannot be read as one ({error}); fetch the"
            " image anew"
        ) from error


def _parts(layout: Layout, manifest: Blob) -> list[Blob] | None:
    """Config and layers of a manifest of the store; None where the store has not all of them."""
    if not layout.has(manifest.digest, manifest.size):
        return None
    try:
        document = json.loads(layout.read(manifest.digest))
        parts = [blob_of(document["config"]), *map(blob_of, document["layers"])]
    except _UNREADABLE:
        return None
    return parts if all(layout.has(blob.digest, blob.size) for blob in parts) else None
