# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `docker buildx`: its version, what it says of builders, and how it is called."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.module_utils._buildx import (
    Builder,
    Buildx,
    BuildxError,
    Node,
    driver_of,
    parse_inspect,
)

Docker = Callable[[str], Path]
GOOD = "github.com/docker/buildx v0.13.1+ds1 0.13.1+ds1-1"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """`docker(script)` puts a command of this name in the place of all others."""
    for name in ("DOCKER_HOST", "DOCKER_CONFIG", "BUILDX_CONFIG", "BUILDX_BUILDER"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(script: str) -> Path:
        path = tmp_path / "bin" / "docker"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return put


# versions


@pytest.mark.parametrize(
    ("said", "version"),
    [
        (GOOD, (0, 13, 1)),
        ("github.com/docker/buildx 0.19.2 1.2", (0, 19, 2)),
        ("github.com/docker/buildx v0.30.0-rc1 abcdef", (0, 30, 0)),
        ("github.com/docker/buildx v1.0.0 abcdef", (1, 0, 0)),
    ],
)
def test_versions(docker: Docker, said: str, version: tuple[int, ...]) -> None:
    docker(f"echo '{said}'")
    assert Buildx({}).version == version


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'github.com/docker/buildx v0.12.1 x'",
         "docker buildx 0.12.1: this module needs 0.13.0 or newer; install a newer docker-buildx"),
        ("echo \"docker: 'buildx' is not a docker command.\" >&2; exit 1",
         "found none (docker: 'buildx' is not a docker command.); install the package"),
        ("exit 1", "found none (nothing)"),
        ("echo something else", "found none (something else)"),
        (f"echo '{GOOD}'; exit 1", "wanted on this host, found none"),
    ],
)  # fmt: skip
def test_no_buildx_or_one_that_is_too_old(docker: Docker, script: str, message: str) -> None:
    docker(script)
    with pytest.raises(BuildxError) as raised:
        Buildx({})
    assert message in str(raised.value)


def test_no_docker(docker: Docker) -> None:
    with pytest.raises(BuildxError, match=r"cannot be run \(No such file.*docker-ce-cli"):
        Buildx({})


def test_an_option_that_needs_a_newer_one(docker: Docker) -> None:
    docker(f"echo '{GOOD}'")
    buildx = Buildx({})
    buildx.need("old", (0, 13, 1))
    with pytest.raises(BuildxError, match=r"docker buildx 0\.13\.1: lint needs 0\.15\.0 or newer"):
        buildx.need("lint", (0, 15, 0))


# how it is called

TLS = {"tls": True, "ca_path": "/ca", "client_cert": "/cert", "client_key": "/key"}
FILES = ["--tlscacert", "/ca", "--tlscert", "/cert", "--tlskey", "/key"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"tls": False, "validate_certs": False}, []),
        ({"tls": True}, ["--tls"]),
        (TLS, ["--tls", *FILES]),
        ({**TLS, "validate_certs": True}, ["--tlsverify", *FILES]),
        ({"validate_certs": True, "ca_path": "/ca"}, ["--tlsverify", "--tlscacert", "/ca"]),
    ],
)
def test_connections(docker: Docker, options: dict[str, Any], words: list[str]) -> None:
    docker(f"echo '{GOOD}'")
    assert Buildx(options).command("ls", "-a") == ["docker", *words, "buildx", "ls", "-a"]


def test_the_engine_is_the_one_that_the_task_names(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(f'[ "$2" = version ] && echo "{GOOD}" || echo "$DOCKER_HOST $DOCKER_CONFIG $MORE"')
    monkeypatch.setenv("DOCKER_HOST", "tcp://another")
    monkeypatch.setenv("MORE", "kept")
    buildx = Buildx({"docker_host": "unix:///x.sock"}, {"DOCKER_CONFIG": "/login"})
    assert buildx.run("x").stdout == "unix:///x.sock /login kept\n"
    assert Buildx({}).run("x").stdout == "tcp://another  kept\n"


def test_a_command_that_fails(docker: Docker) -> None:
    docker(
        f'[ "$2" = version ] && echo "{GOOD}" && exit; echo a >&2; echo "ERROR: no b" >&2; exit 3'
    )
    with pytest.raises(BuildxError, match="docker buildx rm x: it said: no b") as raised:
        Buildx({}).run("rm", "x")
    assert raised.value.words == "no b"
    assert Buildx({}).run("rm", "x", check=False).returncode == 3


def test_a_command_without_an_end(docker: Docker) -> None:
    docker(f'[ "$2" = version ] && echo "{GOOD}" && exit; exec /bin/sleep 30')
    with pytest.raises(BuildxError, match="docker buildx ls: no end within 1 s"):
        Buildx({}).run("ls", timeout=1)


# builders

TWO_NODES = """\
Name:          fleet
Driver:        docker-container
Last Activity: 2026-01-01 10:00:00 +0000 UTC

Nodes:
Name:                  fleet0
Endpoint:              unix:///var/run/docker.sock
Driver Options:        image="r.example/moby/buildkit:v0.13" network="host"
Status:                running
BuildKit daemon flags: --allow-insecure-entitlement=network.host
BuildKit version:      v0.13.2
Platforms:             linux/amd64*, linux/amd64/v2, linux/386
Labels:
 org.mobyproject.buildkit.worker.executor:         oci
 org.mobyproject.buildkit.worker.hostname:         x
GC Policy rule#0:
 All:           false
 Keep Bytes:    488.3MiB
File#buildkitd.toml:
 > [registry."r.example"]
 > Name: = no node
 >   http = true

Name:      fleet1
Endpoint:  ssh://arm
Error:     cannot connect: dial tcp: lookup arm: no such host
Platforms: linux/arm64*
"""


def test_a_builder_of_several_nodes() -> None:
    found = parse_inspect(TWO_NODES)
    assert (found.name, found.driver) == ("fleet", "docker-container")
    assert found.nodes == (
        Node("fleet0", "unix:///var/run/docker.sock", "running",
             ("linux/amd64", "linux/amd64/v2", "linux/386")),
        Node("fleet1", "ssh://arm", "", ("linux/arm64",),
             "cannot connect: dial tcp: lookup arm: no such host"),
    )  # fmt: skip
    assert found.platforms == ("linux/amd64", "linux/amd64/v2", "linux/386", "linux/arm64")


@pytest.mark.parametrize(
    ("text", "builder"),
    [
        ("", Builder("", "")),
        ("Name: a\nDriver: docker\n", Builder("a", "docker")),
        ("Name: a\nDriver: docker\n\nNodes:\nName: a\nEndpoint: default\nStatus: running",
         Builder("a", "docker", (Node("a", "default", "running"),))),
        ("Name: a\nDriver: remote\n\nNodes:\nName: a0\nPlatforms:\n",
         Builder("a", "remote", (Node("a0"),))),
    ],
)  # fmt: skip
def test_builders(text: str, builder: Builder) -> None:
    assert parse_inspect(text) == builder


def test_a_builder_that_is_not_there(docker: Docker) -> None:
    said = f'[ "$2" = version ] && echo "{GOOD}" && exit'
    docker(f"{said}; echo 'ERROR: no builder \"x\" found' >&2; exit 1")
    assert Buildx({}).inspect("x") is None
    docker(f"{said}; echo 'ERROR: something else' >&2; exit 1")
    with pytest.raises(BuildxError, match="builder x: buildx said: something else"):
        Buildx({}).inspect("x")
    with pytest.raises(BuildxError, match="builder in use: buildx said"):
        Buildx({}).inspect()
    docker(f'{said}; echo "Name: got-$3"')
    assert Buildx({}).inspect("x") == Builder("got-x", "")
    assert Buildx({}).inspect() == Builder("got-", "")


# its files

HOST = "unix:///var/run/docker.sock"
INSTANCES = {
    "fleet": {"Name": "fleet", "Driver": "docker-container"},
    "far": {"Name": "far", "Driver": "remote"},
    "odd": [],
    "old": {"Name": "old"},
}


@pytest.mark.parametrize(
    ("builder", "current", "variable", "driver"),
    [
        ("", None, "", "docker"),
        ("fleet", None, "", "docker-container"),
        ("Fleet", None, "", "docker-container"),
        ("far", {"Key": HOST, "Name": "fleet"}, "", "remote"),
        ("none", None, "", "docker"),
        ("odd", None, "", "docker"),
        ("old", None, "", "docker"),
        ("default", {"Key": HOST, "Name": "fleet"}, "", "docker"),
        # The one in use: of this Engine, or of all.
        ("", {"Key": HOST, "Name": "fleet", "Global": False}, "", "docker-container"),
        ("", {"Key": "tcp://other", "Name": "fleet", "Global": False}, "", "docker"),
        ("", {"Key": "tcp://other", "Name": "fleet", "Global": True}, "", "docker-container"),
        ("", {"Key": HOST, "Name": "", "Global": False}, "", "docker"),
        ("", {"Key": HOST, "Name": "gone", "Global": False}, "", "docker"),
        ("", {"Key": HOST, "Name": "fleet"}, "far", "remote"),
        ("", {"Key": HOST, "Name": "fleet"}, "default", "docker"),
        ("fleet", None, "far", "docker-container"),
        ("", [], "", "docker"),
        ("", "broken", "", "docker"),
    ],
)
@pytest.mark.parametrize("where", ["HOME", "DOCKER_CONFIG", "BUILDX_CONFIG"])
def test_the_driver_of_a_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, builder: str, current: Any,
    variable: str, driver: str,
) -> None:  # fmt: skip
    below = {"HOME": ".docker/buildx", "DOCKER_CONFIG": "buildx", "BUILDX_CONFIG": "."}
    for name in ("DOCKER_CONFIG", "BUILDX_CONFIG", "BUILDX_BUILDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(where, str(tmp_path))
    if variable:
        monkeypatch.setenv("BUILDX_BUILDER", variable)
    place = tmp_path / below[where]
    (place / "instances").mkdir(parents=True)
    for name, content in INSTANCES.items():
        (place / "instances" / name).write_text(json.dumps(content))
    if current is not None:
        (place / "current").write_text("{" if current == "broken" else json.dumps(current))
    assert driver_of(builder, HOST) == driver


def test_without_any_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDX_CONFIG", os.fspath(tmp_path / "none"))
    assert driver_of("", HOST) == driver_of("x", HOST) == "docker"
