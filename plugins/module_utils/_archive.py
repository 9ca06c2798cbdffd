# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives, read: what is inside, checked before anything else looks at it.

Reads a bundle of this collection, whatever `docker save` of any Engine writes, and what other tools
write in its stead: docker archives, and OCI image layouts in a tar. Every shape is read as an OCI
layout; `_docker_archive` makes one of those that are none. The file may come in parts.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._bundle import (
    BundleError,
    Member,
    Region,
    blob_name,
    head,
)
from ansible_collections.fleet.images.plugins.module_utils._docker_archive import as_layout, small
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    IMAGE_NAME,
    REF_NAME,
    digest_of,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    LockedImage,
    PlatformImage,
)
from ansible_collections.fleet.images.plugins.module_utils._manifest import blob_of, platform_image
from ansible_collections.fleet.images.plugins.module_utils._parts import Source
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    parse,
    platform_of,
)
from ansible_collections.fleet.images.plugins.module_utils._tar import members
from ansible_collections.fleet.images.plugins.module_utils._unpacked import unpacked

# What json.loads raises, and int() of an endless number.
_NO_JSON = (ValueError, RecursionError, ArithmeticError)


@dataclass(frozen=True)
class Archive:
    """An archive's content: where each blob lies, and the images that it offers by name.

    `name` is what errors call it. `paths` are the files that it is read from, unpacked. `regions`
    goes by the name of the blob's member in a bundle.
    """

    name: str
    paths: tuple[Path | Source, ...]
    regions: Mapping[str, bytes | Region]
    images: Mapping[str, LockedImage]

    def has(self, digest: str) -> bool:
        """Whether the blob of this digest is inside."""
        return blob_name(digest) in self.regions

    def nameless(
        self, images: Sequence[tuple[LockedImage, str]], held: frozenset[str] = frozenset()
    ) -> list[Member]:
        """The members that load these images without giving them a name.

        Leaves out the layers and attestations whose digests are in `held`, and what the archive
        leaves out.
        """
        wanted: dict[str, None] = {}
        for image, platform in images:
            here = image.on(platform)
            metadata = (image.target, here.manifest, here.config)
            wanted.update(dict.fromkeys(blob.digest for blob in metadata))
            rest = (blob.digest for blob in (*here.layers, *here.attestations))
            wanted.update(dict.fromkeys(digest for digest in rest if digest not in held))
        found = [
            Member(blob_name(digest), self.regions[blob_name(digest)], digest)
            for digest in wanted
            if self.has(digest)
        ]
        return head(images, with_names=False) + found


@contextlib.contextmanager
def opened(
    paths: Sequence[Path | Source], spool: Path, inside: Mapping[str, Region] | None = None
) -> Iterator[Archive]:
    """An archive that may be compressed, while the context lasts.

    `paths` are its files in order; `spool` is a directory on whose file system a compressed one is
    unpacked; `inside` as for `read`. Raises as `read` and `unpacked` do.
    """
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(unpacked(paths, spool))
        yield read(files, str(paths[0]), inside)


def read(
    paths: Sequence[Path | Source], shown: str = "", inside: Mapping[str, Region] | None = None
) -> Archive:
    """An archive, looked through and checked; its layers are not read, but for compressed ones of
    docker archives. `shown` is what errors call it, by default its first path. `inside`: its
    members, where they are known already.

    Raises BundleError for a file that is no such archive, that is cut short, or that has members
    which have no place in one; OSError where it cannot be read.
    """
    shown = shown or str(paths[0])
    if inside is None:
        inside = members(paths, shown)
    if "index.json" not in inside and "manifest.json" not in inside:
        raise BundleError(
            f"{shown}: wanted an archive with index.json or manifest.json, found none; make it with"
            " image_archive or docker save"
        )
    try:
        regions = inside if "index.json" in inside else as_layout(inside)
        images = _Reader(regions).images()
    except (LookupError, TypeError, AttributeError, *_NO_JSON) as error:
        raise BundleError(
            f"{shown}: its index is not whole ({type(error).__name__}: {error}); make it anew"
        ) from error
    return Archive(shown, tuple(paths), regions, images)


class _Reader:
    """Reads a layout's small members into the images that it offers."""

    def __init__(self, regions: Mapping[str, bytes | Region]) -> None:
        self._regions = regions

    def images(self) -> dict[str, LockedImage]:
        named = self._by_docker() if "manifest.json" in self._regions else self._by_index()
        found: dict[str, LockedImage] = {}
        for name, target, manifest in named:
            image = self._platform_image(manifest)
            same = name in found and found[name].target == target
            before = dict(found[name].platforms) if same else {}
            found[name] = LockedImage(name, target, {**before, image.platform: image})
        if not found:
            raise LookupError("it names no container image")
        return found

    def _by_docker(self) -> Iterator[tuple[str, Blob, Blob]]:
        """Name, what it points to, and the manifest, as docker's `manifest.json` names images."""
        targets = {
            self._blob_json(manifest.digest)["config"]["digest"]: (target, manifest)
            for target, manifest, _entry in self._manifests()
        }
        for entry in self._json("manifest.json"):
            config = "sha256:" + str(entry["Config"]).rpartition("/")[2]
            target, manifest = targets[config]
            for text in entry.get("RepoTags") or [f"{config[7:19]}:loaded"]:
                yield _name(text), target, manifest

    def _by_index(self) -> Iterator[tuple[str, Blob, Blob]]:
        """The same of a layout that has only the index: names are annotations there.

        What others than docker write as a reference may be a bare tag, which is no name.
        """
        for target, manifest, entry in self._manifests():
            notes = entry.get("annotations") or {}
            name = notes.get(IMAGE_NAME) or notes.get(REF_NAME) or ""
            if ":" not in name and "/" not in name:
                name = f"{target.digest[7:19]}:loaded"
            yield _name(name), target, manifest

    def _manifests(self) -> Iterator[tuple[Blob, Blob, Mapping[str, Any]]]:
        """What `index.json` points to, the manifests of images in it, and its entry.

        An index may be cut: manifests that are not inside do not count, nor do attestations and
        other artifacts.
        """
        for entry in self._json("index.json")["manifests"]:
            target = blob_of(entry)
            content = self._blob_json(target.digest)
            below = [one for one in content.get("manifests") or () if self._has(one["digest"])]
            for manifest in [target] if "config" in content else map(blob_of, below):
                if self._is_image(manifest):
                    yield target, manifest, entry

    def _is_image(self, manifest: Blob) -> bool:
        """Whether the manifest's config is inside and states a platform."""
        config = (self._blob_json(manifest.digest).get("config") or {}).get("digest", "")
        return self._has(config) and bool(platform_of(self._blob_json(config)))

    def _platform_image(self, manifest: Blob) -> PlatformImage:
        content = self._blob_json(manifest.digest)
        return platform_image(manifest, content, self._blob_json(content["config"]["digest"]))

    def _has(self, digest: str) -> bool:
        return blob_name(digest) in self._regions

    def _blob_json(self, digest: str) -> Any:
        name = blob_name(digest)
        content = small(self._regions[name])
        if digest_of(content) != digest:
            raise BundleError(f"{digest}: the archive holds other content under it; make it anew")
        return json.loads(content)

    def _json(self, name: str) -> Any:
        return json.loads(small(self._regions[name]))


def _name(text: str) -> str:
    try:
        return str(parse(text))
    except InvalidReference as error:
        raise BundleError(f"the archive names an image {text!r}: {error}") from error
