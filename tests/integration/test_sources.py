# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sources of a site: its own authority, logins, mirrors, a proxy, and its own names for images.

One run of ansible-playbook fetches in all these ways on a bastion; each test looks at one of them.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetlib import operations
from fleetlib.hosts import HOSTS, PROXY_PORT, REGISTRY_CA, TLS_REGISTRY
from fleetlib.layers import Member, pack_into
from rig import LOCKED_REGISTRY, NODES, OTHER_BASTION, REGISTRY, Json, Rig

NAME, PORT = TLS_REGISTRY.split(":")
USER, PASSWORD, WRONG = "shop", "s3cret-for-tests", "wr0ng-for-tests"
BY_USER = {"registry_username": USER, "registry_password": PASSWORD}
AUTHORITY = {"registry_ca_path": REGISTRY_CA}
PROXY = f"http://{NAME}:{PROXY_PORT}"
PROXY_LOG = "/var/log/tinyproxy/tinyproxy.log"
# Nothing listens there.
DEAD = f"{NAME}:1"
TOOL, ARM = f"{TLS_REGISTRY}/shop/tool:1", f"{REGISTRY}/shop/arm:1"
PLAIN_TOOL = f"{LOCKED_REGISTRY}/shop/tool:1"
HUB_TOOL, SITE_TOOL = "docker.io/shop/tool:1", "site.example:5000/web/tool:1"
SHORT_HUB_TOOL = HUB_TOOL.partition("/")[2]  # as Engines list it
PLACE = "/var/tmp/test-sources"
BUNDLE = f"{PLACE}/bundle.tar"

_AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
CONFIGS: dict[str, Json] = {
    "auths": {"auths": {TLS_REGISTRY: {"auth": _AUTH}}},
    "credsStore": {"credsStore": "fleettest"},
    "credHelpers": {"credHelpers": {TLS_REGISTRY: "fleettest"}},
    "absent helper": {"credsStore": "absent"},
    "other": {"auths": {"other.example": {"auth": _AUTH}}},
}


def docker_config(kind: str) -> dict[str, str]:
    """The environment in which Docker's configuration is one of CONFIGS."""
    return {"DOCKER_CONFIG": f"{PLACE}/{kind}"}


def configs() -> bytes:
    """A tar of Docker's configuration files."""
    files = {
        f"{PLACE[1:]}/{kind}/config.json": Member(json.dumps(content).encode(), 0o600)
        for kind, content in CONFIGS.items()
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        pack_into(tar, files)
    return archive.getvalue()


def fetch(
    name: str,
    images: str | list[str | Json],
    environment: dict[str, str] | None = None,
    **options: Any,
) -> Json:
    """A task that fetches an image, or several, into a store of its own."""
    images = [images] if isinstance(images, str) else images
    args = {"images": images, "store": f"{PLACE}/{name}-images", "retries": 0, **options}
    task: Json = {"name": name, "fleet.images.image_fetch": args}
    return {**task, "environment": environment} if environment else task


def tasks(by_address: str) -> list[Json]:
    """Every way to fetch. `by_address`: the TLS registry, by its address."""
    safely = {**AUTHORITY, **BY_USER}
    wrong = {**AUTHORITY, "registry_username": USER, "registry_password": WRONG}
    hub = {"registry_mirrors": {"docker.io": [f"https://{DEAD}", f"https://{TLS_REGISTRY}"]}}
    named: Json = {"name": TOOL, "as": SITE_TOOL}
    plain = {"registry_validate_certs": False, "platform": "linux/arm64"}
    return [
        {"name": "sdk", "ansible.builtin.include_role": {"name": "fleet.images.docker_sdk"}},
        fetch("unknown authority", TOOL, **BY_USER),
        fetch("no login", TOOL, docker_config("other"), **AUTHORITY),
        fetch("wrong login", TOOL, **wrong),
        fetch("user", TOOL, **safely),
        fetch("auths", TOOL, docker_config("auths"), **AUTHORITY),
        fetch("credsStore", PLAIN_TOOL, docker_config("credsStore"), registry_validate_certs=False),
        fetch("credHelpers", TOOL, docker_config("credHelpers"), **AUTHORITY),
        fetch("absent helper", TOOL, docker_config("absent helper"), **AUTHORITY),
        fetch("mirror", [HUB_TOOL, named], docker_config("auths"), **AUTHORITY, **hub),
        fetch("mirror without a login", HUB_TOOL, **safely, **hub),
        # With tries, since a proxy passes on what the registry resets on its way.
        fetch("proxy", TOOL, **safely, registry_proxy=PROXY, retries=3),
        fetch("plain proxy", ARM, **plain, registry_proxy=PROXY, retries=3),
        fetch(
            "its proxy", f"{by_address}/shop/tool:1", {"HTTPS_PROXY": PROXY}, **safely, retries=3
        ),
        fetch("dead proxy", TOOL, **safely, registry_proxy=f"http://{USER}:{WRONG}@{DEAD}"),
        fetch("no proxy", TOOL, {"NO_PROXY": NAME}, **safely, registry_proxy=f"http://{DEAD}"),
        {
            "name": "bundle",
            "fleet.images.image_archive": {
                "store": f"{PLACE}/mirror-images",
                "lock": "{{ result_of_mirror.lock }}",
                "path": BUNDLE,
            },
        },
    ]


@pytest.fixture(scope="module")
def address(rig: Rig) -> str:
    """The TLS registry by its address, which its certificate names too."""
    return f"{rig.fleet.address(HOSTS[0])}:{PORT}"


@pytest.fixture(scope="module")
def fetched(rig: Rig, address: str) -> Iterator[Json]:
    """Task name -> its result; under `proxied` what the proxy was asked for meanwhile."""
    rig.put(OTHER_BASTION, configs(), "/")
    before = len(rig.inside("registry", "cat", PROXY_LOG).splitlines())
    found = rig.results(OTHER_BASTION, tasks(address))
    log = rig.inside("registry", "cat", PROXY_LOG).splitlines()[before:]
    asked = {line.partition("): ")[2] for line in log if " Request " in line}
    yield {**{name: of[OTHER_BASTION] for name, of in found.items()}, "proxied": asked}
    rig.inside(OTHER_BASTION, "rm", "-rf", PLACE)


@pytest.mark.parametrize(
    ("task", "images"),
    [
        *((task, [TOOL]) for task in ("user", "auths", "credHelpers")),
        *((task, [TOOL]) for task in ("proxy", "no proxy")),
        ("credsStore", [PLAIN_TOOL]),
        ("plain proxy", [ARM]),
        ("mirror", [HUB_TOOL, TOOL]),
    ],
)
def test_fetched(fetched: Json, task: str, images: list[str]) -> None:
    result = fetched[task]
    assert not result.get("failed"), result["msg"]
    assert [(one["name"], one["action"]) for one in result["images"]] == [
        (image, "fetched") for image in images
    ]
    assert sorted(result["lock"]["images"]) == images
    assert result["bytes_fetched"] > 1 << 10


REFUSED = f"{TLS_REGISTRY} refused access (status 401"


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("unknown authority", f"{TOOL}: the TLS certificate of {TLS_REGISTRY} is not trusted ("),
        ("unknown authority", "name its authority's certificate in registry_ca_path"),
        ("no login", REFUSED),
        ("no login", "without a login (the Docker config file has none for it); give registry_us"),
        ("wrong login", REFUSED),
        ("wrong login", "for the user 'shop'; check that name, its password and its rights"),
        ("absent helper", REFUSED),
        ("absent helper", "the credential helper docker-credential-absent is not installed"),
        ("mirror without a login", f"the connection to {DEAD} failed"),
        ("mirror without a login", f"fetched: {HUB_TOOL}: {REFUSED}) without a login"),
        ("mirror without a login", f"has none for it); run docker login {TLS_REGISTRY}"),
        ("dead proxy", f"the proxy for {TLS_REGISTRY} failed (Connection refused)"),
    ],
)
def test_failure_is_told(fetched: Json, task: str, told: str) -> None:
    result = fetched[task]
    assert result["failed"]
    assert told in result["msg"]
    assert WRONG not in json.dumps(result)


def test_through_the_proxy(fetched: Json, address: str) -> None:
    asked = fetched["proxied"]
    assert f"CONNECT {TLS_REGISTRY} HTTP/1.0" in asked
    assert any(line.startswith(f"GET http://{REGISTRY}/v2/shop/arm/blobs/") for line in asked)
    assert not fetched["its proxy"].get("failed"), fetched["its proxy"]["msg"]
    assert f"CONNECT {address} HTTP/1.0" in asked


@pytest.mark.parametrize("node", [NODES[0], NODES[-1]])
def test_plain_load_gives_the_names_of_the_site(
    rig: Rig, fetched: Json, tmp_path: Path, node: str
) -> None:
    file = tmp_path / "bundle.tar"
    bastion = rig.fleet.container(operations.by_name(OTHER_BASTION))
    rig.engine.docker("cp", f"{bastion}:{BUNDLE}", file)
    container = rig.fleet.container(operations.by_name(node))
    with open(file, "rb") as stream:
        rig.engine.docker("exec", "-i", container, "docker", "load", stdin=stream)
    try:
        run = rig.inside(node, "docker", "run", "--rm", "--network", "none", SITE_TOOL)
        assert run.startswith("shop tool version 1\n")
        assert {SITE_TOOL, SHORT_HUB_TOOL} <= rig.names(node)
        assert TOOL not in rig.names(node)
    finally:
        rig.inside(node, "docker", "rmi", "--force", SITE_TOOL, HUB_TOOL)
