# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registries that the examples of the documentation name, Docker Hub among them.

They are containers beside the fleet's hosts, under the names of the real ones, with certificates
of the fleet's authority. All have the same contents. While they are there, some hosts trust that
authority as they would trust any of the web. As a program, it publishes an image:

market.py ADDRESS VERSION IMAGE...
"""

from __future__ import annotations

import io
import itertools
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fleet"))

from fleetlib import authority, storage
from fleetlib.console import wait_until
from fleetlib.hosts import NODES, UPSTREAM
from fleetlib.layers import Member, compress, noise, pack, pack_into
from fleetlib.places import HOST_FILES
from fleetlib.pusher import OCI, Image, Pusher
from fleetlib.recipes import REGISTRY

if TYPE_CHECKING:
    from rig import Rig

USER, PASSWORD = "robot", "s3cret-for-tests"
_HERE = Path(__file__).resolve()
_SEARCH = _HERE.parent / "files" / "hub_search.py"
_PLACE, _STORAGE = "/etc/market", "/var/lib/registry"
# Plain HTTP, to fill them all.
_FILLING = 5080
# What Engines and Python read as the system's authorities; the fleet's hosts come without any.
_TRUST = ("/etc/ssl/certs/ca-certificates.crt", "/usr/lib/ssl/cert.pem")
_CREATED = "2026-01-15T00:00:00Z"


@dataclass(frozen=True)
class Stall:
    """One container: the names that lead to it, its last octet, and where it asks for a login."""

    names: tuple[str, ...]
    octet: int
    open_ports: tuple[int, ...] = ()
    login_ports: tuple[int, ...] = ()


# An old Engine looks up docker.io itself too, and waits for an answer.
HUB = Stall(
    (
        *("registry-1.docker.io", "docker.io", "mirror.example"),
        *("registry.example.com", "site.example"),
    ),
    40,
    open_ports=(443, 5000),
)
STALLS = (
    HUB,
    Stall(("registry.example",), 41, open_ports=(443,), login_ports=(5000,)),
    Stall(("harbor.example",), 42, login_ports=(443,)),
    # The search of Docker Hub, which is no registry.
    Stall(("index.docker.io",), 43),
)
NAMES = tuple(name for stall in STALLS for name in stall.names)
LOGINS = ("registry.example:5000", "harbor.example")


class Market:
    """The registries of one fleet."""

    def __init__(self, rig: Rig, work: Path) -> None:
        self.rig = rig
        self.work = work
        self.address = f"{self._ip(HUB, UPSTREAM)}:{_FILLING}"

    @property
    def names(self) -> dict[str, str]:
        """Name -> address, as the controller reaches it."""
        return {name: self._ip(stall, UPSTREAM) for stall in STALLS for name in stall.names}

    @property
    def authority(self) -> str:
        """The certificate that is to be trusted, in PEM format."""
        return (authority.place(self.rig.fleet) / "ca.pem").read_text()

    def open(self, stock: Mapping[str, Sequence[str]]) -> None:
        """Starts the registries, with version 1 of these tags of repositories."""
        authority.issue(self.rig.fleet, "market", self.work, NAMES)
        self._start(HUB)
        with ThreadPoolExecutor(len(STALLS)) as pool:
            others = pool.map(self._start, STALLS[1:])
            url = f"http://{self.address}"
            wait_until(f"The registry at {url}", partial(storage.answers, url), 30)
            images = [f"{repository}:{tag}" for repository, tags in stock.items() for tag in tags]
            publish(self.address, 1, images)
            list(others)

    def close(self) -> None:
        """Takes them away."""
        names = [self._container(stall) for stall in STALLS]
        self.rig.engine.docker("rm", "--force", "--volumes", *names, check=False)

    def _ip(self, stall: Stall, network: str) -> str:
        octet = self.rig.fleet.octet
        return f"10.{octet}.{0 if network == UPSTREAM else 1}.{stall.octet}"

    def _container(self, stall: Stall) -> str:
        return f"fleet-{self.rig.fleet.name}-{stall.names[0]}"

    def _start(self, stall: Stall) -> None:
        """The files come between its creation and its start."""
        docker, name = self.rig.engine.docker, self._container(stall)
        docker("rm", "--force", "--volumes", name, check=False)
        run = f"for file in {_PLACE}/*.json; do docker-registry serve $file & done; wait"
        if not (stall.open_ports or stall.login_ports):
            known = " ".join(["nginx", *(f"company{n}/nginx" for n in range(12)), "postgres"])
            files = " ".join(f"{_PLACE}/market.{kind}" for kind in ("pem", "key"))
            run = f"exec python3 {_PLACE}/{_SEARCH.name} {files} {known}"
        share = self._container(HUB)
        volume = f"--volume={_STORAGE}" if stall is HUB else f"--volumes-from={share}"
        docker(
            *("create", "--init", "--name", name, "--label", self.rig.fleet.label, volume),
            *self._joining(stall, UPSTREAM),
            *(REGISTRY.image, "sh", "-c", run),
        )
        docker("cp", "-", f"{name}:/", stdin=self._files(stall))
        network = self.rig.fleet.network(NODES)
        docker("network", "connect", *self._joining(stall, NODES)[2:], network, name)
        docker("start", name)

    def _joining(self, stall: Stall, network: str) -> list[str]:
        place = ["--network", self.rig.fleet.network(network), "--ip", self._ip(stall, network)]
        kind = "--network-alias" if network == UPSTREAM else "--alias"
        return [*place, *(word for name in stall.names for word in (kind, name))]

    def _files(self, stall: Stall) -> bytes:
        files = {_SEARCH.name: _SEARCH.read_bytes(), "htpasswd": _htpasswd()}
        for kind in ("pem", "key"):
            files[f"market.{kind}"] = (self.work / f"market.{kind}").read_bytes()
        for port in (*stall.open_ports, *stall.login_ports):
            files[f"{port}.json"] = _config(port, login=port in stall.login_ports)
        if stall is HUB:
            files[f"{_FILLING}.json"] = _config(_FILLING, tls=False)
        return _tar({f"{_PLACE}/{name}": content for name, content in files.items()})

    @contextmanager
    def trusted(self, hosts: Sequence[str]) -> Iterator[None]:
        """Hosts trust the authority; Engines read theirs once, so they are started anew."""
        archive = _tar({path: self.authority.encode() for path in _TRUST})
        restart = "! command -v dockerd >/dev/null || { engine-stop && engine-start; }"

        def trust(host: str) -> None:
            self.rig.put(host, archive, "/")
            self.rig.inside(host, "sh", "-c", restart)

        def distrust(host: str) -> None:
            self.rig.inside(host, "sh", "-c", f"rm -f {' '.join(_TRUST)}; {restart}")

        with ThreadPoolExecutor(len(hosts)) as pool:
            list(pool.map(trust, hosts))
            try:
                yield
            finally:
                list(pool.map(distrust, hosts))


def publish(address: str, version: int, images: Iterable[str]) -> None:
    """Lets tags name a version: an index of two platforms, whose top layers hold a few bytes."""
    pusher = Pusher(address)
    with tempfile.TemporaryDirectory() as place:
        base = compress(pack({"base": Member(noise("market", 100_000))}, Path(place) / "base.tar"))

        def one(number: int, name: str) -> None:
            repository, _colon, tag = name.rpartition(":")
            parts = []
            for architecture in ("amd64", "arm64"):
                about = Member(f"{name} version {version} for {architecture}\n".encode())
                top = compress(pack({"about": about}, Path(place) / f"{number}-{architecture}.tar"))
                image = Image([base, top], _CREATED, {"Cmd": ["/about"]}, architecture)
                parts.append(pusher.image(repository, image, OCI))
            pusher.tag(repository, tag, pusher.index(repository, parts))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, itertools.count(), images))


def _htpasswd() -> bytes:
    """The password of the fleet's other registries, under another name."""
    _user, _colon, secret = (HOST_FILES / "htpasswd").read_text().partition(":")
    return f"{USER}:{secret}".encode()


def _config(port: int, *, tls: bool = True, login: bool = False) -> bytes:
    listener: dict[str, object] = {"addr": f":{port}", "secret": "the-same-for-all-listeners"}
    if tls:
        files = {"certificate": f"{_PLACE}/market.pem", "key": f"{_PLACE}/market.key"}
        listener["tls"] = files
    config = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": _STORAGE}},
        "http": listener,
    }
    if login:
        config["auth"] = {"htpasswd": {"realm": "market", "path": f"{_PLACE}/htpasswd"}}
    return json.dumps(config).encode()


def _tar(files: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        pack_into(tar, {path.lstrip("/"): Member(content) for path, content in files.items()})
    return archive.getvalue()


if __name__ == "__main__":
    publish(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
