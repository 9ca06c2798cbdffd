# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a relay serves: the storage of a CNCF Distribution registry, of links to the store's blobs.

Pushing into a registry copies every byte, and Distribution refuses an index of which it lacks a
manifest. Its storage directory, laid out as Distribution would, has neither: a blob is a hard link
to the store's, so it costs no room, and an index may be cut to the wanted platforms. The layout:
https://github.com/distribution/distribution/blob/v2.8.2/registry/storage/paths.go
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils._layout import Layout
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob, Lock, LockedImage
from ansible_collections.fleet.images.plugins.module_utils._manifest import MANIFEST
from ansible_collections.fleet.images.plugins.module_utils._reference import parse

V2 = os.path.join("docker", "registry", "v2")
_MANIFESTS = (MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
_BESIDE = ".beside.tmp"


class RelayError(Exception):
    """The relay cannot be as it is wanted; the message says what is there, and the next step.

    `changed`: whether something was done before.
    """

    changed = False


@dataclass(frozen=True)
class Tree:
    """Files below `docker/registry/v2`: `links` by path, with the digest that stands in each, and
    `blobs` by path, which are links to the store's files."""

    links: Mapping[str, str] = field(default_factory=dict)
    blobs: Mapping[str, Blob] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes of all the blobs, each counted once."""
        return sum(blob.size for blob in self.blobs.values())


@dataclass(frozen=True)
class Difference:
    """What has to be put into a tree, and what has to leave it: paths below it."""

    put: frozenset[str]
    remove: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.put or self.remove)


def repositories(image: LockedImage) -> list[tuple[str, str]]:
    """Where the relay has an image: repository and tag ('' for none), of its name and of its `as`.

    The registry of a name is left out: pulls are by digest, so images of two registries share a
    repository.
    """
    names = [parse(image.name), *([image.as_] if image.as_ else [])]
    return list(dict.fromkeys((name.repository, name.tag or "") for name in names))


def tree_of(images: Iterable[LockedImage]) -> Tree:
    """The tree that serves these images and nothing else.

    A tag that two images give to one repository, with two meanings, is left out: both are there by
    digest, and nobody gets the wrong one.
    """
    links: dict[str, str] = {}
    blobs: dict[str, Blob] = {}
    tags: dict[tuple[str, str], set[str]] = {}
    for image in images:
        blobs.update((_data(digest), blob) for digest, blob in image.all_blobs.items())
        for repository, tag in repositories(image):
            links.update(_links(repository, image))
            if tag:
                tags.setdefault((repository, tag), set()).add(image.target.digest)
    for (repository, tag), digests in tags.items():
        if len(digests) == 1:
            links.update(_tag_links(repository, tag, *digests))
    return Tree(links, blobs)


def _links(repository: str, image: LockedImage) -> Iterator[tuple[str, str]]:
    manifests = {image.target.digest}
    manifests.update(one.manifest.digest for one in image.platforms.values())
    for one in image.platforms.values():
        kept = [blob.digest for blob in one.attestations if blob.media_type in _MANIFESTS]
        manifests.update(kept)
    for digest in image.all_blobs:
        kind = "_manifests/revisions" if digest in manifests else "_layers"
        yield f"repositories/{repository}/{kind}/{_place(digest)}/link", digest


def _tag_links(repository: str, tag: str, digest: str) -> Iterator[tuple[str, str]]:
    here = f"repositories/{repository}/_manifests/tags/{tag}"
    yield f"{here}/current/link", digest
    yield f"{here}/index/{_place(digest)}/link", digest


def _place(digest: str) -> str:
    return digest.replace(":", "/", 1)


def _data(digest: str) -> str:
    algorithm, _colon, value = digest.partition(":")
    return f"blobs/{algorithm}/{value[:2]}/{value}/data"


def whole(layout: Layout, lock: Lock) -> tuple[dict[str, LockedImage], dict[str, str]]:
    """The images that the store has whole, and a sentence about each of the others; by name.

    Raises RelayError where there is no store.
    """
    if not layout.root.is_dir():
        raise RelayError(
            f"the store {layout.root}: wanted a directory, found none; run image_fetch first"
        )
    reasons = {}
    for name, image in lock.items():
        lacking = [b for b in image.all_blobs.values() if not layout.has(b.digest, b.size)]
        if lacking:
            more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
            there = "another size" if layout.has(lacking[0].digest) else "not there"
            reasons[name] = (
                f"{name}: its blob {lacking[0].digest} of {lacking[0].size} bytes is wanted in the"
                f" store {layout.root}, found {there}{more}; run image_fetch"
            )
    return {name: image for name, image in lock.items() if name not in reasons}, reasons


def look(layout: Layout, root: Path, tree: Tree) -> Difference:
    """What the tree at `root` (Distribution's `rootdirectory`) needs; raises OSError."""
    base, there = root / V2, set(_files(root / V2))
    put = {path for path, digest in tree.links.items() if _text(base / path) != digest}
    for path, blob in tree.blobs.items():
        # A blob that was fetched anew is another file: the former one may be damaged.
        if path not in there or not (base / path).samefile(layout.path(blob.digest)):
            put.add(path)
    return Difference(frozenset(put), frozenset(there - set(tree.links) - set(tree.blobs)))


def apply(layout: Layout, root: Path, tree: Tree, difference: Difference) -> None:
    """Makes the tree so, while a relay may be serving it: names come last and go first.

    Raises RelayError where a blob cannot be linked or read, OSError.
    """
    base = root / V2
    for path in sorted(difference.put, key=_rank):
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        beside = (base / path).with_name(_BESIDE)
        beside.unlink(missing_ok=True)
        if path in tree.blobs:
            _link(layout.path(tree.blobs[path].digest), beside)
        else:
            beside.write_text(tree.links[path], encoding="ascii")
        os.replace(beside, base / path)
        # Of two links to one file, a rename removes none.
        beside.unlink(missing_ok=True)
    for path in sorted(difference.remove, key=_rank, reverse=True):
        (base / path).unlink(missing_ok=True)
    for directory, _names, _files_there in os.walk(base, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def served(root: Path) -> list[str]:
    """What the tree at `root` serves, for people: `repository:tag digest`, `repository@digest`."""
    base = root / V2
    return told({path: _text(base / path) for path in _files(base) if path.endswith("/link")})


def told(links: Mapping[str, str]) -> list[str]:
    """The same of the links of a tree."""
    found = []
    for path, digest in links.items():
        repository, _slash, rest = path.partition("repositories/")[2].partition("/_manifests/")
        if rest.startswith("tags/") and rest.endswith("/current/link"):
            found.append(f"{repository}:{rest.split('/')[1]} {digest}")
        elif rest.startswith("revisions/"):
            found.append(f"{repository}@{digest}")
    return sorted(found)


def _rank(path: str) -> tuple[int, str]:
    """Blobs first, then what points to them, then tags."""
    return (0 if path.startswith("blobs/") else 2 if "/_manifests/tags/" in path else 1), path


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise RelayError(
                f"{target.parent}: wanted on the file system of the store {source.parents[2]},"
                " since a relay serves the store's own files; choose another dir, or leave it out"
            ) from error
        if error.errno == errno.EPERM:
            raise RelayError(
                f"{source}: its owner or its file system allows no hard link ({error}); run the"
                " task as the user who fetched, and keep the store on a file system with links"
            ) from error
        raise
    if not os.access(target, os.R_OK):
        target.unlink()
        raise RelayError(
            f"{source}: wanted readable for the relay, it is not; run the task as the user who"
            " fetched"
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return ""


def _files(base: Path) -> Iterator[str]:
    for directory, _names, files in os.walk(base):
        here = Path(directory).relative_to(base)
        yield from (str(here / name) for name in files)
