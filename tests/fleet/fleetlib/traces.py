"""What an Engine leaves in the machine's network when it ends, and how that goes again.

An Engine makes the bridge docker0 and chains of packet filter rules, lets the kernel forward and
forbids forwarding by default; it takes none of that back. What was there before it stays.
A build for other processors gives the kernel a handler for their programs (files/tool/build).
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from .console import run

BRIDGE = "docker0"
CHAIN = "DOCKER"
TABLES = ("filter", "nat")
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def remember(file: Path) -> None:
    """Notes how the network is before an Engine starts here for the first time."""
    if file.exists():
        return
    policies = [line.split()[2] for line in _rules("filter") if line.startswith("-P FORWARD")]
    state = {
        "bridge": Path("/sys/class/net", BRIDGE).exists(),
        "chains": any(line.startswith(f"-N {CHAIN}") for line in _rules("filter")),
        "policy": (policies or ["ACCEPT"])[0],
        "forward": _FORWARD.read_text().strip(),
    }
    file.write_text(json.dumps(state))


def remove(file: Path) -> None:
    """Takes away what the Engine brought since `remember`."""
    try:
        before = json.loads(file.read_text())
    except (OSError, ValueError):
        return  # nothing was noted: nothing is known to be the Engine's
    if not before["chains"]:
        for table in TABLES:
            _remove_chains(table)
        run(["iptables", "-w", "-P", "FORWARD", before["policy"]], check=False)
    if not before["bridge"]:
        run(["ip", "link", "delete", BRIDGE], check=False)
    with contextlib.suppress(OSError):
        _FORWARD.write_text(before["forward"])


def remove_handlers() -> None:
    """What a killed build left with the kernel; the mount is gone again with its namespace."""
    place = "/proc/sys/fs/binfmt_misc"
    script = (
        f"mount -t binfmt_misc binfmt_misc {place}; "
        f"for one in {place}/fleet-*; do echo -1 >$one; done"
    )
    run(["unshare", "--mount", "--propagation", "private", "sh", "-c", script], check=False)


def _rules(table: str) -> list[str]:
    return run(["iptables", "-w", "-t", table, "-S"], check=False).stdout.splitlines()


def _remove_chains(table: str) -> None:
    """The Engine's chains, and every rule elsewhere that names them or its bridge."""
    rules = _rules(table)
    chains = [line.split()[1] for line in rules if line.startswith(f"-N {CHAIN}")]
    for line in rules:
        words = line.split()
        if words[0] == "-A" and words[1] not in chains and {BRIDGE, *chains} & set(words):
            run(["iptables", "-w", "-t", table, "-D", *words[1:]], check=False)
    for option in ("-F", "-X"):
        for chain in chains:
            run(["iptables", "-w", "-t", table, option, chain], check=False)
