# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is remembered between two runs, in the user's cache directory: losing it costs time only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._layout import (
    digest_of,
    write_atomically,
)

_VERSION = 1


def read(kind: str, key: str) -> dict[str, Any]:
    """What was kept under a key; nothing where there is none, or another version's."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        document = json.loads(_path(kind, key).read_bytes())
        if document["version"] == _VERSION:
            return dict(document["kept"])
    return {}


def write(kind: str, key: str, kept: dict[str, Any]) -> None:
    """Keeps it, for this user only; one that cannot be written is no error."""
    path = _path(kind, key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = {"version": _VERSION, "kept": kept}
        write_atomically(path, json.dumps(document).encode(), 0o600)


def _path(kind: str, key: str) -> Path:
    cache = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
    name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache / "fleet-images" / kind / f"{name}.json"


class Documents(dict[str, bytes]):
    """The manifests and configs behind one tag, by digest, so that they are not fetched again.

    A digest names its content, so what is kept is right or is not used.
    """

    def __init__(self, tag: str, writable: bool) -> None:
        super().__init__()
        self._tag, self._writable = tag, writable
        self._known = read("tags", tag)

    def find(self, digest: str, size: int | None = None) -> bytes | None:
        """The document, verified; None where it is not known. `size` in bytes."""
        content = self.get(digest)
        if content is None and digest in self._known:
            content = str(self._known[digest]).encode("latin-1", "replace")
            if digest_of(content) != digest or size not in (None, len(content)):
                return None
            self[digest] = content
        return content

    def keep(self, digest: str, content: bytes) -> None:
        """Takes a document that the registry sent."""
        self[digest] = content

    def save(self) -> None:
        """Writes what was needed this time, if that is new."""
        kept = {digest: content.decode("latin-1") for digest, content in self.items()}
        if self._writable and kept != self._known:
            write("tags", self._tag, kept)
