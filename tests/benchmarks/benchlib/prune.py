"""image_prune: bytes predicted and measured on every kind of Engine, and how plans grow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetlib.hosts import ENGINES

from .contenders import ROOT, SETTINGS
from .prune_page import Freed, Planned, judge, section
from .stage import Stage
from .targets import Verdict

COUNTS, LAYERS = (1, 500, 1000, 2000), 10
MODULE = "ansible_collections.fleet.images.plugins.modules.image_prune"
Json = dict[str, Any]

# A base of real files, and images upon it: one of many files, one with several names, one without.
_FILL = """
set -e
tar -C / -c usr/lib usr/share etc | docker import - bench/base:1 >/dev/null
add() {
    docker create --name make bench/base:1 true >/dev/null
    rm -rf /tmp/top && mkdir /tmp/top && cp -a $2 /tmp/top/ && docker cp /tmp/top make:/$RANDOM
    docker commit make $1 >/dev/null
    docker rm make >/dev/null
}
add bench/one:1 /usr/bin
add bench/two:1 /usr/sbin
add bench/lost:1 /etc
docker tag bench/one:1 bench/one:2
docker tag bench/one:1 bench/other:1
add bench/lost:1 /usr/bin/tar
rm -rf /tmp/top
sync
"""
_FREE = "sync; df --output=avail -B1 /var/lib/{place} | tail -n 1"


def bench(stage: Stage, cache: Path) -> tuple[str, list[Verdict]]:
    """Measures; the part of the page and its verdicts."""
    work = cache / "prune"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    freed = [_freed(stage, host.name, host.store, work) for host in ENGINES]
    planned = [_planned(count, work) for count in COUNTS]
    verdicts = judge(freed, planned)
    return section(freed, planned, LAYERS, verdicts), verdicts


def _freed(stage: Stage, host: str, store: str, work: Path) -> Freed:
    """One Engine: by this collection, and by Docker's own command."""
    stage.inside(host, "engine-reset")
    place = "docker" if store == "classic" else "containerd"
    stage.inside(host, "bash", "-c", _FILL)
    usage = stage.inside(host, "docker", "system", "df", "--format", "{{.Type}}|{{.Reclaimable}}")
    reclaimable = next(line for line in usage.splitlines() if line.startswith("Images|"))
    result = _run(stage, host, work / host)
    stage.inside(host, "bash", "-c", _FILL)
    before = int(stage.inside(host, "sh", "-c", _FREE.format(place=place)))
    said = stage.inside(host, "docker", "image", "prune", "--all", "--force").splitlines()[-1]
    after = int(stage.inside(host, "sh", "-c", _FREE.format(place=place)))
    stage.inside(host, "engine-reset")
    reclaimed = result["reclaimed"]
    return Freed(
        host,
        reclaimed["predicted_min"],
        reclaimed["predicted_max"],
        reclaimed["measured"],
        reclaimed["reported"],
        reclaimable.partition("|")[2].partition(" ")[0],
        said.rpartition(" ")[2],
        after - before,
    )


def _run(stage: Stage, host: str, work: Path) -> Json:
    """What image_prune returns of a run on one host, which is given the SDK before."""
    work.mkdir()
    prune = {
        "name": "Clean up",
        "fleet.images.image_prune": {"scope": "unused", "min_images_left": 0},
        "register": "told",
    }
    keep = {
        "name": "Keep what it told",
        "ansible.builtin.copy": {
            "content": "{{ told | to_json }}",
            "dest": str(work / "told"),
            "mode": "0600",
        },
        "delegate_to": "localhost",
        "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
    }
    roles = [{"role": "fleet.images.docker_sdk"}]
    play = {"hosts": host, "gather_facts": False, "roles": roles, "tasks": [prune, keep]}
    (work / "play.json").write_text(json.dumps([play]))
    environment = {
        **os.environ,
        **SETTINGS,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".venv" / "collections"),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "play.json"]
    command += ["-i", str(stage.state / "inventory.yml")]
    with open(work / "output", "wb") as output:
        done = subprocess.run(
            command, env=environment, cwd=work, check=False, stdout=output, stderr=output,
            timeout=600,
        )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"the run failed, see {work}/output")
    return dict(json.loads((work / "told").read_text()))


@dataclass(frozen=True)
class _Process:
    result: Json
    cpu: float
    peak: int


def _planned(count: int, work: Path) -> Planned:
    """A plan over so many images, of which each group of ten shares eight layers."""
    sys.path[:0] = [str(ROOT / "tests" / "unit")]
    from stocked import StockedEngine

    with StockedEngine("containerd") as engine:
        for number in range(count):
            group = number // 10
            layers = {f"shared-{place}-{group}": 1000 for place in range(LAYERS - 2)}
            layers.update({f"own-{place}-{number}": 100 for place in range(2)})
            engine.stock(f"bench.example/repository-{group}:{number}", layers=layers)
        done = _module(engine.url, work)
    if done.result.get("failed"):
        raise SystemExit(f"the plan over {count} images failed: {done.result['msg']}")
    return Planned(count, len(done.result["plan"]), done.cpu, done.peak)


def _module(url: str, work: Path) -> _Process:
    """image_prune in check mode as a process of its own."""
    options = {"docker_host": url, "scope": "unused", "keep_last": 2, "min_images_left": 0}
    arguments = {"ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": True}}
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".venv" / "collections")}
    with tempfile.TemporaryFile(dir=work) as given, tempfile.TemporaryFile(dir=work) as told:
        given.write(json.dumps(arguments).encode())
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE], stdin=given, stdout=told, env=environment
        )
        _pid, _status, took = os.wait4(process.pid, 0)
        told.seek(0)
        result = json.loads(told.read().splitlines()[-1])
    return _Process(result, took.ru_utime + took.ru_stime, took.ru_maxrss * 1024)
