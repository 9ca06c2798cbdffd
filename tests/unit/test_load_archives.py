# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_load with archives of others: compressed, split, and with layers that are too new."""

from __future__ import annotations

import gzip
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("docker")
pytest.importorskip("ansible.plugins.action")

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from engine_stub import EngineStub
from shapes import Files, compressed, docker_save_before_25, skopeo, tar

from ansible_collections.fleet.images.plugins.action import image_load as action
from ansible_collections.fleet.images.plugins.module_utils import _parts, _unpacked
from ansible_collections.fleet.images.plugins.module_utils._bundle import BundleError
from ansible_collections.fleet.images.plugins.module_utils._parts import PartError
from ansible_collections.fleet.images.plugins.modules import image_load, image_plan

pytestmark = pytest.mark.usefixtures("no_pack")

APP, WEB = "docker.io/library/app:1", "site.example/web:2"
IMAGES: list[tuple[list[str], list[str]]] = [([APP], ["a", "b", "a"]), ([WEB], ["a", "c"])]
DEFAULTS = {
    "lock": None,
    "lock_path": None,
    "images": None,
    "known": [],
    "parts": None,
    "members": None,
}
LOAD_DEFAULTS = {
    "sha256": None,
    "content": None,
    "parallel": 1,
    "stall_timeout": 60,
    "lock_timeout": 0,
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Two images in the shape of Engines before 25."""
    return tar(tmp_path / "my.tar", docker_save_before_25(*IMAGES))


def zipped(path: Path) -> Path:
    target = path.with_name(f"{path.name}.gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return target


def split(path: Path, size: int = 2000, sums: bool = True) -> list[Path]:
    """The parts; the whole is gone."""
    content = path.read_bytes()
    parts = []
    for number, start in enumerate(range(0, len(content), size), start=1):
        parts.append(_parts.part_name(path, number))
        parts[-1].write_bytes(content[start : start + size])
    lines = [f"{_parts.sha256_of(part)}  {part.name}\n" for part in parts]
    if sums:
        _parts.checksum_name(path).write_text("".join(lines))
    path.unlink()
    return parts


class Controller:
    """The action of image_load, whose host is this machine."""

    def __init__(self, url: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url, self.staging = url, directory / "staging"
        self.sent: list[bytes] = []
        self.files: list[str] = []  # as they were put; a copy of the connection puts them
        self.pipes = False
        self.action: Any = action.ActionModule.__new__(action.ActionModule)
        for name in ("_module", "_shell", "_find_needle", "_can_pipe"):
            setattr(self.action, name, getattr(self, name))
        self.transport = "local"
        self.before_put: Callable[[int], object] = lambda _number: None
        self.began = threading.Event()
        self.action._connection = self
        self.action._task = type("Task", (), {"check_mode": False})()
        monkeypatch.setattr(action, "SMALL", 0)
        monkeypatch.setattr(action.C, "DEFAULT_LOCAL_TMP", str(directory))

    def run(self, src: Path, check: bool = False, **options: Any) -> dict[str, Any]:
        self.action._task.check_mode = check
        self.sent = []
        args = {"src": str(src), "staging_dir": str(self.staging), **options}
        result: dict[str, Any] = self.action._load_from_controller(args, {})
        assert not self.staging.exists()
        return result

    def _module(self, name: str, args: dict[str, Any], _task_vars: object) -> dict[str, Any]:
        params = {**DEFAULTS, **args, "docker_host": self.url}
        if name == action.PLAN:
            return image_plan.make_plan(params)
        self.began.set()
        try:
            result = image_load.load({**LOAD_DEFAULTS, **params}, False)
        except PartError as error:
            result = image_load.refused(error)
        if result["errors"] and self.transport == "ssh":
            return {**result, "failed": True}
        # Nobody reads a tar's last blocks: the load may be over before they came.
        self.sent = [_content(**part) for part in params["parts"]]
        return result

    def _can_pipe(self) -> bool:
        return self.pipes

    def _shell(self, line: str, content: bytes | None = None) -> tuple[int, str, str]:
        command = ["/bin/sh", "-c", line]
        done = subprocess.run(command, check=False, capture_output=True, input=content)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def put_file(self, local: str, remote: str) -> None:
        self.before_put(len(self.files))
        self.files.append(remote)
        # As another program would: what only this process can open does not travel.
        subprocess.run(["cp", local, remote], check=True)

    def _find_needle(self, _directory: str, name: str) -> str:
        if not os.path.exists(name):
            raise AnsibleError(name)
        return name


def _content(path: str, size: int, **_sums: object) -> bytes:
    """A part, once all of it is there: `cp` writes piece by piece."""
    part, deadline = Path(path), time.monotonic() + 10
    while not part.exists() or part.stat().st_size < size:
        assert time.monotonic() < deadline, part
        time.sleep(0.01)
    return part.read_bytes()


@pytest.fixture
def controller(stub: EngineStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    return Controller(stub.url, tmp_path, monkeypatch)


def test_it_loads_while_parts_are_still_being_sent(
    controller: Controller, stub: EngineStub, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only over ssh: of other connections nobody knows whether they carry two things at once."""
    monkeypatch.setattr(_parts.cut, "__defaults__", (3000,))
    content, began = old.read_bytes(), controller.began

    def late(number: int) -> None:
        assert number == 0 or began.wait(10)

    controller.transport, controller.before_put = "ssh", late
    result = controller.run(old)
    assert result["changed"] and not result["errors"]
    assert b"".join(controller.sent) == content
    assert (result["bytes_sent"], result["bytes_resumed"]) == (len(content), 0)
    assert len(controller.files) == -(-len(content) // 3000) > 3


def test_a_transfer_that_breaks_off_ends_the_load(
    controller: Controller, stub: EngineStub, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is that of the connection; nothing is loaded, and nobody waits for the rest."""
    monkeypatch.setattr(_parts.cut, "__defaults__", (3000,))

    dead_at = [2]

    def dead(number: int) -> None:
        if number in dead_at:
            dead_at.clear()
            raise AnsibleConnectionFailure("the line is dead")

    controller.transport, controller.before_put = "ssh", dead
    began = time.monotonic()
    with pytest.raises(AnsibleConnectionFailure, match="the line is dead"):
        controller.run(old)
    assert time.monotonic() - began < 10
    assert stub.tags == {}
    again = controller.run(old)
    assert (again["bytes_sent"], again["bytes_resumed"]) == (old.stat().st_size - 6000, 6000)


def test_nothing_stays_where_the_load_needed_no_more(
    controller: Controller, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else loaded the images meanwhile, and then the line broke."""
    monkeypatch.setattr(_parts.cut, "__defaults__", (3000,))
    broken, module = threading.Event(), controller.action._module

    def dead(_number: int) -> None:
        broken.set()
        raise AnsibleConnectionFailure("the line is dead")

    def loaded(name: str, *arguments: Any) -> dict[str, Any]:
        if name == action.PLAN:
            return module(name, *arguments)  # type: ignore[no-any-return]
        assert broken.wait(10)
        return {"changed": False}

    controller.transport, controller.before_put = "ssh", dead
    controller.action._module = loaded
    assert not controller.run(old)["changed"]


def test_what_came_is_kept_where_only_the_module_lost_its_connection(
    controller: Controller, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ansible tries a transfer again, and a module never."""
    monkeypatch.setattr(_parts.cut, "__defaults__", (3000,))
    controller.transport, module = "ssh", controller.action._module

    def lost(name: str, *arguments: Any) -> dict[str, Any]:
        if name == action.PLAN:
            return module(name, *arguments)  # type: ignore[no-any-return]
        while len(controller.files) < 3:
            time.sleep(0.01)
        raise AnsibleConnectionFailure("the line is dead")

    controller.action._module = lost
    with pytest.raises(AnsibleConnectionFailure, match="the line is dead"):
        controller.run(old)
    controller.action._module = module
    assert controller.run(old)["bytes_resumed"] >= 6000


def test_what_came_before_it_broke_is_kept_on_other_connections_too(
    controller: Controller, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parts.cut, "__defaults__", (3000,))
    broken = [True]

    def dead(number: int) -> None:
        if number == 2 and broken:
            broken.clear()
            raise AnsibleConnectionFailure("the line is dead")

    controller.before_put = dead
    with pytest.raises(AnsibleConnectionFailure, match="the line is dead"):
        controller.run(old)
    assert controller.run(old)["bytes_resumed"] == 6000


def on_host(stub: EngineStub, src: Path, check: bool = False, **options: Any) -> dict[str, Any]:
    params = {**DEFAULTS, **LOAD_DEFAULTS, "staging_dir": str(src.parent), "src": str(src)}
    return image_load.load({**params, "docker_host": stub.url, **options}, check)


@pytest.mark.parametrize("how", ["plain", "compressed", "split", "compressed and split"])
def test_from_the_host(stub: EngineStub, old: Path, how: str) -> None:
    src = zipped(old) if "compressed" in how else old
    whole = _parts.sha256_of(src)
    if "split" in how:
        split(src)
    before = sorted(os.listdir(src.parent))
    foreseen = on_host(stub, src, check=True, sha256=whole)
    assert (foreseen["errors"], foreseen["changed"], stub.tags) == ([], True, {})
    loaded = on_host(stub, src, sha256=whole)
    assert (loaded["errors"], set(stub.tags)) == ([], {APP, WEB})
    assert loaded["bytes"] == foreseen["bytes"]
    assert not on_host(stub, src)["changed"]
    assert sorted(os.listdir(src.parent)) == before
    with pytest.raises(PartError, match=r"my.tar.*: wanted SHA-256 00, found"):
        on_host(stub, src, sha256="00")


@pytest.mark.parametrize("how", ["plain", "piped", "compressed", "split", "compressed and split"])
def test_from_the_controller(stub: EngineStub, controller: Controller, old: Path, how: str) -> None:
    controller.pipes = how == "piped"
    src = zipped(old) if "compressed" in how else old
    content = src.read_bytes()
    whole = _parts.sha256_of(src)
    named = split(src)[0] if "split" in how else src
    foreseen = controller.run(named, check=True)
    assert (foreseen["changed"], stub.tags, controller.sent) == (True, {}, [])
    loaded = controller.run(src, sha256=whole)
    assert (loaded["errors"], set(stub.tags)) == ([], {APP, WEB})
    assert controller.sent == [content]  # as it is: compressed is less
    assert loaded["bytes_sent"] == foreseen["bytes_sent"] == len(content)
    assert (len(controller.files) == 0) == controller.pipes
    again = controller.run(src)
    assert (again["changed"], again["bytes_sent"], controller.sent) == (False, 0, [])


def test_zstd_is_unpacked_before_it_is_sent(
    controller: Controller, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gzip stands for it here: hosts seldom have zstd."""
    content = old.read_bytes()
    src = zipped(old)
    monkeypatch.setattr(_unpacked, "ZSTD", "gzip")
    monkeypatch.setattr(_unpacked, "_module", lambda _name: gzip)
    with pytest.raises(PartError, match="wanted SHA-256 00"):
        controller.run(src, sha256="00")
    foreseen = controller.run(src, check=True)
    loaded = controller.run(src, sha256=_parts.sha256_of(src))
    assert (loaded["errors"], controller.sent) == ([], [content])
    assert loaded["bytes_sent"] == foreseen["bytes_sent"] == len(content)


@pytest.mark.parametrize("check", [True, False])
def test_wrong_and_missing_parts_are_refused_beforehand(
    stub: EngineStub, controller: Controller, old: Path, check: bool
) -> None:
    parts = split(old)
    content = parts[1].read_bytes()
    parts[1].write_bytes(content[::-1])
    for run in (lambda: controller.run(old, check), lambda: on_host(stub, old, check)):
        with pytest.raises(PartError, match=r"my.tar.part002: wanted SHA-256"):
            run()
    parts[1].unlink()
    for run in (lambda: controller.run(old, check), lambda: on_host(stub, old, check)):
        with pytest.raises(PartError, match=r"my.tar.part002: this part .* is not there"):
            run()
    parts[0].unlink()
    with pytest.raises(AnsibleActionFail, match=r"my.tar: a bundle is wanted on the controller"):
        controller.run(old, check)
    assert stub.asked("POST") == []


def test_damage_in_a_compressed_archive(
    stub: EngineStub, controller: Controller, old: Path
) -> None:
    src = zipped(old)
    src.write_bytes(src.read_bytes()[:-20])
    for run in (lambda: controller.run(src), lambda: on_host(stub, src)):
        with pytest.raises(BundleError, match=r"my.tar.gz: wanted a whole gzip file"):
            run()
    assert stub.asked("POST") == []


def test_errors_name_the_archive_and_not_what_it_was_unpacked_to(
    stub: EngineStub, old: Path
) -> None:
    files = docker_save_before_25(*IMAGES)
    layer = next(name for name in files if name.endswith("layer.tar"))
    files[layer] = b"other content"
    src = zipped(tar(old, files))
    result = on_host(stub, src)
    assert len(result["errors"]) == 2
    assert all(f"{src} holds other content" in error for error in result["errors"])
    assert stub.tags == {}


def zstd_layers(name: str) -> Files:
    """An image whose layers look like zstd; the stub does not unpack them."""
    files = compressed([name], ["a"], "{}.json", "{}.tar")
    layer = next(one for one in files if one.endswith(".tar"))
    return {**files, layer: b"\x28\xb5\x2f\xfd"}


def test_layers_with_zstd_are_refused_beforehand_where_the_engine_is_too_old(
    stub: EngineStub, controller: Controller, tmp_path: Path
) -> None:
    src = tar(tmp_path / "my.tar", zstd_layers(APP))
    told = [controller.run(src, check=True), on_host(stub, src, check=True)]
    if stub.version.startswith("20."):
        told += [controller.run(src), on_host(stub, src)]
        for result in told:
            (image,) = result["images"]
            assert image["action"] == "failed"
            assert image["reason"].startswith(
                f"{APP}: Engine 23 or newer is wanted for its layers, which are compressed with"
                " zstd, this one is 20.10.24; upgrade it"
            )
            assert not result["changed"]
        assert (stub.uploads, controller.sent) == ([], [])
        assert told[0]["failed"]
    else:
        assert [result["images"][0]["action"] for result in told] == ["loaded", "loaded"]


def test_the_same_image_from_another_tool_is_there_already(
    stub: EngineStub, old: Path, tmp_path: Path
) -> None:
    assert on_host(stub, old)["changed"]
    other = tar(tmp_path / "other.tar", skopeo(*IMAGES[1]))
    assert not on_host(stub, other)["changed"]
