# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_info and image_remove on Engines of every kind: in use, by every sort of name, foreseen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rig import NODES, SEED, STORES, Json, Rig, on_each

NGINX, POSTGRES = SEED
SHOP = "shop.example/team"
TOP = 500_000  # bytes of the layer that an application adds
HOSTS = ",".join(NODES)

# Images upon nginx, as `docker commit` makes them, for each test its own.
_MAKE = f"""
set -e
build() {{ # name, if it has one
    docker create --name make {NGINX} true >/dev/null
    head -c {TOP} /dev/urandom >/tmp/top
    docker cp /tmp/top make:/top >/dev/null
    docker commit --change 'LABEL team=shop' make $1 >/dev/null
    docker rm make >/dev/null
}}
for name in seen/app:1 free/app:1 held/app:1 held/spare:1 old/app:1 gone/app:1 ""; do
    build ${{name:+{SHOP}/$name}}
done
for group in seen held gone; do
    docker tag {SHOP}/$group/app:1 {SHOP}/$group/app:2
    docker tag {SHOP}/$group/app:1 {SHOP}/$group/other:1
    docker run -d --name $group --network none --entrypoint sleep {SHOP}/$group/app:1 600 >/dev/null
done
docker create --name stopped {SHOP}/old/app:1 true >/dev/null
rm /tmp/top
"""
_UNMAKE = """
docker rm -f seen held gone stopped make >/dev/null 2>&1
docker images -q --no-trunc --filter label=team=shop | sort -u | xargs -r docker rmi -f >/dev/null
"""


@pytest.fixture(scope="module")
def made(seeded: Rig) -> Iterator[Rig]:
    """The fleet with images and containers."""

    def shell(script: str) -> None:
        on_each(lambda node: seeded.inside(node, "sh", "-c", script), NODES)

    try:
        shell(_MAKE)
        yield seeded
    finally:
        shell(_UNMAKE)


def info(rig: Rig, **options: object) -> Json:
    """Node -> what image_info tells, in check mode too."""
    task = {"name": "tell", "fleet.images.image_info": options}
    found = rig.results(HOSTS, [task, {**task, "name": "check", "check_mode": True}])
    for node, told in found["tell"].items():
        assert not told["changed"] and not found["check"][node]["changed"]
        assert told.get("images") == found["check"][node].get("images")
    return dict(found["tell"])


def remove(rig: Rig, *images: str, **options: object) -> Json:
    """Node -> what image_remove did, as foreseen; nothing is left to do after it."""
    task = {"fleet.images.image_remove": {"images": list(images), **options}, "diff": True}
    rounds = ("foreseen", "done", "again foreseen", "again")
    tasks = [{**task, "name": name, "check_mode": "foreseen" in name} for name in rounds]
    found = rig.results(HOSTS, tasks)
    for node in NODES:
        foreseen, done, nothing, again = (found[name][node] for name in rounds)
        for key in ("name", "id", "action", "reason", "containers"):
            told = [one[key] for one in foreseen["images"]]
            assert told == [one[key] for one in done["images"]], node
        assert foreseen["changed"] == done["changed"]
        assert foreseen["diff"] == done["diff"]
        assert not again["changed"] and not nothing["changed"]
    return dict(found["done"])


def actions(result: Json) -> list[str]:
    return [one["action"] for one in result["images"]]


def proved(node: str) -> tuple[int, int]:
    """The least and the most bytes that a layer of TOP random bytes gives back."""
    if STORES[node] == "classic":
        return TOP, TOP
    # Unpacked in blocks of the file system; newer Engines count the blobs too.
    return TOP, 2 * (TOP + 100_000)


def test_what_there_is(made: Rig) -> None:
    wanted = [f"{SHOP}/seen/*", "nginx", NGINX, "no.example/nothing:1"]
    for node, told in info(made, images=wanted, details=True).items():
        found = {one["name"]: one for one in told["images"]}
        assert f"{SHOP}/seen/app:1" in found, node
        assert told["missing"] == ["nginx", "no.example/nothing:1"]
        app = found[f"{SHOP}/seen/app:1"]
        names = ["app:1", "app:2", "other:1"]
        assert app["references"] == [f"{SHOP}/seen/{name}" for name in names]
        assert [(one["name"], one["running"]) for one in app["containers"]] == [("seen", True)]
        assert app["labels"]["team"] == "shop"
        assert app["platform"] == "linux/amd64" and app["platforms"] == ["linux/amd64"]
        assert app["created"][:4] == app["last_tagged"][:4] != "0001"
        classic = STORES[node] == "classic"
        assert app["unique_bytes"] == (TOP if classic else None)
        assert app["shared_bytes"] > 10**7
        digests = [f"{SHOP}/seen/{name}@{app['id']}" for name in ("app", "other")]
        assert app["digests"] == ([] if classic else digests)
        assert told["disk"]["free"] > 0
        assert ((told["disk"]["layers_bytes"] or 0) > 10**7) is classic


def test_a_query(made: Rig) -> None:
    query = "[?dangling && labels.team == 'shop'].id"
    for told in info(made, query=query).values():
        assert len(told["result"]) == 1
    task = {"name": "tell", "fleet.images.image_info": {"query": "[?"}}
    for told in made.results(HOSTS, [task])["tell"].values():
        assert told["failed"] and "JMESPath" in told["msg"]


def test_nobody_uses_it(made: Rig) -> None:
    for node, result in remove(made, f"{SHOP}/free/app:1", "no.example/nothing:1").items():
        assert actions(result) == ["removed", "none"], node
        least, most = proved(node)
        assert least <= result["bytes"] <= most, (node, result["bytes"])
        assert f"{SHOP}/free/app:1" not in made.names(node)


def test_in_use(made: Rig) -> None:
    """Nothing of it is touched, and the others go; one name of it may go."""
    names = [f"{SHOP}/held/{name}" for name in ("app:1", "app:2", "other:1")]
    spare = f"{SHOP}/held/spare:1"
    for node, result in remove(made, *names, spare).items():
        assert result["failed"] and result["changed"], node
        assert actions(result) == ["failed", "failed", "failed", "removed"]
        assert "the container held (running)" in result["msg"]
        assert set(names) <= made.names(node)
    for result in remove(made, *names, in_use="skip").values():
        assert actions(result) == ["kept", "kept", "kept"]
    for result in remove(made, *names, in_use="remove_stopped").values():
        assert actions(result) == ["failed", "failed", "failed"]
    for node, result in remove(made, names[0]).items():
        assert (actions(result), result["bytes"]) == (["untagged"], 0), node
        running = made.inside(node, "docker", "inspect", "-f", "{{.State.Running}}", "held")
        assert running == "true\n"


def test_stopped_containers_go_with_it(made: Rig) -> None:
    for node, result in remove(made, f"{SHOP}/old/app:1", in_use="remove_stopped").items():
        assert actions(result) == ["removed"], node
        assert [one["name"] for one in result["images"][0]["containers"]] == ["stopped"]
        assert "stopped" not in made.inside(node, "docker", "ps", "-a", "--format", "{{.Names}}")
        least, most = proved(node)
        assert least <= result["bytes"] <= most, (node, result["bytes"])


def test_all_containers_go_with_it(made: Rig) -> None:
    """An ID with several names wants force, which is never the Engine's."""
    found = info(made, images=[f"{SHOP}/gone/app:1"])
    ids = {node: told["images"][0]["id"] for node, told in found.items()}
    args = {"images": ["{{ ids[inventory_hostname] }}"], "in_use": "remove_containers"}
    tasks = [
        {"name": name, "fleet.images.image_remove": {**args, "force": name == "forced"}}
        for name in ("refused", "forced")
    ]
    found = made.results(HOSTS, tasks, {"ids": ids})
    for node in NODES:
        refused, forced = found["refused"][node], found["forced"][node]
        assert refused["failed"] and not refused["changed"], node
        assert "set force" in refused["msg"]
        assert actions(forced) == ["removed"], (node, forced)
        assert [one["name"] for one in forced["images"][0]["containers"]] == ["gone"]
        least, most = proved(node)
        assert least <= forced["bytes"] <= most, (node, forced["bytes"])
        assert not any("/gone/" in name for name in made.names(node))


def test_what_others_are_built_upon(made: Rig) -> None:
    for node, result in remove(made, NGINX).items():
        assert actions(result) == ["untagged"], node
        assert "built upon it" in result["images"][0]["reason"]
        assert NGINX not in made.names(node)
        assert POSTGRES in made.names(node)
