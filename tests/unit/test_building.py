# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role image_build makes of its inventory and of its steps."""

from __future__ import annotations

import base64
from typing import Any

import pytest

pytest.importorskip("ansible")

from ansible.errors import AnsibleFilterError

from ansible_collections.fleet.images.plugins.plugin_utils import _building

SECRET = "not-to-be-seen"


def build(name: str, text: str = "FROM scratch", **more: Any) -> dict[str, Any]:
    return {"path": "/srv", "tags": [f"site.example/{name}:1"], "dockerfile_inline": text, **more}


def order(*builds: dict[str, Any], **dockerfiles: str) -> list[str]:
    paths = {f"/srv/{name}/Dockerfile": text for name, text in dockerfiles.items()}
    found = _building.order(builds, paths)
    assert [sorted(one) for one in found] == [["after", "makes", "number", "path", "tags"]] * len(
        builds
    )
    return [builds[one["number"]]["tags"][0].split("/")[1][:-2] for one in found]


def test_the_order_is_that_of_what_builds_on_what() -> None:
    app = build("app", "FROM site.example/base:1\nCOPY --from=site.example/tool:1 /x /x\n")
    base, tool = build("base"), build("tool", needs=["site.example/base:1"])
    assert order(app, tool, base) == ["base", "tool", "app"]
    assert order(base, tool, app) == ["base", "tool", "app"]
    context = build("context", build_contexts={"x": "docker-image://site.example/app:1"})
    assert order(context, app, tool, base) == ["base", "tool", "app", "context"]


def test_dockerfiles_that_were_read_and_those_that_were_not() -> None:
    one = {"path": "/srv/one", "tags": ["site.example/one:1"]}
    two = {"path": "/srv/two", "tags": ["site.example/two:1"]}
    assert order(one, two, one="FROM site.example/two:1") == ["two", "one"]
    assert order(one, two) == ["one", "two"]
    assert order(one, two, one="no Dockerfile") == ["one", "two"]
    assert _building.dockerfiles([one, {**two, "dockerfile": "d/x"}, build("inline")]) == [
        "/srv/one/Dockerfile", "/srv/two/d/x",
    ]  # fmt: skip
    assert _building.dockerfiles([{"path": "https://x.example/a.git"}]) == []
    content = base64.b64encode(b"FROM a").decode()
    read = [{"item": "/a", "content": content}, {"item": "/b", "msg": "not there"}]
    assert _building.read_files(read) == {"/a": "FROM a"}


def test_a_build_on_itself_and_others_in_a_circle() -> None:
    assert order(build("app", "FROM site.example/app:1")) == ["app"]
    one, two = build("one", "FROM site.example/two:1"), build("two", "FROM site.example/one:1")
    with pytest.raises(AnsibleFilterError, match=r"one:1, site\.example/two:1 need each other"):
        order(one, two)
    with pytest.raises(AnsibleFilterError, match=r"two of them make site\.example/one:1"):
        order(one, build("one"))


def test_a_name_is_the_same_however_it_is_written() -> None:
    hub = {"path": "/srv", "tags": ["docker.io/library/base"], "dockerfile_inline": "FROM scratch"}
    found = _building.order([build("app", "FROM base:latest"), hub], {})
    assert [one["number"] for one in found] == [1, 0]
    assert found[1]["after"] == found[0]["makes"] == ["docker.io/library/base:latest"]


def test_no_secret_of_a_build_is_noted() -> None:
    secret = build("app", secrets=[{"id": "x", "value": SECRET}], args={"x": SECRET})
    assert SECRET not in str(_building.order([secret], {}))


def kernel(*handlers: tuple[str, str, str, str], machine: str = "x86_64") -> str:
    lines = [machine, "/proc/sys/fs/binfmt_misc/status:enabled"]
    for name, state, program, flags in handlers:
        told = (state, f"interpreter {program}", f"flags: {flags}", "offset 0")
        lines += [f"/proc/sys/fs/binfmt_misc/{name}:{line}" for line in told]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("told", "platforms", "pinned", "lacking"),
    [
        (kernel(), ["linux/amd64", "linux/386"], [], []),
        (kernel(), ["linux/amd64", "linux/arm64", "linux/arm/v7"], [], ["aarch64", "arm"]),
        (kernel(), ["linux/arm64"], ["linux/arm64"], []),
        (kernel(machine="aarch64"), ["linux/arm64", "linux/amd64"], [], ["x86_64"]),
        (kernel(("q", "enabled", "/usr/bin/qemu-aarch64", "POF")), ["linux/arm64"], [], []),
        (kernel(("q", "enabled", "/usr/bin/qemu-aarch64-static", "F")), ["linux/arm64"], [], []),
        (kernel(("q", "enabled", "/usr/bin/qemu-aarch64", "PO")), ["linux/arm64"], [], ["aarch64"]),
        (kernel(("q", "disabled", "/usr/bin/qemu-aarch64", "F")), ["linux/arm64"], [], ["aarch64"]),
        (kernel(("q", "enabled", "/usr/bin/wine", "F")), ["linux/arm64"], [], ["aarch64"]),
        ("x86_64", [], [], []),
    ],
)
def test_handlers_that_a_kernel_lacks(
    told: str, platforms: list[str], pinned: list[str], lacking: list[str]
) -> None:
    assert _building.handlers(told, platforms, pinned) == lacking


def test_hosts_as_nodes() -> None:
    hosts = [
        {"inventory_hostname": "arm1.example", "image_build_node_platforms": ["linux/arm64"]},
        {"inventory_hostname": "b", "ansible_host": "192.0.2.7", "ansible_user": "me",
            "ansible_port": 2222},
    ]  # fmt: skip
    assert _building.nodes(hosts) == [
        {"name": "arm1-example", "endpoint": "ssh://root@arm1.example",
            "platforms": ["linux/arm64"]},
        {"name": "b", "endpoint": "ssh://me@192.0.2.7:2222"},
    ]  # fmt: skip


DONE = {
    "changed": True, "msg": "a: built", "digest": f"sha256:{'a' * 64}", "seconds": 1.5, "steps": 4,
    "cached_steps": 3, "lock": {"version": 1, "images": {"a": {"digest": "x"}}},
    "platforms": {"linux/arm64": {"digest": "b", "size": 5}, "linux/amd64": {"size": 7}},
}  # fmt: skip


def entry(name: str, result: dict[str, Any], refused: str = "") -> dict[str, Any]:
    made = {"tags": [f"site.example/{name}:1"], "path": "/srv", "makes": [], "after": []}
    return {"build": made, "result": result, "refused": refused}


def test_the_outcome_of_a_host() -> None:
    told = _building.outcome("b1", {"builds": [entry("a", DONE)], "order": {}, "builder": {}})
    assert told["done"] and told["changed"] and told["lock"] == DONE["lock"]
    (row,) = told["builds"]
    assert (row["platforms"], row["bytes"], row["cached"]) == (
        "linux/amd64, linux/arm64",
        12,
        "3/4",
    )
    assert (row["digest"], row["changed"], row["seconds"]) == ("a" * 12, "yes", 1.5)
    assert _building.outcome("b1", {"builds": [entry("a", {**DONE, "changed": False})]})["done"]


def test_what_goes_wrong_on_a_host() -> None:
    failed = entry("a", {"failed": True, "msg": "its reason"})
    after = entry("b", {"skipped": True}, "it builds on what could not be built: a")
    told = _building.outcome("b1", {"builds": [failed, entry("c", DONE), after]})
    assert not told["done"] and told["reason"].startswith("its reason; it builds on")
    assert [row["done"] for row in told["builds"]] == [False, True, False]
    assert told["lock"] == DONE["lock"]
    early = _building.outcome("b1", {"emulation": {"failed": True, "msg": "no binfmt_misc"}})
    assert not early["done"] and early["reason"] == "no binfmt_misc" and early["lock"] is None


def test_rows_and_locks_of_all_hosts() -> None:
    good = {"inventory_hostname": "b1", "image_build_result": None}
    good["image_build_result"] = _building.outcome("b1", {"builds": [entry("a", DONE)]})
    early = {"inventory_hostname": "b2", "image_build_result": None}
    early["image_build_result"] = _building.outcome("b2", {"builder": {"failed": True, "msg": "x"}})
    lost = {"inventory_hostname": "b3"}
    rows = _building.rows([good, early, lost])
    assert [(row["host"], row["done"]) for row in rows] == [
        ("b1", True), ("b2", False), ("b3", False),
    ]  # fmt: skip
    assert rows[2]["reason"] == "the run ended for it before the report"
    assert _building.locks([good, early, lost]) == DONE["lock"]
    assert _building.locks([lost]) is None
