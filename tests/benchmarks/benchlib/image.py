"""The image that travels: gigabytes of real files, of which an update changes one small layer."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fleetlib import layers
from fleetlib.layers import Layer, Member
from fleetlib.places import cache_dir, key_of
from fleetlib.pusher import DOCKER, Image, Pusher
from fleetlib.recipes import ENGINE28
from fleetlib.rootfs import tarball

REPOSITORY = "shop/bench"
# Each is the file system of a fleet host with an Engine: 0.4 GB of programs, libraries and small
# files, which compress as those of the usual images do.
COMMON_LAYERS = 8
TOP_BYTES = 900_000
# Each version is an update of the one before; the last one weighs next to nothing, and shows what
# a run moves besides images.
VERSIONS = {"1": TOP_BYTES, "2": TOP_BYTES, "3": TOP_BYTES, "4": TOP_BYTES, "5": 1}


@dataclass(frozen=True)
class Heavy:
    """What the image weighs: all, all compressed, and what an update lacks. In bytes."""

    size: int
    compressed: int
    missing: int


def push(address: str) -> Heavy:
    """Puts all versions into a registry."""
    registry = Pusher(address)
    with ThreadPoolExecutor(2) as pool:
        common = list(pool.map(_common, range(COMMON_LAYERS)))
    below = [layer for layer, _size in common]
    tops = {}
    with TemporaryDirectory(dir=cache_dir("unfinished")) as work:
        for version, size in VERSIONS.items():
            tops[version] = _push(registry, below, version, size, Path(work))
    return Heavy(
        sum(size for _layer, size in common) + TOP_BYTES,
        sum(layer.size for layer in below) + tops["1"],
        tops["2"],
    )


def _common(number: int) -> tuple[Layer, int]:
    """A large layer and its size before compression, kept since it takes seconds to make."""
    place = cache_dir("bench", key_of(number, ENGINE28.key, Path(__file__).read_text()))
    note = place / "layer.json"
    if not note.exists():
        tar = _moved(tarball(ENGINE28), f"opt/bench/{number}", place / "layer.tar")
        told = {"layer": asdict(layers.compress(tar)), "size": tar.stat().st_size}
        tar.unlink()
        note.write_text(json.dumps(told, default=str))
    told = json.loads(note.read_text())
    return Layer(**{**told["layer"], "path": place / "layer.tar.gz"}), told["size"]


def _moved(source: Path, below: str, target: Path) -> Path:
    """The files of a tar, below another directory; devices stay out."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            member.name = f"{below}/{member.name.removeprefix('./')}"
            if member.islnk():
                member.linkname = f"{below}/{member.linkname.removeprefix('./')}"
            if not member.isdev():
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    return target


def _push(registry: Pusher, common: Sequence[Layer], version: str, size: int, work: Path) -> int:
    top = {"opt/bench/release": Member(layers.noise(f"bench-{version}", size))}
    layer = layers.compress(layers.pack(top, work / f"{version}.tar"))
    image = Image([*common, layer], "2026-01-15T00:00:00Z", {"Cmd": ["/opt/bench/release"]})
    registry.tag(REPOSITORY, version, registry.image(REPOSITORY, image, DOCKER))
    return layer.size
