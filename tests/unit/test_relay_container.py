# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_relay with a container of the host's own Engine, of an image that it has."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ansible")
pytest.importorskip("docker")
pytest.importorskip("cryptography")

from relay_engine import IMAGE, STUB, RelayEngine
from relaying import HASH, Bench, answers

from ansible_collections.fleet.images.plugins.module_utils import (
    _relay_process,
    _sdk,
)

Json = dict[str, Any]


class Boxed(Bench):
    """The module with an image, over an Engine that has it."""

    engine: RelayEngine

    def run(self, check: bool = False, diff: bool = False, **options: Any) -> Json:
        usual: Json = {"command": None, "docker_host": self.engine.url}
        if options.get("state") != "stopped":
            usual["image"] = IMAGE
        return super().run(check, diff, **{**usual, **options})

    @property
    def box(self) -> Json:
        """How the only container was asked for."""
        boxes = list(self.engine.boxes.values())
        assert len(boxes) == 1
        return boxes[0].body


@pytest.fixture
def boxed(tmp_path: Path, run_main: Callable[..., Json], no_pack: None) -> Iterator[Boxed]:
    made = Boxed(tmp_path, run_main)
    program = tmp_path / "image" / "registry"
    program.parent.mkdir()
    shutil.copy(STUB, program)
    with RelayEngine(program) as made.engine:
        yield made
        assert made.engine.asked("POST /images/create") == [], "a relay pulls nothing"
        for note in tmp_path.rglob("relay.json"):
            _relay_process.stop(note.parent)


def test_create_repeat_change_remove(boxed: Boxed) -> None:
    foreseen = boxed.run(check=True, diff=True)
    assert foreseen["changed"] and not boxed.engine.boxes and not boxed.directory.exists()
    done = boxed.run(diff=True)
    assert done["changed"] and answers(done["port"]), done
    assert done["diff"] == foreseen["diff"]
    assert done["pid"] == _relay_process.pid_of(boxed.directory)
    for check in (True, False):
        again = boxed.run(check=check)
        assert not again["changed"]
        assert (again["pid"], again["port"]) == (done["pid"], done["port"])
    for check in (True, False):
        less = boxed.run(check=check, images=["shop/web:1"])
        assert less["changed"] and less["pid"] == done["pid"], "what it serves is not its start"
    for check in (True, False):
        login = boxed.run(check=check, htpasswd=f"shop:{HASH}")
        assert login["changed"] and answers(done["port"]) is check
    assert login["pid"] != done["pid"] and login["port"] == done["port"]
    assert len(boxed.engine.boxes) == 1
    for check in (True, False):
        assert boxed.run(check=check, state="stopped")["changed"]
        assert bool(boxed.engine.boxes) is check
    assert not boxed.directory.exists()
    for check in (True, False):
        assert not boxed.run(check=check, state="stopped")["changed"]


def test_it_can_write_nowhere_and_nobody_starts_it_again(boxed: Boxed) -> None:
    boxed.engine.config["Env"] = ["PATH=/bin", "REGISTRY_STORAGE_MAINTENANCE_READONLY=no"]
    boxed.run()
    host = boxed.box["HostConfig"]
    assert host["Binds"] == [f"{boxed.directory}:{boxed.directory}:ro"]
    assert (host["NetworkMode"], host["RestartPolicy"]) == ("host", {"Name": "no"})
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"]
    assert boxed.box["Env"] == ["REGISTRY_STORAGE_MAINTENANCE_READONLY"]
    assert boxed.box["User"] == f"{os.getuid()}:{os.getgid()}"
    assert boxed.box["Labels"] == {"fleet.images.relay": str(boxed.directory)}
    assert "Entrypoint" not in boxed.box
    (one,) = boxed.engine.boxes.values()
    assert one.name.startswith("fleet-images-relay-")


@pytest.mark.parametrize(
    ("entry", "command", "wanted"),
    [
        (["registry"], None, None),
        (None, None, ["registry"]),
        (None, "/usr/bin/docker-registry", ["/usr/bin/docker-registry"]),
        (["/entrypoint.sh"], "docker-registry", ["docker-registry"]),
    ],
)
def test_the_program_in_the_image(
    boxed: Boxed, entry: list[str] | None, command: str | None, wanted: list[str] | None
) -> None:
    boxed.engine.config["Entrypoint"] = entry
    assert boxed.run(command=command)["changed"]
    assert boxed.box.get("Entrypoint") == wanted
    assert not boxed.run(command=command)["changed"]


def test_another_image_or_a_program_takes_its_place(boxed: Boxed) -> None:
    first = boxed.run()
    boxed.engine.image = "sha256:" + "2" * 64
    second = boxed.run()
    assert second["changed"] and second["port"] == first["port"]
    assert boxed.box["Image"] == boxed.engine.image
    outside = boxed.run(image=None, command=str(boxed.command))
    assert outside["changed"] and not boxed.engine.boxes and answers(outside["port"])
    inside = boxed.run()
    assert inside["changed"] and inside["pid"] != outside["pid"] and answers(inside["port"])
    (id_,) = boxed.engine.boxes
    boxed.engine.discard(id_)
    assert boxed.run(check=True)["changed"]
    back = boxed.run()
    assert back["changed"] and answers(back["port"])


def test_an_image_that_is_not_there(boxed: Boxed) -> None:
    boxed.engine.has_image = False
    for check in (True, False):
        result = boxed.run(check=check)
        assert result["failed"] and not result["changed"]
        assert f"a container of {IMAGE}: wanted on the Engine at" in result["msg"]
        assert "load it there (image_load)" in result["msg"]
    assert not boxed.engine.boxes


def test_engines_that_will_not_do(boxed: Boxed) -> None:
    boxed.engine.rootless = True
    assert "is rootless" in boxed.run()["msg"]
    assert "this host's own Engine" in boxed.run(docker_host="tcp://10.0.0.1:2375")["msg"]
    result = boxed.run(docker_host="unix:///nowhere/docker.sock")
    assert result["failed"] and "wanted an answer, found none" in result["msg"]


def test_one_that_ends_at_once_has_the_last_word_and_goes(boxed: Boxed) -> None:
    boxed.engine.program.with_name("behaviour").write_text("ends")
    result = boxed.run()
    assert "exit code 1: panic: it does not like this configuration;" in result["msg"]
    assert f"a container of {IMAGE} ended at once" in result["msg"]
    assert not boxed.engine.boxes and _relay_process.pid_of(boxed.directory) == 0
    boxed.engine.fault(where="POST /containers/.*/start", status=400, words="no such program")
    assert "no such program; give an image of CNCF Distribution" in boxed.run()["msg"]
    assert not boxed.engine.boxes


def test_a_container_of_somebody_else_is_left_alone(boxed: Boxed) -> None:
    boxed.run()
    (box,) = boxed.engine.boxes.values()
    boxed.run(state="stopped")
    boxed.engine.body = {"Labels": {}, "Cmd": []}
    boxed.engine.create(box.name)
    result = boxed.run()
    assert result["failed"] and "that is another's; remove or rename it" in result["msg"]
    assert [one.name for one in boxed.engine.boxes.values()] == [box.name]


def test_what_a_killed_start_has_left_is_found(boxed: Boxed) -> None:
    """A container of this relay that was created, and that no note tells of."""
    boxed.run()
    (box,) = boxed.engine.boxes.values()
    shutil.rmtree(boxed.directory)
    again = boxed.run()
    assert again["changed"] and answers(again["port"])
    assert [one.name for one in boxed.engine.boxes.values()] == [box.name]


def test_without_the_sdk_the_action_is_told(boxed: Boxed, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_unused: object) -> None:
        raise _sdk.SdkMissing("no SDK")

    monkeypatch.setattr(
        "ansible_collections.fleet.images.plugins.module_utils._engine.import_sdk", missing
    )
    result = boxed.run()
    assert result["sdk_missing"] and result["failed"], json.dumps(result)
