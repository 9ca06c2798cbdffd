"""Layers of the content images: tars, their two digests, and the parts that are generated."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

CHUNK = 1 << 20
FIXED_TIME = 1_768_435_200
BIG_LAYERS = 4
_BIG_FILES = 26
_BIG_FILE_BYTES = 5_000_000


@dataclass(frozen=True)
class Layer:
    """A gzip-compressed tar, with the digests of both its forms."""

    path: Path
    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True)
class Member:
    """One file of a small generated layer."""

    content: bytes
    mode: int = 0o644


def pack(members: Mapping[str, Member], target: Path) -> Path:
    """A small layer as a tar."""
    with tarfile.open(target, "w") as tar:
        pack_into(tar, members)
    return target


def pack_into(tar: tarfile.TarFile, members: Mapping[str, Member]) -> None:
    """The same bytes on every machine: fixed times and owners.

    The directories are named too: an Engine gives those it has to guess a mode nobody can enter.
    """
    parents = {str(p) for name in members for p in Path(name).parents} - {"."}
    for name in sorted({*members, *parents}):
        info = tarfile.TarInfo(name)
        info.mtime = FIXED_TIME
        member = members.get(name)
        if member is None:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        else:
            info.size, info.mode = len(member.content), member.mode
            tar.addfile(info, io.BytesIO(member.content))


def compress(tar: Path) -> Layer:
    """Compress as a registry would hold it; the digest depends on nothing but the content."""
    target = tar.with_suffix(".tar.gz")
    diff = sha256()
    with (
        _plain(tar) as source,
        open(target, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
    ):
        while block := source.read(CHUNK):
            diff.update(block)
            packed.write(block)
    with open(target, "rb") as again:
        digest = _digest_of(again)
    return Layer(target, digest, target.stat().st_size, f"sha256:{diff.hexdigest()}")


def big_layer(number: int, target: Path) -> Path:
    """About 130 MB, a bit more than half of it incompressible, like programs and data."""
    source = random.Random(f"fleet-images-big-{number}")
    members = {}
    for index in range(_BIG_FILES):
        if index % 13 < 7:
            content = source.randbytes(_BIG_FILE_BYTES)
        else:
            line = f"layer {number}, file {index}: the same words again and again\n".encode()
            content = (line * (_BIG_FILE_BYTES // len(line) + 1))[:_BIG_FILE_BYTES]
        members[f"opt/big/{number}/{index:03}.bin"] = Member(content)
    return pack(members, target)


def noise(seed: str, size: int) -> bytes:
    """Incompressible bytes, the same for the same seed."""
    return random.Random(f"fleet-images-{seed}").randbytes(size)


def last_layer_of_archive(archive: Path, target: Path) -> Path:
    """The topmost layer of a `docker save` archive, whichever Engine wrote it."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        name = json.load(manifest)[0]["Layers"][-1]
        layer = tar.extractfile(name)
        assert layer is not None
        with layer, open(target, "wb") as out:
            shutil.copyfileobj(layer, out, CHUNK)
    return target


def _plain(tar: Path) -> io.BufferedIOBase:
    """Engines with the containerd store save their layers compressed."""
    with open(tar, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    return gzip.open(tar, "rb") if packed else open(tar, "rb")


def _digest_of(stream: io.BufferedIOBase) -> str:
    digest = sha256()
    while block := stream.read(CHUNK):
        digest.update(block)
    return f"sha256:{digest.hexdigest()}"
