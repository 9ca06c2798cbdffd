# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names to digests, down to the layers: the small documents of an image, read and kept.

Each is taken from the store, else from the registry. One that is damaged in the store is read anew,
since it is read anyway.
"""

from __future__ import annotations

from ansible_collections.fleet.images.plugins.module_utils._documents import (
    Json,
    attestations_of,
    best,
    choose,
    descriptor,
    diff_ids,
    parse_object,
    read_layers,
)
from ansible_collections.fleet.images.plugins.module_utils._job import Job, Received, Task
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout, LayoutError
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    Layer,
    LockedImage,
    PlatformImage,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import platform_of
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    INDEXES,
    Registry,
    RegistryError,
    media_type_of,
)

# Configs hold history and labels: some kB. Layout.read takes no more either.
_CONFIG_LIMIT = 16 << 20


class Resolver:
    """Resolves jobs to locked images; documents that the store lacks are put there."""

    def __init__(self, layout: Layout, registry: Registry, task: Task, received: Received) -> None:
        self._layout = layout
        self._registry = registry
        self._task = task
        self._received = received

    def resolve(self, job: Job) -> LockedImage:
        """The image that the job wants; raises RegistryError, LayoutError, OSError."""
        reference, wanted = job.spec.reference, job.platforms or (self._task.own_platform,)
        digest = job.digest or self._registry.resolve(reference).digest
        content, index = self._document(job, digest)
        target = Blob(digest, len(content), media_type_of(str(reference), content))
        if target.media_type not in INDEXES:
            chosen, index = {"": target}, {}
        else:
            chosen = choose(reference.pinned(digest).familiar, index, wanted)
        platforms = {}
        for platform, manifest in chosen.items():
            image = self._platform_image(job, manifest, platform, index)
            platforms[image.platform] = image
        best(job.spec.key, wanted, platforms)
        return LockedImage(job.spec.key, target, platforms, job.spec.as_)

    def _platform_image(
        self, job: Job, manifest: Blob, platform: str, index: Json
    ) -> PlatformImage:
        """`platform`: as the index states it; '' where only the config tells. `index`: or {}."""
        name = job.spec.key
        own, document = self._manifest(job, manifest.digest)
        blobs = read_layers(name, document)
        config = descriptor(name, document.get("config"))
        settings = parse_object(name, self._config(job, config))
        layers = tuple(
            Layer(blob.digest, blob.size, blob.media_type, diff_id)
            for blob, diff_id in zip(blobs, diff_ids(name, settings, len(blobs), config))
        )
        attestations: list[Blob] = []
        if self._task.attestations and index:
            for one in attestations_of(name, index, manifest.digest):
                attestations += self._attestation(job, one)
        platform = platform or platform_of(settings)
        return PlatformImage(platform, own, config, layers, tuple(dict.fromkeys(attestations)))

    def _attestation(self, job: Job, manifest: Blob) -> list[Blob]:
        """All blobs of an attestation: its manifest, its config and its statements."""
        own, document = self._manifest(job, manifest.digest)
        config = descriptor(job.spec.key, document.get("config"))
        return [own, config, *read_layers(job.spec.key, document)]

    def _manifest(self, job: Job, digest: str) -> tuple[Blob, Json]:
        content, document = self._document(job, digest)
        return Blob(digest, len(content), media_type_of(job.spec.key, content)), document

    def _document(self, job: Job, digest: str) -> tuple[bytes, Json]:
        """An index or a manifest."""
        content = self._stored(job, digest)
        if content is None:
            content = self._registry.manifest(job.spec.reference, digest)
            self._keep(job, digest, content)
        return content, parse_object(job.spec.key, content)

    def _config(self, job: Job, blob: Blob) -> bytes:
        content = self._stored(job, blob.digest, blob.size)
        if content is not None:
            return content
        if blob.size > _CONFIG_LIMIT:
            raise RegistryError(
                f"{job.spec.key}: its config has {blob.size} bytes, wanted {_CONFIG_LIMIT} at most;"
                " it is no image"
            )
        content = self._registry.read_blob(job.spec.reference, blob)
        self._keep(job, blob.digest, content)
        return content

    def _stored(self, job: Job, digest: str, size: int | None = None) -> bytes | None:
        """A document as the store has it; None where it is not there whole."""
        if not self._layout.has(digest, size):
            return None
        try:
            return self._layout.read(digest)
        except LayoutError:
            job.damaged.append(digest)
            return None

    def _keep(self, job: Job, digest: str, content: bytes) -> None:
        job.lacks = True
        self._received.add_once(job, digest, len(content))
        if not self._task.dry_run:
            self._layout.put(content, anew=True)
