# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done about a builder, and the spellings of its settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _builder_plan as planning
from ansible_collections.fleet.images.plugins.module_utils import _builder_words as words
from ansible_collections.fleet.images.plugins.module_utils._builder_plan import (
    Kept,
    Plan,
    Wanted,
)
from ansible_collections.fleet.images.plugins.module_utils._builder_words import (
    IMPLIED,
    SettingError,
    Settings,
    Wish,
)

HERE = "unix:///var/run/docker.sock"
CONTAINER, REMOTE, KUBERNETES = "docker-container", "remote", "kubernetes"
ONE = Settings("x0", HERE, (), {"image": "a"}, (IMPLIED,))
TWO = Settings("x1", "ssh://root@two", ("linux/arm64",), {}, (IMPLIED,))


def plan(found: Kept | None, idle: tuple[str, ...] = (), **wanted: Any) -> Plan:
    return planning.plan(found, Wanted("x", here=HERE, **wanted), idle)


def steps(plan: Plan) -> list[tuple[str, str, bool, str]]:
    return [(step.do, step.settings.name, step.retire, step.cache) for step in plan.steps]


def common(**named: Any) -> dict[str, Wish]:
    return {"common": Wish("", **named)}


def test_a_new_one() -> None:
    made = plan(None)
    assert (made.driver, made.nodes, made.remade) == (CONTAINER, (Settings("x0", HERE),), False)
    assert steps(made) == [("created", "x0", False, "")]
    nodes = (Wish("a", "tcp://a:1"), Wish("b", "tcp://b:1"))
    made = plan(None, driver=REMOTE, nodes=nodes)
    assert [one[:2] for one in steps(made)] == [("created", "a"), ("added", "b")]


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"driver_opts": {"image": "a"}},
        {"flags": ()},
        {"flags": (IMPLIED,)},
        {"platforms": ()},
        {"files": {"buildkitd.toml": b"\n"}},
    ],
)
def test_nothing_to_do(named: dict[str, Any]) -> None:
    """What is not named is not compared; what buildx adds by itself is no difference."""
    assert plan(Kept("x", CONTAINER, (ONE,)), **common(**named)).steps == ()
    nodes = (Wish("x0", **named), Wish("x1"))
    assert plan(Kept("x", CONTAINER, (TWO, ONE)), nodes=nodes).steps == ()


CHANGES: dict[str, dict[str, Any]] = {
    "driver_opts": {"driver_opts": {"image": "b"}},
    "buildkitd_flags": {"flags": ("--debug",)},
    "platforms": {"platforms": ("linux/386",)},
    "buildkitd_config": {"files": {"buildkitd.toml": b"debug = true\n"}},
}


@pytest.mark.parametrize("name", [*CHANGES])
def test_a_setting_changes(name: str) -> None:
    """In place, where no BuildKit was started with the old one; and where that does not matter."""
    found = Kept("x", CONTAINER, (replace(ONE, files={"buildkitd.toml": b"x"}),))
    idle = plan(found, ("x0",), **common(**CHANGES[name]))
    assert steps(idle) == [("changed", "x0", False, "")] and not idle.remade
    assert name in idle.steps[0].reason and ": wanted " in idle.steps[0].reason
    started = plan(found, (), **common(**CHANGES[name]))
    if name == "platforms":
        assert started == idle
    else:
        assert steps(started) == [("remade", "x0", True, "kept")] and started.remade


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("driver_opts", {}, ONE),
        ("platforms", (), replace(TWO, name="x0")),
        ("flags", (), replace(ONE, flags=("--debug",))),
        ("files", {"buildkitd.toml": b"x"}, ONE),
        (
            "files",
            {"buildkitd.toml": b"x"},
            replace(ONE, files={"buildkitd.toml": b"y", "c": b"z"}),
        ),
    ],
)
def test_what_buildx_cannot_change(name: str, value: Any, found: Settings) -> None:
    """`create --append` leaves what is empty as it was, and files where they are."""
    made = plan(Kept("x", CONTAINER, (found,)), ("x0",), **common(**{name: value}))
    assert [one[:3] for one in steps(made)] == [("remade", "x0", False)] and made.remade


def test_one_node_of_two() -> None:
    """The other is left alone, whatever it needs."""
    found = Kept("x", CONTAINER, (ONE, TWO))
    nodes = (Wish("x0"), Wish("x1", driver_opts={"network": "host"}))
    made = plan(found, nodes=nodes)
    assert steps(made) == [("remade", "x1", True, "kept")] and not made.remade
    made = plan(found, nodes=nodes[:1])
    assert steps(made) == [("left", "x1", True, "lost")] and not made.remade
    made = plan(found, ("x1",), nodes=(*nodes[:1], Wish("x2", "ssh://three")))
    assert [one[:3] for one in steps(made)] == [("left", "x1", False), ("added", "x2", False)]
    made = plan(found, nodes=(Wish("y", "ssh://three"),))
    assert [one[0] for one in steps(made)] == ["left", "left", "added"] and made.remade


def test_another_endpoint() -> None:
    """The cache is where the node was; a BuildKit of its own driver is not ours to remove."""
    there = Wish("x0", "ssh://three")
    assert steps(plan(Kept("x", CONTAINER, (ONE,)), nodes=(there,))) == [
        ("remade", "x0", True, "lost")
    ]
    found = Kept("x", REMOTE, (Settings("x0", "tcp://a:1"), Settings("x1", "tcp://b:1")))
    made = plan(found, nodes=(Wish("x0", "tcp://c:1"), Wish("x1")))
    assert steps(made) == [("changed", "x0", False, "")]
    made = plan(found, nodes=(Wish("x0", "tcp://b:1"), Wish("x1", "tcp://a:1")))
    assert [one[:3] for one in steps(made)] == [("remade", name, False) for name in ("x0", "x1")]


def test_another_driver() -> None:
    made = plan(Kept("x", CONTAINER, (ONE,)), driver=REMOTE, nodes=(Wish("x0", "tcp://a:1"),))
    assert steps(made) == [("left", "x0", True, "lost"), ("created", "x0", False, "")]
    assert made.remade and made.nodes == (Settings("x0", "tcp://a:1"),)
    assert made.steps[0].reason == "driver: wanted remote, found docker-container"
    made = plan(Kept("x", KUBERNETES, (replace(ONE, endpoint="kubernetes:///x"),)))
    assert (made.driver, made.steps) == (KUBERNETES, ())


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"driver": REMOTE}, "node x0: driver remote: wanted an endpoint"),
        ({"driver": KUBERNETES, "nodes": (Wish("a", "ssh://a"),)}, "takes no endpoint"),
        ({"nodes": (Wish("a", HERE), Wish("b", HERE))}, "endpoint unix:///var/run/docker.sock"),
        ({"nodes": (Wish("a", HERE), Wish("a", "ssh://a"))}, "name a: wanted at one node"),
        (
            {"nodes": (Wish("a", platforms=("p",)), Wish("b", "ssh://b", ("p",)))},
            "platform p: wanted at one node, found at a and b",
        ),
    ],
)
def test_what_no_builder_can_be(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        plan(None, **wanted)


def test_reasons_hide_variables_and_name_what_differs() -> None:
    found = replace(ONE, driver_opts={"env.TOKEN": "one", "image": "a", "memory": "1g"})
    wanted = replace(ONE, driver_opts={"env.TOKEN": "two", "image": "a"})
    (unlike,) = planning.differences(found, wanted, CONTAINER)
    assert str(unlike) == (
        "driver_opts: wanted env.TOKEN=(hidden), found env.TOKEN=(hidden),memory=1g"
    )
    assert words.masked({"env.A": "secret", "b": "c"}) == {"b": "c", "env.A": "(hidden)"}


@pytest.mark.parametrize(
    ("found", "wanted", "options", "same"),
    [
        ([IMPLIED], (), {}, True),
        ([], (), {}, True),
        (["--debug", IMPLIED], ("--debug",), {}, True),
        (["--debug"], (), {}, False),
        ([f"{words.ENTITLEMENT}=security.insecure", IMPLIED],
         (f"{words.ENTITLEMENT}=security.insecure",), {}, False),
        ([f"{words.ENTITLEMENT}=security.insecure", IMPLIED],
         (f"{words.ENTITLEMENT}=security.insecure",), {"network": "host"}, True),
    ],
)  # fmt: skip
def test_flags(found: list[str], wanted: tuple[str, ...], options: Any, same: bool) -> None:
    node = Settings("x", driver_opts=options, flags=wanted)
    assert words.same_flags(found, node, CONTAINER) is same


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        (HERE, HERE, True),
        ("tcp://a:2375", "tcp://a", True),
        ("tcp://a:2376", "a", True),
        ("kubernetes:///x?deployment=y", "", True),
        ("tcp://a:1", "tcp://a:2", False),
        ("context", "other", False),
    ],
)
def test_endpoints(found: str, wanted: str, same: bool) -> None:
    assert words.same_endpoint(found, wanted) is same


def test_arguments() -> None:
    node = Settings(
        "n", "ssh://a", ("linux/arm64",), {"env.NO_PROXY": 'a,"b"', "image": "i"}, ("--a", "b c")
    )
    assert words.arguments("x", CONTAINER, node, "/c.toml", HERE, append=True) == [
        *("--name", "x", "--driver", CONTAINER, "--node", "n", "--append"),
        *("--platform", "linux/arm64"),
        *("--driver-opt", '"env.NO_PROXY=a,""b"""', "--driver-opt", "image=i"),
        *("--buildkitd-flags", "--a 'b c'", "--buildkitd-config", "/c.toml", "ssh://a"),
    ]
    # What buildx finds by itself is left to it.
    assert words.arguments("x", CONTAINER, Settings("n", HERE), "", HERE, append=False) == [
        *("--name", "x", "--driver", CONTAINER, "--node", "n"),
    ]


def test_spellings() -> None:
    assert words.check_name("builder", "A-b.C_1") == "a-b.c_1"
    assert words.platforms_of(["x86_64", "linux/arm64/v8", "linux/amd64"]) == (
        *("linux/amd64", "linux/arm64"),
    )
    assert words.flags_of(["--a b", "--c='d e'"]) == ("--a", "b", "--c=d e")
    assert words.newer(REMOTE, ["cert", "default-load"]) == [
        ("driver_opts.default-load", (0, 14, 0))
    ]
    assert words.newer(KUBERNETES, ["env.A"]) == [("driver_opts.env.*", (0, 28, 0))]
    for call in (
        lambda: words.check_name("node", "1a"),
        lambda: words.platforms_of(["linux/"]),
        lambda: words.flags_of(["'"]),
    ):
        with pytest.raises(SettingError):
            call()
