"""Keys, ssh configuration and inventory of one fleet, in its state directory."""

from __future__ import annotations

import shutil
from pathlib import Path

from .console import run
from .hosts import (
    BASTIONS,
    BUILDERS,
    ENGINES,
    HOSTS,
    NODES,
    PROXY_PORT,
    REGISTRY_CA,
    REGISTRY_NAME,
    TLS_REGISTRY,
    UPSTREAM,
    Fleet,
    Host,
)
from .places import state_dir


def write(fleet: Fleet) -> None:
    """Everything a controller needs; existing keys stay, so a second run changes nothing."""
    state = state_dir(fleet.name)
    (state / "host-keys").mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    for path in [login_key(fleet), *(host_key(fleet, h) for h in HOSTS)]:
        _ensure_key(path)
    known = [f"{_all_names(fleet, h)} {_public(host_key(fleet, h))}" for h in HOSTS]
    _replace(state / "known_hosts", "\n".join(known) + "\n")
    _replace(ssh_config(fleet), _ssh_config(fleet))
    _replace(state / "inventory.yml", _inventory(fleet))


def remove(fleet: Fleet) -> None:
    """Forget the fleet; the directory of all fleets goes with the last one."""
    state = state_dir(fleet.name)
    shutil.rmtree(state, ignore_errors=True)
    if state.parent.is_dir() and not any(state.parent.iterdir()):
        state.parent.rmdir()


def ssh_config(fleet: Fleet) -> Path:
    """To be given to ssh with -F."""
    return state_dir(fleet.name) / "ssh_config"


def login_key(fleet: Fleet) -> Path:
    """The private key that opens every host of this fleet."""
    return state_dir(fleet.name) / "id_ed25519"


def host_key(fleet: Fleet, host: Host) -> Path:
    """The host's own private key, made here so that it is known before the host exists."""
    return state_dir(fleet.name) / "host-keys" / host.name


def _ensure_key(path: Path) -> None:
    if path.exists() and path.with_suffix(".pub").exists():
        return
    part = path.with_name(path.name + ".part")
    for old in (path, part, Path(f"{part}.pub")):
        old.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fleet-test", "-f", part])
    Path(f"{part}.pub").replace(path.with_suffix(".pub"))
    part.replace(path)


def _public(path: Path) -> str:
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def _all_names(fleet: Fleet, host: Host) -> str:
    return ",".join([host.name, *(fleet.address(host, network) for network in host.places)])


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def _ssh_config(fleet: Fleet) -> str:
    """Nodes go by the first bastion; every name works as alias and as address."""
    state = state_dir(fleet.name)
    blocks = []
    for host in HOSTS:
        lines = [f"Host {host.name} {fleet.address(host)}", f"HostName {fleet.address(host)}"]
        if UPSTREAM not in host.places:
            lines.append(f"ProxyJump {BASTIONS[0].name}")
        blocks.append("\n    ".join(lines))
    common = [
        "Host *",
        "User root",
        f'IdentityFile "{login_key(fleet)}"',
        "IdentitiesOnly yes",
        f'UserKnownHostsFile "{state / "known_hosts"}"',
        "GlobalKnownHostsFile /dev/null",
        "StrictHostKeyChecking yes",
        "UpdateHostKeys no",
        "ConnectTimeout 10",
    ]
    return "\n".join([*blocks, "\n    ".join(common)]) + "\n"


def _inventory(fleet: Fleet) -> str:
    state = state_dir(fleet.name)
    return "\n".join(
        [
            f"# Written by tests/fleet/fleet for the fleet '{fleet.name}'; do not edit.",
            "all:",
            "  vars:",
            "    ansible_user: root",
            "    ansible_python_interpreter: /usr/bin/python3",
            f'    ansible_ssh_private_key_file: "{login_key(fleet)}"',
            f"    ansible_ssh_common_args: -F '{state / 'ssh_config'}'",
            "    ansible_ssh_pipelining: true",
            # Without Ansible's -C: layers are compressed already.
            "    ansible_ssh_args: -o ControlMaster=auto -o ControlPersist=60s",
            "    airgap_registry_validate_certs: false",
            f"    fleet_registry_ca: {REGISTRY_CA}",
            f"    fleet_registry_tls: {TLS_REGISTRY}",
            f"    fleet_proxy: http://{REGISTRY_NAME}:{PROXY_PORT}",
            "  children:",
            "    bastion:",
            "      hosts:",
            *(line for h in BASTIONS for line in _host_lines(fleet, h, {})),
            "    builders:",
            "      hosts:",
            *(line for h in BUILDERS for line in _host_lines(fleet, h, {})),
            "    nodes:",
            "      hosts:",
            *(
                line
                for h in ENGINES
                for line in _host_lines(
                    fleet, h, {"expected_engine": h.engine, "expected_store": h.store}
                )
            ),
            "",
        ]
    )


def _host_lines(fleet: Fleet, host: Host, variables: dict[str, str]) -> list[str]:
    facts = {
        "ansible_host": fleet.address(host),
        "nodes_address": fleet.address(host, NODES),
        **variables,
    }
    lines = [f'          {key}: "{value}"' for key, value in facts.items()]
    return [f"        {host.name}:", *lines]
