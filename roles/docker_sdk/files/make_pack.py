# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the pack of pure Python packages that the role fleet.images.docker_sdk gives to hosts.

The role runs this on the controller. By hand, on a machine that reaches a package index::

    python3 make_pack.py --cache-dir .

The file that it names can be carried to the controller and set as ``docker_sdk_pack``.
Needs Python >= 3.9 and pip, nothing else.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.util
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

MANIFEST = "fleet-images-requirements.txt"
"""Member of a pack that holds the requirements it was made from, so that a pack proves its key."""

MAX_BYTES = 64 * 1024 * 1024
"""Most bytes that the files of a pack may hold together; the real pack has about 2 MiB."""

# A wheel for every platform (PEP 427: python, ABI and platform tag), read by the oldest target.
_TARGET = ["--python-version", "3.9", "--implementation", "py", "--abi", "none"]
_TARGET += ["--platform", "any", "--only-binary=:all:", "--require-hashes"]


class PackError(Exception):
    """No pack could be made or taken; the text is one sentence with the next step."""


def pack_key(requirements: bytes) -> str:
    """The version of a pack: the first 16 hexadecimal digits of its requirements' SHA-256."""
    return hashlib.sha256(requirements).hexdigest()[:16]


def read_wheels(wheels: list[Path]) -> dict[str, bytes]:
    """All files that the wheels put on ``sys.path``, by relative path.

    Scripts of a wheel are left out; all else that is not a plain relative file is refused.
    Raises PackError.
    """
    files: dict[str, bytes] = {}
    for wheel in sorted(wheels):
        if not wheel.name.endswith("-none-any.whl"):
            raise PackError(
                f"The wheel {wheel.name} is refused: wanted pure Python (a name that ends in"
                " -none-any.whl); pin a release that has such a wheel."
            )
        try:
            with zipfile.ZipFile(wheel) as archive:
                _read_wheel(wheel.name, archive, files)
        except (OSError, zipfile.BadZipFile, zlib.error) as exc:
            raise PackError(
                f"The wheel {wheel.name} cannot be read ({exc}); fetch it anew."
            ) from exc
    return files


def _read_wheel(wheel: str, archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        parts = PurePosixPath(info.filename).parts
        if info.is_dir():
            continue
        if parts and parts[0].endswith(".data") and parts[1:2] == ("scripts",):
            continue
        reason = ""
        if not parts or info.filename.startswith("/") or ".." in parts or "\\" in info.filename:
            reason = "it leaves the directory"
        elif kind not in (0, stat.S_IFREG):
            reason = "it is no regular file"
        elif parts[0].endswith(".data"):
            reason = "it has a place of its own outside sys.path"
        elif "/".join(parts) in files or parts == (MANIFEST,):
            reason = "another file has this name"
        elif sum(map(len, files.values())) + info.file_size > MAX_BYTES:
            reason = f"the pack would hold more than {MAX_BYTES} bytes"
        if reason:
            raise PackError(
                f"The file {info.filename} of the wheel {wheel} is refused: {reason};"
                " use the wheel that the package's authors published."
            )
        files["/".join(parts)] = archive.read(info)


def pack_bytes(files: dict[str, bytes], requirements: bytes) -> bytes:
    """The pack of these files: the same files give the same bytes (with the same zlib).

    gzip, because the Python of every host reads it.
    """
    packed = io.BytesIO()
    # Neither name nor time in the gzip header: both would differ between two runs.
    stream = gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0)
    with stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted({**files, MANIFEST: requirements}.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there, whenever this process ends. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def read_key(path: Path) -> str:
    """The key of the pack at ``path``; reads it to its end, so that a damaged one is found here.

    Raises PackError.
    """
    key = ""
    try:
        # All of it at once: tarfile stops at the end of its archive, before gzip's checksum.
        with gzip.open(path) as stream:
            archive = io.BytesIO(stream.read(2 * MAX_BYTES))
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is not None and member.name == MANIFEST:
                    key = pack_key(content.read(MAX_BYTES))
    except (OSError, EOFError, tarfile.TarError, zlib.error) as exc:
        raise PackError(
            f"The pack {path} cannot be read ({getattr(exc, 'strerror', None) or exc});"
            " make it again with make_pack.py."
        ) from exc
    return key


def adopt(given: Path, key: str, path: Path) -> bool:
    """Take the prepared pack ``given`` into the cache as ``path``; tell whether the cache changed.

    Raises PackError when it was made from other requirements than those with ``key``.
    """
    found = read_key(given)
    if found != key:
        raise PackError(
            f"The pack {given} (docker_sdk_pack) has the key {found or 'of no pack'}, but this"
            f" version of the role docker_sdk wants {key}; make it with its own make_pack.py."
        )
    content = given.read_bytes()
    if path.is_file() and path.read_bytes() == content:
        return False
    write_whole(path, content)
    return True


def _is_pack(path: Path, key: str) -> bool:
    # A damaged pack in the cache is no reason to stop: it is made again.
    try:
        return path.is_file() and read_key(path) == key
    except PackError:
        return False


def _pip() -> list[str]:
    # Ansible's own environment may have no pip (uv, some distributions); any other pip will do,
    # because the target's Python is given by options.
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    other = shutil.which("pip3") or shutil.which("pip")
    if other:
        return [other]
    raise PackError(
        f"The controller's Python {sys.executable} has no pip, and there is no pip3 in PATH;"
        f" {_BY_HAND}"
    )


_BY_HAND = (
    "make the pack with `python3 make_pack.py --cache-dir .` on a machine that reaches a package"
    " index and name the file in docker_sdk_pack."
)


def download(requirements: Path, into: Path, wheels: str, timeout: int) -> list[Path]:
    """Let pip fetch the pinned wheels, hashes checked, and return their paths.

    ``wheels`` is a directory to take them from instead of a package index ("" for the index);
    ``timeout`` is in seconds. Raises PackError.
    """
    command = [*_pip(), "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--retries", "2", *_TARGET, "--dest", str(into), "--requirement", str(requirements)]
    if wheels:
        command += ["--no-index", "--find-links", wheels]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        problem = f"pip ended with code {done.returncode}" if done.returncode else ""
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    except subprocess.TimeoutExpired:
        problem, lines = f"pip took more than {timeout} s", []
    if problem:
        said = f" and said: {lines[-1][len('ERROR:') :].strip().rstrip('.')}" if lines else ""
        raise PackError(
            f"The packages of {requirements.name} could not be downloaded on this controller:"
            f" {problem}{said}; if it cannot reach a package index, {_BY_HAND}"
        )
    return sorted(into.glob("*.whl"))


def make(options: argparse.Namespace) -> dict[str, object]:
    """Have the pack in the cache; return its path, key, SHA-256 and whether anything was done.

    Raises PackError, OSError.
    """
    requirements = Path(options.requirements).expanduser()
    content = requirements.read_bytes()
    key = pack_key(content)
    path = Path(options.cache_dir).expanduser().absolute() / f"fleet-images-sdk-{key}.tar.gz"
    changed = False
    if options.pack:
        changed = adopt(Path(options.pack).expanduser(), key, path)
    elif not _is_pack(path, key):
        with tempfile.TemporaryDirectory(prefix="fleet-images-sdk-") as into:
            files = read_wheels(download(requirements, Path(into), options.wheels, options.timeout))
        write_whole(path, pack_bytes(files, content))
        changed = True
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"path": str(path), "key": key, "sha256": digest, "changed": changed}


def main(arguments: list[str]) -> int:
    """Command line; prints one JSON object, or one sentence on standard error and returns 1."""
    beside = Path(__file__).resolve().parent / "requirements.txt"
    parser = argparse.ArgumentParser(
        description="Make the pack of the role fleet.images.docker_sdk."
    )
    parser.add_argument("--requirements", default=str(beside), help="default: %(default)s")
    parser.add_argument("--cache-dir", default=".", help="where the pack goes; default: here")
    parser.add_argument("--pack", default="", help="take this prepared pack instead of making one")
    parser.add_argument(
        "--wheels", default="", help="take the wheels from this directory, not an index"
    )
    parser.add_argument("--timeout", type=int, default=600, help="limit for pip in seconds")
    try:
        result = make(parser.parse_args(arguments))
    except (PackError, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
