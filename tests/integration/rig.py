# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The test fleet as these tests see it: what every Engine holds, and runs of ansible-playbook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from fleetlib import operations
from fleetlib.hosts import BASTIONS, ENGINES, HOSTS, Fleet
from fleetlib.pusher import DOCKER, OCI, OCI_INDEX

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = "registry.fleet.test:5000"
LOCKED_REGISTRY = "registry.fleet.test:5001"
NODES = [host.name for host in ENGINES]
STORES = {host.name: host.store for host in ENGINES}
JUMP_HOST, OTHER_BASTION = (host.name for host in BASTIONS)
SEED = [f"{REGISTRY}/shop/nginx:1", f"{REGISTRY}/shop/postgres:1"]
NEW_NGINX, NEW_POSTGRES = f"{REGISTRY}/shop/nginx:2", f"{REGISTRY}/shop/postgres:2"
AIRGAP = "fleet.images.airgap"
# The nodes' Engines differ in age, so the answer is put into one form: name, digest, ID.
_LIST = (
    "docker images -a --no-trunc --digests --format '{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}'"
)
# What containerd has by name, the records that dockerd hides included.
_HIDDEN = "ctr --namespace moby images list --quiet"

Json = dict[str, Any]
State = tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One run of ansible-playbook: exit code, all that it printed, rows of the report by host."""

    code: int
    output: str
    rows: Mapping[str, Json]

    def table(self) -> str:
        """The report, as the run printed it."""
        return self.output.rpartition("airgap: images on every node\n")[2].partition("\nTASK [")[0]

    def failed_with(self, host: str) -> str:
        """The reason why a host is not done, told alike in the report, the table and the error."""
        row, table = self.rows[host], self.table()
        reason = str(row["reason"])
        assert self.code != 0
        assert not row["done"]
        assert re.search(rf"^{host} .* {row['failed']} ", table, re.MULTILINE)
        # Hosts that share a reason share its line.
        assert re.search(rf"^(.*, )?{host}(, .*)?: {re.escape(reason)}$", table, re.MULTILINE)
        return reason


class Rig:
    """The fleet, and a directory for what runs need and leave."""

    def __init__(self, name: str, work: Path) -> None:
        self.fleet = Fleet(name)
        self.work = work
        self.engine = operations.running(self.fleet)
        self.inventory = ROOT / ".fleet" / name / "inventory.yml"
        self.registry_address = f"{self.fleet.address(HOSTS[0])}:5000"
        self._runs = 0

    def inside(self, host: str, *command: str, check: bool = True) -> str:
        """What a command on a host prints; does not need the network between them."""
        return self.engine.docker("exec", self.container(host), *command, check=check).stdout

    def container(self, host: str) -> str:
        """A host's name on the outer Engine."""
        return self.fleet.container(operations.by_name(host))

    def pipe(self, source: str, write: str, target: str, read: str) -> None:
        """Runs a command on each of two hosts, what the first one writes going to the second."""
        docker = f"docker -H {self.engine.address} exec"
        line = f"{docker} {self.container(source)} {write} | "
        line += f"{docker} -i {self.container(target)} {read}"
        subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, capture_output=True)

    def put(self, host: str, tar: bytes, place: str) -> None:
        """Unpacks a tar in a directory of a host."""
        self.engine.docker("cp", "-", f"{self.container(host)}:{place}", stdin=tar)

    def held(self, host: str) -> State:
        """Every image of a host by name, digest and ID, nameless ones included."""
        line = f"{_LIST} && {_HIDDEN}" if STORES[host] == "containerd" else _LIST
        return tuple(sorted(self.inside(host, "sh", "-c", line).splitlines()))

    def held_by_all(self, hosts: Iterable[str] = NODES) -> dict[str, State]:
        """`held` of several hosts."""
        names = list(hosts)
        return dict(zip(names, _on_each(self.held, names)))

    def names(self, host: str) -> set[str]:
        """The names of a host's images."""
        return {line.split()[0] for line in self.inside(host, "sh", "-c", _LIST).splitlines()}

    def move_tag(self, repository: str, tag: str, to: str) -> str:
        """Lets a tag of the fleet's registry name what the tag `to` names; returns its digest."""
        base = f"http://{self.registry_address}/v2/{repository}/manifests"
        accept = {"Accept": f"{OCI_INDEX}, {DOCKER}, {OCI}"}
        with urlopen(Request(f"{base}/{to}", headers=accept), timeout=30) as answer:
            kind, content = answer.headers["Content-Type"], answer.read()
            digest = str(answer.headers["Docker-Content-Digest"])
        headers = {"Content-Type": kind}
        put = Request(f"{base}/{tag}", content, headers, method="PUT")
        with urlopen(put, timeout=30) as answer:
            assert answer.headers["Docker-Content-Digest"] == digest
        return digest

    def stop(self, host: str) -> None:
        """Switches a host off."""
        operations.stop_host(self.fleet, host)

    def start(self, host: str) -> None:
        """Switches a host on, and waits for it."""
        operations.start_host(self.fleet, host)

    def seed(self) -> None:
        """Version 1 of both services on every node, and nothing else."""
        _on_each(self._remove_all_but_seed, NODES)
        if any(self.names(node) != set(SEED) for node in NODES):
            run = self.play(AIRGAP, {"fleet_images": SEED})
            assert run.code == 0, run.output
            _on_each(self._remove_all_but_seed, NODES)

    def _remove_all_but_seed(self, host: str) -> None:
        rows = [line.split() for line in self.inside(host, "sh", "-c", _LIST).splitlines()]
        extra = [
            id_ if "<none>" in name else name for name, _digest, id_ in rows if name not in SEED
        ]
        if extra:
            self.inside(host, "docker", "rmi", "--force", *extra)
        if STORES[host] == "containerd":
            remove = f"{_HIDDEN} | grep ^moby-dangling@ | xargs -r ctr --namespace moby images rm"
            self.inside(host, "sh", "-c", remove)

    def play(
        self,
        playbook: str | Sequence[Json],
        variables: Mapping[str, Any] | None = None,
        *,
        hosts: Mapping[str, Json] | None = None,
        flags: Sequence[str] = (),
    ) -> Run:
        """Runs a playbook, by name or as plays. `hosts`: variables of single hosts."""
        self._runs += 1
        place = self.work / f"run-{self._runs}"
        place.mkdir()
        if not isinstance(playbook, str):
            (place / "play.json").write_text(json.dumps(playbook))
            playbook = str(place / "play.json")
        # Fleets side by side have bastions of the same names.
        own = {"airgap_controller_dir": str(self.work / "bundles")}
        extra = {"airgap_report_path": str(place / "report.json"), **own, **(variables or {})}
        (place / "extra.json").write_text(json.dumps(extra))
        more = {"nodes": {"hosts": dict(hosts or {})}}
        (place / "more.yml").write_text(json.dumps(more))
        command = [Path(sys.executable).with_name("ansible-playbook"), playbook]
        command += ["-i", self.inventory, "-i", place / "more.yml"]
        command += ["-e", f"@{place / 'extra.json'}", *flags]
        return self._run([str(word) for word in command], place)

    def _run(self, command: list[str], place: Path) -> Run:
        env = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".venv" / "collections"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            # Without -C: compressing image layers again wastes a core.
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s",
        }
        done = subprocess.run(
            command, env=env, cwd=place, check=False, capture_output=True, text=True, timeout=600
        )
        output = done.stdout + done.stderr
        (place / "output").write_text(output)
        report = place / "report.json"
        rows = json.loads(report.read_text()) if report.exists() else []
        return Run(done.returncode, output, {row["host"]: row for row in rows})

    def results(self, hosts: str, tasks: Sequence[Json], variables: Json | None = None) -> Json:
        """Runs tasks that register `result`; task name -> host -> its result, failed or not."""
        place = self.work / f"results-{self._runs}"
        place.mkdir()
        steps = [step for task in tasks for step in _kept(task)]
        keep = {
            "name": "Keep the results",
            "ansible.builtin.copy": {
                "content": "{{ kept | to_json }}",
                "dest": f"{place}/{{{{ inventory_hostname }}}}",
                "mode": "0600",
            },
            "delegate_to": "localhost",
            "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        }
        play = {"hosts": hosts, "gather_facts": False, "vars": variables or {}}
        run = self.play([{**play, "tasks": [*steps, keep]}])
        assert run.code == 0, run.output
        kept = {path.name: json.loads(path.read_text()) for path in place.iterdir()}
        names = [task["name"] for task in tasks]
        return {name: {host: kept[host][name] for host in kept} for name in names}


def _kept(task: Json) -> list[Json]:
    """The task, its failure noted and not minded, and another one that keeps its result."""
    kept = "{{ kept | default({}) | combine({'" + str(task["name"]) + "': result}) }}"
    note = {"name": f"Note what {task['name']} gave", "ansible.builtin.set_fact": {"kept": kept}}
    return [{"register": "result", "ignore_errors": True, **task}, note]


def _on_each(work: Callable[[str], Any], hosts: Iterable[str]) -> list[Any]:
    with ThreadPoolExecutor(5) as pool:
        return list(pool.map(work, hosts))


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 30) -> None:
    """Asks again until it is so."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.2)
