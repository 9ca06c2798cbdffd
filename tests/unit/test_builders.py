# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builders as they are wanted, with a command that keeps them as buildx does (buildx_stub.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _builder_store, _builders
from ansible_collections.fleet.images.plugins.module_utils._builder_commands import BuilderError
from ansible_collections.fleet.images.plugins.module_utils._builder_words import SettingError
from ansible_collections.fleet.images.plugins.module_utils._buildx import BuildxError
from ansible_collections.fleet.images.plugins.modules import buildx_builder

HERE = "unix:///var/run/docker.sock"
STUB = Path(__file__).with_name("buildx_stub.py")


class Host:
    """A host with a directory of buildx."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "daemons").mkdir()
        (place / "work").mkdir()

    def settle(self, dry_run: bool = False, **options: Any) -> dict[str, Any]:
        spec = buildx_builder.options()
        usual = {name: one.get("default") for name, one in spec.items()}
        nodes = [
            {**dict.fromkeys(spec["nodes"]["options"]), **one} for one in options.pop("nodes", [])
        ]
        given = {**usual, "name": "x", "docker_host": HERE, "nodes": nodes, **options}
        return _builders.settle(given, dry_run, str(self.place / "work"))

    def round(self, *actions: str, **options: Any) -> dict[str, Any]:
        """It does this, as foreseen, and then nothing more."""
        before = self.kept
        foreseen = self.settle(dry_run=True, **options)
        assert self.kept == before
        done = self.settle(**options)
        assert {**foreseen, "warnings": []} == {**done, "warnings": []}
        assert [f"{one['node']} {one['action']}".strip() for one in done["actions"]] == [*actions]
        assert done["changed"] is bool(actions)
        for dry_run in (True, False):
            again = self.settle(dry_run=dry_run, **options)
            assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
        return done

    @property
    def kept(self) -> dict[str, Any]:
        path = self.place / "buildx" / "instances" / "x"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    @property
    def daemons(self) -> list[str]:
        found = sorted((self.place / "daemons").iterdir())
        return [f"{path.name.rpartition('-')[0]} {path.read_text()}" for path in found]

    def said(self) -> list[str]:
        """What the real directory was told since the last time, looks aside."""
        log = self.place / "log"
        lines = log.read_text(encoding="utf-8").splitlines()
        log.write_text("")
        asked = ("version", "inspect x", "inspect default")
        real = (line.partition(" ")[2] for line in lines if line.startswith("real"))
        return [line for line in real if line not in asked]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    for name in ("DOCKER_HOST", "DOCKER_CONFIG", "BUILDX_BUILDER"):
        monkeypatch.delenv(name, raising=False)
    program = tmp_path / "docker"
    program.write_text(f"#!{sys.executable}\n{STUB.read_text(encoding='utf-8')}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("BUILDX_CONFIG", str(tmp_path / "buildx"))
    return Host(tmp_path)


def test_from_nothing_to_nothing(host: Host) -> None:
    told = host.round("x0 created", "used", use=True, driver_opts={"default-load": True})
    assert told["msg"] == "builder x: x0 created, used" and told["builder"]["current"]
    assert told["builder"]["nodes"][0]["driver_opts"] == {"default-load": "true"}
    host.round()
    host.round("x0 booted", state="booted")
    assert host.daemons == ["x0 running"]
    host.round("x0 stopped", state="stopped")
    host.round("x0 booted", state="booted")
    host.round("used", name="default", use=True)
    host.round("used", use=True)
    host.said()
    told = host.round("removed", state="absent")
    assert host.said() == ["rm --force x"] and told["actions"][0]["cache"] == "lost"
    assert not host.kept and not host.daemons
    # buildx falls back by itself.
    host.round(name="default", use=True)


def test_a_change_in_place_and_one_that_is_none(host: Host) -> None:
    host.round("x0 created", platforms=["linux/amd64"])
    host.said()
    host.round("x0 changed", driver_opts={"image": "i"}, buildkitd_flags=["--debug"])
    (said,) = host.said()
    assert said == (
        "create --name x --driver docker-container --node x0 --append --platform linux/amd64"
        " --driver-opt image=i --buildkitd-flags --debug"
    )
    host.round("x0 remade", platforms=[], state="present")
    # As buildx writes it, the configuration is another text.
    host.round("x0 remade", buildkitd_config="# debug\n  debug = true\n")
    host.round("x0 changed", buildkitd_config="# debug\n  debug = false\n")
    host.round("x0 remade", buildkitd_flags=[])
    node = host.kept["Nodes"][0]
    assert node["Files"]["buildkitd.toml"] == "ZGVidWcgPSBmYWxzZQo="
    assert node["DriverOpts"] == {"image": "i"} and not node["Platforms"]


def test_a_buildkit_that_runs_is_made_anew(host: Host) -> None:
    host.round("x0 created", "x0 booted", state="booted")
    told = host.round("x0 remade", driver_opts={"image": "i"})
    assert told["msg"] == "builder x: x0 remade, the build cache is kept"
    assert host.daemons == []
    lines = (host.place / "log").read_text().splitlines()
    assert "aside rm --force --keep-state x" in lines
    host.round("x0 booted", state="booted")


def test_one_node_of_several(host: Host) -> None:
    nodes = [{"name": "a"}, {"name": "b", "endpoint": "ssh://b"}, {"endpoint": "ssh://c"}]
    booted = ("a booted", "b booted", "x2 booted")
    host.round("a created", "b added", "x2 added", *booted, nodes=nodes, state="booted")
    host.said()
    nodes[1]["driver_opts"] = {"image": "i"}
    host.round("b remade", "b booted", nodes=nodes, state="booted")
    assert [line.split(" --driver ")[0] for line in host.said()] == [
        "create --name x --node b --leave",
        "create --name x",
        "inspect --bootstrap x",
    ]
    told = host.round("b left", nodes=[nodes[0], {"name": "x2", "endpoint": "ssh://c"}])
    assert host.daemons == ["a running", "x2 running"]
    assert told["actions"][0] == {
        "action": "left", "node": "b", "reason": "it is not wanted", "cache": "lost",
    }  # fmt: skip
    host.round(
        "a left", "x2 left", "x0 created", driver="remote", nodes=[{"endpoint": "tcp://r:1"}]
    )
    assert host.daemons == []


def test_what_fails_is_taken_back(host: Host) -> None:
    """buildx empties the nodes that are there where another cannot be added."""
    host.round("x0 created", platforms=["linux/amd64"], buildkitd_config="debug = true")
    before = host.kept
    nodes = [{"name": "x0"}, {"name": "b", "endpoint": "ssh://dead"}]
    for dry_run in (True, False):
        with pytest.raises(
            BuilderError, match=r"builder x, node b: .*ssh://dead.* no answer"
        ) as told:
            host.settle(dry_run=dry_run, nodes=nodes)
        assert host.kept == before and not told.value.changed
    host.round("x0 booted", state="booted")
    with pytest.raises(BuilderError, match="failed to resolve reference none") as told:
        host.settle(driver_opts={"image": "none"}, state="booted")
    # Its container is gone, and comes again with the next build.
    assert host.kept == before and told.value.changed and host.daemons == []
    host.settle(state="absent")
    with pytest.raises(
        BuilderError, match=r"wanted booted within 120 s.*driver_opts\.image"
    ) as told:
        host.settle(driver_opts={"image": "none"}, state="booted")
    assert not host.kept and not told.value.changed


def test_a_host_that_is_gone(host: Host) -> None:
    nodes = [{"name": "a"}, {"name": "b", "endpoint": "ssh://b"}]
    host.round("a created", "b added", nodes=nodes)
    path = host.place / "buildx" / "instances" / "x"
    path.write_text(path.read_text().replace("ssh://b", "ssh://dead"))
    told = host.settle(nodes=nodes[:1])
    assert [one["action"] for one in told["actions"]] == ["left"]
    assert "its BuildKit at ssh://dead was to be removed" in told["warnings"][0]
    path.write_text(path.read_text().replace(HERE, "ssh://dead"))
    told = host.settle(state="absent")
    assert "removed, but not all of its nodes" in told["warnings"][0] and not host.kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"driver": "docker"}, "buildx makes no other with that driver"),
        ({"name": "default", "state": "absent"}, "docker context rm default"),
        ({"name": "default", "driver": "remote"}, "which has the driver docker"),
        ({"name": "default", "platforms": ["amd64"]}, "platforms: wanted with driver docker"),
        ({"name": "default", "state": "stopped"}, "state stopped: wanted with driver docker"),
        ({"driver": "remote", "state": "stopped", "nodes": [{"endpoint": "tcp://a:1"}]},
         "whose BuildKit runs by itself"),
        ({"driver": "remote"}, "wanted an endpoint"),
        ({"driver_opts": {"provenance-add-gha": False}},
         "docker buildx 0.29.1: driver_opts.provenance-add-gha needs 0.30.0 or newer"),
        ({"platforms": ["linux/"]}, "is no platform"),
        ({"name": "9"}, "begins with a letter"),
    ],
)  # fmt: skip
def test_what_cannot_be(host: Host, options: dict[str, Any], said: str) -> None:
    for dry_run in (True, False):
        with pytest.raises((BuilderError, BuildxError, SettingError)) as told:
            host.settle(dry_run=dry_run, **options)
        assert said in str(told.value) and "\n" not in str(told.value)
        assert not host.kept


def test_a_builder_exists_with_driver_docker_wanted(host: Host) -> None:
    host.round("x0 created")
    with pytest.raises(BuilderError, match="wanted driver docker, found driver docker-container"):
        host.settle(driver="docker")


def test_a_file_that_is_damaged(host: Host) -> None:
    host.round("x0 created")
    for text in ("", "[]", '{"Name": "x", "Driver": "y", "Nodes": [{}]}'):
        (host.place / "buildx" / "instances" / "x").write_text(text)
        with pytest.raises(SettingError, match=r"wanted a builder as JSON.*remove the file"):
            host.settle()


def test_certificates_of_a_configuration_are_carried(tmp_path: Path, host: Host) -> None:
    """What buildx keeps names them as they lie beside BuildKit; they are read from here again."""
    from ansible_collections.fleet.images.plugins.module_utils import _builder_commands
    from ansible_collections.fleet.images.plugins.module_utils._buildx import Buildx

    options = {"docker_host": HERE, "buildkitd_config": None, "timeout": 60}
    commands = _builder_commands.Commands(
        "x", Buildx(options), _builder_store.Store(tmp_path), options, tmp_path / "work"
    )
    files = {
        "certs/r/ca.pem": b"a certificate",
        "buildkitd.toml": b'ca = ["/etc/buildkit/certs/r/ca.pem", "/etc/buildkit/other"]',
    }
    path = Path(commands._config_of(_builders.Settings("n", files=files)))
    beside = path.parent / "certs" / "r" / "ca.pem"
    assert path.read_text() == f'ca = ["{beside}", "/etc/buildkit/other"]'
    assert beside.read_bytes() == b"a certificate"
