# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compressed archives: unpacked once, because nothing in a compressed tar can be found directly.

The unpacked tar is a file without a name, so it is gone with the process that made it, whatever
becomes of that one, and nobody can put another in its place.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from ansible_collections.fleet.images.plugins.module_utils._bundle import BundleError
from ansible_collections.fleet.images.plugins.module_utils._parts import (
    CHUNK,
    Concatenated,
    Source,
)

ZSTD = "zstd"
# What a file begins with: RFC 1952, RFC 8878, and the formats of bzip2 and xz.
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": ZSTD, b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
# Python's own modules, and their errors for damage: not every build has them all, and zstd comes
# with 3.14.
_PYTHON = {
    "gzip": ("gzip", "BadGzipFile"),
    "bzip2": ("bz2", ""),
    "xz": ("lzma", "LZMAError"),
    ZSTD: ("compression.zstd", "ZstdError"),
}
# How much of a disk an archive leaves free, however large it becomes.
SPARE = 256 << 20


def compression(paths: Sequence[Path | Source]) -> str:
    """How a file is compressed: gzip, zstd, bzip2, xz, or '' where it is not. Raises OSError."""
    with io.BufferedReader(Concatenated(paths)) as file:
        first = file.read(max(map(len, _MAGIC)))
    return next((kind for magic, kind in _MAGIC.items() if first.startswith(magic)), "")


@contextlib.contextmanager
def unpacked(paths: Sequence[Path | Source], spool: Path) -> Iterator[tuple[Path | Source, ...]]:
    """The files of the plain tar: the given ones, or one in the place of compressed ones.

    `paths` are read as one file. `spool` is a directory, or where it is not there one above it, on
    whose file system the plain tar stands while the context lasts. Raises BundleError where the
    compression is damaged or cannot be read here, or where there is no room; OSError.
    """
    kind = compression(paths)
    if not kind:
        yield tuple(paths)
        return
    while not spool.is_dir():
        spool = spool.parent
    with tempfile.TemporaryFile(dir=spool) as plain:
        for chunk in _chunks(kind, paths):
            free = shutil.disk_usage(spool).free
            if free < SPARE + len(chunk):
                raise BundleError(
                    f"{paths[0]}: room for its unpacked content is wanted in {spool}, only"
                    f" {free} bytes are left free after {plain.tell()}; make room, or unpack it"
                    " elsewhere"
                )
            plain.write(chunk)
        plain.flush()
        # Opened by its number, because it has no name.
        yield (Path(f"/dev/fd/{plain.fileno()}"),)


def _chunks(kind: str, paths: Sequence[Path | Source]) -> Iterator[bytes]:
    """The unpacked content in pieces of 1 MiB at most; raises BundleError."""
    name, error_name = _PYTHON[kind]
    module = _module(name)
    damage = (EOFError, OSError, zlib.error, getattr(module, error_name, EOFError))
    try:
        with _command(kind, paths) if module is None else _file(module, paths) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except damage as error:
        raise BundleError(
            f"{paths[0]}: wanted a whole {kind} file, found a damaged or cut one ({error}); copy or"
            " make it anew"
        ) from error


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


@contextlib.contextmanager
def _file(module: Any, paths: Sequence[Path | Source]) -> Iterator[IO[bytes]]:
    with Concatenated(paths) as raw:
        yield module.open(io.BufferedReader(raw, CHUNK))


@contextlib.contextmanager
def _command(kind: str, paths: Sequence[Path | Source]) -> Iterator[IO[bytes]]:
    """The output of the host's own command of that name; raises EOFError where it fails."""
    program = shutil.which(kind)
    if program is None:
        raise BundleError(
            f"{paths[0]}: the command {kind} is wanted to unpack it, it is not here; install it, or"
            f" unpack the archive first ({kind} -d)"
        )
    with tempfile.TemporaryFile() as said, contextlib.ExitStack() as running:
        whole = running.enter_context(_piped(["cat", "--", *map(_waited, paths)], None, said))
        output = cast("IO[bytes]", whole.stdout)
        plain = running.enter_context(_piped([program, "-dc"], output, said))
        output.close()  # Only the command holds it, so that both end together.
        yield cast("IO[bytes]", plain.stdout)
        if plain.wait() != 0:
            said.seek(0)
            raise EOFError(said.read(CHUNK).decode(errors="replace").strip())


def _waited(path: Path | Source) -> str:
    """The path of a file that is all there."""
    if not isinstance(path, Path):
        path.open().close()
    return str(path)


def _piped(
    command: Sequence[str], source: IO[bytes] | None, said: IO[bytes]
) -> subprocess.Popen[bytes]:
    # The usual run_command of modules keeps the whole output in memory.
    return subprocess.Popen(  # pylint: disable=ansible-bad-function
        command, stdin=source, stdout=subprocess.PIPE, stderr=said
    )
