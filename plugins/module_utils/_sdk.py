# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the Docker SDK for Python, requests and jmespath on a host that has no pip.

The role fleet.images.docker_sdk unpacks them, as one *pack*, into a versioned directory beside a
link ``current``. This file puts that directory on ``sys.path``, after it has made sure that nobody
but root and the effective user could have written there: what is imported from it runs as this
user, often root.

A host without it gets the pack along with a task (see ``plugin_utils/_carried.py``), for this task
only: that is how check mode answers where the role was never applied.

Importing this file imports neither Ansible nor Docker.
"""

from __future__ import annotations

import atexit
import compileall
import contextlib
import errno
import fcntl
import functools
import grp
import gzip
import hashlib
import importlib
import importlib.util
import io
import os
import pwd
import py_compile
import re
import shutil
import stat
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, cast

ENVIRONMENT = "FLEET_IMAGES_SDK"
"""Environment variable that names another directory than the two usual ones."""

CARRIED = "FLEET_IMAGES_SDK_PACK"
"""Environment variable for a pack sent along with one task: its SHA-256, a colon, its path."""

SYSTEM_HOME = "/usr/local/lib/fleet-images/sdk"
"""Directory of root's packs, which every user of the host may use."""

USER_HOME = "~/.local/share/fleet-images/sdk"
"""Directory of the packs of a user who is not root."""

LINK = "current"
"""Name of the link, beside the versions, to the version in use."""

MANIFEST = "fleet-images-requirements.txt"
"""Member of a pack that holds the requirements it was made from: their hash is the pack's key."""

MAX_BYTES = 64 * 1024 * 1024
"""Most bytes a pack may have: far above a real one (2 MiB), far below what hurts a host."""

KEY = r"[0-9a-f]{16}"
"""What the key of a pack, which is the name of its version's directory, looks like."""

# Names that only this file and the role make: versions, unfinished work, packs as sent.
_OURS = re.compile(rf"{KEY}|\.{KEY}\.tmp\w+|fleet-images-sdk-{KEY}\.tar\.gz|\.lock")

_REMEDY = "apply the role fleet.images.docker_sdk to this host"


class SdkError(Exception):
    """The SDK is missing or its pack is refused; the text is one sentence with the next step."""


class SdkMissing(SdkError):
    """Neither a pack nor this Python has the SDK; a pack can be sent along with the task.

    A module tells this to its action by ``sdk_missing`` in the result.
    """


def pack_home() -> Path:
    """The directory into which packs of the effective user are installed.

    That is FLEET_IMAGES_SDK if it is set, else for root the system's directory, else the user's.
    """
    usual = SYSTEM_HOME if os.geteuid() == 0 else USER_HOME
    return Path(os.path.abspath(os.path.expanduser(os.environ.get(ENVIRONMENT) or usual)))


def find_pack() -> Path | None:
    """The directory of the pack in use, resolved and trusted, or None if there is no pack.

    The effective user's own pack comes before the system's. Raises SdkError.
    """
    homes = [pack_home()]
    if not os.environ.get(ENVIRONMENT):
        homes.append(Path(SYSTEM_HOME))
    for home in homes:
        link = home / LINK
        if not os.path.lexists(link):
            continue
        pack = Path(os.path.realpath(link))
        if not pack.is_dir() or pack.parent != Path(os.path.realpath(home)):
            raise SdkError(
                f"The link {link} should point to a version of the pack beside it, but points to"
                f" {pack}, {'elsewhere' if pack.is_dir() else 'no directory'}; {_REMEDY} again."
            )
        check_trusted(pack)
        return pack
    return None


def check_trusted(pack: Path) -> None:
    """Make sure that only root and the effective user can have written the directory ``pack``.

    Every directory from / to it and its own entries must be root's or the effective user's and
    closed to others. Open to a group is fine while the group has no other members and there is no
    access list, as with user private groups (Debian's OpenSSH has this rule for
    ``authorized_keys``). A directory *above* may be open to all if it has the sticky bit, as /tmp
    has: others cannot replace there what is not theirs.

    ``pack`` is resolved, without links. Raises SdkError with the first thing that is wrong, OSError
    when it cannot be read.
    """
    _check_above(pack)
    with os.scandir(pack) as entries:
        for entry in entries:
            _check_owned(pack / entry.name, entry.stat(follow_symlinks=False), pack)


def _check_above(pack: Path) -> None:
    for above in reversed(pack.parents):
        _check_owned(above, os.lstat(above), pack, sticky=True)
    _check_owned(pack, os.lstat(pack), pack)


def _check_owned(path: Path, found: os.stat_result, pack: Path, sticky: bool = False) -> None:
    problem = remedy = ""
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        problem, remedy = "is a link", f"remove it and {_REMEDY}"
    elif found.st_uid not in (0, os.geteuid()):
        problem = f"belongs to the user {_user(found.st_uid)}"
        remedy = f"check its content and run `chown {_user(os.geteuid())} {path}`"
    elif sticky and mode & stat.S_ISVTX:
        return
    elif mode & stat.S_IWOTH:
        problem, remedy = "is writable by all users", f"run `chmod o-w {path}`"
    elif mode & stat.S_IWGRP and (_has_others(found.st_gid) or _has_acl(path)):
        problem = f"is writable by the group {_group(found.st_gid)}"
        remedy = f"run `chmod g-w {path}`"
    if problem:
        raise SdkError(
            f"The SDK pack {pack} is refused: {path} {problem} (mode {mode:04o}), but only"
            f" {' and '.join(sorted({'root', _user(os.geteuid())}))} may write there; {remedy}."
        )


def _has_acl(path: Path) -> bool:
    # With an access list, the group's bits are the most that anybody named in the list may have.
    listxattr = getattr(os, "listxattr", None)
    try:
        return listxattr is not None and "system.posix_acl_access" in listxattr(path)
    except OSError as exc:
        return exc.errno != errno.ENOTSUP


def _has_others(gid: int) -> bool:
    me = os.geteuid()
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(gid).gr_mem}
    except KeyError:
        # A group or member that this host does not know: nobody can say who is in it.
        return True
    members |= {user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid}
    return not members <= {0, me}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def add_pack() -> Path | None:
    """Put the pack in use first on ``sys.path``, once; return its directory, None without a pack.

    A pack that was sent along with the task comes before those of the host. Raises SdkError,
    OSError.
    """
    sent = os.environ.get(CARRIED)
    pack = _carried(sent) if sent else find_pack()
    if pack is not None and str(pack) not in sys.path:
        sys.path.insert(0, str(pack))
        importlib.invalidate_caches()
    return pack


@functools.cache
def _carried(sent: str) -> Path:
    """The directory of an unpacked pack that lasts as long as this process.

    Its checksum came with the task itself, so it is trusted as far as the task is, whoever owns it.
    """
    sha256, src = sent.split(":", 1)
    content = _read(src, sha256)
    pack = Path(tempfile.mkdtemp(prefix="fleet-images-sdk-"))
    atexit.register(shutil.rmtree, pack, ignore_errors=True)
    _extract(content, pack)
    return pack


def import_sdk() -> ModuleType:
    """The Docker SDK for Python (``docker``), from the pack, else from the system's packages.

    Raises SdkMissing when there is none, SdkError when a pack is refused.
    """
    return _import("docker", "the Docker SDK for Python", "python3-docker")


def import_requests() -> ModuleType:
    """The HTTP library ``requests``, from where import_sdk takes the SDK. Raises as it does."""
    return _import("requests", "the HTTP library requests", "python3-requests")


def import_jmespath() -> ModuleType:
    """The query language ``jmespath``, from where import_sdk takes the SDK. Raises as it does."""
    return _import("jmespath", "the query language jmespath", "python3-jmespath")


def _import(name: str, what: str, package: str) -> ModuleType:
    pack = add_pack()
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        where = f"the pack {pack}" if pack else "no pack"
        raise SdkMissing(
            f"The Python {sys.executable} of this host has {where} and cannot import {what}"
            f" ({exc}); {_REMEDY}, as the user of this task, or install its package {package}."
        ) from exc


def system_versions() -> dict[str, str]:
    """What this Python has without a pack: versions of docker, jmespath, requests; "" for none.

    To be called in a process that has not called add_pack.
    """
    versions = {}
    for name in ("docker", "jmespath", "requests"):
        try:
            versions[name] = str(getattr(importlib.import_module(name), "__version__", "unknown"))
        except Exception:  # an old package under a new Python raises anything, not just ImportError
            versions[name] = ""
    return versions


class Store:
    """The packs in the directory ``home``, and what is to do until ``key`` ("": none) is in use.

    ``current`` is the version in use ("": none), ``missing`` tells that the wanted one is not
    unpacked, ``done`` that nothing is to do. Raises OSError when ``home`` cannot be read.
    """

    def __init__(self, home: Path, key: str) -> None:
        self.home, self.key = home, key
        self.look()

    def look(self) -> None:
        """Read anew what is there; changes nothing."""
        link, pack = self.home / LINK, self.home / self.key
        self.current = os.readlink(link) if link.is_symlink() else ""
        self.missing = bool(self.key) and not pack.is_dir()
        self._compiled = not self.key or (not self.missing and _is_compiled(pack))
        keep = {self.key, ".lock"} if self.key else set()
        names = os.listdir(self.home) if self.home.is_dir() else []
        self._old = [name for name in names if _OURS.fullmatch(name) and name not in keep]
        self.done = self.current == self.key and self._compiled and not self._old

    def check(self) -> None:
        """Make sure that the wanted version, if there is one, can be trusted. Raises SdkError."""
        if self.key:
            check_trusted(Path(os.path.realpath(self.home / self.key)))

    def apply(self, src: str, sha256: str) -> bool:
        """Do what is to do; take a missing version from the file ``src`` with this SHA-256.

        Returns False if another process did it meanwhile. Raises SdkError, OSError; then the
        version that was in use still is.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        _check_above(Path(os.path.realpath(self.home)))
        # One process at a time: two names of an inventory may be the same host.
        with open(self.home / ".lock", "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.look()
            if self.done:
                return False
            if self.missing:
                unpack(_read(src, sha256), self.home / self.key)
            elif not self._compiled:
                _compile(self.home / self.key)
            self._link()
            # After the link, so that it never points at nothing.
            self._remove_old()
        self.look()
        return True

    def _link(self) -> None:
        link = self.home / LINK
        if self.key and self.current != self.key:
            beside = self.home / f".{self.key}.tmplink"
            beside.unlink(missing_ok=True)
            beside.symlink_to(self.key)
            os.replace(beside, link)
        elif not self.key and self.current:
            link.unlink()
        _sync(self.home)

    def _remove_old(self) -> None:
        for name in self._old:
            path = self.home / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if not self.key:
            # Something else may lie there: then the directory stays.
            with contextlib.suppress(OSError):
                self.home.rmdir()


def unpack(content: bytes, pack: Path) -> None:
    """Unpack and byte-compile a pack so that the directory ``pack`` is whole or not there.

    Raises SdkError for a pack that is damaged, has another key than ``pack`` has as its name, or
    has members that are not plain files; OSError.
    """
    beside = Path(tempfile.mkdtemp(prefix=f".{pack.name}.tmp", dir=pack.parent))
    try:
        beside.chmod(0o755)
        _extract(content, beside)
        manifest = beside / MANIFEST
        found = (
            hashlib.sha256(manifest.read_bytes()).hexdigest()[:16] if manifest.is_file() else "none"
        )
        if found != pack.name:
            raise SdkError(
                f"The pack should have the key {pack.name}, but has {found}; send the right one."
            )
        _compile(beside)
        for path in [*beside.rglob("*"), beside]:
            _sync(path)
        os.rename(beside, pack)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _extract(content: bytes, into: Path) -> None:
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
            _write_members(tar, into)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise SdkError(f"The pack is damaged ({exc}); make it and send it again.") from exc


def _write_members(tar: tarfile.TarFile, into: Path) -> None:
    total = 0
    for member in tar:
        path = into.joinpath(*PurePosixPath(member.name).parts)
        total += member.size
        problem = ""
        if path == into or into not in path.parents or ".." in path.parts:
            problem = "leaves the directory"
        elif not member.isreg() or member.issparse():
            problem = "is no regular file"
        elif os.path.lexists(path):
            problem = "is there twice"
        elif total > MAX_BYTES:
            problem = f"exceeds the {MAX_BYTES} bytes that a pack may have"
        if problem:
            raise SdkError(
                f"The pack is refused: its member {member.name!r} {problem};"
                " make it anew with make_pack.py."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cast(IO[bytes], tar.extractfile(member)).read())


def _read(src: str, sha256: str) -> bytes:
    with open(src, "rb") as handle:
        content = handle.read(MAX_BYTES + 1)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise SdkError(
            f"The pack {src} should have the SHA-256 {sha256}, but has {found}; send it again."
        )
    return content


def _is_compiled(pack: Path) -> bool:
    cached = importlib.util.cache_from_source
    return all(os.path.exists(cached(str(init))) for init in pack.glob("*/__init__.py"))


def _compile(pack: Path) -> None:
    # Unchecked: a version never changes, and copies or backups of it may change the files' times.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(str(pack), quiet=2, invalidation_mode=mode):
        raise SdkError(
            f"The pack {pack} cannot be byte-compiled by {sys.executable}; make and send it again."
        )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
