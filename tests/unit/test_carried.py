# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules on a host without the SDK: it comes along with the task, and goes with it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ansible.plugins.action")
pytest.importorskip("docker")

from engine_stub import EngineStub
from images import Store, as_lock
from registry_stub import RegistryStub

from ansible_collections.fleet.images.plugins.module_utils import _lock, _sdk
from ansible_collections.fleet.images.plugins.plugin_utils import _carried

Json = dict[str, Any]
NOTHING: Json = {"version": 1, "images": {}}

# Starts Python, noting it; "-S" hides what pip has installed, as on a host without the SDK.
PYTHON = """#!/bin/sh
echo started >>"$0.log"
exec {python} {option} "$@"
"""


def packed(directory: Path) -> Path:
    """A prepared pack of the installed SDK, under the key that the role wants."""
    spec = importlib.util.spec_from_file_location("make_pack", _carried.MAKER)
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    files = {}
    for name in ("docker", "requests", "urllib3", "idna", "certifi", "charset_normalizer"):
        found = importlib.util.find_spec(name)
        assert found is not None and found.origin is not None
        place = Path(found.origin).parent
        for path in [*place.rglob("*.py"), *place.rglob("*.pem")]:
            files[f"{name}/{path.relative_to(place)}"] = path.read_bytes()
    requirements = _carried.MAKER.with_name("requirements.txt").read_bytes()
    pack = directory / "prepared.tar.gz"
    pack.write_bytes(maker.pack_bytes(files, requirements))
    return pack


class Host:
    """This machine, with directories of its own and a Python that has no SDK."""

    def __init__(self, root: Path) -> None:
        self.root, self.place, self.pack = root, root / "host", packed(root)
        self.place.mkdir()
        self.python = self._python("bare", "-S")
        self.cache = root / "cache"

    def _python(self, name: str, option: str) -> Path:
        path = self.root / name
        path.write_text(PYTHON.format(python=sys.executable, option=option))
        path.chmod(0o700)
        return path

    def with_sdk(self) -> None:
        """From now on its Python has the SDK."""
        self.python = self._python("whole", "")

    def started(self) -> int:
        """How often its Python was started."""
        return Path(f"{self.python}.log").read_text().count("started")

    def run(self, module: str, check: bool = True, **arguments: Any) -> Json:
        """The result of a module; it leaves nothing on the host."""
        variables = {
            "ansible_python_interpreter": str(self.python),
            "docker_sdk_pack": str(self.pack),
            "docker_sdk_cache_dir": str(self.cache),
            **arguments.pop("variables", {}),
        }
        command = [Path(sys.executable).with_name("ansible"), "localhost", "-c", "local"]
        command += ["-i", "localhost,", "-m", f"fleet.images.{module}", "-a", json.dumps(arguments)]
        command += ["-e", json.dumps(variables), *(["--check"] if check else [])]
        done = subprocess.run(
            [str(word) for word in command],
            env={
                "PATH": os.environ["PATH"],
                "LC_ALL": "C.UTF-8",
                "HOME": str(self.root),
                "TMPDIR": str(self.place),
                "ANSIBLE_LOCAL_TEMP": str(self.place),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_COLLECTIONS_PATH": str(Path(_sdk.__file__).parents[5]),
                _sdk.ENVIRONMENT: str(self.place / "no pack"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert " => " in done.stdout, done.stdout + done.stderr
        assert os.listdir(self.place) == []
        head, text = done.stdout.split(" => ", 1)
        result: Json = json.loads(text)
        assert "sdk_missing" not in result
        return {**result, "failed": "FAILED" in head}


@pytest.fixture
def host() -> Iterator[Host]:
    # Not in pytest's own directory: Ansible has a socket below it, whose path may have 107 bytes.
    with tempfile.TemporaryDirectory() as root:
        yield Host(Path(root))


@pytest.fixture
def engine() -> Iterator[EngineStub]:
    with EngineStub("classic") as running:
        yield running


@pytest.mark.parametrize("check", [True, False])
def test_the_sdk_comes_along_where_it_is_missing(
    host: Host, engine: EngineStub, check: bool
) -> None:
    planned = host.run("image_plan", check=check, docker_host=engine.url, lock=NOTHING)
    assert planned["engine"]["version"] == "20.10.24"
    assert host.started() == 2
    # The pack was taken into the controller's cache, as the role would have done it.
    (kept,) = host.cache.glob("fleet-images-sdk-*.tar.gz")
    assert stat.S_IMODE(host.cache.stat().st_mode) == 0o700
    assert kept.read_bytes() == host.pack.read_bytes()


def test_a_host_with_the_sdk_is_asked_once(host: Host, engine: EngineStub) -> None:
    host.with_sdk()
    assert "engine" in host.run("image_plan", docker_host=engine.url, lock=NOTHING)
    assert host.started() == 1
    assert not host.cache.exists()


def test_a_fetch_is_foreseen(host: Host) -> None:
    with RegistryStub() as registry:
        registry.add_image("shop/app:1", ["a", "b"])
        name, store = f"{registry.name}/shop/app:1", host.root / "store"
        foreseen = host.run(
            "image_fetch", images=[name], store=str(store), registry_validate_certs=False
        )
    assert [image["action"] for image in foreseen["images"]] == ["fetched"]
    assert foreseen["bytes_fetched"] > 0
    assert not store.exists()


@pytest.mark.parametrize("remote_src", [True, False])
def test_a_load_is_foreseen_with_one_pack_for_all_its_modules(
    host: Host, engine: EngineStub, remote_src: bool
) -> None:
    store = Store.at(host.root / "store")
    image = store.image("app:1", "a", "b")
    bundle = store.bundle(host.root / "app.tar", image)
    wanted = {"src": str(bundle), "lock": _lock.dump(as_lock(image)), "remote_src": remote_src}
    foreseen = host.run("image_load", docker_host=engine.url, **wanted)
    assert [one["action"] for one in foreseen["images"]] == ["loaded"]
    assert host.started() == 2
    loaded = host.run("image_load", check=False, docker_host=engine.url, **wanted)
    assert [one["action"] for one in loaded["images"]] == ["loaded"]
    # Two, and two with the pack or three: the plan comes first where the bundle is sent.
    assert host.started() == (4 if remote_src else 5)


def test_no_pack_for_a_host_that_is_to_use_its_own(host: Host, engine: EngineStub) -> None:
    own = {"docker_sdk_source": "system"}
    lost = host.run("image_plan", docker_host=engine.url, lock=NOTHING, variables=own)
    assert "cannot import the Docker SDK" in lost["msg"]
    assert host.started() == 1
    assert not host.cache.exists()


def test_without_a_pack_both_reasons_are_told(host: Host, engine: EngineStub) -> None:
    host.pack.write_bytes(b"no pack")
    lost = host.run("image_plan", docker_host=engine.url, lock=NOTHING)
    assert "cannot import the Docker SDK" in lost["msg"]
    assert f"no pack came along: The pack {host.pack} cannot be read" in lost["msg"]
    assert len(lost["msg"].splitlines()) == 1


def test_the_cache_of_the_role_is_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found there, the pack is taken as it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = _carried.make_pack(str(packed(tmp_path)), "")
    assert Path(first["path"]).parent == tmp_path / "fleet-images" / "sdk"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert _carried.make_pack("", "")["sha256"] == first["sha256"]


def test_a_bundle_that_does_not_fit_is_refused_beforehand(host: Host, engine: EngineStub) -> None:
    """In check mode and without, alike: what leaves a missing layer out is not even sent."""
    host.with_sdk()
    store = Store.at(host.root / "store")
    image = store.image("app:1", "a", "b")
    base = image.on("linux/amd64").layers[0].digest
    bundle = store.bundle(host.root / "thin.tar", image, without=[base])
    wanted = {"src": str(bundle), "lock": _lock.dump(as_lock(image)), "known": store.known(image)}
    both = [
        host.run("image_load", check, docker_host=engine.url, **wanted) for check in (True, False)
    ]
    assert both[0] == both[1]
    assert both[0]["failed"] and not both[0]["changed"]
    assert both[0]["missing_layers"] == [base]
    assert (both[0]["bytes"], both[0]["bytes_sent"]) == (0, 0)
    assert f"layer {base} is missing" in both[0]["msg"]


def installs(host: Host, check: bool = False, **arguments: Any) -> Json:
    """The result of sdk_pack with the prepared pack."""
    key = hashlib.sha256(_carried.MAKER.with_name("requirements.txt").read_bytes()).hexdigest()[:16]
    wanted = {"pack": str(host.pack), "cache_dir": str(host.cache), "dest": str(host.root / "sdk")}
    return host.run("sdk_pack", check=check, key=key, **{**wanted, **arguments})


@pytest.mark.parametrize(("ask", "starts"), [(True, 2), (False, 1)])
def test_the_pack_is_sent_and_installed_in_one_task(host: Host, ask: bool, starts: int) -> None:
    foreseen = installs(host, check=True, ask=ask)
    assert (foreseen["changed"], foreseen["installed"], host.started()) == (True, True, 1)
    assert not host.cache.exists() and not (host.root / "sdk").exists()
    done = installs(host, ask=ask)
    assert (done["changed"], done["installed"], host.started()) == (True, True, 1 + starts)
    assert (Path(done["path"]) / "docker").is_dir()
    again = installs(host)
    assert (again["changed"], again["installed"], host.started()) == (False, True, 2 + starts)


def test_without_a_pack_on_the_controller_nothing_is_sent(host: Host) -> None:
    asked = installs(host, pack=None, cache_dir=None)
    assert (asked["changed"], asked["installed"], host.started()) == (False, False, 1)


def test_a_pack_that_is_none_is_told_by_its_path(host: Host) -> None:
    host.pack.write_bytes(b"no pack")
    lost = installs(host)
    assert lost["failed"] and f"The pack {host.pack} cannot be read" in lost["msg"]
    assert not (host.root / "sdk").exists()
