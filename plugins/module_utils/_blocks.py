# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Allocated bytes of files and directories, as du counts them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

_BLOCK = 512  # what st_blocks counts in, whatever the file system (stat(2))


def allocated(*paths: str | os.PathLike[str]) -> int:
    """Bytes on the disk of these files and directories, with all that lies in them.

    A file with several links counts once. Other file systems mounted below are left out, links are
    not followed; what is not there, or vanishes meanwhile, counts nothing. Raises OSError where
    something may not be read.
    """
    seen: set[int] = set()
    return sum(_allocated(path, seen) for path in paths)


def alone(path: str | os.PathLike[str]) -> int:
    """Bytes on the disk of a directory without what lies in it; raises OSError."""
    return os.lstat(path).st_blocks * _BLOCK


def _allocated(path: str | os.PathLike[str], seen: set[int]) -> int:
    try:
        top = os.lstat(path)
    except FileNotFoundError:
        return 0
    blocks = top.st_blocks
    todo = [os.fspath(path)] if stat.S_ISDIR(top.st_mode) else []
    while todo:
        for status, directory in _inside(todo.pop()):
            if status.st_dev != top.st_dev:
                continue
            if directory:
                todo.append(directory)
            elif status.st_nlink > 1:
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
            blocks += status.st_blocks
    return blocks * _BLOCK


def _inside(path: str) -> Iterable[tuple[os.stat_result, str]]:
    """The status of each entry of a directory, and its path where it is a directory itself."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield status, entry.path if stat.S_ISDIR(status.st_mode) else ""
    except FileNotFoundError:
        return
