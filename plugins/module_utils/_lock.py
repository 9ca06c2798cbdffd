# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock: the wanted images, resolved to digests. Pure: no I/O.

A lock is a JSON object that the standard library reads anywhere:

    {"version": 1, "images": {"docker.io/library/nginx:1.27": {
        "digest": "sha256:…", "media_type": "application/vnd.oci.image.index.v1+json",
        "size": 1609, "as": "site.example/nginx:1.27",
        "platforms": {"linux/amd64": {
            "manifest": {"digest": "sha256:…", "media_type": "…", "size": 1234},
            "config": {"digest": "sha256:…", "media_type": "…", "size": 5678},
            "layers": [{"digest": "sha256:…", "media_type": "…", "size": 9, "diff_id": "sha256:…"}],
            "attestations": [{"digest": "sha256:…", "media_type": "…", "size": 842}]
    }}}}}

`attestations` are there where they were asked for: all blobs of them, manifests included.
`digest` is what the tag named: an index, or the one manifest itself. Sizes are bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._reference import (
    Reference,
    check_digest,
    parse,
    parse_platform,
    runnable,
)

VERSION = 1


class LockError(ValueError):
    """A lock that cannot be used; the message names the image and what was wanted."""


@dataclass(frozen=True)
class Blob:
    """A descriptor: what a registry or a layout keeps under a digest. `size` in bytes."""

    digest: str
    size: int
    media_type: str

    def as_dict(self) -> dict[str, Any]:
        """The descriptor as a lock keeps it."""
        return {"digest": self.digest, "size": self.size, "media_type": self.media_type}


@dataclass(frozen=True)
class Layer(Blob):
    """A layer's blob with its diff ID, the digest of the uncompressed tar."""

    diff_id: str

    def as_dict(self) -> dict[str, Any]:
        """The layer as a lock keeps it."""
        return {**super().as_dict(), "diff_id": self.diff_id}


@dataclass(frozen=True)
class PlatformImage:
    """What one platform's image is made of.

    `attestations`: the blobs of what the index has about it (provenance, SBOM), where they were
    wanted: manifests, their configs and their layers.
    """

    platform: str
    manifest: Blob
    config: Blob
    layers: tuple[Layer, ...]
    attestations: tuple[Blob, ...] = ()

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The layers' diff IDs, lowest first, as in the config's `rootfs.diff_ids`."""
        return tuple(layer.diff_id for layer in self.layers)


@dataclass(frozen=True)
class LockedImage:
    """One image of a lock."""

    name: str
    target: Blob
    platforms: Mapping[str, PlatformImage]
    as_: Reference | None = None

    @property
    def destination(self) -> Reference:
        """The name that the image gets on a host."""
        return self.as_ or parse(self.name)

    @property
    def is_index(self) -> bool:
        """Whether the tag names an index of several platforms."""
        return all(image.manifest.digest != self.target.digest for image in self.platforms.values())

    def runs_on(self, platform: str) -> bool:
        """Whether the lock has an image that a machine of this platform runs."""
        return any(one in self.platforms for one in runnable(platform))

    def on(self, platform: str) -> PlatformImage:
        """The best image for a machine of this platform; raises LockError where there is none."""
        found = next((one for one in runnable(platform) if one in self.platforms), None)
        if found is None:
            there = ", ".join(sorted(self.platforms)) or "no platform"
            raise LockError(
                f"{self.name}: wanted for {platform}, the lock has {there}; fetch it with"
                f" platforms: [{platform}]"
            )
        return self.platforms[found]

    def blobs(self, platform: str) -> list[Blob]:
        """Every blob that the platform's image needs, each once: index, manifest, config, layers.

        An index stands in the list although a classic Engine keeps none: archives carry it.
        """
        image = self.on(platform)
        wanted: tuple[Blob, ...] = (self.target, image.manifest, image.config, *image.layers)
        return list({blob.digest: blob for blob in wanted}.values())

    @property
    def all_blobs(self) -> dict[str, Blob]:
        """Every blob of every platform, by digest, attestations included."""
        found = [self.target]
        for image in self.platforms.values():
            found += [image.manifest, image.config, *image.layers, *image.attestations]
        return {blob.digest: blob for blob in found}

    def as_dict(self) -> dict[str, Any]:
        """The image as a lock keeps it."""
        entry: dict[str, Any] = {**self.target.as_dict(), "platforms": {}}
        if self.as_:
            entry["as"] = str(self.as_)
        for platform, image in sorted(self.platforms.items()):
            entry["platforms"][platform] = {
                "manifest": image.manifest.as_dict(),
                "config": image.config.as_dict(),
                "layers": [layer.as_dict() for layer in image.layers],
            }
            if image.attestations:
                attestations = [blob.as_dict() for blob in image.attestations]
                entry["platforms"][platform]["attestations"] = attestations
        return entry


Lock = Mapping[str, LockedImage]


def load(document: Any) -> dict[str, LockedImage]:
    """A lock's content, checked; raises LockError for anything that is not a lock."""
    if not isinstance(document, Mapping):
        raise LockError("the lock: wanted a JSON object; make it anew with image_fetch")
    if document.get("version") != VERSION or not isinstance(document.get("images"), Mapping):
        raise LockError(
            f"the lock: wanted version {VERSION} with images, found version"
            f" {document.get('version')!r}; make it anew with image_fetch"
        )
    images = {}
    for name, entry in document["images"].items():
        try:
            images[name] = _load_image(name, entry)
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise LockError(
                f"the lock: its entry for {name} is not whole ({type(error).__name__}: {error});"
                " make it anew with image_fetch"
            ) from error
    return images


def loads(text: str | bytes) -> dict[str, LockedImage]:
    """A lock from its JSON text; raises LockError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LockError(f"the lock is no JSON: {error}; make it anew with image_fetch") from error
    return load(document)


def dump(lock: Lock) -> dict[str, Any]:
    """The lock as plain values, in one order, so that equal locks are equal texts."""
    return {
        "version": VERSION,
        "images": {name: image.as_dict() for name, image in sorted(lock.items())},
    }


def dumps(lock: Lock) -> str:
    """The lock's JSON text, ready for git: sorted, indented, with a newline at its end."""
    return json.dumps(dump(lock), indent=2, sort_keys=True) + "\n"


def select(lock: Lock, names: Iterable[str]) -> dict[str, LockedImage]:
    """The named images of a lock; raises LockError for a name that it lacks."""
    chosen = {}
    for name in names:
        if name not in lock:
            raise LockError(f"{name} is not in the lock; run image_fetch with update: true")
        chosen[name] = lock[name]
    return chosen


def merge(former: Lock, lock: Lock) -> dict[str, LockedImage]:
    """The former lock with these images in it; its other images stay.

    Of an image whose digest is the same, its other platforms stay as well: other hosts want them.
    """
    merged = {**former, **lock}
    for name, image in lock.items():
        known = former.get(name)
        if known and known.target.digest == image.target.digest:
            platforms = {**known.platforms, **image.platforms}
            merged[name] = replace(image, platforms=platforms)
    return merged


def _load_image(name: str, entry: Mapping[str, Any]) -> LockedImage:
    parse(name)
    platforms = {}
    for text, image in entry["platforms"].items():
        platform = parse_platform(text)
        platforms[platform] = PlatformImage(
            platform,
            _load_blob(image["manifest"]),
            _load_blob(image["config"]),
            tuple(_load_layers(image["layers"])),
            tuple(_load_blob(blob) for blob in image.get("attestations") or ()),
        )
    as_ = parse(entry["as"]) if entry.get("as") else None
    return LockedImage(name, _load_blob(entry), platforms, as_)


def _load_blob(entry: Mapping[str, Any]) -> Blob:
    size = int(entry["size"])
    if size < 0:
        raise ValueError(f"{size} bytes")
    return Blob(check_digest(entry["digest"]), size, str(entry["media_type"]))


def _load_layers(entries: Sequence[Mapping[str, Any]]) -> Iterable[Layer]:
    for entry in entries:
        blob = _load_blob(entry)
        yield Layer(blob.digest, blob.size, blob.media_type, check_digest(entry["diff_id"]))
