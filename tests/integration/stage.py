# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where examples of the documentation run: a few hosts of the fleet, and a controller.

The controller is a process with some files of its own in the place of the machine's: /etc/hosts,
/etc/ssh/ssh_config, and what is below /media. So it knows the names in the examples.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleetlib import inventory, operations
from fleetlib.hosts import BUILDERS, NODES
from market import NAMES, Market
from pulling import empty
from rig import JUMP_HOST, ROOT, SETTINGS, Json, Rig, on_each

CLASSIC, CONTAINERD = "engine20-classic", "engine28-containerd"
ENGINES = (CLASSIC, CONTAINERD)
BUILDER = BUILDERS[0].name
HOSTS = (JUMP_HOST, *ENGINES, BUILDER)
# Names of hosts in the README.
ALIASES = {
    "gate.example.com": JUMP_HOST,
    "shop1.example.com": CLASSIC,
    "shop2.example.com": CONTAINERD,
}
PREPARED = "Prepared: "
_PRIVATE = (("hosts", "/etc/hosts"), ("ssh_config", "/etc/ssh/ssh_config"), ("media", "/media"))
_RESULT = re.compile(r"(ok|changed|skipping|failed|fatal): \[([^\] ]+)(?: -> [^\]]*)?\]")
# A run that failed may have left its relay.
_TIDY = "pkill -f '^/usr/bin/docker-registry serve /var/lib/fleet-images/'; "
_TIDY += "rm -rf /var/lib/fleet-images /var/tmp/my-images* /mnt/stick ~/.docker /srv/app"
_KEPT = "/var/lib/fleet-images"


@dataclass(frozen=True)
class Outcome:
    """One run. `results`: task -> host -> `ok`, `changed`, `skipping`, `failed` or `fatal`."""

    code: int
    output: str
    results: Mapping[str, Mapping[str, str]]

    def changed(self) -> set[str]:
        """Hosts where a task changed something that was not there to prepare."""
        own = (on for task, on in self.results.items() if not task.startswith(PREPARED))
        return {host for on in own for host, status in on.items() if status == "changed"}


class Stage:
    """Runs plays there."""

    def __init__(self, rig: Rig, market: Market, work: Path) -> None:
        self.rig = rig
        self.market = market
        self.work = work
        (work / "media" / "stick").mkdir(parents=True)
        (work / "media" / "usb").mkdir()
        trusted = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
        others = trusted.read_text() if trusted.exists() else ""
        (work / "authorities.pem").write_text(f"{others}\n{market.authority}")
        names = "".join(f"{address} {name}\n" for name, address in market.names.items())
        (work / "hosts").write_text(Path("/etc/hosts").read_text() + names)
        (work / "ssh_config").write_text(self._ssh_config())
        self.key = inventory.login_key(rig.fleet)
        self.inventory = work / "inventory.json"
        self.inventory.write_text(json.dumps(self._inventory()))

    def _ssh_config(self) -> str:
        fleet = self.rig.fleet
        blocks = [
            f"Host {alias}\n    HostName {fleet.address(operations.by_name(host))}\n"
            for alias, host in ALIASES.items()
        ]
        return "".join(blocks) + inventory.ssh_config(fleet).read_text()

    def _names(self) -> str:
        """For an ssh on the network of the nodes: their names, and no questions."""
        hosts = {name: self.rig.fleet.address(operations.by_name(name), NODES) for name in ENGINES}
        blocks = [f"Host {name}\n    HostName {address}\n" for name, address in hosts.items()]
        return "".join([*blocks, "Host *\n    StrictHostKeyChecking no\n"])

    def _inventory(self) -> Json:
        near = self.rig.fleet.address(operations.by_name(JUMP_HOST), NODES)
        # The bastion has another address on the network of the nodes.
        hosts: Json = {JUMP_HOST: {}}
        variables = {
            "fleet_images": [
                "docker.io/library/nginx:1.27-alpine",
                "registry.example/shop/api:4.2",
            ],
            "image_relay_address": near,
        }
        nodes = {"hosts": {host: {} for host in ENGINES}, "vars": variables}
        builders = {"hosts": {BUILDER: {}}}
        groups = {"bastion": {"hosts": hosts}, "nodes": nodes, "builders": builders}
        # Where the user is root already, Ansible needs no sudo, which the hosts have not.
        login = {"ansible_user": "root", "ansible_python_interpreter": "/usr/bin/python3"}
        return {"all": {"children": groups, "vars": login}}

    def tidy(self) -> None:
        """No container, no image, and nothing that an example wrote."""
        self._each("! command -v docker >/dev/null || docker ps -aq | xargs -r docker rm -f")
        empty(self.rig, (*ENGINES, BUILDER))
        self._each(_TIDY)

    def _each(self, line: str) -> None:
        on_each(lambda host: self.rig.inside(host, "sh", "-c", line), HOSTS)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Meanwhile the hosts are the examples' own: what others left comes back afterwards."""
        self._each(f"[ ! -e {_KEPT} ] || mv {_KEPT} {_KEPT}.kept")
        try:
            yield
        finally:
            self.tidy()
            self._each(f"[ ! -e {_KEPT}.kept ] || mv {_KEPT}.kept {_KEPT}")

    def run(
        self,
        plays: Sequence[Json],
        files: Mapping[str, str],
        flags: Sequence[str] = (),
        inventory: str = "",
    ) -> Outcome:
        """Runs plays, in a directory with these files; one of them may be the inventory."""
        place = Path(tempfile.mkdtemp(dir=self.work))
        for name, text in files.items():
            (place / name).write_text(text)
        (place / "play.json").write_text(json.dumps(plays))
        known = {
            "market_address": self.market.address,
            "market_authority": self.market.authority,
            "fleet_key": str(self.key),
            "fleet_names": self._names(),
        }
        (place / "extra.json").write_text(json.dumps(known))
        play = [str(Path(sys.executable).with_name("ansible-playbook")), "play.json"]
        play += ["-i", inventory or str(self.inventory), "-e", "@extra.json", *flags]
        done = self._controller(play, place)
        output = done.stdout + done.stderr
        (place / "output").write_text(output)
        return Outcome(done.returncode, output, _results(output))

    def _controller(self, command: list[str], place: Path) -> subprocess.CompletedProcess[str]:
        """Runs a command as a controller that knows the names, and trusts the authority."""
        mounts = [f"mount --bind {self.work / name} {target}" for name, target in _PRIVATE]
        line = " && ".join([*mounts, 'exec "$@"'])
        private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", line, "sh"]
        env = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".venv" / "collections"),
            "ANSIBLE_CONFIG": str(SETTINGS),
            "ANSIBLE_PIPELINING": "1",
            "NO_PROXY": ",".join([os.environ.get("NO_PROXY", ""), *NAMES]),
            "SSL_CERT_FILE": str(self.work / "authorities.pem"),
        }
        return subprocess.run(
            [*private, *command],
            env=env,
            cwd=place,
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )


def _results(output: str) -> dict[str, dict[str, str]]:
    """Task -> host -> its result; of several, as of a loop, the worst, else a change."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    order = ("skipping", "ok", "changed", "failed", "fatal")
    task = ""
    for line in output.splitlines():
        if line.startswith("TASK ["):
            task = line[len("TASK [") :].rpartition("]")[0]
        elif match := _RESULT.match(line):
            status, host = match.groups()
            before = found[task].get(host, status)
            found[task][host] = max(status, before, key=order.index)
    return dict(found)
