# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Relays that killed runs have left go with the next run; those in use, or kept, stay."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ansible")
pytest.importorskip("docker")
pytest.importorskip("cryptography")

from relay_engine import IMAGE, RelayEngine
from relaying import Bench, answers, benched

from ansible_collections.fleet.images.plugins.module_utils import _relay, _relay_sweep, _sweep

Json = dict[str, Any]
DAY = 24 * 3600


@pytest.fixture
def bench(tmp_path: Path, run_main: Callable[..., Json]) -> Iterator[Bench]:
    with benched(tmp_path, run_main) as made:
        yield made


@pytest.fixture
def left(bench: Bench) -> Json:
    """A relay of a run, which holds the lease `run`."""
    done = bench.run(name="run-tunnel", lease="run")
    assert done["changed"] and answers(done["port"])
    assert not bench.run(name="run-tunnel", lease="run")["changed"]
    return done


def lease(bench: Bench) -> Path:
    return bench.store.layout.root / ".leases" / "run"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def is_there(bench: Bench) -> bool:
    return (bench.store.layout.root / ".relay" / "run-tunnel").exists()


def test_it_goes_once_its_lease_is_over(bench: Bench, left: Json) -> None:
    assert set(_sweep.leased(bench.store.layout)) >= set(bench.web.all_blobs)
    assert bench.run(name="mine")["swept"] == [] and answers(left["port"])
    lease(bench).unlink()
    for check in (True, False):
        other = bench.run(check=check, name="mine")
        assert other["changed"] and other["swept"] == ["run-tunnel"]
        assert answers(left["port"]) is is_there(bench) is check
    again = bench.run(name="mine")
    assert not again["changed"] and again["swept"] == []


def test_a_lease_counts_for_a_day_after_the_last_task(bench: Bench, left: Json) -> None:
    before = time.time() - DAY - 60
    os.utime(lease(bench), (before, before))
    bench.run(name="run-tunnel", lease="run")
    assert bench.run(name="mine", state="stopped")["swept"] == []
    os.utime(lease(bench), (before, before))
    assert bench.run(name="mine", state="stopped")["swept"] == ["run-tunnel"]
    assert not answers(left["port"]) and not is_there(bench)


def test_one_that_somebody_is_connected_to_stays(bench: Bench, left: Json) -> None:
    lease(bench).unlink()
    with socket.create_connection(("127.0.0.1", left["port"])):
        assert bench.run(name="mine")["swept"] == [] and is_there(bench)
    bench.run(name="mine")
    assert not is_there(bench)


def test_one_whose_process_is_gone_waits_for_no_lease(bench: Bench, left: Json) -> None:
    kill(left["pid"])
    assert bench.run(name="mine")["swept"] == ["run-tunnel"] and not is_there(bench)


def test_one_that_is_kept_on_purpose_stays_dead_or_alive(bench: Bench) -> None:
    kept = bench.run(name="kept")
    assert bench.run(name="mine")["swept"] == []
    kill(kept["pid"])
    assert bench.run(name="mine")["swept"] == []
    assert (bench.store.layout.root / ".relay" / "kept").exists()


def test_one_that_a_run_took_over_is_no_run_s_any_more(bench: Bench, left: Json) -> None:
    taken = bench.run(name="run-tunnel")
    assert not taken["changed"] and taken["pid"] == left["pid"]
    lease(bench).unlink()
    assert bench.run(name="mine")["swept"] == [] and answers(left["port"])


def test_one_that_another_task_works_on_stays(bench: Bench, left: Json) -> None:
    lease(bench).unlink()
    root = bench.store.layout.root
    with _relay.alone(root / ".relay" / "run-tunnel", make=False):
        assert _relay_sweep.sweep(root, None, dry_run=False) == []
    (root / ".relay" / "no relay").mkdir()
    assert _relay_sweep.sweep(root, None, dry_run=False) == ["run-tunnel"]
    assert (root / ".relay" / "no relay").exists()


@pytest.fixture
def engine(no_pack: None) -> Iterator[RelayEngine]:
    with RelayEngine() as running:
        yield running


def test_a_container_goes_when_its_engine_answers(bench: Bench, engine: RelayEngine) -> None:
    boxed = {"image": IMAGE, "command": None, "docker_host": engine.url}
    bench.run(name="run-tunnel", lease="run", **boxed)
    lease(bench).unlink()
    engine.fault(where="DELETE /containers/", status=500, words="not now")
    assert bench.run(name="mine")["swept"] == [] and is_there(bench)
    assert len(engine.boxes) == 1
    assert bench.run(name="mine")["swept"] == ["run-tunnel"]
    assert not engine.boxes and not is_there(bench)


def test_what_went_counts_where_the_relay_itself_fails(bench: Bench, left: Json) -> None:
    """It is swept first, since it may hold the port."""
    lease(bench).unlink()
    result = bench.run(name="mine", command="/nowhere/registry")
    assert result["failed"] and result["changed"] and result["swept"] == ["run-tunnel"]
    other = bench.run(name="mine", port=left["port"])
    assert other["port"] == left["port"]


def test_a_name_of_a_lease_is_a_file_name(bench: Bench) -> None:
    result = bench.run(lease="../up")
    assert result["failed"] and "lease '../up': wanted letters" in result["msg"]
