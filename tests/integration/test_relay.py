# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay on a bastion, of the package docker-registry: what it serves; nobody can write."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from rig import JUMP_HOST, NEW_NGINX, SEED, Json, Rig
from workshop import AMD64

STORE = "/var/tmp/relay-store"
NGINX = SEED[0]
# Asks a relay, with Python's own trust in the given authority: a JSON list of what it answered.
ASK = """
import hashlib, http.client, json, ssl, sys
port, ca, asked = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
if ca:
    context = ssl.create_default_context(cadata=ca)
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
else:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
kinds = ["application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"]
kinds += ["application/vnd.docker.distribution.manifest.v2+json"]
kinds += ["application/vnd.docker.distribution.manifest.list.v2+json"]
told = []
for method, path in asked:
    connection.request(method, path, headers={"Accept": ", ".join(kinds)})
    answer = connection.getresponse()
    content = answer.read()
    told.append([answer.status, "sha256:" + hashlib.sha256(content).hexdigest(), len(content)])
print(json.dumps(told))
"""


def ask(rig: Rig, relay: Json, asked: list[tuple[str, str]]) -> list[list[int | str]]:
    """Status, digest and length of each answer."""
    words = [str(relay["port"]), relay["ca"], json.dumps(asked)]
    told: list[list[int | str]] = json.loads(rig.inside(JUMP_HOST, "python3", "-c", ASK, *words))
    return told


def relay_task(called: str, check: bool = False, **args: object) -> Json:
    given = {"store": STORE, "lock": "{{ result_of_fetched.lock }}", **args}
    if args.get("state") == "stopped":
        del given["lock"]
    return {"name": called, "fleet.images.image_relay": given, "check_mode": check, "diff": True}


def run(rig: Rig, *tasks: Json) -> Json:
    """Task name -> its result, with a store that has both versions of nginx, the old one whole."""
    fetch = {
        "images": [NGINX, {"name": NEW_NGINX, "as": "site.example/web/nginx:stable"}],
        "store": STORE,
        "platform": AMD64,
        "registry_validate_certs": False,
    }
    first = {"name": "fetched", "fleet.images.image_fetch": fetch}
    found = rig.results(JUMP_HOST, [first, *tasks])
    return {name: result[JUMP_HOST] for name, result in found.items()}


@pytest.fixture(scope="module")
def relayed(rig: Rig) -> Iterator[Json]:
    """Two relays side by side, without and with TLS, each looked at twice."""
    tls = {"name": "tls", "tls": True, "names": ["localhost"]}
    found = run(
        rig,
        relay_task("foreseen", True),
        relay_task("started"),
        relay_task("again foreseen", True),
        relay_task("again"),
        relay_task("tls foreseen", True, **tls),
        relay_task("tls", **tls),
        relay_task("tls again foreseen", True, **tls),
        relay_task("tls again", **tls),
    )
    assert [name for name, result in found.items() if result.get("failed")] == [], found
    yield found
    rig.results(
        JUMP_HOST,
        [
            relay_task("end", state="stopped"),
            relay_task("end tls", state="stopped", name="tls"),
            {"name": "clear", "ansible.builtin.file": {"path": STORE, "state": "absent"}},
        ],
    )


def test_check_mode_foresees_and_a_second_run_changes_nothing(relayed: Json) -> None:
    for kind in ("", "tls "):
        first = relayed["tls" if kind else "started"]
        foreseen = relayed[f"{kind}foreseen"]
        assert first["changed"] and foreseen["changed"]
        assert foreseen["diff"] == first["diff"] and foreseen["pid"] == 0
        for name in (f"{kind}again foreseen", f"{kind}again"):
            again = relayed[name]
            assert not again["changed"]
            for key in ("pid", "port", "url", "ca", "bytes"):
                assert again[key] == first[key]


def test_no_secret_shows(rig: Rig, relayed: Json) -> None:
    told = json.dumps(relayed) + rig.inside(JUMP_HOST, "ps", "-eww", "-o", "args")
    key = rig.inside(JUMP_HOST, "cat", f"{STORE}/.relay/tls/tls.key").splitlines()[1]
    assert "config.yml" in told and key not in told
    assert "BEGIN CERTIFICATE" in relayed["tls"]["ca"]
    modes = rig.inside(
        JUMP_HOST, "sh", "-c", f"stat -c %a {STORE}/.relay/tls {STORE}/.relay/tls/t*"
    )
    assert modes.split() == ["700", "600", "600"]


@pytest.mark.parametrize("kind", ["started", "tls"])
def test_it_serves_byte_for_byte_what_the_lock_names(rig: Rig, relayed: Json, kind: str) -> None:
    asked, digests = [], []
    for name, entry in relayed["fetched"]["lock"]["images"].items():
        tag = name.rpartition(":")[2]
        (platform,) = entry["platforms"].values()
        both = [entry["digest"], platform["manifest"]["digest"]]
        manifests = [(f"manifests/{tag}", entry["digest"])]
        manifests += [(f"manifests/{one}", one) for one in both]
        blobs = [platform["config"]["digest"], *(one["digest"] for one in platform["layers"])]
        for path, digest in [*manifests, *((f"blobs/{one}", one) for one in blobs)]:
            asked.append(("GET", f"/v2/shop/nginx/{path}"))
            digests.append(digest)
    asked.append(("GET", "/v2/web/nginx/manifests/stable"))
    digests.append(relayed["fetched"]["lock"]["images"][NEW_NGINX]["digest"])
    told = ask(rig, relayed[kind], asked)
    assert [answer[:2] for answer in told] == [[200, digest] for digest in digests]


@pytest.mark.parametrize("kind", ["started", "tls"])
def test_nobody_can_write(rig: Rig, relayed: Json, kind: str) -> None:
    digest = relayed["fetched"]["lock"]["images"][NGINX]["digest"]
    asked = [
        ("POST", "/v2/shop/nginx/blobs/uploads/"),
        ("PUT", "/v2/shop/nginx/manifests/1"),
        ("DELETE", f"/v2/shop/nginx/manifests/{digest}"),
        ("DELETE", f"/v2/shop/nginx/blobs/{digest}"),
    ]
    assert [answer[0] for answer in ask(rig, relayed[kind], asked)] == [405] * len(asked)


def test_only_what_is_named_is_served_and_a_dead_one_comes_back(rig: Rig, relayed: Json) -> None:
    port = relayed["started"]["port"]
    rig.inside(JUMP_HOST, "kill", "-9", str(relayed["started"]["pid"]))
    login = {"htpasswd": "shop:$2y$05$" + "a" * 53}
    found = run(
        rig,
        relay_task("dead", True, images=[NGINX]),
        relay_task("back", images=[NGINX]),
        relay_task("login foreseen", True, images=[NGINX], **login),
        relay_task("login", images=[NGINX], **login),
        relay_task("taken", name="other", port=relayed["tls"]["port"]),
        relay_task("bare", name="other", command="/usr/bin/true"),
        relay_task("whole"),
    )
    assert found["dead"]["changed"] and found["back"]["changed"]
    assert found["login foreseen"]["changed"] and found["login"]["changed"]
    assert found["back"]["port"] == port and found["back"]["pid"] != relayed["started"]["pid"]
    assert "ended at once with exit code 0" in found["bare"]["msg"]
    assert "wanted free for the relay" in found["taken"]["msg"]
    assert not any(found[name].get("failed") for name in ("dead", "back", "login", "whole")), found
    lines = found["whole"]["diff"]["before"].splitlines()
    assert {line.split("@")[0].split(" ")[0] for line in lines} == {"shop/nginx:1", "shop/nginx"}
    assert ask(rig, found["whole"], [("GET", "/v2/web/nginx/manifests/stable")])[0][0] == 200
    rig.results(JUMP_HOST, [relay_task("end other", state="stopped", name="other")])


def test_a_login_is_wanted(rig: Rig, relayed: Json) -> None:
    args = {"name": "login", "htpasswd": "shop:$2y$05$" + "a" * 53}
    found = run(rig, relay_task("login", **args), relay_task("again", **args))
    assert found["login"]["changed"] and not found["again"]["changed"]
    told = ask(rig, found["login"], [("GET", "/v2/"), ("GET", "/v2/shop/nginx/manifests/1")])
    assert [answer[0] for answer in told] == [401, 401]
    rig.results(JUMP_HOST, [relay_task("end login", state="stopped", name="login")])


def test_what_a_killed_run_has_left_goes_with_the_next(rig: Rig, relayed: Json) -> None:
    """Once its lease is over; the relays that stay on purpose are none of its business."""
    gone = {
        "name": "end",
        "ansible.builtin.file": {"path": f"{STORE}/.leases/run", "state": "absent"},
    }
    found = run(
        rig,
        relay_task("of a run", name="run-tunnel", lease="run"),
        relay_task("meanwhile"),
        gone,
        relay_task("next foreseen", True),
        relay_task("next"),
        relay_task("after"),
    )
    swept = {name: found[name]["swept"] for name in ("meanwhile", "next foreseen", "next", "after")}
    left = ["run-tunnel"]
    assert swept == {"meanwhile": [], "next foreseen": left, "next": left, "after": []}
    assert [found[name]["changed"] for name in ("next foreseen", "next", "after")] == [
        True, True, False,
    ]  # fmt: skip
    assert {found[name]["pid"] for name in ("next", "after")} == {found["meanwhile"]["pid"]}
    processes = rig.inside(JUMP_HOST, "ps", "-eww", "-o", "args")
    assert "/run-tunnel/" not in processes and "/tls/" in processes
    assert sorted(rig.inside(JUMP_HOST, "ls", f"{STORE}/.relay").split()) == ["relay", "tls"]


def test_stopped_leaves_the_store_and_nothing_else(rig: Rig, relayed: Json) -> None:
    blobs = rig.inside(JUMP_HOST, "ls", f"{STORE}/blobs/sha256")
    stop = {"state": "stopped", "name": "gone"}
    found = run(
        rig,
        relay_task("gone", name="gone"),
        relay_task("foreseen", True, **stop),
        relay_task("stopped", **stop),
        relay_task("again foreseen", True, **stop),
        relay_task("again", **stop),
    )
    changed = {name: result["changed"] for name, result in found.items() if name != "fetched"}
    assert changed == {
        "gone": True,
        "foreseen": True,
        "stopped": True,
        "again foreseen": False,
        "again": False,
    }
    assert found["foreseen"]["diff"] == found["stopped"]["diff"]
    assert "/gone/" not in rig.inside(JUMP_HOST, "ps", "-eww", "-o", "args")
    assert "gone" not in rig.inside(JUMP_HOST, "ls", f"{STORE}/.relay")
    assert rig.inside(JUMP_HOST, "ls", f"{STORE}/blobs/sha256") == blobs
