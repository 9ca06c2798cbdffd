# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The members of an image archive's tar: where each one lies, and none that has no place there.

Nothing is unpacked; members are only ever read where they lie.
"""

from __future__ import annotations

import io
import posixpath
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils._bundle import BundleError, Region
from ansible_collections.fleet.images.plugins.module_utils._parts import Concatenated, Source

# A manifest is at most 4 MiB by the distribution specification; configs are smaller still.
SMALL = 16 << 20
MOST_MEMBERS = 100_000
_LARGEST_HEADER = 1 << 20
_HEX = "[0-9a-f]{64}"
# What docker save has written in its time, and what buildx, podman, skopeo, kaniko, jib and Bazel's
# rules write: blobs, configs and layers, by digest or by an ID of that form.
_NAMES = re.compile(
    r"(?:oci-layout|index\.json|manifest\.json|repositories|config\.json"
    rf"|(?:blobs/sha256/|sha256:)?{_HEX}(?:\.json|\.tar|\.tar\.gz)?"
    rf"|{_HEX}/(?:layer\.tar|json|VERSION))\Z"
)
_DIRECTORIES = re.compile(rf"(?:\.?|blobs|blobs/sha256|{_HEX})\Z")
_LAYERS = (".tar", ".tar.gz")


def members(paths: Sequence[Path | Source], shown: str) -> dict[str, Region]:
    """The files of a tar, by name; the tar may lie in several files that are read as one.

    A link to another member stands for that member. `shown` is what errors call the archive.
    Raises BundleError for a tar that is cut short, or that has members which have no place in an
    image archive; OSError where it cannot be read.
    """
    found: dict[str, Region] = {}
    links: dict[str, str] = {}
    try:
        with _Headers(Concatenated(paths)) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                name = _checked_name(shown, info, found, links)
                if name and _is_link(info):
                    links[name] = _link_target(name, info)
                elif name:
                    found[name] = Region(tuple(paths), info.offset_data, info.size, shown)
            # tarfile takes whatever is no header for the end.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no end, but something else at byte {tar.offset}")
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError) as error:
        raise BundleError(
            f"{shown}: wanted a whole tar archive, found a damaged or cut one ({error}); copy or"
            " make it anew"
        ) from error
    return {**found, **_followed(shown, links, found)}


class _Headers(io.BufferedReader):
    """The parts as one file, as tarfile reads headers from it.

    Buffered, so that a header that spans two parts is read whole; and never much at once, whatever
    size a header claims to have.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _checked_name(
    shown: str, info: tarfile.TarInfo, found: Mapping[str, Region], links: Mapping[str, str]
) -> str:
    """The member's name, '' for a directory; raises BundleError for what has no place here."""
    name = info.name[2:] if info.name.startswith("./") else info.name
    if info.isdir() and _DIRECTORIES.match(name.rstrip("/")):
        return ""
    wrong = ""
    if not (info.isreg() or _is_link(info)) or info.issparse():
        wrong = "is no regular file"
    elif not _NAMES.match(name) or (_is_link(info) and not name.endswith(_LAYERS)):
        wrong = "is no file of an image archive"
    elif info.size < 0:
        wrong = f"has {info.size} bytes"
    elif name in found or name in links:
        wrong = "stands twice in it"
    elif len(found) + len(links) >= MOST_MEMBERS:
        wrong = f"is beyond {MOST_MEMBERS} members"
    elif not _may_be_large(name) and info.size > SMALL:
        wrong = f"has {info.size} bytes, at most {SMALL} are wanted"
    if wrong:
        raise BundleError(f"{shown}: its member {info.name!r} {wrong}; nothing was touched")
    return name


def _may_be_large(name: str) -> bool:
    return name.startswith("blobs/") or name.endswith(_LAYERS)


def _is_link(info: tarfile.TarInfo) -> bool:
    return info.issym() or info.islnk()


def _link_target(name: str, info: tarfile.TarInfo) -> str:
    """The name of what a link names: symbolic ones from their directory on, hard ones from the top.

    Engines before 25 write `<id>/layer.tar -> ../<other id>/layer.tar` for a repeated layer.
    """
    base = posixpath.dirname(name) if info.issym() else ""
    return posixpath.normpath(posixpath.join(base, info.linkname))


def _followed(
    shown: str, links: Mapping[str, str], found: Mapping[str, Region]
) -> dict[str, Region]:
    """What each link names; raises BundleError where that is no file of a layer."""
    for name, target in links.items():
        if target not in found or not target.endswith(_LAYERS):
            raise BundleError(
                f"{shown}: its member {name!r} links to {target!r}, which is no layer in it;"
                " nothing was touched"
            )
    return {name: found[target] for name, target in links.items()}
