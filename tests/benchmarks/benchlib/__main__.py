"""Runs everything and writes docs/benchmarks.md; ends with 1 where a target is missed.

The test fleet has to be up; scripts/bench starts one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from statistics import median_low

from . import builds, contenders, image, info, many, peer, prune, pulls
from .contenders import OURS, PEER, RELAY, ROOT, SETTINGS, Contender
from .image import REPOSITORY, Heavy
from .measure import Took, run
from .page import PARTS, Facts, page, side_by_side, told
from .stage import REGISTRY, Stage
from .targets import Case, Verdict, judge

CACHE = ROOT / ".cache" / "bench"
PAGE = ROOT / "docs" / "benchmarks.md"
# case -> the versions that are brought one after the other
CASES = {"cold": ["1"], "update": ["2", "3", "4"], "no-op": ["4"], "weightless": ["5"]}
HOSTS = 500  # planned in one run
# The text of a part of the page, and what it says of the targets.
Measured = tuple[str, Sequence[Verdict]]
# Its runs are long and differ little.
PEER_CASES = {"cold": ["1"], "update": ["2"], "no-op": ["2"]}
PLAIN_CASES = {"cold": ["1"], "update": ["2"]}


def main() -> int:
    """The command."""
    options = _options()
    CACHE.mkdir(parents=True, exist_ok=True)
    stage, facts = Stage(options.fleet), None
    verdicts: list[Verdict] = []
    for part in options.part or PARTS:
        text, found = MEASURE[part](stage)
        facts = facts or _facts(stage)
        before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        PAGE.write_text(page(facts, before, part, text), encoding="utf-8")
        _say(f"written: {PAGE.relative_to(ROOT)}, {PARTS[part].strip(' #')}")
        verdicts += found
    return _tell(verdicts)


def _pulls(stage: Stage) -> Measured:
    stage.prepare()
    pulled = pulls.measure(stage, CACHE / "pulls", peer.collections(CACHE), peer.needs(CACHE))
    verdicts = pulls.judge(pulled)
    return pulls.section(pulled, told(verdicts)), verdicts


def _info(stage: Stage) -> Measured:
    return info.bench(stage, CACHE)


def _prune(stage: Stage) -> Measured:
    return prune.bench(stage, CACHE)


def _builds(stage: Stage) -> Measured:
    return builds.bench(stage, CACHE)


def _side(stage: Stage) -> Measured:
    heavy, measured = _side_by_side(stage, CACHE / "side")
    verdicts = judge(measured[RELAY], measured[PEER], heavy.compressed, heavy.missing)
    return side_by_side(heavy, measured, verdicts), verdicts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchlib", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("fleet", help="name of a test fleet that is up")
    parser.add_argument("--part", action="append", choices=PARTS, help="all, unless some are named")
    return parser.parse_args()


def _side_by_side(stage: Stage, work: Path) -> tuple[Heavy, dict[str, dict[str, Case]]]:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    stage.prepare()
    _say("pushing the images")
    heavy = image.push(stage.registry_address)
    collections, tree = peer.collections(CACHE), peer.needs(CACHE)
    ways = [
        (contenders.relay(stage, work), CASES),
        (contenders.ours(stage, work), CASES),
        (contenders.peer(stage, work, collections, tree), PEER_CASES),
        (contenders.plain(stage, work), PLAIN_CASES),
    ]
    measured = {way.name: _measure(stage, way, cases, work) for way, cases in ways}
    return heavy, measured


def _measure(
    stage: Stage, way: Contender, cases: dict[str, list[str]], work: Path
) -> dict[str, Case]:
    """All cases of one contender, from empty hosts on."""
    stage.empty(way.tree)
    measured = {}
    for case, versions in cases.items():
        took, sent = [], None
        for tag in versions:
            # Short, since the path of a socket in it may have 107 bytes at most.
            place = work / way.name.split()[-1] / f"{case}-{tag}"
            took.append(run(stage, way, f"{REGISTRY}/{REPOSITORY}:{tag}", place))
            sent = _sent(work / "report.json") if way.name in (OURS, RELAY) else None
            _say(f"{way.name}, {case}: {took[-1].seconds:.1f} s")
        measured[case] = _case(took, sent)
    for archive in work.glob("*.tar"):
        archive.unlink()
    return measured


def _sent(report: Path) -> int:
    """Image bytes that a node got, as the collection reports it."""
    return max(row["bytes_sent"] for row in json.loads(report.read_text()))


def _case(took: list[Took], sent: int | None) -> Case:
    seconds = tuple(one.seconds for one in took)
    typical = next(one for one in took if one.seconds == median_low(seconds))
    return Case(
        seconds,
        max(one.most_received for one in took),
        sent,
        typical.bastion_peak,
        typical.node_peak,
        typical.controller_peak,
        typical.tasks,
        typical.commands,
    )


def _many(_stage: Stage) -> Measured:
    work = CACHE / "many"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    done = many.plan(HOSTS, work)
    (work / "output").write_text(done.output)
    if done.code != 0:
        raise SystemExit(f"{HOSTS} hosts: the run failed, see {work}/output")
    _say(f"{HOSTS} hosts planned: {done.seconds:.0f} s")
    return many.section(done), []


def _facts(stage: Stage) -> Facts:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    versions = [
        f"Python {platform.python_version()}",
        f"ansible-core {version('ansible-core')}",
        f"community.docker {peer.version(peer.collections(CACHE))}",
        f"Engines of the nodes {', '.join(stage.engines()[:-1])}",
        f"of the bastion {stage.engines()[-1]}",
    ]
    settings = {
        "forks": SETTINGS["ANSIBLE_FORKS"],
        "pipelining": "on",
        "ssh": f"`{SETTINGS['ANSIBLE_SSH_ARGS']}` (without Ansible's usual `-C`)",
    }
    return Facts(
        datetime.now(timezone.utc).date().isoformat(),
        _git("rev-parse", "--short", "HEAD"),
        f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, {system}",
        ", ".join(versions),
        ", ".join(f"{name} {value}" for name, value in settings.items()),
    )


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _tell(verdicts: list[Verdict]) -> int:
    for one in verdicts:
        _say(f"{one.target}: wanted {one.wanted}, found {one.found}: {one.state}")
    return int(any(one.fails for one in verdicts))


def _say(text: str) -> None:
    print(text, flush=True)


MEASURE: dict[str, Callable[[Stage], Measured]] = {
    "side": _side,
    "pulls": _pulls,
    "info": _info,
    "prune": _prune,
    "builds": _builds,
    "many": _many,
}

if __name__ == "__main__":
    sys.exit(main())
