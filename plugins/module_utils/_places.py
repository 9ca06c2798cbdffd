# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The directories of the Engine behind a socket, where these lie on this host and may be read."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils import _bolt, _reach
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC
from ansible_collections.fleet.images.plugins.module_utils._inventory import Json

METADATA = "io.containerd.metadata.v1.bolt/meta.db"
CONTENT = "io.containerd.content.v1.content"
SNAPSHOTTER = "io.containerd.snapshotter.v1."
_NAMESPACE = "moby"  # dockerd's default (--containerd-namespace)
# The system's containerd, and one that dockerd started itself.
_ADDRESS = "/run/containerd/containerd.sock"
_OWN_ADDRESS = "/run/docker/containerd/containerd.sock"
_OVERLAY2 = "overlay2"


@dataclass(frozen=True)
class ClassicPlaces:
    """Where a classic store with the driver overlay2 keeps things; `root` is DockerRootDir."""

    root: Path

    @property
    def overlay2(self) -> Path:
        """Layers and containers, unpacked."""
        return self.root / _OVERLAY2

    @property
    def image(self) -> Path:
        """Records of images and layers."""
        return self.root / "image" / _OVERLAY2

    @property
    def layers(self) -> Path:
        """One directory per layer, named after its chain ID."""
        return self.image / "layerdb" / "sha256"

    @property
    def mounts(self) -> Path:
        """One directory per container."""
        return self.image / "layerdb" / "mounts"

    @property
    def configs(self) -> Path:
        """One file per image, named after its ID."""
        return self.image / "imagedb" / "content" / "sha256"

    def image_ids(self) -> list[str]:
        """The images that have a record; raises OSError."""
        return [f"sha256:{path.name}" for path in self.configs.iterdir()]

    @property
    def build_cache(self) -> Path:
        """BuildKit's list of the layers and directories that it uses, or used once."""
        return self.root / "buildkit" / "snapshots.db"

    @property
    def build_leases(self) -> Path:
        """BuildKit's leases, one for each record of its cache."""
        return self.root / "buildkit" / "containerdmeta.db"


@dataclass(frozen=True)
class ContainerdPlaces:
    """Where containerd keeps what an Engine with this snapshotter gave it.

    `engine_root`: DockerRootDir. `address`: containerd's socket.
    """

    root: Path
    engine_root: Path
    snapshotter: str
    namespace: str
    address: str

    @property
    def blobs(self) -> Path:
        """One file per blob, named after its digest."""
        return self.root / CONTENT / "blobs" / "sha256"

    def ingest(self, name: str) -> Path:
        """The directory of a blob that is not there whole, by the name that its store has for it.

        plugins/content/local of containerd.
        """
        digits = hashlib.sha256(name.encode()).hexdigest()
        return self.root / CONTENT / "ingest" / digits

    @property
    def snapshots(self) -> Path:
        """The snapshotter's own directory."""
        return self.root / f"{SNAPSHOTTER}{self.snapshotter}"

    def metadata(self) -> _reach.Metadata | None:
        """What containerd notes about all this, of one moment; raises BoltError, OSError."""
        return _bolt.view(self.root / METADATA, lambda root: _reach.read(root, self.namespace))


def classic(engine: Engine, image_ids: Collection[str]) -> ClassicPlaces | None:
    """The places of a classic store; None where they are another host's, driver's or user's.

    `image_ids`: all that the Engine lists, intermediates included. Raises EngineError.
    """
    facts = engine.facts
    if facts.store != CLASSIC or facts.driver != _OVERLAY2 or not _near(engine):
        return None
    places = ClassicPlaces(Path(facts.data_path))
    try:
        there = set(places.image_ids())
        proved = _wrote_its_id(engine.get("/info"))
    except (OSError, ValueError):
        return None
    listed = set(image_ids)
    return places if listed == there or (proved and listed < there) else None


def containerd(
    engine: Engine, image_ids: Collection[str]
) -> tuple[ContainerdPlaces, _reach.Metadata] | None:
    """The places of a containerd store and its metadata; None as for `classic`."""
    facts = engine.facts
    if facts.store == CLASSIC or not _near(engine):
        return None
    info: Json = engine.get("/info")
    places = _containerd_places(Path(facts.data_path), facts.driver, info)
    try:
        proved, metadata = _wrote_its_id(info), places.metadata()
    except (OSError, ValueError, _bolt.BoltError):
        return None
    # The Engine may list fewer: 26.1 hides those that it could not unpack.
    if metadata is None or not proved or not set(image_ids) <= set(metadata.targets.values()):
        return None
    return places, metadata


def _containerd_places(root: Path, snapshotter: str, info: Json) -> ContainerdPlaces:
    told = info.get("Containerd") or {}  # Newer than Engine 26.1.
    engine_root = Path(str(info["DockerRootDir"]))
    usual = _OWN_ADDRESS if engine_root in root.parents else _ADDRESS
    return ContainerdPlaces(
        root=root,
        engine_root=engine_root,
        snapshotter=snapshotter,
        namespace=str((told.get("Namespaces") or {}).get("Containers") or _NAMESPACE),
        address=str(told.get("Address") or usual),
    )


def _near(engine: Engine) -> bool:
    """Whether the Engine may run on this host; a socket may still lead to another."""
    return engine.host.startswith("unix://")


def _wrote_its_id(info: Json) -> bool:
    """Whether this host's DockerRootDir is that of the Engine, by the ID that it wrote there.

    False where there is none, as before Engine 23. Raises OSError, ValueError where another
    Engine's is there.
    """
    try:
        file = Path(str(info["DockerRootDir"])) / "engine-id"
        written = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return False
    if written != info.get("ID"):
        raise ValueError(f"{file} is of another Engine")
    return True
