# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_lock against a registry that is a stub: create, repeat, update, drift, and what fails."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fetching import into
from registry_stub import RegistryStub

pytest.importorskip("requests")
pytest.importorskip("ansible")

from ansible_collections.fleet.images.plugins.module_utils import _lock, _retry
from ansible_collections.fleet.images.plugins.modules import image_lock

Json = dict[str, Any]
Call = Callable[..., Json]
BOTH = {"linux/amd64": ["base", "a"], "linux/arm64": ["b"]}
LOGIN = ("shop", "s3cret-for-tests")


@pytest.fixture
def stub() -> Iterator[RegistryStub]:
    with RegistryStub() as running:
        yield running


@pytest.fixture
def call(
    run_main: Callable[..., Json], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_pack: None
) -> Call:
    """`call(option=…)` runs the module."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    retrier = _retry.Retrier
    monkeypatch.setattr(
        _retry, "Retrier", lambda retries: retrier(retries, sleep=lambda _time: None)
    )

    def run(*, check: bool = False, diff: bool = False, **options: Any) -> Json:
        arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": diff}
        return run_main(image_lock, arguments)

    return run


def digests(lock: Json) -> dict[str, str]:
    return {name: entry["digest"] for name, entry in lock["images"].items()}


def told(result: Json, key: str) -> list[Any]:
    return [image[key] for image in result["images"]]


def test_create_repeat_update(stub: RegistryStub, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "images.lock.json"
    name = f"{stub.name}/web:1"
    options: Json = {"images": [name], "lock_path": str(path), "dest": str(path)}
    old = stub.add_index("web:1", BOTH)["digest"]
    foreseen = call(check=True, **options)
    assert foreseen["changed"] and not path.exists() and "diff" not in foreseen
    made = call(diff=True, **options)
    assert made["changed"] and made["lock"] == foreseen["lock"]
    assert (told(made, "action"), told(made, "locked_digest")) == (["locked"], [""])
    assert made["diff"] == {"before": {}, "after": {name: old}}
    assert json.loads(path.read_text()) == made["lock"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    asked = len(stub.seen)
    new = stub.add_index("web:1", {**BOTH, "linux/amd64": ["base", "newer"]})["digest"]
    for check in (True, False):
        again = call(check=check, **options)
        assert not again["changed"] and told(again, "action") == ["none"]
    assert len(stub.seen) == asked, "what is locked is not asked"
    for check in (True, False):
        moved = call(check=check, diff=True, update=True, **options)
        assert moved["changed"] and told(moved, "action") == ["updated"]
        assert moved["diff"] == {"before": {name: old}, "after": {name: new}}
        assert moved["drift"] == [{"name": name, "locked_digest": old, "digest": new}]
    assert digests(json.loads(path.read_text())) == {name: new}
    before = len(stub.seen)
    again = call(update=True, **options)
    assert not again["changed"] and told(again, "action") == ["none"] and again["drift"] == []
    assert [seen.line for seen in stub.seen[before:]] == ["HEAD /v2/web/manifests/1"]


def test_a_lock_is_what_image_fetch_makes(stub: RegistryStub, call: Call, tmp_path: Path) -> None:
    names = [f"{stub.name}/web:1", f"{stub.name}/db:1"]
    stub.add_index("web:1", BOTH)
    stub.add_image("db:1", ["base", "c"], oci=False)
    locked = call(images=[{"name": names[0], "platforms": ["linux/amd64"]}, names[1]])
    fetched = into(tmp_path / "one")(*names)
    assert locked["lock"] == fetched["lock"] and not locked["changed"]
    stub.add_index("web:1", {"linux/amd64": ["newer"]})
    pinned = into(tmp_path / "two")(lock=locked["lock"])
    assert pinned["lock"] == locked["lock"]


def test_no_layer_is_pulled(stub: RegistryStub, call: Call) -> None:
    stub.add_index("web:1", BOTH)
    result = call(images=[f"{stub.name}/web:1"])
    entry = result["lock"]["images"][f"{stub.name}/web:1"]
    layers = [one["digest"] for here in entry["platforms"].values() for one in here["layers"]]
    assert len(layers) == 3
    assert not [one for one in layers if stub.asked(one)]


def test_all_platforms_of_linux_unless_some_are_named(stub: RegistryStub, call: Call) -> None:
    images = {"linux/amd64": ["a"], "linux/arm/v7": ["b"], "windows/amd64": ["c"]}
    stub.add_index("web:1", images)
    name = f"{stub.name}/web:1"
    whole = call(images=[name])
    assert told(whole, "platforms") == [["linux/amd64", "linux/arm/v7"]]
    some = call(images=[name], platforms=["amd64"])
    assert told(some, "platforms") == [["linux/amd64"]]
    own = call(images=[{"name": name, "platforms": ["linux/arm/v8"]}], platforms=["amd64"])
    assert told(own, "platforms") == [["linux/arm/v7"]]
    assert told(call(lock=some["lock"]), "platforms") == [["linux/amd64"]]
    more = call(lock=some["lock"], platforms=["linux/arm/v7"])
    assert told(more, "platforms") == [["linux/amd64", "linux/arm/v7"]]
    assert told(more, "action") == ["updated"]
    stub.add_index("web:1", {"linux/386": ["x"]})
    every = call(lock=some["lock"], platforms="all")
    assert told(every, "platforms") == [["linux/amd64", "linux/arm/v7"]], "the digest pins"
    stub.add_index("win:1", {"windows/amd64": ["c"]})
    none = call(images=[f"{stub.name}/win:1"])
    assert none["failed"] and "wanted for linux, the registry has it for windows" in none["msg"]


def test_drift_fails_and_names_both_digests(stub: RegistryStub, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    web, db = f"{stub.name}/web:1", f"{stub.name}/db:1"
    old = stub.add_index("web:1", BOTH)["digest"]
    stub.add_image("db:1", ["base", "c"])
    call(images=[web, db], dest=str(path))
    options: Json = {"lock_path": str(path), "fail_on_drift": True, "dest": str(path)}
    for check in (True, False):
        fine = call(check=check, **options)
        assert not fine.get("failed") and not fine["changed"]
        assert set(told(fine, "reason")) == {"the registry serves what the lock has"}
    new = stub.add_index("web:1", {"linux/amd64": ["newer"]})["digest"]
    before = path.read_bytes()
    for check in (True, False):
        moved = call(check=check, diff=True, **options)
        assert moved["failed"] and not moved["changed"]
        assert f"{web}: the lock has {old}, the registry serves {new}" in moved["msg"]
        assert sorted(told(moved, "action")) == ["drifted", "none"]
        assert moved["drift"] == [{"name": web, "locked_digest": old, "digest": new}]
        assert digests(moved["lock"])[web] == old
        assert moved["diff"]["before"] == moved["diff"]["after"]
    del stub.tags["db:1"]
    both = call(**options)
    assert sorted(told(both, "action")) == ["drifted", "failed"]
    assert old in both["msg"] and "MANIFEST_UNKNOWN" in both["msg"]
    assert path.read_bytes() == before


def test_a_failure_hides_nothing_and_loses_nothing(
    stub: RegistryStub, call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "lock.json"
    stub.add_index("web:1", BOTH)
    stub.add_image("db:1", ["c"])
    call(images=[f"{stub.name}/web:1", f"{stub.name}/db:1"], dest=str(path))
    before = path.read_bytes()
    stub.fault("/v2/db/manifests", status=500, times=99)
    result = call(
        images=[f"{stub.name}/{one}" for one in ("none:1", "web:1", "db:1")],
        dest=str(path),
        retries=1,
    )
    assert result["failed"] and not result["changed"]
    assert told(result, "action") == ["failed", "none", "failed"]
    assert told(result, "attempts")[2] == 2
    assert "MANIFEST_UNKNOWN" in result["msg"] and "status 500" in result["msg"]
    assert path.read_bytes() == before


def test_other_images_of_the_lock_stay(stub: RegistryStub, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    web, db = f"{stub.name}/web:1", f"{stub.name}/db:1"
    stub.add_index("web:1", BOTH)
    stub.add_image("db:1", ["c"])
    call(images=[web], dest=str(path))
    added = call(images=[{"name": db, "as": "site/db:1"}], lock_path=str(path), dest=str(path))
    assert added["changed"] and list(digests(added["lock"])) == [db]
    filed = _lock.loads(path.read_bytes())
    assert sorted(filed) == sorted([web, db])
    assert str(filed[db].destination) == "docker.io/site/db:1"
    named = call(images=[{"name": db, "as": "site/db:2"}], lock_path=str(path), dest=str(path))
    assert named["changed"] and told(named, "action") == ["updated"]


def test_a_digest_pins(stub: RegistryStub, call: Call) -> None:
    old = stub.add_image("web:1", ["a"])["digest"]
    new = stub.add_image("web:1", ["b"])["digest"]
    name = f"{stub.name}/web:1"
    result = call(images=[f"{name}@{old}"], update=True)
    assert digests(result["lock"]) == {name: old}
    other = call(images=[f"{name}@{new}"], lock=result["lock"])
    assert digests(other["lock"]) == {name: new} and told(other, "action") == ["updated"]
    drifted = call(lock=result["lock"], fail_on_drift=True)
    assert drifted["drift"] == [{"name": name, "locked_digest": old, "digest": new}]


def test_limits_are_waited_for(stub: RegistryStub, call: Call) -> None:
    stub.add_image("web:1", ["a"])
    stub.fault("manifests/1", status=429, headers={"Retry-After": "1"}, times=2)
    result = call(images=[f"{stub.name}/web:1"])
    assert told(result, "action") == ["locked"] and told(result, "attempts") == [3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of the following is required: images, lock, lock_path"),
        ({"images": ["web:!"]}, "is no tag"),
        ({"images": ["web:1"], "platforms": ["what is this"]}, "is no platform"),
        ({"images": ["web:1"], "fail_on_drift": True}, "wanted a lock to compare"),
        ({"lock": {"version": 1, "images": {}}}, "no image is wanted"),
        ({"lock": {"version": 7}}, "wanted version 1"),
        ({"lock_path": "/nowhere/lock"}, "wanted the lock file /nowhere/lock, there is none"),
        ({"lock_path": "/nowhere", "update": True, "fail_on_drift": True}, "give one"),
        ({"images": ["web:1"], "dest": "/etc/passwd"}, "wanted a lock or nothing at /etc/passwd"),
        ({"images": ["web:1"], "dest": "/etc"}, "the lock file cannot be used"),
    ],
)
def test_unusable_options_are_told(call: Call, options: Json, message: str) -> None:
    result = call(**options)
    assert result["failed"] and message in result["msg"]


def test_a_file_that_cannot_be_written_is_told(
    stub: RegistryStub, call: Call, tmp_path: Path
) -> None:
    stub.add_image("web:1", ["a"])
    result = call(images=[f"{stub.name}/web:1"], dest=str(tmp_path / "none" / "lock.json"))
    assert result["failed"] and "the lock file cannot be used" in result["msg"]


def test_a_login_shows_up_nowhere(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("docker")
    with RegistryStub(login=LOGIN) as stub:
        stub.add_image("web:1", ["a"])
        options: Json = {"images": [f"{stub.name}/web:1"], "registry_username": LOGIN[0]}
        good = call(registry_password=LOGIN[1], dest=str(tmp_path / "lock.json"), **options)
        bad = call(registry_password="wrong-9876", **options)
    assert good["changed"] and "user 'shop'" in bad["msg"]
    for secret in (LOGIN[1], "wrong-9876", "token-0"):
        assert secret not in json.dumps([good, bad]) + (tmp_path / "lock.json").read_text()
