# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet while its nodes reach the registry, and what tests of pulls ask of both."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetlib import operations
from fleetlib.hosts import TLS_REGISTRY
from rig import NODES, REGISTRY, STORES, Json, Rig, on_each

USER, PASSWORD = "shop", "s3cret-for-tests"
LOGIN = {"registry_username": USER, "registry_password": PASSWORD}
TOOL, NGINX, ARM = (f"{TLS_REGISTRY}/shop/{name}" for name in ("tool", "nginx", "arm"))
FAULTY = "127.0.0.1:5055"
_SCRIPT = Path(__file__).parent / "files" / "faulty_registry.py"
_CLEAN = (
    "docker images -a --format '{{.Repository}}:{{.Tag}}' | grep -E 'shop/|site.example' |"
    " xargs -r docker rmi -f >/dev/null 2>&1;"
    " docker images -aq | xargs -r docker rmi -f >/dev/null 2>&1;"
    # What a killed pull got, containerd keeps for a day under the pull's lease. The leases of
    # BuildKit stay: its own records would lead nowhere, and then no build works any more.
    " ctr -n moby leases ls 2>/dev/null | awk 'NR > 1 && !/buildkit|gc[.]flat/ { print $1 }' |"
    " xargs -r ctr -n moby leases rm --sync >/dev/null; true"
)


@contextmanager
def connected(rig: Rig) -> Iterator[Rig]:
    """Nodes reach the registry meanwhile, and have no image before and after."""
    operations.connect(rig.fleet)
    empty(rig)
    try:
        yield rig
    finally:
        empty(rig)
        operations.disconnect(rig.fleet)


def empty(rig: Rig, hosts: Iterable[str] = NODES) -> None:
    """Takes every image from these hosts."""
    on_each(lambda host: rig.inside(host, "sh", "-c", _CLEAN), hosts)


@contextmanager
def faulty_registries(rig: Rig) -> Iterator[None]:
    """On each node a registry that misbehaves as its images' names say."""
    content = _SCRIPT.read_bytes()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("faulty_registry.py")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    port = FAULTY.rpartition(":")[2]
    run = f"exec python3 /var/tmp/faulty_registry.py {port} http://{REGISTRY} /var/tmp/faulty.log"
    for node in NODES:
        rig.put(node, archive.getvalue(), "/var/tmp")
        start = (
            f"rm -f /var/tmp/faulty.log; ({run}) >/dev/null 2>&1 & echo $! > /var/tmp/faulty.pid"
        )
        rig.inside(node, "sh", "-c", start)
    try:
        yield
    finally:
        for node in NODES:
            stop = "kill $(cat /var/tmp/faulty.pid); rm -f /var/tmp/faulty*"
            rig.inside(node, "sh", "-c", stop, check=False)


@contextmanager
def small_disks(rig: Rig, size: str, hosts: Sequence[str] = NODES) -> Iterator[None]:
    """Each host's Engine has so much room, and no image; afterwards what it had before."""
    places = ("/var/lib/docker", "/var/lib/containerd")
    mount = " && ".join(f"mount -t tmpfs -o size={size} tmpfs {place}" for place in places)

    def on_all(line: str) -> None:
        on_each(lambda host: rig.inside(host, "sh", "-c", line), hosts)

    try:
        on_all(f"engine-stop && {mount} && engine-start")
        yield
    finally:
        # What an Engine mounts below goes with it.
        on_all(f"engine-stop; umount -l {' '.join(places)}; engine-start")


def asked(rig: Rig, host: str, case: str) -> list[tuple[float, str]]:
    """When the registry on the host's loopback was asked for images of this case, and what."""
    lines = rig.inside(
        host, "sh", "-c", f"grep '/{case}/' /var/tmp/faulty.log || true"
    ).splitlines()
    return [(float(line.split()[0]), line.split(maxsplit=1)[1]) for line in lines]


def pull(name: str, images: Any, check: bool = False, **options: Any) -> Json:
    """A task that pulls."""
    known = {**LOGIN, "images": images, "retry_delay": 0.1, **options}
    arguments = {key: value for key, value in known.items() if value is not None}
    return {"name": name, "fleet.images.image_pull": arguments, "check_mode": check}


def command(name: str, line: str) -> Json:
    """A task that only looks."""
    task: Json = {"name": name, "ansible.builtin.shell": line, "changed_when": False}
    return {**task, "check_mode": False}


def actions(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What became of each image: name and action."""
    return [(one["name"], one["action"]) for one in result["images"]]


def left(rig: Rig, host: str, part: str) -> list[str]:
    """Every record of an image with this in its name or digest, those that dockerd hides too."""
    return [line for line in rig.held(host) if part in line]


def id_of(rig: Rig, host: str, name: str) -> str:
    """The ID of the image of this name."""
    return rig.inside(host, "docker", "inspect", "--format", "{{.Id}}", name).strip()


def is_classic(host: str) -> bool:
    """Whether the host's Engine has the classic store."""
    return STORES[host] == "classic"
