# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An Engine's export, read once as it comes: its blobs and layers onto the shelf.

Both shapes of `docker save`: that of before Engine 25 (`<id>/layer.tar` and `<config>.json`) and
the OCI layout since. What else is in it passes by.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from ansible_collections.fleet.images.plugins.module_utils._engine import EngineError
from ansible_collections.fleet.images.plugins.module_utils._shelf import Lacking, Shelf

_BLOB = re.compile(r"(?:\./)?(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?\Z")
_TOLD = re.compile(rb'\{"errorDetail".*\}', re.DOTALL)
_LAST = 8 << 10
_LARGEST_CONFIG = 4 << 20


def receive(chunks: Iterator[bytes], shelf: Shelf, classic: bool, diff_ids: set[str]) -> str:
    """Reads an export to its end; returns why that broke off, '' where it did not.

    `classic`: it comes from a classic store, where `diff_ids` tell the layers that are wanted,
    which come uncompressed. Raises OSError where the store cannot be written.
    """
    source = _Source(chunks)
    broken = ""
    with contextlib.closing(source):
        try:
            _read(source, shelf, classic, diff_ids)
        except (tarfile.TarError, EngineError, ValueError) as error:
            broken = " ".join(str(error).split())
        return source.told() or broken


def _read(source: _Source, shelf: Shelf, classic: bool, diff_ids: set[str]) -> None:
    with tarfile.open(fileobj=io.BufferedReader(source, 1 << 20), mode="r|") as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            named = _BLOB.match(info.name)
            if file is None:
                continue
            if classic and info.name.endswith("/layer.tar"):
                _old_layer(shelf, file, info.size, diff_ids)
            elif named and f"sha256:{named[1]}" in diff_ids:
                _layer(shelf, f"sha256:{named[1]}", file, info.size)
            elif named and (not classic or info.size <= _LARGEST_CONFIG):
                shelf.bring_blob(f"sha256:{named[1]}", file, info.size)


def _layer(shelf: Shelf, diff_id: str, file: IO[bytes], size: int) -> None:
    try:
        shelf.layer(diff_id)
    except Lacking:
        shelf.bring_layer(diff_id, file, size)


def _old_layer(shelf: Shelf, file: IO[bytes], size: int, diff_ids: set[str]) -> None:
    """A tar whose diff ID is known at its end: it is put down, since it may be known."""
    with shelf.spooled(file, size) as (spooled, diff_id):
        if diff_id in diff_ids:
            _layer(shelf, diff_id, spooled, size)


class _Source(io.RawIOBase):
    """The export as a file; remembers the last of it, where an Engine tells what went wrong."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._last = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            chunk = next(self._chunks, b"")
            self._last = (self._last + chunk)[-_LAST:]
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def told(self) -> str:
        """The error that the Engine wrote at the end of its export; '' where it wrote none."""
        found = _TOLD.search(self._last)
        try:
            return str(json.loads(found[0])["error"]) if found else ""
        except (ValueError, LookupError):
            return ""

    def close(self) -> None:
        self._chunks.close()  # type: ignore[attr-defined]
        super().close()
