"""Two internal networks per fleet; a range that is taken already is refused in words."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from .console import FleetError
from .hosts import NODES, UPSTREAM, Fleet
from .outer_engine import Engine


def ensure(engine: Engine, fleet: Fleet) -> None:
    """Make the fleet's networks where they are not there yet."""
    there = set(engine.lines("network", "ls", "--format", "{{.Name}}"))
    for network in (UPSTREAM, NODES):
        if fleet.network(network) in there:
            continue
        _refuse_clash(engine, fleet, network)
        engine.docker(
            *("network", "create", "--internal", "--label", fleet.label),
            *("--subnet", fleet.subnet(network), fleet.network(network)),
        )


def remove(engine: Engine, fleet: Fleet) -> None:
    """Remove the fleet's networks; their containers are gone by now."""
    mine = engine.lines("network", "ls", "--quiet", "--filter", f"label={fleet.label}")
    if mine:
        engine.docker("network", "rm", *mine)


def _refuse_clash(engine: Engine, fleet: Fleet, network: str) -> None:
    wanted = ipaddress.ip_network(fleet.subnet(network))
    for owner, taken in [*_engine_ranges(engine), *_routes()]:
        if taken.prefixlen and wanted.overlaps(taken):
            raise FleetError(
                f"The fleet '{fleet.name}' needs {wanted}, but {owner} has {taken} already: "
                f"take that away, or choose another --name (names map to ranges)."
            )


def _engine_ranges(engine: Engine) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    for name in engine.lines("network", "ls", "--format", "{{.Name}}"):
        seen = engine.docker("network", "inspect", name, check=False)
        details = json.loads(seen.stdout or "[]")
        for config in (details[0]["IPAM"]["Config"] or []) if details else []:
            subnet = config.get("Subnet", "")
            if subnet and ":" not in subnet:
                yield f"the Docker network '{name}'", ipaddress.IPv4Network(subnet)


def _routes() -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """The kernel's table gives numbers in the machine's byte order."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        base, mask = (socket.inet_ntoa(struct.pack("=I", int(fields[i], 16))) for i in (1, 7))
        yield f"a route by {fields[0]}", ipaddress.IPv4Network(f"{base}/{mask}", strict=False)
