"""The three ways to bring an image to the nodes, each as one command that is measured."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .stage import BASTION, NODES, PYTHON, WORK, Stage

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parents[1]
OURS, RELAY = "fleet.images", "fleet.images, airgap_transport: network"
PEER, PLAIN = "community.docker", "docker save, scp, docker load"
# The same for both collections.
SETTINGS = {
    "ANSIBLE_FORKS": "10",
    "ANSIBLE_PIPELINING": "1",
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s",
}


@dataclass(frozen=True)
class Contender:
    """A way: its name, the command that takes an image at its end, and its collections.

    `tree` is put into the Python path of the hosts' modules before anything is measured.
    """

    name: str
    words: Sequence[str]
    collections: Path | None = None
    tree: Path | None = None

    def command(self, image: str) -> list[str]:
        """What to run for an image."""
        last = json.dumps({"fleet_images": [image]}) if self.collections else image
        return [*self.words, last]

    def environment(self, place: Path) -> Mapping[str, str]:
        """What to run it in: ssh connections are new for every run, and kept during it."""
        if not self.collections:
            return os.environ
        return {
            **os.environ,
            **SETTINGS,
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(place / "cp"),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "bench_profile",
            "ANSIBLE_NOCOLOR": "1",
        }


def ours(stage: Stage, work: Path) -> Contender:
    """The playbook of this collection."""
    words = _playbook("fleet.images.airgap", stage, work)
    return Contender(OURS, words, ROOT / ".venv" / "collections")


def relay(stage: Stage, work: Path) -> Contender:
    """The same playbook; nodes pull from a relay on the bastion."""
    words = _playbook("fleet.images.airgap", stage, work, airgap_transport="network")
    return Contender(RELAY, words, ROOT / ".venv" / "collections")


def peer(stage: Stage, work: Path, collections: Path, tree: Path) -> Contender:
    """The same with the modules of community.docker, as its users do it."""
    playbook = str(HERE / "community_docker.playbook")
    return Contender(PEER, _playbook(playbook, stage, work), collections, tree)


def plain(stage: Stage, work: Path) -> Contender:
    """docker save, scp and docker load, by a shell."""
    config, archive = str(stage.state / "ssh_config"), str(work / "plain.tar")
    script = str(HERE / "docker_save.sh")
    return Contender(PLAIN, [script, config, BASTION, " ".join(NODES), WORK, archive])


def _playbook(playbook: str, stage: Stage, work: Path, **variables: str) -> list[str]:
    inventory = work / f"inventory{''.join(variables.values())}.json"
    inventory.write_text(json.dumps(_inventory(work, variables), indent=2))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), playbook]
    command += ["-i", str(stage.state / "inventory.yml"), "-i", str(inventory)]
    return [*command, "-e", "fleet_nodes=targets", "-e"]


def _inventory(work: Path, more: Mapping[str, str]) -> dict[str, Any]:
    """The hosts that take part, beside the fleet's own inventory."""
    variables = {
        "ansible_python_interpreter": PYTHON,
        "fleet_bastion": BASTION,
        "airgap_controller_dir": str(work / "bundles"),
        "airgap_report_path": str(work / "report.json"),
        "bench_dir": WORK,
        "bench_archive": str(work / "peer.tar"),
        **more,
    }
    groups = {"bastions": [BASTION], "targets": list(NODES)}
    children = {
        group: {"hosts": dict.fromkeys(hosts), "vars": variables} for group, hosts in groups.items()
    }
    return {"all": {"children": children}}
