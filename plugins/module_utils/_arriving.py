# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parts of a file that are still being sent: who reads one waits for it.

So an Engine loads the first layers of a bundle while the last ones are on their way. Whoever sends
writes parts of known size and SHA-256 into one directory, in any way, and leaves the file `STOP`
there where it has to give up.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._bundle import Region
from ansible_collections.fleet.images.plugins.module_utils._parts import (
    PartError,
    Source,
    sha256_of,
)

# The options of image_load that name the parts, and the members of the tar that they hold.
PART: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "size": {"type": "int", "required": True},
    "sha256": {"type": "str", "default": ""},
}
MEMBER: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "offset": {"type": "int", "required": True},
    "size": {"type": "int", "required": True},
}
STOP = "stop"
# Seconds without a byte after which a host waits no longer for the rest.
PATIENCE = 120
_LOOK = 0.02
# A part of full size that is not written any more, and has another checksum, will not get better.
_SETTLED = 2.0


def parts(given: Sequence[Mapping[str, Any]], patience: int) -> list[Arriving]:
    """The parts that the option names; `patience` in seconds, at most PATIENCE."""
    seconds = min(patience, PATIENCE)
    return [Arriving(Path(one["path"]), one["size"], one["sha256"], seconds) for one in given]


def listed(
    given: Sequence[Mapping[str, Any]] | None, paths: Sequence[Path | Source]
) -> dict[str, Region] | None:
    """Where the members of the tar in these files lie; None where that is not given."""
    if given is None:
        return None
    return {one["name"]: Region(tuple(paths), one["offset"], one["size"]) for one in given}


class Arriving:
    """One part: `size` in bytes, `sha256` in hex, or '' where what it holds has digests of its own.

    `patience`: seconds to wait while nothing at all comes into the part's directory.
    """

    def __init__(self, path: Path, size: int, sha256: str, patience: int) -> None:
        self.path, self.size = path, size
        self._sha256, self._patience = sha256.lower(), patience
        self._lock = threading.Lock()
        self._good = False

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> io.FileIO:
        """The whole part; waits for it. Raises as `wait` does."""
        return self.wait().open("rb", buffering=0)

    def wait(self) -> Path:
        """Returns when the part is there, with the right checksum if one is known.

        Raises PartError where it has another, where nothing comes any more, and where the sender
        gave up; OSError.
        """
        with self._lock:
            if not self._good:
                self._await()
                self._good = True
        return self.path

    def _await(self) -> None:
        seen, since = self._arrived(), time.monotonic()
        while not self._is_whole():
            if (self.path.parent / STOP).exists():
                raise PartError(
                    f"{self.path}: {self.size} bytes are wanted, the transfer broke off"
                )
            now = self._arrived()
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > self._patience:
                raise PartError(
                    f"{self.path}: {self.size} bytes are wanted, nothing came for"
                    f" {self._patience} seconds; run it again, what came is kept"
                )
            time.sleep(_LOOK)

    def _is_whole(self) -> bool:
        """Raises PartError for a part that is all there, but another."""
        try:
            before = self.path.stat()
        except FileNotFoundError:
            return False
        if before.st_size != self.size or not self._sha256:
            return before.st_size == self.size
        found = sha256_of(self.path)
        if found == self._sha256:
            return True
        if time.time() - before.st_mtime > _SETTLED:
            raise PartError(
                f"{self.path}: wanted SHA-256 {self._sha256}, found {found}; it is damaged or"
                " another file, copy it anew"
            )
        time.sleep(_SETTLED / 4)
        return False

    def _arrived(self) -> int:
        """Bytes in the part's directory."""
        here = self.path.parent
        return sum(file.stat().st_size for file in here.iterdir()) if here.is_dir() else 0
