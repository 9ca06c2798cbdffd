# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stocked Engine stub whose images lie in directories, as real ones were seen to do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bolt_files
from stocked import StockedEngine, sha

OVERLAYFS = "io.containerd.snapshotter.v1.overlayfs"
CONTENT = "io.containerd.content.v1.content"
DAY = 86_400


def du(path: Path) -> int:
    """Bytes on the disk, as another program counts them."""
    found = subprocess.run(["du", "-sxB1", path], check=True, capture_output=True, text=True)
    return int(found.stdout.split()[0])


class LaidOut(StockedEngine):
    """`lay_out` writes what is stocked; `root` is DockerRootDir, containerd's root is in it."""

    def __init__(self, kind: str, root: Path, thin: bool = False) -> None:
        super().__init__(kind)
        self.root = root
        # All layers in one directory: thousands are made sooner.
        self.thin = thin
        self.id = "b55cdf91-8d6d-4a45-a48b-003cff578885"
        (root / "engine-id").write_text(self.id)

    @property
    def data(self) -> Path:
        return self.root if self.classic else self.root / "containerd" / "daemon"

    def also(self, method: str, path: str, query: dict[str, str]) -> tuple[int, Any] | None:
        if path == "/info":
            status = [] if self.classic else [["driver-type", "io.containerd.snapshotter.v1"]]
            return 200, {
                "ID": self.id,
                "Driver": self.driver,
                "DriverStatus": status,
                "DockerRootDir": str(self.root),
                "OSType": "linux",
                "Architecture": "x86_64",
            }
        return super().also(method, path, query)

    def lay_out(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        if self.classic:
            self._lay_out_classic()
        else:
            self._lay_out_containerd()

    # classic

    @property
    def layerdb(self) -> Path:
        return self.root / "image" / "overlay2" / "layerdb"

    def _lay_out_classic(self) -> None:
        (self.root / "overlay2" / "l").mkdir(parents=True, exist_ok=True)
        (self.layerdb / "mounts").mkdir(parents=True, exist_ok=True)
        (self.layerdb / "tmp").mkdir(exist_ok=True)
        for image in self.shelf.values():
            below = ""
            for chain, (_layer, size) in zip(image.chains, image.layers):
                self.layer(chain, below, size)
                below = chain
            rootfs = {"type": "layers", "diff_ids": [layer for layer, _size in image.layers]}
            records = self.root / "image" / "overlay2" / "imagedb"
            put(records / "content" / "sha256" / image.id[7:], json.dumps({"rootfs": rootfs}))
            put(records / "metadata" / "sha256" / image.id[7:] / "lastUpdated", "2026")

    def layer(self, chain: str, below: str, size: int) -> Path:
        """The directory of a layer, made where it is not there yet."""
        of = "all" if self.thin else chain
        record, name = self.layerdb / "sha256" / chain[7:], sha(f"cache of {of}")[7:]
        if not record.exists():
            put(record / "cache-id", name)
            put(record / "size", str(size))
            if below:
                put(record / "parent", below)
            if not (self.root / "overlay2" / name).exists():
                self.directory(name, size)
        return self.root / "overlay2" / name

    def directory(self, name: str, size: int) -> Path:
        """A directory of the driver, as for a layer."""
        path, short = self.root / "overlay2" / name, sha(name)[7:33].upper()
        put(path / "diff" / "content", "x" * size)
        put(path / "diff" / "sub" / "small", "y")
        os.link(path / "diff" / "content", path / "diff" / "sub" / "the same")
        put(path / "link", short)
        (self.root / "overlay2" / "l" / short).symlink_to(f"../{name}/diff")
        return path

    def mount(self, container: str, chain: str) -> None:
        """What a container notes: the layer that it stands on, and its own directories."""
        mount = self.layerdb / "mounts" / container
        put(mount / "parent", chain)
        put(mount / "mount-id", sha(container)[7:])
        put(mount / "init-id", f"{sha(container)[7:]}-init")
        for name in ("mount-id", "init-id"):
            self.directory((mount / name).read_text(), 10)

    def cache(self, snapshots: dict[str, dict[str, str]], leased: Iterable[str]) -> None:
        """BuildKit's list of snapshots, and its leases on some of them."""
        noted = {
            name.encode(): {key.encode(): value.encode() for key, value in content.items()}
            for name, content in snapshots.items()
        }
        bolt_files.write(self.root / "buildkit" / "snapshots.db", noted)
        leases = {key.encode(): {b"snapshots": {b"default": {key.encode(): b""}}} for key in leased}
        spaces = {b"v1": {b"buildkit": {b"leases": leases}}}
        bolt_files.write(self.root / "buildkit" / "containerdmeta.db", spaces)

    def drop(self, image_id: str, layers: bool = True) -> None:
        """Removes an image and, if `layers`, what no other image holds, as an Engine does."""
        image = self.shelf.pop(image_id)
        held = {chain for other in self.shelf.values() for chain in other.chains}
        for chain in image.chains if layers else ():
            if chain not in held:
                record = self.layerdb / "sha256" / chain[7:]
                path = self.root / "overlay2" / (record / "cache-id").read_text()
                (self.root / "overlay2" / "l" / (path / "link").read_text()).unlink()
                shutil.rmtree(path)
                shutil.rmtree(record)
        records = self.root / "image" / "overlay2" / "imagedb"
        (records / "content" / "sha256" / image_id[7:]).unlink()
        shutil.rmtree(records / "metadata" / "sha256" / image_id[7:])

    # containerd

    def _lay_out_containerd(self) -> None:
        self.numbers: dict[str, int] = {}
        self.weights: dict[int, int] = {}
        self.meta = {name: {} for name in ("images", "leases", "snapshots", "content")}
        self.meta["snapshots"] = {"overlayfs": {}}
        self.meta["content"] = {"blob": {}, "ingests": {}}
        self.noted: dict[str, Any] = {}
        for image in self.shelf.values():
            config, blobs = sha(f"config of {image.id}"), []
            for number, (layer, size) in enumerate(image.layers):
                below = image.chains[number - 1] if number else ""
                self.snapshot(image.chains[number], below, size)
                blobs.append(self.blob(sha(f"blob of {layer}"), size // 2))
            top = {"gc.ref.snapshot.overlayfs": image.chains[-1]}
            self.blob(config, 100, top)
            links = {f"gc.ref.content.l.{n}": blob for n, blob in enumerate(blobs)}
            self.blob(image.id, 200, {"gc.ref.content.config": config, **links})
            for name in image.tags or [f"moby-dangling@{image.id}"]:
                self.meta["images"][name] = {"target": {"digest": image.id}}
        self.note()

    def blob(self, digest: str, size: int, labels: dict[str, str] | None = None) -> str:
        put(self.data / CONTENT / "blobs" / "sha256" / digest[7:], "b" * size)
        named = {f"containerd.io/{name}": value for name, value in (labels or {}).items()}
        self.meta["content"]["blob"][digest] = {"labels": named, "size": "x"}
        return digest

    def snapshot(self, key: str, below: str, size: int | None) -> Path:
        """A snapshot; without a size it is still being written."""
        number = self.numbers.setdefault("all" if self.thin else key, len(self.numbers) + 1)
        path = self.data / OVERLAYFS / "snapshots" / str(number)
        if not path.exists():
            put(path / "fs" / "content", "s" * (size or 5000))
            (path / "work").mkdir()
            self.weights[number] = du(path / "fs")
        self.meta["snapshots"]["overlayfs"][key] = {"name": f"moby/{number}/{key}", "parent": below}
        noted = {} if size is None else {"size": signed(self.weights[number])}
        self.noted[f"moby/{number}/{key}"] = {"id": unsigned(number), **noted}
        return path

    def lease(self, id_: str, keys: dict[str, Any], created: float, **labels: str) -> None:
        named = {f"containerd.io/gc.{name}": value for name, value in labels.items()}
        entry = {"createdat": moment(created), "labels": named, **keys}
        self.meta["leases"][id_] = entry

    def note(self, **others: Any) -> None:
        """Writes the databases; `others`: more namespaces."""
        spaces = {"moby": self.meta, **others}
        at = self.data / "io.containerd.metadata.v1.bolt" / "meta.db"
        bolt_files.write(at, encoded({"v1": spaces}))
        noted = encoded({"v1": {"snapshots": self.noted}})
        bolt_files.write(self.data / OVERLAYFS / "metadata.db", noted)


def put(path: Path, content: str) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def encoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.encode(): encoded(one) for key, one in value.items()}
    return value.encode() if isinstance(value, str) else value


def unsigned(number: int) -> bytes:
    content = b""
    while number > 0x7F:
        content += bytes([number & 0x7F | 0x80])
        number >>= 7
    return content + bytes([number])


def signed(number: int) -> bytes:
    return unsigned(number << 1)


def moment(seconds: float) -> bytes:
    """Go's binary form of a time."""
    return struct.pack(">BqIh", 1, int(seconds) + 62_135_596_800, int(seconds % 1 * 1e9), -1)


def ingest(name: str) -> str:
    """The directory of a blob that is not there whole."""
    return f"{CONTENT}/ingest/{hashlib.sha256(name.encode()).hexdigest()}"
