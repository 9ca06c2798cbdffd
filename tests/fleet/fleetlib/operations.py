"""What a fleet as a whole can be told: up, down, reset, status, bytes on the wire."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from . import authority, containers, inventory, networks, outer_engine, storage
from .bootstrap import bootstrap
from .console import FleetError, say, step, wait_until
from .hosts import BUILDERS, ENGINES, HOSTS, NODES, PROXY_PORT, Fleet, Host
from .outer_engine import Engine
from .places import locked

READY_SECONDS = 90
SSH_PORT = 22
ALL_FLEETS = "label=fleet-images.fleet"
T = TypeVar("T")
_STORE = "io.containerd.snapshotter.v1"


def up(fleet: Fleet) -> None:
    """The whole fleet, running and checked; what is there already stays."""
    engine, contents = bootstrap()
    with locked(f"fleet-{fleet.name}"):
        with step("keys, certificates, ssh configuration and inventory"):
            inventory.write(fleet)
            authority.ensure(fleet)
        networks.ensure(engine, fleet)
        with step("containers"):
            _each(HOSTS, lambda host: containers.ensure(engine, fleet, host, contents))
        _wait(engine, fleet)
    say(f"the fleet is up: ansible-playbook -i {inventory.ssh_config(fleet).parent}/inventory.yml")


def down(fleet: Fleet, with_engine: bool) -> None:
    """Remove the fleet; the outer Engine goes too if it is asked for, ours, and not in use."""
    engine = outer_engine.find()
    with locked(f"fleet-{fleet.name}"):
        if engine:
            with step("removed containers, volumes and networks"):
                containers.remove(engine, containers.of_fleet(engine, fleet))
                networks.remove(engine, fleet)
        inventory.remove(fleet)
    if not (with_engine and engine):
        return
    with locked("bootstrap"):
        _stop_engine(engine)


def _stop_engine(engine: Engine) -> None:
    if others := engine.lines("ps", "--all", "--quiet", "--filter", ALL_FLEETS):
        say(f"the outer Engine stays: {len(others)} containers of other fleets are there")
    elif outer_engine.stop():
        say("the outer Engine was stopped")
    else:
        say("the outer Engine stays: it was not started here")


def reset(fleet: Fleet, with_registry: bool) -> None:
    """Engines that never held anything, and every host running again."""
    engine = running(fleet)
    if with_registry:
        _engine, contents = bootstrap()
        registry = HOSTS[0]
        containers.remove(engine, [fleet.container(registry)])
        containers.ensure(engine, fleet, registry, contents)
    with step("every host runs, without a way out"):
        _each(HOSTS, lambda host: containers.revive(engine, fleet, host))
        disconnect(fleet)
    with step("emptied the Engines"):
        _each((*ENGINES, *BUILDERS), lambda host: _inside(engine, fleet, host, "engine-reset"))
    _wait(engine, fleet)


def connect(fleet: Fleet) -> None:
    """The registry stands on the nodes network, and the Engines trust its certificate."""
    engine = running(fleet)
    containers.join(engine, fleet, HOSTS[0])
    _each(ENGINES, lambda host: containers.trust(engine, fleet, host))


def disconnect(fleet: Fleet) -> None:
    """Nodes reach no registry again, and trust none."""
    engine = running(fleet)
    containers.leave(engine, fleet, HOSTS[0])
    _each(ENGINES, lambda host: containers.distrust(engine, fleet, host))


def status(fleet: Fleet) -> list[dict[str, Any]]:
    """One row per host, also for those that are gone."""
    engine = running(fleet)
    return _each(HOSTS, lambda host: _row(engine, fleet, host))


def net_bytes(fleet: Fleet) -> dict[str, dict[str, int]]:
    """Bytes that each host received and sent on the nodes network since it started."""
    engine = running(fleet)
    there = [host for host in HOSTS if NODES in host.places]
    return dict(_each(there, lambda host: (host.name, _bytes(engine, fleet, host))))


def ssh(fleet: Fleet, host: str, command: list[str]) -> int:
    """Run a command on a host the way Ansible gets there."""
    config = inventory.ssh_config(fleet)
    if not config.exists():
        raise FleetError(f"The fleet '{fleet.name}' is not up.")
    args = ["ssh", "-F", str(config), by_name(host).name, *command]
    return subprocess.run(args, check=False).returncode


def stop_host(fleet: Fleet, host: str) -> None:
    """Switch a host off."""
    running(fleet).docker("stop", "--time", "20", fleet.container(by_name(host)))


def start_host(fleet: Fleet, host: str) -> None:
    """Switch a host on again and wait until it serves."""
    engine, wanted = running(fleet), by_name(host)
    containers.revive(engine, fleet, wanted)
    _ready(engine, fleet, wanted)


def by_name(name: str) -> Host:
    """The host of that name."""
    for host in HOSTS:
        if host.name == name:
            return host
    raise FleetError(f"There is no host '{name}'; there are {', '.join(h.name for h in HOSTS)}.")


def running(fleet: Fleet) -> Engine:
    """The Engine that carries the fleet."""
    if engine := outer_engine.find():
        return engine
    raise FleetError(f"No outer Engine runs: run 'up --name {fleet.name}' first.")


def _each(hosts: Iterable[Host], work: Callable[[Host], T]) -> list[T]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(work, hosts))


def _inside(engine: Engine, fleet: Fleet, host: Host, *command: str) -> str:
    return engine.docker("exec", fleet.container(host), *command).stdout


def _wait(engine: Engine, fleet: Fleet) -> None:
    with step("every host answers, with the Engine and store that it should have"):
        _each(HOSTS, lambda host: _ready(engine, fleet, host))


def _ready(engine: Engine, fleet: Fleet, host: Host) -> None:
    if host.name == "registry":
        for scheme, port in (("http", 5000), ("http", 5001), ("https", 5443)):
            url = f"{scheme}://{fleet.address(host)}:{port}"
            wait_until(f"registry {url}", partial(storage.answers, url), READY_SECONDS)
        _listens(engine, fleet, host, PROXY_PORT)
    _listens(engine, fleet, host, SSH_PORT)
    if host.engine:
        _inside(engine, fleet, host, "engine-start")
        version, store = _engine_of(engine, fleet, host)
        if not version.startswith(host.engine) or store != host.store:
            raise FleetError(
                f"{host.name} should run Engine {host.engine} with the {host.store} store, "
                f"but it runs {version} with the {store} store."
            )


def _listens(engine: Engine, fleet: Fleet, host: Host, port: int) -> None:
    look = ("sh", "-c", f"ss -Hltn sport = {port} | grep -q .")
    what = f"port {port} of {host.name}"
    wait_until(what, lambda: _true(engine, fleet, host, *look), READY_SECONDS)


def _true(engine: Engine, fleet: Fleet, host: Host, *command: str) -> bool:
    args = ("exec", fleet.container(host), *command)
    return engine.docker(*args, check=False).returncode == 0


def _engine_of(engine: Engine, fleet: Fleet, host: Host) -> tuple[str, str]:
    """Version and store of a node's Engine."""
    info = json.loads(_inside(engine, fleet, host, "docker", "info", "--format", "{{json .}}"))
    if not info.get("ServerVersion"):
        raise FleetError(f"The Engine of {host.name} does not answer.")
    kinds = [value for _key, value in info.get("DriverStatus") or []]
    return info["ServerVersion"], "containerd" if _STORE in kinds else "classic"


def _row(engine: Engine, fleet: Fleet, host: Host) -> dict[str, Any]:
    seen = containers.look(engine, fleet, host)
    row: dict[str, Any] = {"host": host.name, "state": seen.state if seen else "absent"}
    row["address"] = fleet.address(host)
    if host.engine and row["state"] == "running":
        try:
            row["engine"], row["store"] = _engine_of(engine, fleet, host)
        except FleetError:
            row["engine"] = "does not answer"
    return row


def _bytes(engine: Engine, fleet: Fleet, host: Host) -> dict[str, int]:
    """The interface is found by its address: names depend on the order of connection."""
    listing = json.loads(_inside(engine, fleet, host, "ip", "-json", "-stats", "address"))
    for link in listing:
        if any(a.get("local") == fleet.address(host, NODES) for a in link["addr_info"]):
            stats = link["stats64"]
            return {"rx": stats["rx"]["bytes"], "tx": stats["tx"]["bytes"]}
    raise FleetError(f"{host.name} is not on the nodes network.")
