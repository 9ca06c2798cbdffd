# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives, read: what is inside, checked before anything else looks at it.

Reads a bundle of this collection, or any other tar that is an OCI image layout with docker's
`manifest.json` (what `docker save` writes since Engine 25). The file may come in parts.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._bundle import (
    BundleError,
    Member,
    Region,
    blob_name,
    head,
    read_region,
)
from ansible_collections.fleet.images.plugins.module_utils._layout import digest_of
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    Layer,
    LockedImage,
    PlatformImage,
)
from ansible_collections.fleet.images.plugins.module_utils._parts import Concatenated
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    parse,
    platform_of,
)

# A manifest is at most 4 MiB by the distribution specification; configs are smaller still.
SMALL = 16 << 20
MOST_MEMBERS = 100_000
_LARGEST_HEADER = 1 << 20
_NAMES = re.compile(
    r"(?:oci-layout|index\.json|manifest\.json|repositories|blobs/sha256/[0-9a-f]{64})\Z"
)
# What json.loads raises, and int() of an endless number.
_NO_JSON = (ValueError, RecursionError, ArithmeticError)
_DIRECTORIES = ("blobs", "blobs/sha256")


@dataclass(frozen=True)
class Archive:
    """An archive's content: where each member lies, and the images that it offers by name."""

    paths: tuple[Path, ...]
    regions: Mapping[str, Region]
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


def read(paths: Sequence[Path]) -> Archive:
    """An archive, looked through and checked; its layers are not read.

    Raises BundleError for a file that is no such archive, that is cut short, or that has members
    which have no place in one; OSError where it cannot be read.
    """
    regions = _regions(tuple(paths))
    for name in ("index.json", "manifest.json"):
        if name not in regions:
            raise BundleError(
                f"{paths[0]}: wanted an archive with {name}, found none; make it with"
                " image_archive, or with docker save of Engine 25 or newer"
            )
    reader = _Reader(regions)
    try:
        images = reader.images()
    except (LookupError, TypeError, AttributeError, *_NO_JSON) as error:
        raise BundleError(
            f"{paths[0]}: its index is not whole ({type(error).__name__}: {error}); make it anew"
        ) from error
    return Archive(tuple(paths), regions, images)


def _regions(paths: tuple[Path, ...]) -> dict[str, Region]:
    found: dict[str, Region] = {}
    try:
        with _Headers(Concatenated(paths)) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                name = _checked_name(paths[0], info, found)
                if name:
                    found[name] = Region(paths, info.offset_data, info.size)
            # tarfile takes whatever is no header for the end.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no end, but something else at byte {tar.offset}")
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError) as error:
        raise BundleError(
            f"{paths[0]}: wanted a whole tar archive, found a damaged or cut one ({error}); copy or"
            " make it anew"
        ) from error
    return found


class _Headers(io.BufferedReader):
    """The parts as one file, as tarfile reads headers from it.

    Buffered, so that a header that spans two parts is read whole; and never much at once, whatever
    size a header claims to have.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _checked_name(path: Path, info: tarfile.TarInfo, found: Mapping[str, Region]) -> str:
    """The member's name, '' for a directory; raises BundleError for what has no place here."""
    name = info.name[2:] if info.name.startswith("./") else info.name
    if info.isdir() and name.rstrip("/") in ("", ".", *_DIRECTORIES):
        return ""
    wrong = ""
    if not info.isreg() or info.issparse():
        wrong = "is no regular file"
    elif not _NAMES.match(name):
        wrong = "is no file of an image archive"
    elif info.size < 0:
        wrong = f"has {info.size} bytes"
    elif name in found:
        wrong = "stands twice in it"
    elif len(found) >= MOST_MEMBERS:
        wrong = f"is beyond {MOST_MEMBERS} members"
    elif not name.startswith("blobs/") and info.size > SMALL:
        wrong = f"has {info.size} bytes, at most {SMALL} are wanted"
    if wrong:
        raise BundleError(f"{path}: its member {info.name!r} {wrong}; nothing was touched")
    return name


class _Reader:
    """Reads an archive's small members into the images that it offers."""

    def __init__(self, regions: Mapping[str, Region]) -> None:
        self._regions = regions

    def images(self) -> dict[str, LockedImage]:
        targets = self._targets()
        found: dict[str, LockedImage] = {}
        for entry in self._json("manifest.json"):
            config = "sha256:" + str(entry["Config"]).rpartition("/")[2]
            target, manifest = targets[config]
            image = self._platform_image(config, manifest)
            for text in entry.get("RepoTags") or [f"{image.config.digest[7:19]}:loaded"]:
                name = _name(text)
                before = dict(found[name].platforms) if name in found else {}
                found[name] = LockedImage(name, target, {**before, image.platform: image})
        return found

    def _targets(self) -> dict[str, tuple[Blob, Blob]]:
        """Config digest -> (what the name points to, the manifest)."""
        found: dict[str, tuple[Blob, Blob]] = {}
        for entry in self._json("index.json")["manifests"]:
            target = _blob(entry)
            content = self._blob_json(target.digest)
            for child in content.get("manifests") or ():
                if blob_name(child["digest"]) in self._regions:
                    config = self._blob_json(child["digest"]).get("config") or {}
                    found[config.get("digest", "")] = (target, _blob(child))
            if "config" in content:
                found[content["config"]["digest"]] = (target, target)
        return found

    def _platform_image(self, config: str, manifest: Blob) -> PlatformImage:
        content = self._blob_json(manifest.digest)
        described = self._blob_json(config)
        diff_ids = described["rootfs"]["diff_ids"]
        layers = content["layers"]
        if len(diff_ids) != len(layers):
            raise ValueError(f"{config} names {len(diff_ids)} layers, its manifest {len(layers)}")
        return PlatformImage(
            platform_of(described),
            manifest,
            _blob(content["config"]),
            tuple(
                Layer(layer["digest"], layer["size"], layer["mediaType"], diff_id)
                for layer, diff_id in zip(layers, diff_ids)
            ),
        )

    def _blob_json(self, digest: str) -> Any:
        name = blob_name(digest)
        content = self._small(name)
        if digest_of(content) != digest:
            raise BundleError(f"{digest}: the archive holds other content under it; make it anew")
        return json.loads(content)

    def _json(self, name: str) -> Any:
        return json.loads(self._small(name))

    def _small(self, name: str) -> bytes:
        region = self._regions[name]
        if region.length > SMALL:
            raise BundleError(f"{name}: {region.length} bytes, at most {SMALL} are wanted")
        return b"".join(read_region(region))


def _blob(entry: Mapping[str, Any]) -> Blob:
    return Blob(str(entry["digest"]), int(entry["size"]), str(entry["mediaType"]))


def _name(text: str) -> str:
    try:
        return str(parse(text))
    except InvalidReference as error:
        raise BundleError(f"the archive names an image {text!r}: {error}") from error
