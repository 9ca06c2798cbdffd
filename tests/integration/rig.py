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
HERE = Path(__file__).resolve().parent
CALLBACKS, SETTINGS = HERE / "callback_plugins", HERE / "ansible.cfg"
REGISTRY = "registry.fleet.test:5000"
LOCKED_REGISTRY = "registry.fleet.test:5001"
NODES = [host.name for host in ENGINES]
STORES = {host.name: host.store for host in ENGINES}
JUMP_HOST, OTHER_BASTION = (host.name for host in BASTIONS)
SEED = [f"{REGISTRY}/shop/nginx:1", f"{REGISTRY}/shop/postgres:1"]
NEW_NGINX, NEW_POSTGRES = f"{REGISTRY}/shop/nginx:2", f"{REGISTRY}/shop/postgres:2"
AIRGAP = "fleet.images.airgap"
_MANIFESTS = f"{OCI_INDEX}, {DOCKER}, {OCI}"
_SAVED_SEED = "/opt/seed.tar"
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
    """One run of ansible-playbook: exit code, all that it printed, rows of the report by host.

    `results`: one row per task and host.
    """

    code: int
    output: str
    rows: Mapping[str, Json]
    results: Sequence[Json]

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
        self._saved = False  # whether every Engine has what it saved of the first seed

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
        return dict(zip(names, on_each(self.held, names)))

    def names(self, host: str) -> set[str]:
        """The names of a host's images."""
        return {line.split()[0] for line in self.inside(host, "sh", "-c", _LIST).splitlines()}

    def manifest(self, repository: str, reference: str) -> tuple[str, str, bytes]:
        """What a tag or digest of the fleet's registry names: digest, media type and content."""
        request = Request(self.manifest_url(repository, reference), headers={"Accept": _MANIFESTS})
        with urlopen(request, timeout=30) as answer:
            told = answer.headers["Docker-Content-Digest"], answer.headers["Content-Type"]
            return *told, answer.read()

    def move_tag(self, repository: str, tag: str, to: str) -> str:
        """Lets a tag of the fleet's registry name what the tag `to` names; returns its digest."""
        digest, kind, content = self.manifest(repository, to)
        url, headers = self.manifest_url(repository, tag), {"Content-Type": kind}
        with urlopen(Request(url, content, headers, method="PUT"), timeout=30) as answer:
            assert answer.headers["Docker-Content-Digest"] == digest
        return digest

    def manifest_url(self, repository: str, reference: str) -> str:
        """Where the fleet's registry has the manifest of a tag or digest."""
        return f"http://{self.registry_address}/v2/{repository}/manifests/{reference}"

    def stop(self, host: str) -> None:
        """Switches a host off."""
        operations.stop_host(self.fleet, host)

    def start(self, host: str) -> None:
        """Switches a host on, and waits for it."""
        operations.start_host(self.fleet, host)

    def equip(self) -> None:
        """Gives every host the SDK, which would else travel with each task of these tests."""
        play = {"hosts": "nodes:bastion:builders", "gather_facts": False}
        run = self.play([{**play, "roles": ["fleet.images.docker_sdk"]}])
        assert run.code == 0, run.output

    def seed(self) -> None:
        """Version 1 of both services on every node, and nothing else.

        Across the air gap the first time; later each Engine gets what it saved of that.
        """
        on_each(self._remove_all_but_seed, NODES)
        lacking = [node for node in NODES if self.names(node) != set(SEED)]
        if self._saved:
            on_each(self._restore, lacking)
        elif lacking:
            run = self.play(AIRGAP, {"fleet_images": SEED})
            assert run.code == 0, run.output
        on_each(self._remove_all_but_seed, lacking)
        if not self._saved:
            save = ("docker", "save", "-o", _SAVED_SEED, *SEED)
            on_each(lambda node: self.inside(node, *save), NODES)
            self._saved = True

    def _restore(self, host: str) -> None:
        """What is left of it goes first: containerd keeps a record of what a load replaces."""
        self.inside(host, "docker", "rmi", "--force", *SEED, check=False)
        self.inside(host, "docker", "load", "-qi", _SAVED_SEED)
        assert self.names(host) == set(SEED), self.held(host)

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
            "ANSIBLE_CONFIG": str(SETTINGS),
            "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
            "ANSIBLE_CALLBACKS_ENABLED": "rig_results",
            "RIG_RESULTS": str(place / "results"),
        }
        done = subprocess.run(
            command, env=env, cwd=place, check=False, capture_output=True, text=True, timeout=600
        )
        output = done.stdout + done.stderr
        (place / "output").write_text(output)
        report = place / "report.json"
        rows = json.loads(report.read_text()) if report.exists() else []
        kept = place / "results"
        lines = kept.read_text().splitlines() if kept.exists() else []
        by_host = {row["host"]: row for row in rows}
        return Run(done.returncode, output, by_host, [json.loads(line) for line in lines])

    def results(self, hosts: str, tasks: Sequence[Json], variables: Json | None = None) -> Json:
        """Task name -> host -> its result, failed or not; all hosts have all but `run_once`.

        Later tasks know the result of one named `fetch cut` as `result_of_fetch_cut`.
        """
        known = [f"result_of_{re.sub(r'[^a-zA-Z0-9]', '_', task['name'])}" for task in tasks]
        steps = [
            {"ignore_errors": True, **task, "register": name} for name, task in zip(known, tasks)
        ]
        play = {"hosts": hosts, "gather_facts": False, "vars": variables or {}}
        run = self.play([{**play, "tasks": steps}])
        assert run.code == 0, run.output
        found: Json = {task["name"]: {} for task in tasks}
        for row in run.results:
            if row["task"] in found:
                found[row["task"]][row["host"]] = row["result"]
        everywhere = {host for on in found.values() for host in on}
        assert everywhere, run.output
        for task in tasks:
            on = found[task["name"]]
            assert len(on) == 1 if task.get("run_once") else set(on) == everywhere, run.output
        return found


def on_each(work: Callable[[str], Any], hosts: Iterable[str]) -> list[Any]:
    """What a piece of work gives on each host, on several at a time."""
    with ThreadPoolExecutor(5) as pool:
        return list(pool.map(work, hosts))


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 30) -> None:
    """Asks again until it is so."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.2)
