# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_prune while other things go on: build cache, a pull beside it, an Engine that is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleetlib import operations
from pulling import PASSWORD, TOOL, USER
from rig import NODES, STORES, Json, Rig, on_each
from yard import KEPT, TEAM, clear, fill, names_of, starts

HOSTS = ",".join(NODES)
WISH = {"scope": "unused", "protect": ["*/shop/*"]}

# BuildKit keeps what it built upon a local image, and what a step made.
_BUILD = f"""
set -e
mkdir -p /tmp/cached && cd /tmp/cached
printf 'FROM {TEAM}/base:1\\nRUN head -c 900000 /dev/urandom >/cached\\n' >Dockerfile
DOCKER_BUILDKIT=1 docker build -q --network none -t {TEAM}/cached:1 . >/dev/null
rm -rf /tmp/cached
"""
PULL = f"docker --config /tmp/login pull -q {TOOL}:1"
# Ends dockerd in the middle of a removal of many images.
_KILLER = """
count() { ls /var/lib/docker/image/overlay2/imagedb/content/sha256 2>/dev/null | wc -l; }
[ -d /var/lib/docker/image/overlay2 ] || count() { docker images -q 2>/dev/null | wc -l; }
before=$(count)
for _ in $(seq 600); do
    [ "$(count)" -lt "$((before - 2))" ] && pkill -KILL -x dockerd && exit 0
    sleep 0.02
done
"""
_MANY = f"""
set -e
for number in $(seq 40); do
    docker tag {TEAM}/base:1 {TEAM}/many:0
    echo $number >/tmp/number
    tar -C /tmp -c number | docker import - {TEAM}/many:$number >/dev/null
done
docker rmi {TEAM}/many:0 >/dev/null
"""


@pytest.fixture
def full(seeded: Rig) -> Iterator[Rig]:
    """Images and containers of every sort."""
    try:
        fill(seeded)
        yield seeded
    finally:
        clear(seeded)


def task(name: str, check: bool = False, **options: object) -> Json:
    return {"name": name, "fleet.images.image_prune": options, "check_mode": check}


def shell(name: str, line: str, **more: object) -> Json:
    return {"name": name, "ansible.builtin.shell": line, "changed_when": True, **more}


def test_build_cache(full: Rig) -> None:
    """What it may hold is told as a range, and it goes where that is asked for."""
    cache = {"protect": ["*"], "build_cache": {}}
    tasks = [
        shell("build", _BUILD),
        task("range", True, **WISH),
        task("done", **WISH),
        task("cache foreseen", True, **cache),
        task("too young", build_cache={"older_than": "1d"}, protect=["*"]),
        task("cache", **cache),
        task("again", **cache),
    ]
    found = full.results(HOSTS, tasks)
    for node in NODES:
        told = {name: result[node] for name, result in found.items()}
        assert not any(one.get("failed") for one in told.values()), (node, told)
        least, most = (told["range"]["reclaimed"][f"predicted_{end}"] for end in ("min", "max"))
        # A classic store takes hold of a layer when it next needs it; containerd notes that.
        if STORES[node] == "classic":
            assert most is None or most > least + 500_000, (node, least, most)
        else:
            assert least == most, node
        assert f"{TEAM}/cached:1" in [one["name"] for one in told["done"]["plan"]]
        assert told["cache foreseen"]["build_cache"]["foreseen"] > 500_000
        assert told["cache foreseen"]["changed"] and not told["too young"]["changed"]
        assert told["cache"]["build_cache"]["reported"] > 500_000
        assert told["cache"]["changed"] and not told["again"]["changed"]
        starts(full, node)


def test_beside_a_pull(full: Rig) -> None:
    """What comes while images go is there afterwards, whole."""
    operations.connect(full.fleet)
    registry = TOOL.partition("/")[0]
    login = f"docker --config /tmp/login login -u {USER} -p {PASSWORD} {registry} 2>/dev/null"
    try:
        tasks = [
            shell("log in", login),
            shell(
                "pull", f"docker --config /tmp/login pull -q {TOOL}:1", **{"async": 90, "poll": 0}
            ),
            task("prune", **WISH),
            {
                "name": "wait",
                "ansible.builtin.shell": f"until docker image inspect {TOOL}:1; do sleep 0.2; done",
                "changed_when": False,
                "async": 60,
                "poll": 1,
            },
            shell("run", f"docker run --rm --network none {TOOL}:1 true"),
        ]
        found = full.results(HOSTS, tasks)
        for node in NODES:
            for name in ("prune", "wait"):
                assert not found[name][node].get("failed"), (node, found[name][node])
            assert f"{TOOL}:1" in names_of(full, node)
            starts(full, node)
    finally:
        operations.disconnect(full.fleet)
        on_each(lambda node: full.inside(node, "rm", "-rf", "/tmp/login"), NODES)


def test_an_engine_that_is_killed(full: Rig) -> None:
    """The rest is told as not done; a second run ends it, and nothing else is lost."""
    on_each(lambda node: full.inside(node, "sh", "-c", _MANY), NODES)
    tasks = [
        shell("killer", _KILLER, **{"async": 60, "poll": 0}),
        task("broken", **WISH),
        shell("start", "engine-start"),
        task("end", **WISH),
        task("again", **WISH),
    ]
    found = full.results(HOSTS, tasks)
    for node in NODES:
        broken, end = found["broken"][node], found["end"][node]
        assert broken["failed"], (node, broken["msg"])
        acted = [one["action"] for one in broken["images"]]
        assert "failed" in acted, (node, broken["msg"])
        assert "start it (systemctl start docker)" in broken["msg"] or "said:" in broken["msg"]
        assert end["changed"] and not end.get("failed"), (node, end["msg"])
        assert not found["again"][node]["changed"]
        left = {one.removeprefix(f"{TEAM}/") for one in names_of(full, node)}
        assert {one for one in left if one.startswith("many:")} == set()
        assert left >= KEPT
        # Its containers ended with the Engine.
        full.inside(node, "docker", "start", "running")
        starts(full, node)
