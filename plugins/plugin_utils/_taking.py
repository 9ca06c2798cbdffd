# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes the files of bundles from a host to the controller, while the host still writes them.

Every file is compared with the checksum that the host reports in the end.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils._parts import (
    PartError,
    part_name,
    sha256_of,
)
from ansible_collections.fleet.images.plugins.plugin_utils._beside import Beside

Run = Callable[[str], str]
Fetch = Callable[[str, str], object]

# Most updates are done before this (seconds): they are not asked after.
_BEFORE = 1.0
# Looks for a part for so long only: the end of the task has to wait for a look.
_LOOK = """
n=0; while [ $n -lt 3 ]; do [ -e {part} ] && echo part && exit; [ -e {next} ] && echo next && exit
n=$((n+1)); sleep 0.1; done; echo none
"""


class Taking(Beside):
    """Takes parts as they appear at `paths`, in this order, into a directory of the controller.

    `run` runs a line of shell on the host, `fetch` copies a file from there.
    """

    def __init__(self, run: Run, fetch: Fetch, paths: Sequence[str], directory: Path) -> None:
        super().__init__()
        self._run, self._fetch = run, fetch
        self._paths, self._directory = list(paths), directory
        self._sums: dict[str, str] = {}

    def take(self, path: str, sha256: str) -> Path:
        """A file of the host, on the controller; raises PartError, AnsibleError, OSError."""
        # What was taken early may have been the part of an older bundle.
        if self._sums.get(path) != sha256 and self._copy(path) != sha256:
            found = self._sums[path]
            self._local(path).unlink()
            raise PartError(f"{path}: wanted SHA-256 {sha256}, found {found} after the copy")
        return self._local(path)

    def work(self) -> None:
        """Follows the host; what is not taken when that has written all is so by `take`."""
        if self.ended.wait(_BEFORE):
            return
        try:
            for number, path in enumerate(self._paths):
                self._follow_one(path, self._paths[number + 1 : number + 2])
        except Exception:  # of any connection plugin
            return  # `take` does the rest, and tells what is wrong with it.

    def _follow_one(self, path: str, following: Sequence[str]) -> None:
        after = str(part_name(Path(following[0]), 1)) if following else "/dev/null/none"
        number, told = 1, ""
        while not self.ended.is_set() and told != "next":
            part = str(part_name(Path(path), number))
            line = _LOOK.format(part=shlex.quote(part), next=shlex.quote(after))
            told = self._run(line).strip()
            if told == "part":
                self._copy(part)
                number += 1

    def _copy(self, path: str) -> str:
        """Copies a file as the login user reads it; it appears here whole. Returns its SHA-256."""
        local = self._local(path)
        beside = local.with_name(f".{local.name}.{os.getpid()}.tmp")
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            self._fetch(path, str(beside))
            self._sums[path] = sha256_of(beside)
            os.replace(beside, local)
        finally:
            beside.unlink(missing_ok=True)
        return self._sums[path]

    def _local(self, path: str) -> Path:
        return self._directory / Path(path).name
