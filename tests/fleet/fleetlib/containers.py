"""Turn hosts into containers of the outer Engine, and put right what a run or a test left."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from . import authority, inventory
from .console import FleetError, step
from .hosts import BASTIONS, BUILDERS, NODES, REGISTRY_CA, REGISTRY_NAME, TLS_REGISTRY, Fleet, Host
from .layers import Member, pack_into
from .outer_engine import Engine
from .places import HOST_FILES, key_of

_REGISTRY_FILES = (
    *("registry-open.yml", "registry-login.yml", "registry-tls.yml"),
    *("htpasswd", "tinyproxy.conf"),
)
# Where an Engine looks for authorities of this registry.
_TRUST = f"/etc/docker/certs.d/{TLS_REGISTRY}"
RECIPE_LABEL = "fleet-images.recipe"
# more than Docker's default set; never SYS_RESOURCE, which the machine itself may lack
_CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYSLOG", "IPC_LOCK")
_UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")
# What a container needs to run an Engine of its own.
ENGINE_OPTIONS = (
    *(f"--cap-add={name}" for name in _CAPABILITIES),
    *(f"--security-opt={option}" for option in _UNCONFINED),
    *("--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"),
    *("--volume=/var/lib/docker", "--volume=/var/lib/containerd"),
)


@dataclass(frozen=True)
class Seen:
    """A container as it is."""

    state: str
    recipe: str
    networks: dict[str, str]


def look(engine: Engine, fleet: Fleet, host: Host) -> Seen | None:
    """The host's container, if there is one."""
    done = engine.docker("container", "inspect", fleet.container(host), check=False)
    if done.returncode != 0:
        return None
    details = json.loads(done.stdout)[0]
    networks = details["NetworkSettings"]["Networks"]
    return Seen(
        details["State"]["Status"],
        details["Config"]["Labels"].get(RECIPE_LABEL, ""),
        {name: place.get("NetworkID", "") for name, place in networks.items()},
    )


def ensure(engine: Engine, fleet: Fleet, host: Host, contents: Path) -> None:
    """The host's container as wanted and running; what an interrupted run left is replaced.

    A container gets its files between its creation and its first start: one that was never
    started is unfinished.
    """
    files = _files(fleet, host)
    recipe = _recipe(fleet, host, files, contents)
    seen = look(engine, fleet, host)
    if seen and (seen.recipe != recipe or seen.state in ("created", "dead", "removing")):
        remove(engine, [fleet.container(host)])
        seen = None
    if seen is None:
        with step(f"created {host.name}"):
            _create(engine, fleet, host, recipe, files)
            if host.name == "registry":
                with open(contents, "rb") as tar:
                    engine.docker("cp", "-", f"{fleet.container(host)}:/var/lib", stdin=tar)
    revive(engine, fleet, host)


def revive(engine: Engine, fleet: Fleet, host: Host) -> None:
    """Undo what tests do to whole hosts: stopped, paused, unplugged."""
    container = fleet.container(host)
    seen = look(engine, fleet, host)
    if seen is None:
        raise FleetError(f"The fleet '{fleet.name}' has no {host.name}: run 'up' first.")
    if seen.state == "paused":
        engine.docker("unpause", container)
    for network in host.places:
        if fleet.network(network) not in seen.networks:
            _connect(engine, fleet, host, network)
    if seen.state not in ("running", "paused"):
        engine.docker("start", container)


def join(engine: Engine, fleet: Fleet, registry: Host) -> None:
    """Puts the registry on the nodes network, by its name."""
    seen = look(engine, fleet, registry)
    if seen is None:
        raise FleetError(f"The fleet '{fleet.name}' has no {registry.name}: run 'up' first.")
    if fleet.network(NODES) in seen.networks:
        return
    engine.docker(
        *("network", "connect", "--ip", fleet.registry_on_nodes, "--alias", REGISTRY_NAME),
        *(fleet.network(NODES), fleet.container(registry)),
    )


def leave(engine: Engine, fleet: Fleet, registry: Host) -> None:
    """Takes the registry off the nodes network."""
    seen = look(engine, fleet, registry)
    if seen and fleet.network(NODES) in seen.networks:
        engine.docker("network", "disconnect", fleet.network(NODES), fleet.container(registry))


def trust(engine: Engine, fleet: Fleet, host: Host) -> None:
    """Has the Engine of a node trust the fleet's authority for the registry's TLS port."""
    content = (authority.place(fleet) / "ca.pem").read_bytes()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        pack_into(tar, {f"{_TRUST[1:]}/ca.crt": Member(content)})
    engine.docker("cp", "-", f"{fleet.container(host)}:/", stdin=archive.getvalue())


def distrust(engine: Engine, fleet: Fleet, host: Host) -> None:
    """Takes that back; a node that is switched off keeps it until the next time."""
    engine.docker("exec", fleet.container(host), "rm", "-rf", _TRUST, check=False)


def remove(engine: Engine, containers: list[str]) -> None:
    """Remove containers with their anonymous volumes."""
    if containers:
        engine.docker("rm", "--force", "--volumes", *containers)


def of_fleet(engine: Engine, fleet: Fleet) -> list[str]:
    """All containers of the fleet, also those of an older recipe."""
    return engine.lines("ps", "--all", "--quiet", "--filter", f"label={fleet.label}")


def _create(
    engine: Engine, fleet: Fleet, host: Host, recipe: str, files: dict[str, Member]
) -> None:
    engine.docker("create", *_options(fleet, host, recipe))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        pack_into(tar, files)
    engine.docker("cp", "-", f"{fleet.container(host)}:/", stdin=archive.getvalue())
    for network in list(host.places)[1:]:
        _connect(engine, fleet, host, network)


def _connect(engine: Engine, fleet: Fleet, host: Host, network: str) -> None:
    address = fleet.address(host, network)
    alias = ["--alias", REGISTRY_NAME] if host.name == "registry" else []
    engine.docker(
        *("network", "connect", "--ip", address, *alias),
        *(fleet.network(network), fleet.container(host)),
    )


def _options(fleet: Fleet, host: Host, recipe: str) -> list[str]:
    first = next(iter(host.places))
    hostname = REGISTRY_NAME if host.name == "registry" else host.name
    options = [f"--name={fleet.container(host)}", f"--hostname={hostname}", "--init"]
    options += [f"--label={fleet.label}", f"--label={RECIPE_LABEL}={recipe}"]
    options += ["--tmpfs=/run:rw,nosuid,mode=755,size=256m"]
    options += [f"--network={fleet.network(first)}", f"--ip={fleet.address(host, first)}"]
    if host.name == "registry":
        options.append(f"--network-alias={REGISTRY_NAME}")
    # Names of no host are asked for outside, where there may be nobody to say no.
    options += ["--dns-option=timeout:1", "--dns-option=attempts:1"]
    if host.engine:
        options += ENGINE_OPTIONS
    return [*options, host.recipe.image, "/usr/local/bin/fleet-entry"]


def _recipe(fleet: Fleet, host: Host, files: dict[str, Member], contents: Path) -> str:
    digests = {name: sha256(member.content).hexdigest() for name, member in files.items()}
    held = contents.name if host.name == "registry" else ""
    return key_of(_options(fleet, host, ""), host.places, held, sorted(digests.items()))


def _files(fleet: Fleet, host: Host) -> dict[str, Member]:
    """What one host is given before its first start."""

    def given(name: str, mode: int = 0o644) -> Member:
        return Member((HOST_FILES / name).read_bytes(), mode)

    certificates = authority.place(fleet)
    public = inventory.login_key(fleet).with_suffix(".pub").read_bytes()
    files = {
        "usr/local/bin/fleet-entry": given("fleet-entry", 0o755),
        "usr/local/bin/engine-stop": given("engine-stop", 0o755),
        "etc/fleet/sshd_config": Member(_sshd_config(fleet, host)),
        "etc/fleet/authorized_keys": Member(public),
        "etc/fleet/host_key": Member(inventory.host_key(fleet, host).read_bytes(), 0o600),
    }
    if host.name == "registry":
        for name in _REGISTRY_FILES:
            files[f"etc/fleet/{name}"] = given(name)
        for name in ("registry.pem", "registry.key"):
            files[f"etc/fleet/{name}"] = Member((certificates / name).read_bytes(), 0o600)
    if host in BASTIONS or host in BUILDERS:
        files[REGISTRY_CA[1:]] = Member((certificates / "ca.pem").read_bytes())
        helper = "docker-credential-fleettest"
        files[f"usr/local/bin/{helper}"] = given(helper, 0o755)
    if host in BUILDERS:
        trusted = f"etc/docker/certs.d/{TLS_REGISTRY}/ca.crt"
        files[trusted] = Member((certificates / "ca.pem").read_bytes())
    if host.engine:
        files["etc/docker/daemon.json"] = Member(host.daemon_json())
        for name in ("engine-start", "engine-reset"):
            files[f"usr/local/bin/{name}"] = given(name, 0o755)
    return files


def _sshd_config(fleet: Fleet, host: Host) -> bytes:
    """Nodes let in bastions and builders only, as behind a real jump host."""
    base = (HOST_FILES / "sshd_config").read_text()
    doors = [f"root@{fleet.address(b, NODES)}" for b in (*BASTIONS, *BUILDERS)]
    doors = doors if host.is_node else ["root"]
    return f"{base}AllowUsers {' '.join(doors)}\n".encode()
