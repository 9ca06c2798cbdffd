# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one Engine holds, and the plan: lock less holdings. Pure: no I/O.

The readers take the Engine API's own JSON (GET /images/json, GET /images/<id>/json), so that
every rule about the two image stores stands here and can be tested without an Engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    Lock,
    LockedImage,
    LockError,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    parse,
    platform_of,
    runnable,
)

CLASSIC = "classic"
CONTAINERD = "containerd"

Json = Mapping[str, Any]
_BLOCK = 512  # of a tar


@dataclass(frozen=True)
class Holdings:
    """What an Engine has.

    `tags`: full reference -> image ID. `ids`: every image, whole or not. `whole`: IDs that can run
    on `platform`. `layers`: chain IDs on the classic store, blob digests on the containerd store.
    """

    store: str
    platform: str
    tags: Mapping[str, str] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()

    def identity(self, image: LockedImage) -> str:
        """The ID under which this Engine lists the image; raises LockError.

        The config's digest on the classic store, the index's or manifest's on containerd.
        """
        config = image.on(self.platform).config.digest
        return config if self.store == CLASSIC else image.target.digest

    def lacking(self, image: LockedImage) -> list[Blob]:
        """The blobs that a bundle must bring for the image to load; none where it is whole.

        Its metadata (index, manifest, config) always travels: some kB, and every Engine wants it.
        """
        if self.identity(image) in self.whole:
            return []
        wanted = image.on(self.platform)
        held = self._held_layers(image)
        metadata = (image.target, wanted.manifest, wanted.config)
        lacking = [*metadata, *(layer for layer in wanted.layers if layer.digest not in held)]
        if self.store == CONTAINERD:
            lacking += wanted.attestations  # A classic store has no place for them.
        return list({blob.digest: blob for blob in lacking}.values())

    def _held_layers(self, image: LockedImage) -> set[str]:
        """Digests of the layers that may be left out of a bundle for this Engine.

        The classic store looks layers up by chain ID, so only a prefix counts, whatever the
        compression; a blob that also stands above the prefix has to come along.
        """
        layers = image.on(self.platform).layers
        if self.store == CONTAINERD:
            return {layer.digest for layer in layers if layer.digest in self.layers}
        chains = chain_ids([layer.diff_id for layer in layers])
        prefix = 0
        while prefix < len(chains) and chains[prefix] in self.layers:
            prefix += 1
        above = {layer.digest for layer in layers[prefix:]}
        return {layer.digest for layer in layers[:prefix]} - above


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain ID of each layer, lowest first.

    c1 = d1, cn = sha256(cn-1 + " " + dn), over the text of the digests
    (https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid).
    """
    chains: list[str] = []
    for diff_id in diff_ids:
        if chains:
            text = f"{chains[-1]} {diff_id}".encode()
            chains.append(f"sha256:{hashlib.sha256(text).hexdigest()}")
        else:
            chains.append(diff_id)
    return chains


def read_classic(platform: str, images: Sequence[Json], inspected: Iterable[Json]) -> Holdings:
    """Holdings of a classic store.

    `images`: GET /images/json?all=1. `inspected`: GET /images/<id>/json of each.
    """
    layers: set[str] = set()
    for image in inspected:
        layers.update(chain_ids((image.get("RootFS") or {}).get("Layers") or []))
    ids = frozenset(image["Id"] for image in images)
    return Holdings(CLASSIC, platform, _tags(images), ids, ids, frozenset(layers))


def read_containerd(platform: str, images: Sequence[Json], known: Sequence[Json]) -> Holdings:
    """Holdings of a containerd store whose API tells of manifests (1.47 and newer).

    `images`: GET /images/json?manifests=1&all=1. `known`: the bastion's blob lists, dicts of
    `digest`, `indexes`, `platform`, `blobs`. `Available` says that manifest, config and all
    layers are in the content store; an image also has to be unpacked to be whole.
    """
    whole, available = set(), set()
    for image in images:
        for manifest in image.get("Manifests") or []:
            if manifest.get("Kind") != "image" or not manifest.get("Available"):
                continue
            available.add(manifest["ID"])
            data = manifest.get("ImageData") or {}
            unpacked = (data.get("Size") or {}).get("Unpacked") or 0
            if unpacked > 0 and platform_of(data.get("Platform") or {}) in runnable(platform):
                whole.add(image["Id"])
    layers = _blobs_of(available, known)
    ids = frozenset(image["Id"] for image in images)
    return Holdings(CONTAINERD, platform, _tags(images), ids, frozenset(whole), layers)


def read_old_containerd(
    platform: str, images: Sequence[Json], inspected: Mapping[str, Json], known: Sequence[Json]
) -> Holdings:
    """Holdings of a containerd store before API 1.47, which tells of no manifests.

    There an image is whole if the list shows it and its inspection, which tells of the best
    platform that is there, has one that runs. `inspected`: image ID -> GET /images/<id>/json.
    """
    ids = frozenset(image["Id"] for image in images)
    platforms = {id_: inspected_platform(inspected.get(id_)) for id_ in ids}
    whole = frozenset(id_ for id_ in ids if platforms[id_] in runnable(platform))
    held = {
        entry["digest"]
        for entry in known
        for id_ in whole & {entry["digest"], *entry["indexes"]}
        if platforms[id_] == entry["platform"]
    }
    return Holdings(CONTAINERD, platform, _tags(images), ids, whole, _blobs_of(held, known))


def inspected_platform(inspection: Json | None) -> str:
    """The platform that an image's inspection (GET /images/<id>/json) tells; '' for none."""
    inspection = inspection or {}
    keys = {"os": "Os", "architecture": "Architecture", "variant": "Variant"}
    try:
        return platform_of({key: inspection.get(name) for key, name in keys.items()})
    except InvalidReference:
        return ""


def _blobs_of(manifests: set[str], known: Sequence[Json]) -> frozenset[str]:
    return frozenset(
        blob for entry in known if entry["digest"] in manifests for blob in entry["blobs"]
    )


def _tags(images: Sequence[Json]) -> dict[str, str]:
    """Full reference -> image ID. Engine 20.10 lists dangling images as `<none>:<none>`."""
    tags = {}
    for image in images:
        for text in image.get("RepoTags") or []:
            try:
                tags[str(parse(text))] = image["Id"]
            except InvalidReference:
                continue
    return tags


@dataclass(frozen=True)
class ImagePlan:
    """What is to be done about one image.

    `state`: present, missing or stale; '' where that cannot be told. `action`: none, tag, load, or
    failed where it cannot be planned.
    """

    image: LockedImage
    identity: str
    state: str
    action: str
    reason: str
    lacking: tuple[Blob, ...] = ()

    @property
    def name(self) -> str:
        """The name that the image gets on the host; one that has no tag as it is spelled."""
        destination = self.image.destination
        return destination.tagged if destination.tag else str(destination)

    @property
    def bytes(self) -> int:
        """Bytes that the image lacks, counted for itself alone."""
        return sum(blob.size for blob in self.lacking)


@dataclass(frozen=True)
class Plan:
    """Lock less holdings, for one Engine."""

    platform: str
    images: tuple[ImagePlan, ...]

    @property
    def todo(self) -> tuple[ImagePlan, ...]:
        """The images that are not as the lock wants them, as far as that can be mended."""
        return tuple(image for image in self.images if image.action in ("tag", "load"))

    @property
    def failed(self) -> tuple[ImagePlan, ...]:
        """The images that cannot be planned for this Engine."""
        return tuple(image for image in self.images if image.action == "failed")

    @property
    def blobs(self) -> dict[str, Blob]:
        """The blobs that are lacking, each once, by digest."""
        return {blob.digest: blob for image in self.todo for blob in image.lacking}

    @property
    def bytes(self) -> int:
        """Bytes of the lacking blobs, shared ones once."""
        return sum(blob.size for blob in self.blobs.values())

    @property
    def plan_id(self) -> str:
        """Equal for Engines that lack the same; '' where nothing is to be done."""
        if not self.todo:
            return ""
        names = sorted((image.image.name, image.image.target.digest) for image in self.todo)
        content = json.dumps([self.platform, names, sorted(self.blobs)])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def plan(lock: Lock, holdings: Holdings) -> Plan:
    """What the Engine lacks of the lock; an image that cannot be planned holds back no other."""
    images = tuple(_try_image(image, holdings) for _name, image in sorted(lock.items()))
    return Plan(holdings.platform, images)


def _try_image(image: LockedImage, holdings: Holdings) -> ImagePlan:
    """The image's plan; a failed one where the lock lacks the platform or the name has no tag."""
    try:
        return _plan_image(image, holdings)
    except (LockError, InvalidReference) as error:
        return ImagePlan(image, "", "", "failed", str(error))


def _plan_image(image: LockedImage, holdings: Holdings) -> ImagePlan:
    identity = holdings.identity(image)
    tag = image.destination.tagged
    there = holdings.tags.get(tag)
    lacking = tuple(holdings.lacking(image))
    if there == identity and not lacking:
        return ImagePlan(image, identity, "present", "none", "the tag names the locked image")
    if there is None:
        state, reason = "missing", f"no image has the tag {tag}"
    elif there != identity:
        state, reason = "stale", f"{tag} is {there}, the lock wants {identity}"
    else:
        state, reason = "missing", f"{tag} is there, its content is not whole"
    if not lacking:
        return ImagePlan(image, identity, state, "tag", f"{reason}; the image itself is there")
    return ImagePlan(image, identity, state, "load", reason, lacking)


def save_bytes(lock: Lock, platform: str) -> int:
    """Bytes of a tar of all the lock's images, whole, shared blobs once.

    The least that a plain `docker save` of the same images weighs: a containerd store saves the
    compressed blobs, a classic one its layers uncompressed. Images for other platforms only do not
    count.
    """
    here = [image for image in lock.values() if image.runs_on(platform)]
    sizes = {blob.digest: blob.size for image in here for blob in image.blobs(platform)}
    if not sizes:
        return 0
    # Each member has a header and fills its last block; the tar's three small files and its end.
    return sum(_BLOCK + size + -size % _BLOCK for size in sizes.values()) + 8 * _BLOCK
