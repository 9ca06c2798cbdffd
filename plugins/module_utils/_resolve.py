# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names to digests, down to the layers: the small documents of an image, read and kept.

Each is taken from where earlier ones are kept, as the store, else from the registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ansible_collections.fleet.images.plugins.module_utils._documents import (
    Json,
    attestations_of,
    best,
    choose,
    descriptor,
    diff_ids,
    offered,
    parse_object,
    read_layers,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    Layer,
    LockedImage,
    PlatformImage,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import ImageSpec, platform_of
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    INDEXES,
    Registry,
    RegistryError,
    media_type_of,
)

# Configs hold history and labels: some kB. Layout.read takes no more either.
_CONFIG_LIMIT = 16 << 20


class Documents(Protocol):
    """Where indexes, manifests and configs are kept, by digest."""

    def find(self, digest: str, size: int | None = None) -> bytes | None:
        """The document, verified; None where it is not there whole. `size` in bytes."""

    def keep(self, digest: str, content: bytes) -> None:
        """Takes a document that the registry sent."""


class InMemory(dict[str, bytes]):
    """Documents of one image, for a run that has no store."""

    def find(self, digest: str, size: int | None = None) -> bytes | None:
        """The document, if it was read before."""
        return self.get(digest)

    def keep(self, digest: str, content: bytes) -> None:
        """Remembers it."""
        self[digest] = content


@dataclass(frozen=True)
class Resolver:
    """Resolves one image down to its layers; `attestations`: those of its platforms as well."""

    registry: Registry
    spec: ImageSpec
    documents: Documents
    attestations: bool = False

    def resolve(self, digest: str | None, platforms: Sequence[str]) -> LockedImage:
        """The image for these platforms, for all that its index has where there are none.

        `digest`: what pins it, None asks the tag. Raises RegistryError, and what `documents` raise.
        """
        reference = self.spec.reference
        digest = digest or self.registry.resolve(reference).digest
        content, index = self._document(digest)
        target = Blob(digest, len(content), media_type_of(str(reference), content))
        if target.media_type not in INDEXES:
            chosen, index = {"": target}, {}
        elif platforms:
            chosen = choose(reference.pinned(digest).familiar, index, platforms)
        else:
            chosen = offered(reference.pinned(digest).familiar, index)
        found = {}
        for platform, manifest in chosen.items():
            image = self._platform_image(manifest, platform, index)
            found[image.platform] = image
        if platforms or "" in found:
            best(self.spec.key, platforms or ("linux",), found)
        return LockedImage(self.spec.key, target, found, self.spec.as_)

    def _platform_image(self, manifest: Blob, platform: str, index: Json) -> PlatformImage:
        """`platform`: as the index states it; '' where only the config tells. `index`: or {}."""
        name = self.spec.key
        own, document = self._manifest(manifest.digest)
        blobs = read_layers(name, document)
        config = descriptor(name, document.get("config"))
        settings = parse_object(name, self._config(config))
        layers = tuple(
            Layer(blob.digest, blob.size, blob.media_type, diff_id)
            for blob, diff_id in zip(blobs, diff_ids(name, settings, len(blobs), config))
        )
        attestations: list[Blob] = []
        if self.attestations and index:
            for one in attestations_of(name, index, manifest.digest):
                attestations += self._attestation(one)
        platform = platform or platform_of(settings)
        return PlatformImage(platform, own, config, layers, tuple(dict.fromkeys(attestations)))

    def _attestation(self, manifest: Blob) -> list[Blob]:
        """All blobs of an attestation: its manifest, its config and its statements."""
        own, document = self._manifest(manifest.digest)
        config = descriptor(self.spec.key, document.get("config"))
        return [own, config, *read_layers(self.spec.key, document)]

    def _manifest(self, digest: str) -> tuple[Blob, Json]:
        content, document = self._document(digest)
        return Blob(digest, len(content), media_type_of(self.spec.key, content)), document

    def _document(self, digest: str) -> tuple[bytes, Json]:
        """An index or a manifest."""
        content = self.documents.find(digest)
        if content is None:
            content = self.registry.manifest(self.spec.reference, digest)
            self.documents.keep(digest, content)
        return content, parse_object(self.spec.key, content)

    def _config(self, blob: Blob) -> bytes:
        content = self.documents.find(blob.digest, blob.size)
        if content is not None:
            return content
        if blob.size > _CONFIG_LIMIT:
            raise RegistryError(
                f"{self.spec.key}: its config has {blob.size} bytes, wanted {_CONFIG_LIMIT} at"
                " most; it is no image"
            )
        content = self.registry.read_blob(self.spec.reference, blob)
        self.documents.keep(blob.digest, content)
        return content
