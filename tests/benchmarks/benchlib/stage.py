"""The test fleet as a stage: one Engine host as the bastion, three as nodes, in one state."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fleetlib import operations
from fleetlib.hosts import HOSTS, UPSTREAM, Fleet
from fleetlib.layers import Member, pack_into
from fleetlib.places import state_dir

BASTION = "engine28-classic"
NODES = ("engine26-classic", "engine28-containerd", "engine26-containerd")
REGISTRY = "registry.fleet.test:5000"
WORK = "/var/tmp/bench"  # on every host; what a contender needs there, and what is noted there
PYTHON = f"{WORK}/python"
_BASTION_OCTET = 13  # free in the upstream network

# Runs Python for a module, and notes the most memory (kB) that the module took.
_WRAPPER = """#!/usr/bin/python3 -IS
import os, resource, subprocess, sys
environment = dict(os.environ, PYTHONPATH={path!r}) if {path!r} else None
code = subprocess.call(["/usr/bin/python3", *sys.argv[1:]], env=environment)
took = resource.getrusage(resource.RUSAGE_CHILDREN)
with open({notes!r}, "a") as notes:
    print(took.ru_maxrss, file=notes)
sys.exit(code)
"""
_NOTES = f"{WORK}/notes"

T = TypeVar("T")


class Stage:
    """The hosts that take part, and what is measured on them."""

    def __init__(self, name: str) -> None:
        self.fleet = Fleet(name)
        self.engine = operations.running(self.fleet)
        self.state = state_dir(name)
        self.registry_address = f"{self.fleet.address(HOSTS[0])}:5000"

    def prepare(self) -> None:
        """The bastion reaches the registry, as a bastion does, and its Engine speaks HTTP to it.

        It has the program of the package docker-registry, for the relay.
        """
        container = self._container(BASTION)
        network = self.fleet.network(UPSTREAM)
        address = f"10.{self.fleet.octet}.0.{_BASTION_OCTET}"
        self.engine.docker("network", "disconnect", network, container, check=False)
        self.engine.docker("network", "connect", "--ip", address, network, container)
        daemon = json.loads(self.inside(BASTION, "cat", "/etc/docker/daemon.json"))
        daemon["insecure-registries"] = [REGISTRY]
        self.put(BASTION, {"etc/docker/daemon.json": json.dumps(daemon).encode()}, "/")
        self.inside(BASTION, "pkill", "-HUP", "-x", "dockerd")
        with tempfile.TemporaryDirectory() as place:
            program, there = f"{place}/docker-registry", "/usr/bin/docker-registry"
            self.engine.docker("cp", f"{self.fleet.container(HOSTS[0])}:{there}", program)
            self.engine.docker("cp", program, f"{container}:{there}")

    def empty(self, tree: Path | None) -> None:
        """Every host as it was when it was made; `tree` is put into the hosts' Python path."""
        each(self._empty, (BASTION, *NODES))
        path = f"{WORK}/lib" if tree else ""
        wrapper = _WRAPPER.format(path=path, notes=_NOTES).encode()
        for host in (BASTION, *NODES):
            self.put(host, {"python": wrapper}, WORK)
            if tree:
                self.put_tree(host, tree, f"{WORK}/lib")

    def _empty(self, host: str) -> None:
        self.inside(host, "engine-reset")
        left = f"{WORK} /var/tmp/fleet-images /var/lib/fleet-images ~/.ansible ~/.local"
        left += " /usr/local/lib/fleet-images"
        self.inside(host, "sh", "-c", f"rm -rf {left}; mkdir -p {WORK}")

    def inside(self, host: str, *command: str) -> str:
        """What a command on a host prints; goes by the outer Engine, not by the network."""
        return self.engine.docker("exec", self._container(host), *command).stdout

    def put(self, host: str, files: dict[str, bytes], place: str) -> None:
        """Small executable files into a directory of a host."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            pack_into(tar, {name: Member(content, 0o755) for name, content in files.items()})
        self.engine.docker("cp", "-", f"{self._container(host)}:{place}", stdin=archive.getvalue())

    def feed(self, host: str, content: bytes, *command: str) -> None:
        """A command on a host that reads this."""
        self.engine.docker("exec", "-i", self._container(host), *command, stdin=content)

    def put_tree(self, host: str, tree: Path, place: str) -> None:
        """A directory with Python packages, compiled as an installation leaves them."""
        self.engine.docker("cp", str(tree), f"{self._container(host)}:{place}")
        self.inside(host, "python3", "-m", "compileall", "-q", place)

    def received(self) -> dict[str, int]:
        """Bytes that each node's link has received so far."""
        there = operations.net_bytes(self.fleet)
        return {node: there[node]["rx"] for node in NODES}

    def addresses(self) -> dict[str, str]:
        """Where each node is reached."""
        return {node: self.fleet.address(operations.by_name(node)) for node in NODES}

    def engines(self) -> list[str]:
        """The Engines of the nodes and, last, of the bastion: version and image store."""
        rows = {row["host"]: row for row in operations.status(self.fleet)}
        return [f"{rows[host]['engine']} {rows[host]['store']}" for host in (*NODES, BASTION)]

    def peaks(self) -> dict[str, int]:
        """The most bytes that a module took on each host since the last call; 0 for none."""
        line = f"cat {_NOTES} 2>/dev/null; rm -f {_NOTES}"
        told = each(lambda host: self.inside(host, "sh", "-c", line), (BASTION, *NODES))
        most = [max(map(int, text.split()), default=0) * 1024 for text in told]
        return dict(zip((BASTION, *NODES), most))

    def _container(self, host: str) -> str:
        return self.fleet.container(operations.by_name(host))


def each(work: Callable[[str], T], hosts: Sequence[str]) -> list[T]:
    """The same on every host at once."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(work, hosts))
