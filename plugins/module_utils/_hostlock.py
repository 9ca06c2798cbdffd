# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One lock per Engine for all modules that write images there: the second run waits for the first.

It is a lock of the kernel on a file (flock), so it goes with the process that holds it, however
that one ends. What stands in the file only says who holds it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

# The first one that every user of the host may write to: all have to take the same.
PLACES = (Path("/run/lock"), Path("/tmp"))
_MOST_TEXT = 4096
_LOOK = 0.1


class LockTimeout(Exception):
    """Another run holds the lock for too long; the message says which, and the next step."""


class HostLock:
    """The lock of the Engine at `docker_host`, held while the context lasts.

    `purpose`: what others are told, the name of a module. `timeout`: seconds to wait, 0 for not at
    all. `places`: directories, PLACES by default; the first that all users may write to is taken.
    """

    def __init__(
        self, docker_host: str, purpose: str, timeout: int, places: tuple[Path, ...] = ()
    ) -> None:
        self._engine, self._purpose, self._timeout = docker_host, purpose, timeout
        self.path = _shared(places or PLACES) / f"fleet-images-{_key(docker_host)}.lock"
        self._file = -1

    def __enter__(self) -> HostLock:
        """Waits for the lock. Raises LockTimeout, OSError."""
        self._file = _opened(self.path)
        try:
            self._wait()
        except BaseException:
            os.close(self._file)
            raise
        self._note({"pid": os.getpid(), "user": _user(), "what": self._purpose, "at": time.time()})
        return self

    def __exit__(self, *_unused: object) -> None:
        self._note(None)
        os.close(self._file)

    def _wait(self) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            if time.monotonic() >= deadline:
                raise LockTimeout(
                    f"the Engine at {self._engine}: {self._purpose} wanted to write images for"
                    f" {self._timeout} seconds, but {self._holder()} does so; wait for its end, or"
                    f" set lock_timeout ({self.path})"
                )
            time.sleep(_LOOK)

    def _note(self, told: dict[str, Any] | None) -> None:
        """Says who holds it, as well as that can be said: the file may be another user's."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            if told is not None:
                os.pwrite(self._file, json.dumps(told).encode(), 0)

    def _holder(self) -> str:
        """Who holds it, in words."""
        try:
            told = json.loads(os.pread(self._file, _MOST_TEXT, 0))
            since = time.strftime("%H:%M:%S", time.gmtime(told["at"]))
            return f"{told['what']} of {told['user']} (process {told['pid']}, since {since} UTC)"
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            return "another process"


def _key(docker_host: str) -> str:
    """The same for every spelling of a local socket."""
    scheme, found, path = docker_host.partition("://")
    if found and scheme == "unix":
        docker_host = os.path.realpath(path)
    return hashlib.sha256(docker_host.encode()).hexdigest()[:16]


def _shared(places: tuple[Path, ...]) -> Path:
    everybody = stat.S_ISVTX | stat.S_IWOTH
    for place in places:
        if place.is_dir() and place.stat().st_mode & everybody == everybody:
            return place
    return places[-1]


def _opened(path: Path) -> int:
    """The file, made where it is not there; for reading only where it is another user's.

    Nobody may lead others elsewhere by a link. Linux refuses to create what another user has
    created in such a directory (fs.protected_regular), so that is not asked where it is there.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | flags)
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)
    except FileNotFoundError:
        pass
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o644)
    except FileExistsError:
        return _opened(path)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
