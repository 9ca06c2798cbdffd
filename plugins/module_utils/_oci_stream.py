# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The result of a build as it comes from buildx, an OCI layout in a tar: read once, as it comes."""

from __future__ import annotations

import json
import re
import tarfile
from typing import IO

from ansible_collections.fleet.images.plugins.module_utils._shelf import Shelf

_BLOB = re.compile(r"(?:\./)?blobs/sha256/([0-9a-f]{64})\Z")
_INDEX = re.compile(r"(?:\./)?index\.json\Z")
_LARGEST_INDEX = 4 << 20
_PIECE = 1 << 20


class NoResult(Exception):
    """The build wrote no image; its own words say why."""


def receive(stream: IO[bytes], shelf: Shelf) -> str:
    """Takes the blobs onto the shelf; returns the digest of the image's index or manifest.

    Raises NoResult where the stream ends before the image does, OSError where the store cannot be
    written.
    """
    digest = ""
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for info in tar:
                file = tar.extractfile(info) if info.isreg() else None
                named = _BLOB.match(info.name)
                if file and named:
                    shelf.bring_blob(f"sha256:{named[1]}", file, info.size)
                elif file and _INDEX.match(info.name):
                    index = json.loads(file.read(_LARGEST_INDEX))
                    # One entry for each tag, all of the same image.
                    digest = str(index["manifests"][0]["digest"])
        while stream.read(_PIECE):
            continue
    except (tarfile.TarError, EOFError, ValueError, LookupError, TypeError) as error:
        raise NoResult(str(error)) from error
    if not digest:
        raise NoResult("no index")
    return digest
