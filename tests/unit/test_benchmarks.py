# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark says loudly which target is missed, and its page says what was measured."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from benchlib import info_page, page, prune_page, targets
from benchlib.targets import Case, judge

MB = 1_000_000
COMPRESSED, MISSING = 500 * MB, 1 * MB
OWN = 900_000  # bytes that Ansible moves for itself


def case(seconds: float, received: int, sent: int = 0, tasks: int = 0) -> Case:
    return Case((seconds,), received, sent, 20 * MB, 30 * MB, 0, tasks, tasks + 2)


OURS = {
    "cold": case(20, 505 * MB, COMPRESSED, 5),
    "update": case(4, OWN + MISSING + 30_000, MISSING, 4),
    "no-op": case(3, 400_000, 0, 2),
    "weightless": case(4, OWN + 10_000, 10_000, 4),
}
PEER = {"cold": case(60, 900 * MB), "update": case(90, 900 * MB), "no-op": case(30, MB)}


def missed(ours: dict[str, Case]) -> list[str]:
    found = judge(ours, PEER, COMPRESSED, MISSING)
    assert len(found) == 7
    return [one.target for one in found if not one.reached]


def test_all_targets_are_reached() -> None:
    assert missed(OURS) == []


@pytest.mark.parametrize(
    ("name", "changed", "target"),
    [
        ("update", {"seconds": (4.6,)}, "update: times faster than community.docker"),
        ("cold", {"seconds": (31.0,)}, "cold: times faster than community.docker"),
        (
            "update",
            {"received": OWN + 1_283_000},
            "update: bytes per node, Ansible's own aside",
        ),
        ("cold", {"received": 511 * MB}, "cold: bytes per node, Ansible's own included"),
        ("no-op", {"sent": 1}, "no-op: bytes of images per node"),
        (
            "no-op",
            {"received": OWN + 1},
            "no-op: bytes per node, against an update that weighs nothing",
        ),
        ("no-op", {"tasks": 5}, "no-op: tasks that reach a node"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_target_is_missed(name: str, changed: dict[str, object], target: str) -> None:
    assert missed({**OURS, name: replace(OURS[name], **changed)}) == [target]


def test_seconds_are_the_median() -> None:
    assert Case((5.0, 3.0, 9.0), 0, 0, 0, 0, 0, 0, 0).typical == 5.0


FACTS = page.Facts("2026-01-15", "abc1234", "2 cores", "Python 3.11", "forks 10")


def test_page_tells_what_was_measured() -> None:
    heavy = SimpleNamespace(size=1040 * MB, compressed=COMPRESSED, missing=MISSING)
    slow = {**OURS, "no-op": replace(OURS["no-op"], tasks=9, seconds=(3.25, 5.0, 3.0))}
    verdicts = judge(slow, PEER, COMPRESSED, MISSING)
    part = page.side_by_side(heavy, {"ours": slow, "peer": PEER}, verdicts)
    assert "1.04 GB (500.0 MB compressed)" in part
    assert "| ours | 20.0 | 4.0 | 3.2 (3.2, 5.0, 3.0) |" in part
    assert "| peer | 900.0 MB | 900.0 MB | 1.0 MB |" in part
    assert "| no-op: tasks that reach a node | at most 4 | 9 | **missed** |" in part
    assert "an update of 1.0 MB moved 1.0 MB" in part
    text = page.page(FACTS, "", "side", part)
    begin = (
        "## One image on three nodes\n\nMeasured 2026-01-15, commit abc1234.\n\nAn image of 1.04 GB"
    )
    assert text.partition("forks 10.\n\n")[2].startswith(begin)
    assert page.page(FACTS, text, "side", part) == text


def test_targets_are_those_that_were_set() -> None:
    assert (targets.UPDATE_FASTER, targets.COLD_FASTER, targets.MOST_TASKS) == (20, 2, 4)
    assert (targets.MOST_OF_BYTES, targets.BYTES_BESIDES) == (1.02, 262_144)


def rows(ours: float, listed: float = 0.1) -> list[info_page.Row]:
    times = {"empty": 0.3, "the Engine's list": listed}
    times |= {"fleet.images, by name": ours, "community.docker, by name": 4.0}
    times |= {"fleet.images, all": 1.0, "community.docker, all": 2.0}
    return [
        info_page.Row(host, task, (took, took + 1, took - 0.1))
        for host in ("one", "other")
        for task, took in times.items()
    ]


@pytest.mark.parametrize(("ours", "reached"), [(1.0, True), (1.1, False)])
def test_images_are_told_of_fast_enough(ours: float, reached: bool) -> None:
    verdicts = info_page.judge(rows(ours), 200)
    assert [one.reached for one in verdicts] == [reached, False] * 2
    text = info_page.section(rows(ours), verdicts, 200, 4, 10)
    assert text.startswith("## Telling of 200 images\n")
    assert f"| fleet.images, by name | {ours:.2f} ({ours - 0.1:.2f} to {ours + 1:.2f}) |" in text
    assert f"| {ours / 4:.2f} | {'reached' if reached else '**missed**'} |" in text


@pytest.mark.parametrize(("listed", "fails"), [(0.2, True), (0.21, False)])
def test_a_target_below_what_the_engine_takes_is_missed_and_says_so(
    listed: float, fails: bool
) -> None:
    verdict = info_page.judge(rows(1.0, listed), 200)[1]
    assert not verdict.reached
    assert verdict.fails is fails
    assert ("no task can be below" in verdict.state) is not fails


def test_a_part_of_the_page_takes_the_place_of_the_former() -> None:
    former = "# Page\n\nold\n\n## Telling of 20 images\n\nold\n\n### More old\n"
    before = f"{former}\n## Planning 5 nodes\n\nkept\n"
    text = page.page(FACTS, before, "info", "## Telling of 200 images\n\nnew\n")
    assert "old" not in text
    _head, *parts = text.split("\n## ")
    stamp = "Measured 2026-01-15, commit abc1234."
    assert parts == [
        f"Telling of 200 images\n\n{stamp}\n\nnew\n",
        "Planning 5 nodes\n\nkept\n",
    ]
    more = page.page(FACTS, text, "side", "## One image on three nodes\n\nfirst\n")
    assert [one.split()[0] for one in more.split("\n## ")[1:]] == ["One", "Telling", "Planning"]


def test_every_part_of_the_page_has_its_heading() -> None:
    found = [name.read_text().partition("\n")[0] for name in page.HEAD.parent.glob("*.md")]
    for begin in page.PARTS.values():
        assert sum(line.startswith(begin) for line in found) == 1


FREED = prune_page.Freed("engine", 10**9, 10**9, 10**9, None, "1.1GB", "1.2GB", 999_000_000)
PLANNED = [prune_page.Planned(n, n, 0.25 + n * 0.0015, 40 * 10**6) for n in (1, 500, 1000, 2000)]


@pytest.mark.parametrize(
    "apart, most, reached",
    [
        (2_000_000, 0, True),
        (-1_900_000, 0, True),
        (2_100_000, 0, False),
        (0, 5, False),  # a range is no prediction where there is no build cache
    ],
)
def test_prune_bytes(apart: int, most: int, reached: bool) -> None:
    freed = replace(FREED, predicted=10**9 + apart, predicted_max=10**9 + apart + most)
    verdict = prune_page.judge([freed], PLANNED)[0]
    assert verdict.reached is reached, verdict


def test_prune_plans() -> None:
    assert [one.reached for one in prune_page.judge([], PLANNED)] == [True, True, True]
    slow = [replace(one, cpu=one.cpu + one.images / 200) for one in PLANNED]
    assert [one.reached for one in prune_page.judge([], slow)] == [False, True, True]
    large = [replace(one, peak=101 * 10**6) for one in PLANNED]
    assert [one.reached for one in prune_page.judge([], large)] == [True, False, True]
    square = [replace(one, cpu=0.25 + 1.5 * (one.images / 1000) ** 2) for one in PLANNED]
    assert [one.reached for one in prune_page.judge([], square)] == [True, True, False]


def test_prune_page() -> None:
    text = prune_page.section([FREED], PLANNED, 10, prune_page.judge([FREED], PLANNED))
    assert text.strip().startswith(page.PARTS["prune"])
    assert "| engine | 1,000,000,000 | 1,000,000,000 | - | 1.1GB | 1.2GB | 999,000,000 |" in text
    assert "| 500 | 500 | 1.00 | 40 MB |" in text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="fleetlib is for the controller")
def test_pulls_are_timed_over_a_connection_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In check mode as well, where raw is skipped unless it says otherwise."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "fleet")
    pulls = importlib.import_module("benchlib.pulls")
    place = tmp_path / "run"

    def run(command: list[str], **_options: Any) -> SimpleNamespace:
        assert command[-1] == "--check"
        (place / "profile").write_text('{"event": "host", "seconds": 0.5}\n')
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(pulls.subprocess, "run", run)
    stage: Any = SimpleNamespace(state=tmp_path)
    assert pulls._play(stage, place, "collections", [{"debug": {}}], ["--check"]) == 0.5
    (play,) = json.loads((place / "play.json").read_text())
    assert play["tasks"] == [{"ansible.builtin.raw": "true", "check_mode": False}, {"debug": {}}]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="fleetlib is for the controller")
def test_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "fleet")
    builds = importlib.import_module("benchlib.builds")
    done = builds.Measured((0.1,), (0.6,), (0.4,), (4.0,), (5.2,), (4.0,), (0.5,), 10**7)
    assert [one.reached for one in builds.judge(done)] == [True, True, True, True]
    slow = replace(done, told=(0.2,), cpu=(2.1,), growth=10**8, changed=(5.3,))
    assert [one.reached for one in builds.judge(slow)] == [False, False, False, False]
    text = builds.section(done, builds.judge(done))
    assert text.startswith(page.PARTS["builds"])
    assert "| unchanged, `buildx_build` | 0.10 | 0.10 |" in text
