# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_fetch as Ansible runs it: a process of its own, with JSON in and JSON out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from registry_stub import RegistryStub, basic

pytest.importorskip("requests")
pytest.importorskip("docker")
pytest.importorskip("ansible")

MODULE = "ansible_collections.fleet.images.plugins.modules.image_fetch"
LOGIN = ("shop", "s3cret-for-tests")
Json = dict[str, Any]

# What the module does, and then the most memory that its process ever had, on the error stream.
MEASURED = f"""
import atexit, runpy, sys
def tell():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            sys.stderr.write(line)
atexit.register(tell)
runpy.run_module("{MODULE}", run_name="__main__")
"""


@pytest.fixture
def stub() -> Iterator[RegistryStub]:
    with RegistryStub() as running:
        yield running


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Json]:
    """`call(option=…)` runs the module; `peak` in the result is memory in bytes."""

    def run(*, check: bool = False, diff: bool = False, **options: Any) -> Json:
        arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": diff}
        path = tmp_path / "arguments.json"
        path.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        inherited = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(path)],
            env={
                **inherited,
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                "HOME": str(tmp_path),
                "DOCKER_CONFIG": str(tmp_path),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        result: Json = json.loads(done.stdout)
        result["peak"] = int(done.stderr.split("VmHWM:")[1].split()[0]) << 10
        result["text"] = done.stdout
        return result

    return run


def test_create_repeat_change(
    stub: RegistryStub, call: Callable[..., Json], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    options = {
        "images": [f"{stub.name}/shop/web:1"],
        "store": str(store),
        "lock_path": str(tmp_path / "lock.json"),
        "platform": "x86_64",
    }
    stub.add_index("shop/web:1", {"linux/amd64": ["base", "a"], "linux/arm64": ["b"]})
    planned = call(check=True, **options)
    assert planned["changed"] and not store.exists() and not (tmp_path / "lock.json").exists()
    created = call(diff=True, **options)
    assert created["changed"] and created["lock"] == planned["lock"]
    assert json.loads((tmp_path / "lock.json").read_text()) == created["lock"]
    assert created["diff"]["before"] == {} and "diff" not in planned
    for check in (True, False):
        assert not call(check=check, **options)["changed"]
    stub.add_index("shop/web:1", {"linux/amd64": ["base", "newer"]})
    for check in (True, False):
        assert not call(check=check, **options)["changed"], "the lock file pins"
    planned = call(check=True, update=True, **options)
    changed = call(update=True, **options)
    assert changed["changed"] and planned["changed"] and changed["lock"] == planned["lock"]
    assert changed["lock"] != created["lock"]
    assert changed["bytes_fetched"] == planned["bytes_fetched"] > 0
    for check in (True, False):
        assert not call(check=check, update=True, **options)["changed"]


def test_a_failure_tells_all_and_keeps_what_was_done(
    stub: RegistryStub, call: Callable[..., Json], tmp_path: Path
) -> None:
    stub.add_image("web:1", ["a"])
    result = call(
        images=[f"{stub.name}/none:1", f"{stub.name}/web:1"],
        store=str(tmp_path / "store"),
        platform="linux/amd64",
    )
    assert result["failed"] and result["changed"]
    assert [image["action"] for image in result["images"]] == ["failed", "fetched"]
    assert "MANIFEST_UNKNOWN" in result["msg"] and list(result["lock"]["images"])


def test_a_login_shows_up_nowhere(call: Callable[..., Json], tmp_path: Path) -> None:
    with RegistryStub(login=LOGIN) as stub:
        stub.add_image("web:1", ["a"])
        options = {
            "images": [f"{stub.name}/web:1"],
            "store": str(tmp_path / "store"),
            "registry_username": LOGIN[0],
            "registry_proxy": f"http://someone:proxy-secret@{stub.name}",
            "platform": "linux/amd64",
        }
        good = call(registry_password=LOGIN[1], **options)
        bad = call(registry_password="wrong-9876", update=True, check=True, **options)
    assert good["changed"] and bad["failed"]
    assert "refused access" in bad["msg"] and "user 'shop'" in bad["msg"]
    for secret in (LOGIN[1], "wrong-9876", "proxy-secret", basic(*LOGIN)[6:], "token-0"):
        assert secret not in good["text"] + bad["text"]
        assert not any(
            secret.encode() in path.read_bytes()
            for path in (tmp_path / "store").rglob("*")
            if path.is_file()
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": ["web:!"]}, "is no tag"),
        ({"images": ["web:1"], "platform": "what is this"}, "is no platform"),
        ({"lock": {"version": 7}}, "wanted version 1"),
        ({"images": ["web:1"], "registry_proxy": "socks5://x"}, "registry_proxy"),
        ({"images": ["web:1"], "store": "/proc/none"}, "cannot be used"),
        ({}, "one of the following is required: images, lock, lock_path"),
    ],
)
def test_unusable_options_are_told(
    call: Callable[..., Json], tmp_path: Path, options: Json, message: str
) -> None:
    result = call(**{"store": str(tmp_path / "store"), **options})
    assert result["failed"] and message in result["msg"]


def test_memory_does_not_grow_with_the_image(
    stub: RegistryStub, call: Callable[..., Json], tmp_path: Path
) -> None:
    stub.add_image("small:1", ["a"])
    stub.add_big_image("big:1", 400)
    options = {"store": str(tmp_path / "store"), "platform": "linux/amd64"}
    small = call(images=[f"{stub.name}/small:1"], **options)
    big = call(images=[f"{stub.name}/big:1"], **options)
    assert big["bytes_fetched"] > 400 << 20
    assert big["peak"] - small["peak"] < 64 << 20
