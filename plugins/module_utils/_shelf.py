# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store and what an export brings to it: blobs that have no name there yet.

What comes is written beside, in one directory of the store, and gets its name when it is known to
be right and wanted. In a dry run it is hashed and goes nowhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import IO

from ansible_collections.fleet.images.plugins.module_utils import _diff_ids
from ansible_collections.fleet.images.plugins.module_utils._gzip import compress
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    Layout,
    LayoutError,
    digest_of,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob, Layer
from ansible_collections.fleet.images.plugins.module_utils._parts import pieces

# A manifest is at most 4 MiB by the distribution specification.
SMALL = 4 << 20


class Lacking(Exception):
    """The store lacks a blob, and nothing has brought it; the message names it."""


class Draft:
    """A blob whose digest is known at its end, in a file, or nowhere where that is None."""

    def __init__(self, path: Path | None, content: Iterable[bytes]) -> None:
        self.path, self.size, whole = path, 0, hashlib.sha256()
        with open(path or os.devnull, "wb") as file:
            for chunk in content:
                whole.update(chunk)
                self.size += file.write(chunk)
            if path:
                file.flush()
                os.fsync(file.fileno())
        self.digest = f"sha256:{whole.hexdigest()}"


class Shelf:
    """What the store has, and beside it what this run brings."""

    def __init__(self, layout: Layout, place: Path | None, threads: Executor) -> None:
        self.layout = layout
        self.written: dict[str, int] = {}
        self._place = place
        self._threads = threads
        self._numbers = itertools.count()
        self._documents: dict[str, bytes] = {}
        self._drafts: dict[str, Draft] = {}
        self._layers: dict[str, Layer] = {}
        self._damaged: set[str] = set()

    def _draft(self, content: Iterable[bytes]) -> Draft:
        return Draft(self._place and self._place / str(next(self._numbers)), content)

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether the blob is in the store, or was brought. `size` in bytes."""
        draft = self._drafts.get(digest)
        if draft is not None or digest in self.written:
            return size in (None, draft.size if draft else self.written[digest])
        return digest not in self._damaged and self.layout.has(digest, size)

    def document(self, digest: str) -> bytes:
        """A manifest, index or config; raises Lacking, also for one that is damaged."""
        if digest in self._documents:
            return self._documents[digest]
        if digest in self._damaged or not self.layout.has(digest):
            raise Lacking(f"blob {digest}")
        try:
            return self.layout.read(digest)
        except LayoutError as error:
            self._damaged.add(digest)
            raise Lacking(f"blob {digest}") from error

    def layer(self, diff_id: str) -> Layer:
        """The compressed layer of this diff ID; raises Lacking."""
        found = self._layers.get(diff_id) or _diff_ids.find(self.layout, diff_id)
        if found is None:
            raise Lacking(f"the layer with diff ID {diff_id}")
        return found

    def bring_blob(self, digest: str, file: IO[bytes], size: int) -> None:
        """Takes a blob as it is, if its content is that of its digest."""
        if self.has(digest, size):
            return
        if size <= SMALL:
            content = b"".join(pieces(file, size))
            draft = self._draft([content])
            if draft.digest == digest and content[:1] == b"{":
                self._documents[digest] = content
        else:
            draft = self._draft(pieces(file, size))
        if draft.digest == digest:
            self._drafts[digest] = draft

    def bring_layer(self, diff_id: str, file: IO[bytes], size: int) -> None:
        """Compresses a layer's tar and keeps it, if it is the tar of this diff ID."""
        plain = hashlib.sha256()
        draft = self._draft(compress(_hashed(plain, pieces(file, size)), self._threads))
        if f"sha256:{plain.hexdigest()}" != diff_id:
            return
        layer = Layer(draft.digest, draft.size, _diff_ids.GZIP_LAYER, diff_id)
        self._layers[diff_id] = layer
        self._drafts.setdefault(draft.digest, draft)
        # At once, so that it is not compressed again where the export breaks later on.
        self.settle([layer])
        if self._place:
            _diff_ids.keep(self.layout, layer)

    @contextlib.contextmanager
    def spooled(self, file: IO[bytes], size: int) -> Iterator[tuple[IO[bytes], str]]:
        """A tar, put into a file without a name, and its diff ID."""
        plain = hashlib.sha256()
        there = self.layout.root if self.layout.root.is_dir() else None
        with tempfile.TemporaryFile(dir=there) as spool:
            for chunk in _hashed(plain, pieces(file, size)):
                spool.write(chunk)
            spool.seek(0)
            yield spool, f"sha256:{plain.hexdigest()}"

    def put(self, content: bytes, media_type: str) -> Blob:
        """Keeps a small document that was made here."""
        blob = Blob(digest_of(content), len(content), media_type)
        if not self.has(blob.digest, blob.size):
            self._documents[blob.digest] = content
            self._drafts[blob.digest] = self._draft([content])
        return blob

    def settle(self, blobs: Iterable[Blob]) -> None:
        """Gives those blobs their names in the store that were brought; raises OSError."""
        for blob in blobs:
            draft = self._drafts.pop(blob.digest, None)
            if draft is None:
                continue
            self.written[blob.digest] = draft.size
            if draft.path:
                os.replace(draft.path, self.layout.path(blob.digest))


def _hashed(plain: hashlib._Hash, blocks: Iterable[bytes]) -> Iterator[bytes]:
    for block in blocks:
        plain.update(block)
        yield block


@contextlib.contextmanager
def place(layout: Layout, dry_run: bool) -> Iterator[Path | None]:
    """The store's directory for what an export brings, empty, for one process at a time.

    What an earlier, killed run left there goes. None in a dry run.
    """
    if dry_run:
        yield None
        return
    layout.create()
    beside = layout.root / ".export"
    with (layout.root / ".export.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            yield beside
        finally:
            shutil.rmtree(beside, ignore_errors=True)
