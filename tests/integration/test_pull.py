# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_pull on real Engines: create, repeat, change, remove, foreseen and done; and refusals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleetlib.hosts import REGISTRY_CA, TLS_REGISTRY
from pulling import (
    ARM,
    LOGIN,
    NGINX,
    PASSWORD,
    TOOL,
    actions,
    connected,
    empty,
    id_of,
    is_classic,
    left,
    pull,
)
from rig import JUMP_HOST, NODES, Rig

CERTS = "/etc/docker/certs.d"
SITE = "site.example:5000/web/tool:2"


@pytest.fixture(scope="module")
def open_rig(rig: Rig) -> Iterator[Rig]:
    with connected(rig):
        yield rig


@pytest.fixture
def clean(open_rig: Rig) -> Rig:
    empty(open_rig)
    return open_rig


def test_create_repeat_and_remove(clean: Rig) -> None:
    images = [f"{TOOL}:1", f"{NGINX}:1", {"name": f"{TOOL}:2", "as": SITE}]
    foresee = pull("foresee", images, check=True)
    tasks = [
        pull("create", images),
        pull("foresee repeat", images, check=True),
        pull("repeat", images, policy="always"),
    ]
    before = clean.held_by_all()
    told = clean.results("nodes", [foresee])
    assert clean.held_by_all() == before
    told.update(clean.results("nodes", tasks))
    names = [f"{TOOL}:1", f"{NGINX}:1", f"{TOOL}:2"]
    for node in NODES:
        for task in ("foresee", "create"):
            assert told[task][node]["changed"], told[task][node]
            assert actions(told[task][node]) == [(name, "pulled") for name in names]
            after = told[task][node]["diff"]["after"].splitlines()
            assert [line.partition(": ")[0] for line in after] == [*names[:2], SITE]
        digests = [one["digest"] for one in told["create"][node]["images"]]
        assert digests == [one["digest"] for one in told["foresee"][node]["images"]]
        for task in ("foresee repeat", "repeat"):
            assert not told[task][node]["changed"], told[task][node]
            assert actions(told[task][node]) == [(name, "none") for name in names]
            assert told[task][node]["diff"] == {"before": "", "after": ""}
        assert clean.names(node) == {f"{TOOL}:1", f"{NGINX}:1", SITE}
        assert PASSWORD not in str(told)
        run = ("docker", "run", "--rm", "--pull", "never", "--network", "none", SITE)
        if not node.startswith("engine20"):
            assert clean.inside(node, *run)
        clean.inside(node, "docker", "rmi", f"{TOOL}:1", SITE)
        assert left(clean, node, "tool") == []
        assert {line.split()[0] for line in clean.held(node) if " " in line} == {f"{NGINX}:1"}


def test_a_tag_that_moves(clean: Rig) -> None:
    now = f"{TOOL}:now"
    first = clean.move_tag("shop/tool", "now", "1")
    lock = {
        "name": "lock",
        "fleet.images.image_fetch": {
            **LOGIN,
            "images": [now],
            "store": "/var/tmp/pull-store",
            "registry_ca_path": REGISTRY_CA,
        },
        "delegate_to": JUMP_HOST,
        "check_mode": True,
        "run_once": True,
    }
    told = clean.results("nodes", [lock, pull("create", [now])])
    pins = next(iter(told["lock"].values()))["lock"]
    second = clean.move_tag("shop/tool", "now", "2")
    tasks = [
        pull("missing", [now]),
        pull("foresee", [now], check=True, policy="always"),
        pull("change", [now], policy="always"),
        pull("again", [now], policy="always"),
        pull("foresee lock", None, check=True, lock=pins),
        pull("lock", None, lock=pins),
        pull("lock again", None, lock=pins),
        pull("lock lacks foreseen", [now, f"{TOOL}:1"], check=True, lock=pins),
        pull("lock lacks", [f"{TOOL}:1", now], lock=pins),
        pull("by digest", [f"{now}@{second}"]),
        pull("by digest again", [f"{now}@{second}"]),
        pull("by digest foreseen", [f"{now}@{first}"], check=True),
    ]
    told = clean.results("nodes", tasks)
    expected = {
        "missing": "none",
        "foresee": "pulled",
        "change": "pulled",
        "again": "none",
        "foresee lock": "pulled",
        "lock": "pulled",
        "lock again": "none",
        "by digest": "pulled",
        "by digest again": "none",
        "by digest foreseen": "pulled",
    }
    for node in NODES:
        found = {task: actions(told[task][node])[0][1] for task in expected}
        assert found == expected, (node, {task: told[task][node]["msg"] for task in expected})
        changed = {task: told[task][node]["changed"] for task in expected}
        assert changed == {task: action != "none" for task, action in expected.items()}
        digests = {task: told[task][node]["images"][0]["digest"] for task in expected}
        assert digests["change"] == digests["by digest"] == second
        assert digests["foresee lock"] == digests["lock"] == first
        for task in ("lock lacks foreseen", "lock lacks"):
            partly = told[task][node]
            assert partly["failed"] and not partly["changed"]
            assert partly["msg"].startswith(f"{TOOL}:1 is not in the lock; run image_fetch")
            assert dict(actions(partly)) == {now: "none", f"{TOOL}:1": "failed"}
        id_ = clean.inside(node, "docker", "inspect", "-f", "{{.Id}}", now).strip()
        assert id_ == told["by digest"][node]["images"][0]["id"]
        assert clean.names(node) <= {now, "<none>:<none>", f"{TOOL}:<none>"}
        clean.inside(node, "docker", "rmi", now)
        assert not any(now in line for line in left(clean, node, "tool"))


def test_refusals_hide_nothing(clean: Rig) -> None:
    images = [f"{TOOL}:1", f"{TOOL}:nope", f"{TLS_REGISTRY}/shop/nothing:1", f"{NGINX}:1"]
    tool, *_manifest = clean.manifest("shop/tool", "2")
    moved = {"as": f"{NGINX}:1"}  # the tag that would move
    names = {"registry_username": "shop", "registry_password": "wr0ng-for-tests"}
    tasks = [
        pull("foresee", images, check=True),
        pull("some", images),
        pull("wrong", [f"{TOOL}:2"], **names),
        pull("wrong foreseen", [f"{TOOL}:2"], check=True, **names),
        pull("none", [f"{TOOL}:2"], registry_username=None, registry_password=None),
        pull("platform", [f"{ARM}:1"]),
        pull("two meanings", [f"{TOOL}:1", "shop/UPPER:1"]),
        pull("latest", [f"{TOOL}"], tag_policy="refuse"),
        pull("nowhere", ["127.0.0.1:9/x/y:1"], retries=1),
        pull("unserved", [{"name": f"{TOOL}:1@sha256:{'0' * 64}", **moved}]),
        pull("of another", [{"name": f"{NGINX}:1@{tool}", **moved}]),
        # Engines read the directory of a registry anew with every request.
        {"name": "distrust", "ansible.builtin.raw": f"mv {CERTS}/{TLS_REGISTRY} /var/tmp/trust"},
        pull("authority", [{"name": f"{TOOL}:2@{tool}", **moved}]),
        pull("authority foreseen", [f"{TOOL}:2"], check=True),
        {"name": "trust", "ansible.builtin.raw": f"mv /var/tmp/trust {CERTS}/{TLS_REGISTRY}"},
    ]
    told = clean.results("nodes", tasks)
    for node in NODES:
        for task in ("foresee", "some"):
            one = told[task][node]
            assert one["failed"] and one["changed"]
            assert [action for _name, action in actions(one)] == [
                "pulled", "failed", "failed", "pulled",
            ]  # fmt: skip
            assert f"{TOOL}:nope: wanted from {TLS_REGISTRY}" in one["msg"]
            assert "shop/nothing:1" in one["msg"]
            assert one["msg"].count("check its name, tag and digest") == 2
            assert [image["attempts"] for image in one["images"]][1:3] == [1, 1]
        for task in ("wrong", "wrong foreseen", "none"):
            one = told[task][node]
            assert one["failed"] and not one["changed"]
            assert "registry_username" in one["msg"], one["msg"]
            assert one["images"][0]["attempts"] == 1
        assert "choose an image that has this platform" in told["platform"][node]["msg"]
        assert "no image reference" in told["two meanings"][node]["msg"]
        assert "a concrete tag or a digest is wanted" in told["latest"][node]["msg"]
        one = told["nowhere"][node]
        assert "connection refused" in one["msg"]
        assert one["images"][0]["attempts"] == 2
        for task, step in (
            ("unserved", "check its name, tag and digest"),
            ("of another", "check its name, tag and digest"),
            ("authority", f"have the Engine trust it ({CERTS}/{TLS_REGISTRY}/ca.crt)"),
            ("authority foreseen", f"have the Engine trust it ({CERTS}/{TLS_REGISTRY}/ca.crt)"),
        ):
            one = told[task][node]
            assert one["failed"] and not one["changed"]
            assert one["images"][0]["attempts"] == 1
            assert one["msg"].endswith(step), one["msg"]
        assert "certificate signed by unknown authority" in told["authority"][node]["msg"]
        assert clean.names(node) == {f"{TOOL}:1", f"{NGINX}:1"}
        assert id_of(clean, node, f"{NGINX}:1") == told["some"][node]["images"][3]["id"]
    assert "wr0ng" not in str(told) and PASSWORD not in str(told)


def test_through_another_registry(clean: Rig) -> None:
    """`via`: the images of docker.io from the site's registry, under their own names."""
    images = ["shop/tool:1", {"name": "shop/tool:2", "as": SITE}]
    via = {"via": TLS_REGISTRY}
    tasks = [
        pull("foresee", images, check=True, **via),
        pull("create", images, **via),
        pull("repeat", images, **via),
        pull("always", images, policy="always", **via),
    ]
    told = clean.results("nodes", tasks)
    for node in NODES:
        for task in ("foresee", "create"):
            assert [action for _name, action in actions(told[task][node])] == ["pulled"] * 2
        for task in ("repeat", "always"):
            assert not told[task][node]["changed"], told[task][node]
            assert [action for _name, action in actions(told[task][node])] == ["none"] * 2
        assert clean.names(node) == {"shop/tool:1", SITE}
        assert left(clean, node, TLS_REGISTRY) == []
        clean.inside(node, "docker", "rmi", "shop/tool:1", SITE)
        assert left(clean, node, "tool") == []
        if not is_classic(node):
            assert clean.held(node) == ()
