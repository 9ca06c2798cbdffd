# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_relay as Ansible runs it, with a program that answers as Distribution does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from images import as_lock

pytest.importorskip("ansible")
pytest.importorskip("cryptography")

from relaying import HASH, Bench, answers, benched

from ansible_collections.fleet.images.plugins.module_utils import (
    _relay,
    _relay_config,
    _relay_process,
    _relay_program,
)
from ansible_collections.fleet.images.plugins.plugin_utils._authority import make_pair

Json = dict[str, Any]


@pytest.fixture
def bench(tmp_path: Path, run_main: Callable[..., Json]) -> Iterator[Bench]:
    with benched(tmp_path, run_main) as made:
        yield made


def test_start_repeat_change_stop(bench: Bench) -> None:
    foreseen = bench.run(check=True, diff=True)
    assert foreseen["changed"] and not bench.directory.parent.exists()
    assert (foreseen["pid"], foreseen["port"]) == (0, 0)
    done = bench.run(diff=True)
    assert done["changed"] and done["rc"] == 0 and answers(done["port"])
    assert done["diff"] == foreseen["diff"] and "shop/web:1 sha256:" in done["diff"]["after"]
    assert done["url"] == f"http://127.0.0.1:{done['port']}"
    assert [image["action"] for image in done["images"]] == ["served", "served"]
    blobs = {**bench.web.all_blobs, **bench.tool.all_blobs}
    assert done["bytes"] == sum(blob.size for blob in blobs.values())
    for check in (True, False):
        again = bench.run(check=check, diff=True)
        assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
        assert [again[key] for key in ("pid", "port")] == [done[key] for key in ("pid", "port")]
        assert {image["action"] for image in again["images"]} == {"none"}
    for check in (True, False):
        less = bench.run(check=check, images=["shop/web:1"])
        assert less["changed"] and less["pid"] == done["pid"]
    assert "tool" not in bench.run(diff=True, images=["shop/web:1"])["diff"]["before"]
    assert bench.run(check=True, state="stopped")["changed"] and answers(done["port"])
    assert bench.run(state="stopped")["changed"] and not answers(done["port"])
    assert not bench.directory.parent.exists()
    for check in (True, False):
        assert not bench.run(check=check, state="stopped")["changed"]
    assert bench.store.layout.has(bench.web.target.digest)


def test_what_differs_starts_it_anew_and_only_that(bench: Bench) -> None:
    done = bench.run()
    login = bench.run(htpasswd=f"shop:{HASH}\n")
    assert login["changed"] and login["pid"] != done["pid"] and login["port"] == done["port"]
    assert not bench.run(htpasswd=f"shop:{HASH}\n")["changed"]
    other = bench.run(htpasswd=f"other:{HASH}\n", check=True)
    assert other["changed"] and _relay_process.pid_of(bench.directory) == login["pid"]
    without = bench.run()
    assert without["changed"] and not (bench.directory / "htpasswd").exists()
    copy = bench.command.with_name("registry")
    shutil.copy(bench.command, copy)
    assert bench.run(command=str(copy))["changed"]
    assert not bench.run(command=str(copy))["changed"]


def test_one_that_died_or_hangs_is_started_again_at_its_port(bench: Bench) -> None:
    first = bench.run()
    os.kill(first["pid"], signal.SIGKILL)
    os.waitpid(first["pid"], 0)
    assert bench.run(check=True)["changed"]
    second = bench.run()
    assert second["changed"] and second["port"] == first["port"] and answers(second["port"])
    os.kill(second["pid"], signal.SIGSTOP)
    third = bench.run(start_timeout=1, check=True)
    assert third["changed"] and _relay_process.pid_of(bench.directory) == second["pid"]
    os.kill(second["pid"], signal.SIGCONT)


def test_a_process_that_is_not_ours_is_left_alone(bench: Bench) -> None:
    bench.run(check=False)
    done = bench.run(state="stopped")
    assert done["changed"]
    first = bench.run()
    _relay_process.stop(bench.directory)
    note = _relay_config.note_of(bench.directory)
    _relay_config.mark(bench.directory, {**note, "pid": os.getpid()})
    assert _relay_process.pid_of(bench.directory) == 0
    assert bench.run(state="stopped")["changed"] and not answers(first["port"])


def test_the_configuration_lets_nobody_write_and_only_its_owner_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_STORAGE_MAINTENANCE_READONLY", "{enabled: false}")
    key = make_pair(["127.0.0.1"])
    done = bench.run(certificate=key[0], private_key=key[1], htpasswd=f"shop:{HASH}")
    config = json.loads((bench.directory / "config.yml").read_text())
    assert config["storage"]["maintenance"]["readonly"] == {"enabled": True}
    assert config["storage"]["delete"] == {"enabled": False}
    assert config["storage"]["maintenance"]["uploadpurging"] == {"enabled": False}
    assert len(config["http"]["secret"]) == 64
    assert bench.directory.stat().st_mode & 0o777 == 0o700
    files = [path for path in bench.directory.iterdir() if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert b"REGISTRY_STORAGE" not in Path(f"/proc/{done['pid']}/environ").read_bytes()
    told = json.dumps(done) + Path(f"/proc/{done['pid']}/cmdline").read_text()
    told += (bench.directory / "relay.json").read_text() + (bench.directory / "log").read_text()
    assert HASH not in told and key[1].splitlines()[1] not in told
    assert done["url"].startswith("https://") and done["ca"] == ""


def test_a_certificate_that_was_made_stays_while_it_holds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*names: str, **options: Any) -> Json:
        certificate, key = make_pair(["127.0.0.1", *names])
        given = {"certificate": certificate, "private_key": key, "names": list(names)}
        return bench.run(tls=True, **given, **options)

    assert made("gate", check=True)["ca"] == ""
    first = made("gate")
    assert first["changed"]
    trusted = ssl.create_default_context(cadata=first["ca"])
    with socket.create_connection(("127.0.0.1", first["port"])) as plain:
        trusted.wrap_socket(plain, server_hostname="gate").close()
    for check in (True, False):
        again = made("gate", check=check)
        assert (again["changed"], again["ca"], again["pid"]) == (False, first["ca"], first["pid"])
    assert made("other", check=True)["changed"]
    other = made("other")
    assert other["ca"] != first["ca"]
    later = time.time() + 29 * 24 * 3600
    monkeypatch.setattr(_relay_process.time, "time", lambda: later)
    assert made("other")["ca"] != other["ca"]


def test_an_image_that_is_not_whole_does_not_hold_up_the_others(bench: Bench) -> None:
    bench.store.layout.discard(bench.tool.platforms["linux/amd64"].layers[0].digest)
    result = bench.run()
    assert result["rc"] == 1 and result["changed"] and answers(result["port"])
    actions = {image["name"]: image["action"] for image in result["images"]}
    assert actions == {bench.web.name: "served", bench.tool.name: "failed"}
    assert result["msg"].endswith("; run image_fetch") and "tool:1" in result["msg"]
    assert bench.run()["changed"] is False
    nothing = bench.run(images=["tool:1"])
    assert nothing["rc"] == 1 and not nothing["changed"]


def test_no_program(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_relay_program, "PLACES", (str(tmp_path),))
    result = bench.run(command=None)
    assert "install the distribution's package docker-registry there" in result["msg"]
    assert "role airgap" in result["msg"] and socket.gethostname() in result["msg"]
    assert not result["changed"] and list(bench.directory.iterdir()) == []
    monkeypatch.setattr(_relay_program, "PLACES", (str(bench.command.parent),))
    assert bench.run(command=None)["changed"]


def test_one_that_ends_at_once_has_the_last_word(bench: Bench) -> None:
    bench.behave("ends")
    result = bench.run()
    assert "exit code 1: panic: it does not like this configuration;" in result["msg"]
    assert result["changed"], "the tree was laid out"
    assert _relay_process.pid_of(bench.directory) == 0


def test_one_that_stays_silent_is_ended(bench: Bench) -> None:
    bench.behave("silent")
    result = bench.run(start_timeout=1)
    assert "wanted an answer within 1 seconds" in result["msg"]
    assert _relay_process.pid_of(bench.directory) == 0


def test_a_port_in_use(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for check in (True, False):
            result = bench.run(check=check, port=port)
            assert result["rc"] == 1 and not result["changed"]
            assert f"127.0.0.1:{port}: wanted free for the relay" in result["msg"]
    assert bench.run(port=port)["port"] == port


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "../up"}, "name '../up': wanted letters"),
        ({"htpasswd": "shop:secret-word\n"}, "htpasswd: wanted a user, a colon and a bcrypt hash"),
        ({"certificate": "x", "private_key": "y-secret-word"}, "certificate and private_key: "),
        ({"certificate": "x"}, "private_key"),
        ({"lock": None}, "lock, lock_path"),
        ({"store": "/nowhere"}, "run image_fetch first"),
        ({"address": "no.such.host.invalid"}, "cannot be listened on"),
    ],
)
def test_bad_options(bench: Bench, options: Json, message: str) -> None:
    result = bench.run(**options)
    assert result["rc"] == 1 and message in result["msg"], result
    assert "secret-word" not in json.dumps(result)


def test_a_directory_of_somebody_else_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "own" / "docker").mkdir(parents=True)
    (tmp_path / "own" / "config.yml").write_text("precious")
    for state in ("started", "stopped"):
        result = bench.run(dir=str(tmp_path / "own"), state=state)
        assert "wanted an empty directory or one of a relay, found config.yml" in result["msg"]
    assert (tmp_path / "own" / "config.yml").read_text() == "precious"
    mine = bench.run(dir=str(tmp_path / "mine"))
    (tmp_path / "mine" / "notes").write_text("precious")
    stopped = bench.run(dir=str(tmp_path / "mine"), state="stopped")
    assert "notes is not the relay's own and stays" in stopped["msg"]
    assert not answers(mine["port"]) and (tmp_path / "mine" / "notes").exists()
    (tmp_path / "mine" / "notes").unlink()
    assert bench.run(dir=str(tmp_path / "mine"), state="stopped")["changed"]
    assert not (tmp_path / "mine").exists()


def test_two_at_once_start_one(bench: Bench) -> None:
    wanted = _relay_config.Wanted("127.0.0.1", command=str(bench.command))
    lock, found = as_lock(bench.web), []
    store = str(bench.store.layout.root)

    def start() -> None:
        found.append(_relay.started(store, lock, bench.directory, wanted, False))

    threads = [threading.Thread(target=start) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one["pid"] for one in found}) == 1
    assert sorted(one["changed"] for one in found) == [False, False, True]


def test_a_port_that_is_taken_in_the_last_moment(bench: Bench) -> None:
    """Another free one does as well, unless it is to be this one."""
    bench.behave("taken")
    assert answers(bench.run()["port"])
    bench.behave("taken")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    result = bench.run(name="second", port=port)
    assert result["failed"] and "address already in use" in result["msg"]


def test_several_side_by_side(bench: Bench) -> None:
    first, second = bench.run(), bench.run(name="second")
    assert first["port"] != second["port"]
    bench.run(state="stopped")
    assert answers(second["port"]) and not answers(first["port"])


def test_who_clears_the_store_leaves_the_relay_alone(bench: Bench) -> None:
    from ansible_collections.fleet.images.plugins.module_utils import _sweep

    done = bench.run()
    waste = _sweep.look(bench.store.layout, set())
    assert waste.files and not any(".relay" in path.parts for path in waste.files)
    _sweep.clear(bench.store.layout, waste)
    assert answers(done["port"]) and len(list(bench.directory.rglob("data"))) > 0
