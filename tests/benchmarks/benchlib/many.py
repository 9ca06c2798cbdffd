"""Many hosts planned in one run, against an Engine and a registry that are stubs."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parents[1]
TEMPLATE = Path(__file__).with_name("many.md")
GROUPS = 5  # hosts of one group want the same images, which no other group wants

# Runs Python for a module, and notes the processor time (s) that the module took.
_WRAPPER = """#!{python} -IS
import resource, subprocess, sys
code = subprocess.call([{python!r}, *sys.argv[1:]])
took = resource.getrusage(resource.RUSAGE_CHILDREN)
own = resource.getrusage(resource.RUSAGE_SELF)
with open({notes!r}, "a") as notes:
    print(sum((took.ru_utime, took.ru_stime, own.ru_utime, own.ru_stime)), file=notes)
sys.exit(code)
"""

Json = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """The most bytes that a task's arguments and result took on any host."""

    arguments: int
    result: int


@dataclass(frozen=True)
class ManyRun:
    """One run: hosts, steps (host x task, skipped ones too), seconds, what was seen.

    `controller_cpu` is the processor time (s) of ansible-playbook and its forks, without that of
    the modules. `locked` has host -> the images that a lock which travelled to it named.
    """

    hosts: int
    code: int
    output: str
    seconds: float
    controller_cpu: float
    module_cpu: float
    steps: int
    sizes: dict[str, Sizes]
    locked: dict[str, set[str]]
    rows: list[Json]

    @property
    def cpu_per_step(self) -> float:
        """The controller's processor time (s) per host and task."""
        return self.controller_cpu / self.steps


def images_of(number: int, registry: str) -> list[str]:
    """The images that the hosts of a group want."""
    return [f"{registry}/shop/app:group{number}", f"{registry}/shop/db:group{number}"]


@contextmanager
def stubs() -> Iterator[tuple[str, str]]:
    """A registry (its name) that holds every group's images, and an empty Engine (its URL)."""
    sys.path.append(str(ROOT / "tests" / "unit"))
    from engine_stub import EngineStub
    from registry_stub import RegistryStub

    with RegistryStub() as registry, EngineStub("classic") as engine:
        for number in range(GROUPS):
            for image in images_of(number, registry.name):
                tag = image.partition("/")[2]
                registry.add_image(tag, [f"base {number}", tag])
        yield registry.name, engine.url


def plan(count: int, work: Path, forks: int = 25) -> ManyRun:
    """The playbook airgap in check mode for so many hosts; `work` is an empty directory."""
    with stubs() as (registry, engine):
        (work / "hosts.json").write_text(json.dumps(_inventory(count, registry, work)))
        python = work / "python"
        python.write_text(_WRAPPER.format(python=sys.executable, notes=str(work / "notes")))
        python.chmod(0o700)
        environment = {
            **os.environ,
            "DOCKER_HOST": engine,
            "BENCH_SIZES": str(work / "sizes"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".venv" / "collections"),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "bench_sizes,bench_profile",
            "BENCH_PROFILE": str(work / "profile"),
            "ANSIBLE_FORKS": str(forks),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "fleet.images.airgap"]
        command += ["-i", str(work / "hosts.json"), "--check"]
        began, before = time.monotonic(), _children()
        done = subprocess.run(
            command, env=environment, cwd=work, check=False, capture_output=True, text=True
        )
        seconds, cpu = time.monotonic() - began, _children() - before
    return _seen(count, work, done.returncode, done.stdout + done.stderr, seconds, cpu)


def _children() -> float:
    took = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took.ru_utime + took.ru_stime


def _inventory(count: int, registry: str, work: Path) -> Json:
    names = [f"node{number:04d}" for number in range(count)]
    groups = {
        f"group{group}": {
            "hosts": dict.fromkeys(names[group::GROUPS]),
            "vars": {"fleet_images": images_of(group, registry)},
        }
        for group in range(GROUPS)
    }
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(work / "python"),
        "airgap_store": str(work / "store"),
        "airgap_report_path": str(work / "report.json"),
        "airgap_registry_validate_certs": False,
    }
    nodes = {"hosts": dict.fromkeys(names), "children": groups}
    return {"all": {"vars": variables, "children": {"nodes": nodes}}}


def _seen(count: int, work: Path, code: int, output: str, seconds: float, cpu: float) -> ManyRun:
    rows = [json.loads(line) for line in (work / "sizes").read_text().splitlines()]
    locked: dict[str, set[str]] = {}
    for row in rows:
        if "locked" in row and not row["delegated"]:
            locked.setdefault(row["host"], set()).update(row["locked"])
    modules = sum(map(float, (work / "notes").read_text().split()))
    report = work / "report.json"
    return ManyRun(
        count,
        code,
        output,
        seconds,
        cpu - modules,
        modules,
        sum(row["what"] == "result" for row in rows),
        _sizes(rows),
        locked,
        json.loads(report.read_text()) if report.exists() else [],
    )


def _sizes(rows: list[Json]) -> dict[str, Sizes]:
    most: dict[str, dict[bool, int]] = {}
    for row in rows:
        kinds = most.setdefault(row["task"], {False: 0, True: 0})
        is_result = row["what"] == "result"
        kinds[is_result] = max(kinds[is_result], row["bytes"])
    return {task: Sizes(kinds[False], kinds[True]) for task, kinds in most.items()}


def section(done: ManyRun) -> str:
    """What docs/benchmarks.md tells of a run."""
    return TEMPLATE.read_text(encoding="utf-8").format(
        hosts=done.hosts,
        seconds=done.seconds,
        cpu=done.controller_cpu,
        each=done.controller_cpu / done.hosts,
        modules=done.module_cpu,
        milliseconds=1000 * done.cpu_per_step,
        steps=done.steps,
        most=max(size.arguments for size in done.sizes.values()),
    )
