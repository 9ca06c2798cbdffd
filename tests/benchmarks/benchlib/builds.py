"""Builds: an unchanged one told, and a changed one made, beside the bare `docker buildx build`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fleetlib.hosts import BUILDERS

from .contenders import ROOT, SETTINGS
from .page import told
from .stage import REGISTRY, Stage
from .targets import Verdict

TEMPLATE = Path(__file__).with_name("builds.md")
BUILDER = BUILDERS[0].name
FILES, BYTES = 5000, 200_000_000
ROUNDS = 5
PLATFORMS = ["linux/amd64", "linux/arm64"]
MOST_CPU, LEAST_FASTER, MOST_MEMORY = 2.0, 5.0, 64 << 20
MOST_SHARE, MOST_SECONDS = 0.05, 1.0
CONTEXT = "/var/tmp/bench-context"
_CHANGING = "changing"

# Runs Python for a module on the host, and notes its processor time (s) and its peak (kB).
_WRAPPER = """#!/usr/bin/python3 -IS
import resource, subprocess, sys
code = subprocess.call(["/usr/bin/python3", *sys.argv[1:]])
took = resource.getrusage(resource.RUSAGE_CHILDREN)
with open("/var/tmp/bench-notes", "a") as notes:
    print(took.ru_utime + took.ru_stime, took.ru_maxrss, file=notes)
sys.exit(code)
"""
_FILL = f"""
import os, random
source = random.Random(1)
for number in range({FILES}):
    place = "{CONTEXT}/src/d%02d" % (number // 100)
    os.makedirs(place, exist_ok=True)
    with open("%s/f%04d" % (place, number), "wb") as file:
        file.write(source.randbytes({BYTES // FILES}))
with open("{CONTEXT}/Dockerfile", "w") as file:
    file.write("FROM {REGISTRY}/shop/tool:1\\nCOPY src /src\\n")
"""
_CHANGE = f"head -c 30000 /dev/urandom >{CONTEXT}/src/{_CHANGING}"


@dataclass(frozen=True)
class Measured:
    """Seconds of each round; `cpu` in seconds and `peaks` in bytes of the module's process."""

    told: tuple[float, ...]
    cached: tuple[float, ...]
    fresh_told: tuple[float, ...]
    fresh_cached: tuple[float, ...]
    changed: tuple[float, ...]
    bare: tuple[float, ...]
    cpu: tuple[float, ...]
    growth: int


def bench(stage: Stage, cache: Path) -> tuple[str, list[Verdict]]:
    """The part of the page, and what it says of the targets."""
    work = cache / "builds"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    measured = _measure(stage, work)
    verdicts = judge(measured)
    return section(measured, verdicts), verdicts


def _task(name: str, module: str, args: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, module: args, **more}


def _ours(name: str, tag: str, **more: Any) -> dict[str, Any]:
    args = {
        "path": CONTEXT, "tags": [f"{REGISTRY}/bench/{tag}:1"], "platforms": PLATFORMS,
        "push": True, "registry_validate_certs": False,
    }  # fmt: skip
    return _task(name, "fleet.images.buildx_build", args, register=name, **more)


def _bare(name: str, tag: str) -> dict[str, Any]:
    line = f"docker buildx build --platform {','.join(PLATFORMS)} --push --metadata-file"
    line += f" /var/tmp/bench-metadata -t {REGISTRY}/bench/{tag}:1 {CONTEXT}"
    return _task(name, "ansible.builtin.command", line, register=name)


def _shell(line: str) -> dict[str, Any]:
    return _task(line.split(maxsplit=1)[0], "ansible.builtin.shell", line)


def _tasks() -> list[dict[str, Any]]:
    """All that is done, in turns, so that a busy moment meets both sides."""
    wrapped = {"vars": {"ansible_python_interpreter": "/var/tmp/bench-python"}}
    copied = "for f in $(find src -type f); do cp $f $f.new && mv $f.new $f; done"
    tasks = [_ours("first", "ours"), _bare("second", "bare")]
    # What is younger than two seconds is read again.
    tasks += [_shell("sleep 3"), _ours("third", "ours")]
    for number in range(ROUNDS):
        tasks += [_ours(f"told{number}", "ours"), _bare(f"cached{number}", "bare")]
    for number in range(ROUNDS):
        tasks += [_task(f"empty{number}", "ansible.builtin.ping", {}, **wrapped)]
        tasks += [_ours(f"noted{number}", "ours", **wrapped)]
    for number in range(2):
        tasks += [_shell(f"cd {CONTEXT}; {copied}"), _ours(f"freshtold{number}", "ours")]
        tasks += [_bare(f"freshcached{number}", "bare")]
    for number in range(ROUNDS):
        tasks += [_shell(_CHANGE), _ours(f"changed{number}", "ours")]
        tasks += [_shell(_CHANGE), _bare(f"bare{number}", "bare")]
    return tasks


def _measure(stage: Stage, work: Path) -> Measured:
    files = {"bench-python": _WRAPPER, "bench-fill.py": _FILL}
    stage.put(BUILDER, {name: text.encode() for name, text in files.items()}, "/var/tmp")
    script = "chmod 755 /var/tmp/bench-python; python3 /var/tmp/bench-fill.py"
    stage.inside(BUILDER, "sh", "-c", f"rm -rf {CONTEXT} /var/tmp/bench-notes; {script}")
    tasks = _tasks()
    kept = "{{ dict(names | zip(names | map('extract', vars))) | to_json }}"
    names = [task["register"] for task in tasks if "register" in task]
    keep = _task(
        "keep",
        "ansible.builtin.copy",
        {"content": kept, "dest": str(work / "results.json"), "mode": "0600"},
        delegate_to="localhost",
        vars={"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
    )
    play = {
        "hosts": BUILDER, "gather_facts": False, "roles": ["fleet.images.docker_sdk"],
        "tasks": [*tasks, keep], "vars": {"names": names},
    }  # fmt: skip
    (work / "play.json").write_text(json.dumps([play]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(work / "play.json")]
    command += ["-i", str(stage.state / "inventory.yml")]
    collections = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".venv" / "collections")}
    environment = {**os.environ, **SETTINGS, **collections, "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        command, env=environment, cwd=work, check=False, capture_output=True, text=True
    )
    (work / "output").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise SystemExit(f"builds: the run failed, see {work}/output")
    notes = stage.inside(BUILDER, "cat", "/var/tmp/bench-notes").split()
    stage.inside(BUILDER, "sh", "-c", "rm -rf /var/tmp/bench-*")
    return _read(json.loads((work / "results.json").read_text()), [*map(float, notes)])


def _read(results: dict[str, Any], notes: Sequence[float]) -> Measured:
    def seconds(kind: str) -> tuple[float, ...]:
        own = [one for name, one in results.items() if name.rstrip("0123456789") == kind]
        return tuple(_seconds(one) for one in own)

    for name, one in results.items():
        if name.startswith(("told", "noted", "freshtold")):
            assert not one["changed"], one["msg"]
    cpu, peaks = notes[0::2], notes[1::2]
    empty, noted = peaks[0::2], peaks[1::2]
    return Measured(
        seconds("told"),
        seconds("cached"),
        seconds("freshtold"),
        seconds("freshcached"),
        seconds("changed"),
        seconds("bare"),
        tuple(cpu[1::2]),
        int(1024 * (max(noted) - max(empty))),
    )


def _seconds(one: dict[str, Any]) -> float:
    """Of the module its own seconds, of a command from its start to its end."""
    if "seconds" in one:
        return float(one["seconds"])
    hours, minutes, seconds = str(one["delta"]).split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def judge(measured: Measured) -> list[Verdict]:
    """How it compares to what was wanted."""
    faster = median(measured.cached) / median(measured.told)
    cpu = max(measured.cpu)
    ours, bare = median(measured.changed), median(measured.bare)
    most = bare * (1 + MOST_SHARE) + MOST_SECONDS
    return [
        Verdict(
            "unchanged: processor time (s) of the module, start to end",
            f"at most {MOST_CPU:g}",
            f"{cpu:.2f}",
            cpu <= MOST_CPU,
        ),
        Verdict(
            "unchanged: times faster than buildx finds all steps cached",
            f"at least {LEAST_FASTER:g}",
            f"{faster:.1f}",
            faster >= LEAST_FASTER,
        ),
        Verdict(
            "unchanged: memory of the module beyond that of an empty one",
            f"at most {MOST_MEMORY:,}",
            f"{measured.growth:,}",
            measured.growth <= MOST_MEMORY,
        ),
        Verdict(
            "changed: seconds",
            f"at most {most:.1f} (the bare command {bare:.1f})",
            f"{ours:.1f}",
            ours <= most,
        ),
    ]


def section(measured: Measured, verdicts: Sequence[Verdict]) -> str:
    """The part of the page."""
    rows = {
        "unchanged, `buildx_build`": measured.told,
        "unchanged, `docker buildx build`": measured.cached,
        "unchanged, every file copied anew, `buildx_build`": measured.fresh_told,
        "unchanged, every file copied anew, `docker buildx build`": measured.fresh_cached,
        "one file changed, `buildx_build`": measured.changed,
        "one file changed, `docker buildx build`": measured.bare,
    }
    table = "".join(
        f"| {what} | {median(taken):.2f} | {', '.join(f'{one:.2f}' for one in taken)} |\n"
        for what, taken in rows.items()
    )
    return TEMPLATE.read_text(encoding="utf-8").format(
        files=FILES,
        megabytes=BYTES // 10**6,
        table=f"| what | seconds | runs |\n| --- | --- | --- |\n{table}",
        verdicts=told(verdicts),
    )
