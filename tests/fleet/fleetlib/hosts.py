"""What a fleet consists of: its hosts, their addresses and what each of them is given."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from .recipes import BASTION, ENGINE20, ENGINE26, ENGINE28, REGISTRY, Recipe

UPSTREAM = "upstream"
NODES = "nodes"
REGISTRY_NAME = "registry.fleet.test"
TLS_REGISTRY = f"{REGISTRY_NAME}:5443"
REGISTRY_CA = "/etc/fleet/registry-ca.pem"
PROXY_PORT = 3128
_KNOWN_OCTETS = {"demo": 77, "test": 78}
_CLASSIC: dict[str, Any] = {
    "features": {"containerd-snapshotter": False},
    "storage-driver": "overlay2",
}
_CONTAINERD: dict[str, Any] = {"features": {"containerd-snapshotter": True}}
_BUILDER = {**_CONTAINERD, "insecure-registries": [f"{REGISTRY_NAME}:5000"]}


@dataclass(frozen=True)
class Host:
    """One test host; `places` gives its last octet in each network it joins."""

    name: str
    recipe: Recipe
    places: dict[str, int]
    engine: str = ""
    store: str = ""
    daemon: dict[str, Any] = field(default_factory=dict)

    @property
    def is_node(self) -> bool:
        """Nodes run an Engine and know nothing but the nodes network."""
        return bool(self.engine) and UPSTREAM not in self.places

    def daemon_json(self) -> bytes:
        """The Engine's configuration file."""
        return json.dumps(self.daemon, indent=2).encode() + b"\n"


def _node(recipe: Recipe, engine: str, store: str, place: int) -> Host:
    config = {"classic": _CLASSIC, "containerd": _CONTAINERD}[store]
    return Host(f"{recipe.name}-{store}", recipe, {NODES: place}, engine, store, config)


HOSTS = (
    Host("registry", REGISTRY, {UPSTREAM: 10}),
    Host("bastion1", BASTION, {UPSTREAM: 11, NODES: 11}),
    Host("bastion2", BASTION, {UPSTREAM: 12, NODES: 12}),
    _node(ENGINE20, "20.10", "classic", 21),
    _node(ENGINE26, "26.1", "classic", 22),
    _node(ENGINE26, "26.1", "containerd", 23),
    _node(ENGINE28, "28.5", "classic", 24),
    _node(ENGINE28, "28.5", "containerd", 25),
    Host("builder1", ENGINE28, {UPSTREAM: 13, NODES: 13}, "28.5", "containerd", _BUILDER),
)
BASTIONS = tuple(h for h in HOSTS if h.recipe is BASTION)
ENGINES = tuple(h for h in HOSTS if h.is_node)
BUILDERS = tuple(h for h in HOSTS if h.engine and not h.is_node)


@dataclass(frozen=True)
class Fleet:
    """One fleet by its name; several live side by side."""

    name: str

    @property
    def octet(self) -> int:
        """The second octet of all its addresses."""
        spread = 79 + int(sha256(self.name.encode()).hexdigest(), 16) % 170
        return _KNOWN_OCTETS.get(self.name, spread)

    def subnet(self, network: str) -> str:
        """The range of one of its two networks."""
        return f"10.{self.octet}.{0 if network == UPSTREAM else 1}.0/24"

    def address(self, host: Host, network: str | None = None) -> str:
        """Where a host is reached: by the controller on upstream, else on the nodes network."""
        network = network or (UPSTREAM if UPSTREAM in host.places else NODES)
        third = 0 if network == UPSTREAM else 1
        return f"10.{self.octet}.{third}.{host.places[network]}"

    @property
    def registry_on_nodes(self) -> str:
        """The registry's address on the nodes network, while it is connected to that."""
        return f"10.{self.octet}.1.{HOSTS[0].places[UPSTREAM]}"

    def network(self, network: str) -> str:
        """Its name on the outer Engine."""
        return f"fleet-{self.name}-{network}"

    def container(self, host: Host) -> str:
        """Its name on the outer Engine."""
        return f"fleet-{self.name}-{host.name}"

    @property
    def label(self) -> str:
        """Marks everything that belongs to this fleet."""
        return f"fleet-images.fleet={self.name}"
