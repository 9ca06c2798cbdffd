# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small fake images, whole to the last digest, and stores that hold them."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import settings

from ansible_collections.fleet.images.plugins.module_utils import _bundle, _bundle_files
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    Layer,
    LockedImage,
    PlatformImage,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import parse

# A busy machine is no failure.
settings.register_profile("units", deadline=None)
settings.load_profile("units")

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
INDEX = f"{OCI}index.v1+json"
MANIFEST = f"{OCI}manifest.v1+json"
CONFIG = f"{OCI}config.v1+json"
LAYER = f"{OCI}layer.v1.tar+gzip"
DOCKER_LAYER = f"{DOCKER}image.rootfs.diff.tar.gzip"
AMD64 = "linux/amd64"
ARM64 = "linux/arm64"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest(seed: str) -> str:
    """Some digest, the same for the same seed."""
    return digest_of(seed.encode())


def blob(seed: str, size: int = 10) -> Blob:
    """A descriptor of nothing that exists."""
    return Blob(digest(seed), size, "application/octet-stream")


def layer(seed: str, size: int = 100, compression: int = 0) -> Layer:
    """A descriptor; equal seeds have equal diff IDs, whatever the compression."""
    return Layer(digest(f"{seed} as gzip {compression}"), size, LAYER, digest(f"{seed} as tar"))


def locked(name: str, seeds: Sequence[str], compression: int = 0, index: str = "") -> LockedImage:
    """A locked image that stands in no store; `index` is the seed of an index around it."""
    layers = tuple(layer(seed, compression=compression) for seed in seeds)
    config = blob(f"config of {seeds}", 20)
    manifest = blob(f"manifest of {config.digest} {[one.digest for one in layers]}", 30)
    target = blob(index, 40) if index else manifest
    platforms = {AMD64: PlatformImage(AMD64, manifest, config, layers)}
    return LockedImage(str(parse(name)), target, platforms)


def as_lock(*images: LockedImage) -> dict[str, LockedImage]:
    return {image.name: image for image in images}


def layer_bytes(seed: str, size: int = 600, level: int = 6) -> tuple[bytes, str]:
    """A compressed layer and its diff ID."""
    content = (seed.encode() + b" ") * (size // (len(seed) + 1) + 1)
    return gzip.compress(content, level, mtime=0), digest_of(content)


def to_json(document: Any) -> bytes:
    """As registries serve it: not in the spelling that the collection uses."""
    return json.dumps(document, indent=3).encode()


def descriptor(one: Blob) -> dict[str, Any]:
    return {"mediaType": one.media_type, "digest": one.digest, "size": one.size}


@dataclass
class Store:
    """A layout with images made from seeds."""

    layout: Layout
    docker: bool = False
    level: int = 6
    layer_size: int = 600

    @classmethod
    def at(cls, path: Path) -> Store:
        layout = Layout(path)
        layout.create()
        return cls(layout)

    def put(self, content: bytes, media_type: str) -> Blob:
        return Blob(self.layout.put(content), len(content), media_type)

    def put_layer(self, seed: str) -> Layer:
        content, diff_id = layer_bytes(seed, self.layer_size, self.level)
        one = self.put(content, DOCKER_LAYER if self.docker else LAYER)
        return Layer(one.digest, one.size, one.media_type, diff_id)

    def platform_image(self, seeds: Sequence[str], platform: str = AMD64) -> PlatformImage:
        return self.image_of(tuple(self.put_layer(seed) for seed in seeds), platform)

    def image_of(self, layers: tuple[Layer, ...], platform: str = AMD64) -> PlatformImage:
        """Manifest and config of these layers, put into the store."""
        os_name, architecture = platform.split("/")
        rootfs = {"type": "layers", "diff_ids": [one.diff_id for one in layers]}
        settings = {"os": os_name, "architecture": architecture, "rootfs": rootfs}
        kind = f"{DOCKER}container.image.v1+json" if self.docker else CONFIG
        config = self.put(to_json(settings), kind)
        kind = f"{DOCKER}distribution.manifest.v2+json" if self.docker else MANIFEST
        content = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": descriptor(config),
            "layers": [descriptor(one) for one in layers],
        }
        return PlatformImage(platform, self.put(to_json(content), kind), config, layers)

    def image(self, name: str, *seeds: str, as_: str = "") -> LockedImage:
        """An image of one platform, whose tag names the manifest itself."""
        made = self.platform_image(seeds)
        destination = parse(as_) if as_ else None
        return LockedImage(str(parse(name)), made.manifest, {AMD64: made}, destination)

    def index(self, name: str, **seeds: Sequence[str]) -> LockedImage:
        """An image whose tag names an index: `amd64=[...]`, `arm64=[...]`; and an attestation."""
        images = {f"linux/{arch}": (arch, list(of)) for arch, of in seeds.items()}
        platforms = {key: self.platform_image(of, key) for key, (_arch, of) in images.items()}
        entries = []
        for key, one in platforms.items():
            stated = {"os": "linux", "architecture": images[key][0]}
            entries.append({**descriptor(one.manifest), "platform": stated})
        nothing = {"os": "unknown", "architecture": "unknown"}
        entries.append({**descriptor(blob(f"attestation of {name}")), "platform": nothing})
        content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        return LockedImage(str(parse(name)), self.put(to_json(content), INDEX), platforms)

    def attested(self, image: LockedImage, platform: str = AMD64) -> LockedImage:
        """The image with one attestation of this platform, as a lock has it."""
        statement = self.put(to_json({"about": image.name}), "application/vnd.in-toto+json")
        config = self.put(to_json({"os": "unknown", "architecture": "unknown"}), CONFIG)
        content = {"config": descriptor(config), "layers": [descriptor(statement)]}
        manifest = self.put(to_json(content), MANIFEST)
        here = replace(image.platforms[platform], attestations=(manifest, config, statement))
        return replace(image, platforms={**image.platforms, platform: here})

    def bundle(
        self, path: Path, *images: LockedImage, without: Sequence[str] = (), platform: str = AMD64
    ) -> Path:
        """A bundle of these images; `without` names digests of layers that are left out."""
        wanted = [(image, platform) for image in images]
        images_here = [image.on(platform) for image, _on in wanted]
        blobs = {blob.digest for one in images_here for blob in (*one.layers, *one.attestations)}
        include = frozenset(blobs - set(without))
        _bundle_files.write(path, _bundle.members(self.layout, wanted, include))
        return path

    def known(self, *images: LockedImage) -> list[dict[str, Any]]:
        """The blob lists as image_fetch returns them."""
        return [
            {
                "digest": one.manifest.digest,
                "indexes": [image.target.digest] if image.is_index else [],
                "platform": platform,
                "blobs": [layer.digest for layer in one.layers],
            }
            for image in images
            for platform, one in image.platforms.items()
        ]


def renamed(image: LockedImage, name: str) -> LockedImage:
    return replace(image, name=str(parse(name)))
