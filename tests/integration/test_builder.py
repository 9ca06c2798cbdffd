# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""buildx_builder on real Engines: declared, repeated, changed, removed; booted where no network is
needed for it.

The BuildKit behind the drivers remote and docker-container is the Engine's own: what dockerd serves
on its socket is handed on by a port of the loopback interface.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from building import BUILDER, CONTEXT, SHOP, Site
from fleetlib import inventory, operations
from fleetlib.hosts import NODES as NETWORK
from rig import NODES, Json, Rig

WITH_BUILDX = [BUILDER, *(node for node in NODES if not node.startswith("engine20"))]
# One host of each of their versions.
EVERY_BUILDX = [BUILDER, "engine26-classic"]
SSH_NODES = ("engine28-classic", "engine28-containerd")
PORT = 5057
# Its registry refuses at once: buildx asks it first, and then takes the one that is there.
IMAGE = "127.0.0.1:9/buildkit:stand-in"
OPTS = {"image": IMAGE, "network": "host"}
# `POST /grpc` with an upgrade is how the driver docker reaches the Engine's BuildKit.
_HAND_ON = f"""\
import socket, threading

def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for one in (source, target):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

def serve(client):
    engine = socket.socket(socket.AF_UNIX)
    engine.connect("/var/run/docker.sock")
    lines = ("POST /grpc HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: h2c", "", "")
    engine.sendall("\\r\\n".join(lines).encode())
    head = b""
    while not head.endswith(b"\\r\\n\\r\\n"):
        head += engine.recv(1)
    threading.Thread(target=copy, args=(client, engine), daemon=True).start()
    copy(engine, client)

listener = socket.create_server(("127.0.0.1", {PORT}))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
_STAND_IN = f"""\
FROM {SHOP}/tool:1
COPY buildkitd buildctl /bin/
ENTRYPOINT ["/bin/buildkitd"]
"""
_BUILDKITD = (
    "#!/bin/sh\n"
    """\
echo "$@" >/var/lib/buildkit/flags
trap 'exit 0' TERM
while :; do sleep 1 & wait; done
"""
)
_CONFIG = """\
# What buildx makes of it looks otherwise.
[registry."site.example"]
  mirrors = [ "mirror.example" ]
  ca = ["/etc/hostname"]
"""
# Builders of these tests, and all that they could leave.
_CLEAN = (
    "rm -rf ~/.docker/buildx; docker ps -aq --filter name=buildx_buildkit | xargs -r docker rm -f"
)
_CLEAN += "; docker volume ls -q --filter name=buildx_buildkit | xargs -r docker volume rm"


@pytest.fixture(scope="module")
def site(rig: Rig) -> Iterator[Site]:
    site = Site(rig)
    for host in WITH_BUILDX:
        rig.inside(host, "sh", "-c", f"({_CLEAN}) >/dev/null 2>&1")
    try:
        yield site
    finally:
        for host in WITH_BUILDX:
            rig.inside(host, "sh", "-c", f"({_CLEAN}) >/dev/null 2>&1")
        site.clean()


@pytest.fixture(scope="module")
def handed_on(site: Site) -> Iterator[Site]:
    """The BuildKit of some Engines, on a port of their loopback; an image that leads to it."""
    hosts = (BUILDER, *SSH_NODES)
    files = {"Dockerfile": _STAND_IN, "buildkitd": _BUILDKITD, "hand-on.py": _HAND_ON}
    site.write({**files, "buildctl": f"#!/bin/sh\nexec nc 127.0.0.1 {PORT}\n"}, hosts)
    start = f"(exec python3 {CONTEXT}/hand-on.py) >/dev/null 2>&1 & echo $! >/var/tmp/handing.pid"
    try:
        for host in hosts:
            site.rig.inside(host, "sh", "-c", start)
        site.shell(f"chmod 755 {CONTEXT}/build*; docker build -q -t {IMAGE} {CONTEXT}")
        for host in SSH_NODES:
            site.rig.pipe(BUILDER, f"docker save {IMAGE}", host, "docker load")
        yield site
    finally:
        for host in hosts:
            site.rig.inside(
                host, "sh", "-c", "kill $(cat /var/tmp/handing.pid); rm /var/tmp/handing.pid"
            )
            site.rig.inside(host, "docker", "rmi", "-f", IMAGE, check=False)


@pytest.fixture
def ssh_keys(handed_on: Site) -> Iterator[Site]:
    """The build host reaches the nodes by ssh."""
    rig = handed_on.rig
    key, config = "/var/tmp/build-key", "/var/tmp/build-ssh"
    handed_on.keep(key, inventory.login_key(rig.fleet).read_text(), 0o600)
    handed_on.keep(config, "StrictHostKeyChecking no\nConnectTimeout 5\n")
    handed_on.shell(
        f"rm -rf ~/.ssh && mkdir -m 700 ~/.ssh && mv {key} ~/.ssh/id_ed25519 &&"
        f" mv {config} ~/.ssh/config"
    )
    try:
        yield handed_on
    finally:
        handed_on.shell("rm -rf ~/.ssh")


def declared(name: str, options: Mapping[str, Any], check: bool = False) -> Json:
    return {
        "name": name, "fleet.images.buildx_builder": {"name": "fleet", **options},
        "check_mode": check, "diff": True,
    }  # fmt: skip


def rounds(site: Site, options: Mapping[str, Any], hosts: str = BUILDER) -> dict[str, Json]:
    """Host -> what it gives, as foreseen; after it nothing is left to do.

    Many hosts: check mode is asked again too.
    """
    names = ("foreseen", "done", "again", *(["again foreseen"] if hosts != BUILDER else []))
    tasks = [declared(name, options, "foreseen" in name) for name in names]
    found = site.rig.results(hosts, tasks)
    for host, done in found["done"].items():
        assert not done.get("failed"), done
        foreseen = found["foreseen"][host]
        for key in ("changed", "actions", "diff", "msg"):
            assert foreseen[key] == done[key], host
        for name in names[2:]:
            assert not found[name][host]["changed"], found[name][host]
            assert found[name][host]["actions"] == []
    return dict(found["done"])


def settled(site: Site, **options: Any) -> Json:
    """`rounds` on the build host."""
    return rounds(site, options)[BUILDER]


def actions(told: Json) -> list[str]:
    return [step["action"] for step in told["actions"]]


def caches(told: Json) -> list[str]:
    return [step["cache"] for step in told["actions"] if step["cache"]]


def kept(rig: Rig, host: str, name: str = "fleet") -> Json:
    """What buildx keeps of a builder; {} where there is none."""
    path = f"~/.docker/buildx/instances/{name}"
    return dict(json.loads(rig.inside(host, "sh", "-c", f"cat {path} 2>/dev/null || echo {{}}")))


def container(rig: Rig, host: str, node: str) -> list[str]:
    """ID and state of a node's container, [] where there is none."""
    words = ("docker", "ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.State}}")
    return rig.inside(host, *words, "--filter", f"name=^buildx_buildkit_{node}$").split()


def test_declared_on_every_engine(site: Site) -> None:
    site.rig.results(",".join(WITH_BUILDX), [declared("other", {"name": "bystander"})])
    bystanders = {host: kept(site.rig, host, "bystander") for host in WITH_BUILDX}

    def each(options: Json, hosts: Sequence[str] = WITH_BUILDX) -> list[Json]:
        found = rounds(site, options, ",".join(hosts))
        assert {*found} == {*hosts}
        return list(found.values())

    for told in each({"driver_opts": {"image": IMAGE}, "use": True}):
        assert actions(told) == ["created", "used"]
        assert told["builder"]["current"] and told["builder"]["driver"] == "docker-container"
        assert told["builder"]["nodes"][0]["status"] == "inactive"
    # Nothing runs yet, so all of this is changed in place; and what is not named stays.
    proxies = {"env.NO_PROXY": "a.example,b.example", "network": "host"}
    changes = {
        "driver_opts": {"image": IMAGE, **proxies},
        "platforms": ["linux/arm64/v8", "linux/x86_64"],
        "buildkitd_flags": ["--debug", "--oci-worker-gc=false"],
    }
    for told in each(changes):
        assert actions(told) == ["changed"]
        assert "network=host" in told["actions"][0]["reason"]
        assert "a.example" not in json.dumps({**told, "invocation": None})
    for told in each({"buildkitd_config": _CONFIG}, EVERY_BUILDX):
        assert actions(told) == ["remade"] and "buildkitd_config" in told["actions"][0]["reason"]
    for told in each({"platforms": [], "state": "stopped"}, EVERY_BUILDX):
        assert actions(told) == ["remade"]
    for host in EVERY_BUILDX:
        node = kept(site.rig, host)["Nodes"][0]
        assert node["DriverOpts"] == {"image": IMAGE, **proxies}
        assert node["Flags"][:2] == ["--debug", "--oci-worker-gc=false"]
        assert {*node["Files"]} == {"buildkitd.toml", "certs/site.example/hostname"}
        assert not node["Platforms"]
    defaults: Json = {"driver_opts": {}, "buildkitd_flags": [], "buildkitd_config": ""}
    for told in each(defaults, EVERY_BUILDX):
        assert actions(told) == ["remade"] and told["builder"]["current"]
    for told in each({"state": "absent"}):
        assert actions(told) == ["removed"] and told["builder"] is None
    for host in WITH_BUILDX:
        assert kept(site.rig, host, "bystander") == bystanders[host] and not kept(site.rig, host)
    for told in each({"name": "bystander", "state": "absent"}):
        assert actions(told) == ["removed"]


def test_a_remote_builder_is_booted_and_builds(handed_on: Site) -> None:
    site = handed_on
    first = {"name": "one", "endpoint": f"tcp://127.0.0.1:{PORT}"}
    second = {"name": "two", "endpoint": f"tcp://localhost:{PORT}", "platforms": ["linux/arm64"]}
    told = settled(site, driver="remote", nodes=[first], state="booted")
    assert actions(told) == ["created"] and told["builder"]["nodes"][0]["status"] == "running"
    site.shell(
        "mkdir -p /var/tmp/build-tiny && cd /var/tmp/build-tiny && echo one >app"
        " && printf 'FROM scratch\\nCOPY app /app\\n' >Dockerfile"
        " && docker buildx build --builder fleet -o type=tar,dest=out.tar . 2>&1"
    )
    assert site.run("tar", "-tf", "/var/tmp/build-tiny/out.tar").split() == ["app"]
    told = settled(site, nodes=[first, second], state="booted")
    assert actions(told) == ["added"] and told["actions"][0]["node"] == "two"
    moved = {**second, "endpoint": f"tcp://127.0.0.2:{PORT}"}
    assert actions(settled(site, nodes=[first, moved])) == ["changed"]
    told = settled(site, nodes=[second], state="booted")
    assert actions(told) == ["left", "changed"] and told["actions"][0]["node"] == "one"
    stopped = site.rig.results(BUILDER, [declared("stop", {"state": "stopped"})])["stop"][BUILDER]
    assert stopped["failed"] and "whose BuildKit runs by itself" in stopped["msg"]
    told = settled(site, driver="docker-container")
    assert actions(told) == ["left", "created"]
    assert "driver: wanted docker-container, found remote" in told["actions"][0]["reason"]
    assert actions(settled(site, state="absent")) == ["removed"]


def test_a_container_lives_and_changes(handed_on: Site) -> None:
    """Real containers and volumes; in place of BuildKit a program that hands on the Engine's."""
    site = handed_on
    told = settled(site, driver_opts=OPTS, state="booted")
    assert actions(told) == ["created", "booted"]
    assert told["builder"]["nodes"][0]["status"] == "running"
    first, _running = container(site.rig, BUILDER, "fleet0")
    site.run("docker", "exec", first, "touch", "/var/lib/buildkit/cache")
    assert actions(settled(site, state="stopped")) == ["stopped"]
    assert container(site.rig, BUILDER, "fleet0") == [first, "exited"]
    # Pins are buildx's own, flags are the container's.
    told = settled(site, platforms=["linux/amd64"], state="booted")
    assert actions(told) == ["changed", "booted"]
    assert container(site.rig, BUILDER, "fleet0") == [first, "running"]
    assert actions(settled(site, platforms=[], state="booted")) == ["remade"]
    assert container(site.rig, BUILDER, "fleet0") == [first, "running"]
    told = settled(site, buildkitd_flags=["--debug"], state="booted")
    assert actions(told) == ["remade", "booted"] and caches(told) == ["kept"]
    assert "the build cache is kept" in told["msg"]
    second, _running = container(site.rig, BUILDER, "fleet0")
    assert second != first
    inside = site.run(
        "docker", "exec", second, "sh", "-c", "cd /var/lib/buildkit && ls cache flags && cat flags"
    )
    assert inside.startswith("cache\nflags\n--debug")
    assert caches(settled(site, state="absent", keep_state=True)) == ["kept"]
    assert not container(site.rig, BUILDER, "fleet0")
    assert "buildx_buildkit_fleet0_state" in site.run("docker", "volume", "ls")


def test_hosts_of_a_group_are_nodes(ssh_keys: Site) -> None:
    site, (amd, arm) = ssh_keys, SSH_NODES
    rig, addresses = (
        site.rig,
        [site.rig.fleet.address(operations.by_name(host), NETWORK) for host in SSH_NODES],
    )
    nodes: list[Json] = [
        {"name": host, "endpoint": f"ssh://root@{address}", "platforms": [f"linux/{kind}"]}
        for host, address, kind in zip(SSH_NODES, addresses, ("amd64", "arm64"), strict=True)
    ]
    told = settled(site, nodes=nodes, driver_opts=OPTS, state="booted")
    assert actions(told) == ["created", "added", "booted", "booted"]
    assert [node["status"] for node in told["builder"]["nodes"]] == ["running", "running"]
    stays, goes = container(rig, amd, amd), container(rig, arm, arm)
    assert stays[1] == goes[1] == "running" and not container(rig, BUILDER, "fleet0")
    # One of them changes, and the other goes on.
    nodes[1]["driver_opts"] = {"env.CHANGED": "yes"}
    told = settled(site, nodes=nodes, driver_opts=OPTS, state="booted")
    assert actions(told) == ["remade", "booted"] and caches(told) == ["kept"]
    assert container(rig, amd, amd) == stays and container(rig, arm, arm)[0] != goes[0]
    # buildx empties all nodes when it cannot add one.
    before = kept(rig, BUILDER)
    wrong = {"name": "gone", "endpoint": "ssh://root@192.0.2.1"}
    broken = rig.results(
        BUILDER, [declared("broken", {"nodes": [*nodes, wrong], "driver_opts": OPTS})]
    )["broken"][BUILDER]
    assert broken["failed"] and not broken["changed"] and "node gone" in broken["msg"]
    assert kept(rig, BUILDER) == before
    told = settled(site, nodes=nodes[:1], driver_opts=OPTS, state="booted")
    assert actions(told) == ["left"] and caches(told) == ["lost"]
    assert container(rig, amd, amd) == stays and not container(rig, arm, arm)
    assert actions(settled(site, state="absent")) == ["removed"]
    assert not container(rig, amd, amd)


def test_a_node_that_is_gone_can_leave(ssh_keys: Site) -> None:
    site, rig = ssh_keys, ssh_keys.rig
    address = rig.fleet.address(operations.by_name(SSH_NODES[0]), NETWORK)
    nodes = [{"name": "here"}, {"name": "there", "endpoint": f"ssh://root@{address}"}]
    assert actions(settled(site, nodes=nodes)) == ["created", "added"]
    site.shell("mv ~/.ssh/id_ed25519 ~/.ssh/kept")
    told = rig.results(BUILDER, [declared("left", {"nodes": nodes[:1]})])["left"][BUILDER]
    site.shell("mv ~/.ssh/kept ~/.ssh/id_ed25519")
    assert actions(told) == ["left"]
    assert "the node has left all the same" in " ".join(told["warnings"])
    assert len(kept(rig, BUILDER)["Nodes"]) == 1
    settled(site, state="absent")


# What buildx itself says; the rest is in the unit tests.
CASES: dict[str, tuple[Json, Sequence[str]]] = {
    "context gone": ({"name": "default", "state": "absent"}, ["docker context"]),
    "no option": ({"driver_opts": {"sorcery": 1}}, ["invalid driver option sorcery"]),
    "no config": ({"buildkitd_config": "x = ["}, ["unterminated array"]),
    "no cluster": ({"driver": "kubernetes"}, ["node fleet0", "buildx said"]),
    "nobody there": (
        {"driver": "remote", "nodes": [{"endpoint": "tcp://127.0.0.1:9"}], "state": "booted",
         "boot_timeout": 3},
        ["wanted booted"],
    ),
}  # fmt: skip


def test_what_cannot_be(site: Site) -> None:
    tasks = [
        declared(f"{kind} {name}", options, kind == "foreseen")
        for name, (options, _words) in CASES.items()
        for kind in ("foreseen", "done")
    ]
    tasks.append(declared("own", {"driver": "docker", "name": "default", "state": "booted"}))
    found = {name: hosts[BUILDER] for name, hosts in site.rig.results(BUILDER, tasks).items()}
    for name, (_options, words) in CASES.items():
        for kind in ("foreseen", "done"):
            told = found[f"{kind} {name}"]
            assert told["failed"] and not told["changed"], (name, told)
            assert "\n" not in told["msg"] and all(word in told["msg"] for word in words), told
    assert not found["own"]["changed"] and found["own"]["builder"]["driver"] == "docker"
    assert not kept(site.rig, BUILDER)


def test_an_image_that_nobody_has(site: Site) -> None:
    """What was not there before is not there afterwards; what was, has its settings again."""
    wrong = {"driver_opts": {"image": "127.0.0.1:9/no/image:1"}, "state": "booted"}
    started = time.monotonic()
    tasks = [
        declared("new", wrong),
        declared("made", {"driver_opts": {"network": "host"}}),
        declared("old", wrong),
        declared("slow", {"state": "booted", "boot_timeout": 2}),
    ]
    found = {name: told[BUILDER] for name, told in site.rig.results(BUILDER, tasks).items()}
    assert time.monotonic() - started < 60
    for name in ("new", "old"):
        assert found[name]["failed"] and not found[name]["changed"]
        assert "no/image" in found[name]["msg"] and "driver_opts.image" in found[name]["msg"]
    assert actions(found["made"]) == ["created"]
    assert "wanted booted within 2 s" in found["slow"]["msg"]
    assert "pulling image" in found["slow"]["msg"]
    assert kept(site.rig, BUILDER)["Nodes"][0]["DriverOpts"] == {"network": "host"}
    settled(site, state="absent")


def test_no_buildx_and_an_old_one(site: Site) -> None:
    told = site.rig.results("engine20-classic", [declared("none", {})])["none"]["engine20-classic"]
    assert told["failed"] and "docker buildx: wanted on this host, found none" in told["msg"]
    host = "engine26-classic"
    new = {"driver_opts": {"default-load": True}}
    told = site.rig.results(host, [declared("new", new)])["new"][host]
    assert told["failed"] and "driver_opts.default-load needs 0.14.0 or newer" in told["msg"]
