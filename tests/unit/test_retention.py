# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images stay and why, which go and in which order; and what never goes, whatever is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stocked import sha

from ansible_collections.fleet.images.plugins.module_utils._amounts import PolicyError
from ansible_collections.fleet.images.plugins.module_utils._conditions import Subject, intermediate
from ansible_collections.fleet.images.plugins.module_utils._inventory import Container, Image
from ansible_collections.fleet.images.plugins.module_utils._policy import Policy
from ansible_collections.fleet.images.plugins.module_utils._reference import parse
from ansible_collections.fleet.images.plugins.module_utils._retention import (
    Budgets,
    Verdict,
    along,
    decide,
    exceeded,
    keep_bases,
    until,
)

DAY = 86400
NOW = 1_790_000_000
APP, WEB = "registry.example/shop/app", "registry.example/shop/web"
CLASSIC, CONTAINERD = STORES = ("classic", "containerd")
UNUSED = Policy("unused")
TIMES = ("built", "tagged", "used", "since")


def ago(days: float) -> int:
    return int(NOW - days * DAY)


class Shelf:
    """Images to decide about, by a short name each."""

    def __init__(self, store: str = CLASSIC) -> None:
        self.store = store
        self.subjects: dict[str, Subject] = {}

    def put(self, name: str, *references: str, parent: str = "", **more: Any) -> None:
        """`used_by`: name -> state of containers. Digests are those that an Engine would tell."""
        times = {key: more.pop(key) for key in TIMES if key in more}
        users = more.pop("used_by", {})
        containers = tuple(Container(sha(who)[7:], who, how, "") for who, how in users.items())
        digests = tuple(more.pop("digests", ()))
        if self.store == CONTAINERD:
            digests += tuple(f"{parse(one).name}@{sha(name)}" for one in references)
        image = Image(
            sha(name), tuple(sorted(references)), tuple(sorted(set(digests))),
            sha(parent) if parent else "", None, 1, 0, more.pop("labels", {}), None, containers,
            store=self.store,
        )  # fmt: skip
        assert not more
        self.subjects[name] = Subject(image, **times)
        if parent:
            below = self.subjects[parent]
            children = (*below.image.children, image.id)
            self.subjects[parent] = replace(below, image=replace(below.image, children=children))

    def name(self, id_: str) -> str:
        return next(name for name in self.subjects if sha(name) == id_)

    def decide(
        self, policy: Policy = UNUSED, protected: Mapping[str, str] | None = None
    ) -> list[Verdict]:
        shields = {sha(name): why for name, why in (protected or {}).items()}
        return decide(list(self.subjects.values()), policy, NOW, shields)

    def goers(self, policy: Policy = UNUSED, protected: Mapping[str, str] | None = None) -> str:
        """The short names of those that go, in order."""
        return self.names(one for one in self.decide(policy, protected) if one.goes)

    def names(self, verdicts: Iterable[Verdict]) -> str:
        return " ".join(self.name(one.image.id) for one in verdicts)

    def why(
        self, name: str, policy: Policy = UNUSED, protected: Mapping[str, str] | None = None
    ) -> str:
        """The reason of one image, `goes: ` or `stays: ` before it."""
        found = {one.image.id: one for one in self.decide(policy, protected)}[sha(name)]
        return f"{'goes' if found.goes else 'stays'}: {found.reason}"


@pytest.fixture(params=STORES)
def shelf(request: pytest.FixtureRequest) -> Shelf:
    return Shelf(request.param)


# scopes


def test_scope_dangling_is_the_prune_of_a_classic_store() -> None:
    shelf = Shelf()
    shelf.put("tagged", f"{APP}:1")
    shelf.put("both", f"{APP}:2", digests=[f"{APP}@{sha('x')}"])
    shelf.put("nameless")
    shelf.put("digest", digests=[f"{APP}@{sha('y')}"])
    shelf.put("step")
    shelf.put("child", parent="step")
    shelf.put("base", digests=[f"{WEB}@{sha('z')}"])
    shelf.put("above", f"{APP}:3", parent="base")
    shelf.put("busy", used_by={"db": "exited"})
    dangling = {"nameless", "digest", "child"}
    assert set(shelf.goers(Policy()).split()) == dangling
    assert shelf.why("tagged", Policy()) == "stays: it has a tag, and the scope is dangling"
    for name in ("step", "base"):
        assert shelf.why(name, Policy()) == "stays: images are built upon it"
    assert shelf.why("nameless", Policy()) == "goes: no name, no container uses it"
    assert shelf.why("digest", Policy()) == "goes: no tag, no container uses it"


def test_scope_dangling_is_the_prune_of_a_containerd_store() -> None:
    shelf = Shelf(CONTAINERD)
    shelf.put("tagged", f"{APP}:1")
    shelf.put("nameless")
    shelf.put("digest", digests=[f"{APP}@{sha('digest')}"])
    shelf.put("step")
    shelf.put("child", parent="step")
    shelf.put("busy", used_by={"db": "running"})
    assert set(shelf.goers(Policy()).split()) == {"nameless", "step", "child"}
    assert shelf.why("tagged", Policy()) == "stays: it has a tag, and the scope is dangling"
    assert shelf.why("digest", Policy()) == (
        "stays: it has a name by digest, and the scope is dangling"
    )


def test_scope_unused_is_what_no_container_uses(shelf: Shelf) -> None:
    shelf.put("tagged", f"{APP}:1")
    shelf.put("digest", digests=[f"{APP}@{sha('digest')}"])
    shelf.put("nameless")
    shelf.put("runs", f"{APP}:2", used_by={"db": "running", "old": "exited", "wait": "paused"})
    shelf.put("stopped", f"{APP}:3", used_by={"old": "created"})
    assert set(shelf.goers().split()) == {"tagged", "digest", "nameless"}
    assert shelf.why("tagged") == "goes: no container uses it"
    assert shelf.why("runs") == (
        "stays: used by the containers db (running), old (not running, exited), wait (running,"
        " paused)"
    )
    assert shelf.why("stopped") == "stays: used by the container old (not running, created)"


# what images are built upon


def stairs(store: str, **of_step: Any) -> Shelf:
    """As a classic builder makes them: a base, two nameless steps, an image upon these."""
    shelf = Shelf(store)
    shelf.put("base", f"{WEB}:1", digests=[f"{WEB}@{sha('base')}"])
    shelf.put("step1", parent="base", **of_step)
    shelf.put("step2", parent="step1")
    shelf.put("top", f"{APP}:1", parent="step2")
    return shelf


def test_steps_go_along_with_what_was_built_upon_them() -> None:
    shelf = stairs(CLASSIC)
    verdicts = shelf.decide()
    assert shelf.names(one for one in verdicts if one.goes) == "top base"
    assert shelf.why("step1") == shelf.why("step2") == "stays: images are built upon it"
    assert sorted(along(verdicts)) == sorted([sha("step2"), sha("step1")])


def test_steps_are_images_of_their_own_on_containerd() -> None:
    shelf = stairs(CONTAINERD)
    verdicts = shelf.decide()
    assert shelf.names(verdicts) == "top step2 step1 base"
    assert all(one.goes for one in verdicts) and along(verdicts) == []


def test_a_base_stays_for_what_stays() -> None:
    for name, others in (("top", ""), ("other", "top")):
        shelf = stairs(CLASSIC)
        shelf.put("other", f"{APP}:2", parent="step1")
        assert shelf.goers(protected={name: "why"}) == (others or "other")
        assert shelf.why("base", protected={name: "why"}) == (
            "stays: images that stay are built upon it"
        )
        assert shelf.why("step1", protected={name: "why"}) == "stays: images are built upon it"
        left = [sha("step2")] if name == "other" else []
        assert along(shelf.decide(protected={name: "why"})) == left
    assert shelf.goers() == "top other base"
    assert along(shelf.decide()) == [sha("step2"), sha("step1")]


def test_a_base_of_containerd_stays_for_nobody() -> None:
    shelf = stairs(CONTAINERD)
    assert shelf.goers(protected={"top": "why"}) == "step2 step1 base"


def test_what_was_built_upon_an_image_counts_even_if_it_is_not_told_of() -> None:
    shelf = Shelf()
    shelf.put("base", f"{WEB}:1")
    below = shelf.subjects["base"]
    children = replace(below.image, children=(sha("unknown"),))
    shelf.subjects["base"] = replace(below, image=children)
    assert shelf.why("base") == "stays: images that stay are built upon it"


def test_a_step_that_is_protected_stays_with_what_would_take_it_along() -> None:
    shelf = stairs(CLASSIC)
    for protected, policy in (
        ({"step1": "why"}, UNUSED),
        ({}, replace(UNUSED, protect=(sha("step1")[:20],))),
    ):
        assert shelf.goers(policy, protected) == ""
        said = shelf.why("top", policy, protected)
        assert said.startswith(f"stays: it is built upon {sha('step1')[:19]}, which is kept: ")
        assert shelf.why("base", policy, protected) == "stays: images that stay are built upon it"
    assert shelf.why("top", UNUSED, {"step1": "why"}).endswith("is kept: why")
    # The Engine stops there by itself.
    shelf = stairs(CLASSIC, used_by={"db": "exited"})
    verdicts = shelf.decide()
    assert shelf.names(one for one in verdicts if one.goes) == "top"
    assert along(verdicts) == [sha("step2")]
    assert shelf.why("base") == "stays: images that stay are built upon it"
    shelf.put("lower", parent="step1", labels={"keep": ""})
    assert shelf.goers(replace(UNUSED, protect_labels=("keep",))) == "top"


def test_a_name_stops_what_goes_along() -> None:
    shelf = stairs(CLASSIC)
    shelf.put("more", f"{APP}:2", parent="base")
    policy = replace(UNUSED, repositories=(APP,))
    assert shelf.goers(policy) == "top more"
    assert sorted(along(shelf.decide(policy))) == sorted([sha("step2"), sha("step1")])


def test_parents_that_go_round_in_circles_stay() -> None:
    shelf = Shelf()
    shelf.put("a", f"{APP}:1")
    shelf.put("b", f"{APP}:2", parent="a")
    one, other = shelf.subjects["a"], shelf.subjects["b"]
    image = replace(one.image, parent=sha("b"))
    shelf.subjects["a"] = replace(one, image=image)
    image = replace(other.image, children=(sha("a"),))
    shelf.subjects["b"] = replace(other, image=image)
    assert shelf.goers() == ""


# protection


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"protect": ("nginx", APP)}, f"protect names it: {APP}"),
        ({"protect": (f"{APP}:2",)}, f"protect names it: {APP}:2"),
        ({"protect": ("*/shop/*",)}, "protect names it: */shop/*"),
        ({"protect": (sha("app")[7:19],)}, f"protect names it: {sha('app')[7:19]}"),
        ({"protect": (f"{WEB}@{sha('x')}",)}, f"protect names it: {WEB}@{sha('x')}"),
        (
            {"protect_labels": ("no", "team")},
            "it has the label team, which protect_labels names",
        ),
        (
            {"protect_labels": ("team=other", "team=shop=1")},
            "it has the label team=shop=1, which protect_labels names",
        ),
        ({"protect_labels": ("none=",)}, "it has the label none=, which protect_labels names"),
    ],
)
def test_protection(shelf: Shelf, policy: dict[str, Any], reason: str) -> None:
    labels = {"team": "shop=1", "none": ""}
    shelf.put("app", f"{APP}:1", f"{APP}:2", digests=[f"{WEB}@{sha('x')}"], labels=labels)
    shelf.put("free", "registry.example/free:1")
    found = replace(UNUSED, **policy)
    assert shelf.why("app", found) == f"stays: {reason}"
    assert shelf.goers(found) == "free"


@pytest.mark.parametrize(
    "policy",
    [
        {"protect": (f"{APP}:3", "app", "shop/*")},
        {"protect_labels": ("tea", "team=", "team=shop2", "Team")},
    ],
)
def test_no_protection(shelf: Shelf, policy: dict[str, Any]) -> None:
    shelf.put("app", f"{APP}:1", labels={"team": "shop"})
    assert shelf.goers(replace(UNUSED, **policy)) == "app"


def test_protected_by_others(shelf: Shelf) -> None:
    shelf.put("app", f"{APP}:1", labels={"keep": ""})
    shelf.put("busy", f"{APP}:2", used_by={"db": "running"})
    shelf.put("mute", f"{APP}:3")
    protected = {"app": "the lock names it", "busy": "compose.yml names it", "mute": ""}
    policy = replace(UNUSED, protect_labels=("keep",))
    assert shelf.why("app", policy, protected) == "stays: the lock names it"
    assert shelf.why("busy", policy, protected) == "stays: used by the container db (running)"
    assert shelf.why("mute", policy, protected) == "stays: it is protected"
    assert shelf.why("app", policy) == "stays: it has the label keep, which protect_labels names"
    assert shelf.goers() == "app mute"


def test_a_pattern_that_is_none(shelf: Shelf) -> None:
    for policy in (
        Policy(protect=("a b*",)),
        Policy(repositories=("^a",)),
        Policy(repositories=(sha("app"),)),
    ):
        with pytest.raises(PolicyError):
            shelf.decide(policy)


# repositories


@pytest.mark.parametrize(
    ("names", "outside"),
    [
        ([f"{APP}:1", f"{APP}:2"], ""),
        ([f"{APP}:1", f"{WEB}:1"], ""),
        ([f"{APP}:1", "docker.io/library/nginx:1.27"], ""),
        ([f"{APP}:1", "docker.io/library/nginx:1.28"], "docker.io/library/nginx:1.28"),
        ([f"{APP}:1", "docker.io/team/app:1"], "docker.io/team/app:1"),
        (["registry.example/other/app:1"], "registry.example/other/app:1"),
    ],
)
def test_a_name_outside_of_repositories_keeps(shelf: Shelf, names: list[str], outside: str) -> None:
    shelf.put("app", *names)
    policy = replace(UNUSED, repositories=("registry.example/shop/*", "nginx:1.27"))
    if outside:
        said = f"stays: it has the name {outside}, which is outside of repositories"
        assert shelf.why("app", policy) == said
    else:
        assert shelf.goers(policy) == "app"


def test_digests_are_names_of_images_without_a_tag_there(shelf: Shelf) -> None:
    shelf.put("app", digests=[f"{APP}@{sha('app')}"])
    shelf.put("both", f"{APP}:1", digests=[f"{WEB}@{sha('both')}"])
    shelf.put("lost")
    said = "stays: it has no name, so it is of none of repositories"
    for policy in (UNUSED, Policy()):
        found = replace(policy, repositories=(APP,))
        assert shelf.why("lost", found) == said
        gone = policy is UNUSED or shelf.store == CLASSIC
        assert shelf.goers(found) == ("app" if gone else "")
    said = f"stays: it has the name {WEB}@{sha('both')}, which is outside of repositories"
    assert shelf.why("both", replace(UNUSED, repositories=(APP,))) == said
    assert shelf.goers(replace(UNUSED, repositories=(APP, WEB))) == "both app"


# ages

FUTURE = "in the future by this host's clock"


@pytest.mark.parametrize(
    ("policy", "times", "verdict"),
    [
        ({"built_before": 5 * DAY}, {"built": ago(5)}, "goes: {}, built 5 days ago"),
        (
            {"built_before": 5 * DAY},
            {"built": ago(5) + 1, "tagged": ago(9)},
            "stays: built 4 days ago, built_before asks for 5 days",
        ),
        ({"built_before": 5 * DAY}, {"tagged": ago(9)}, "stays: it has no build date"),
        (
            {"built_before": 5 * DAY},
            {"built": 0},
            "stays: its build date, 1970-01-01, says nothing about its age",
        ),
        (
            {"built_before": 0},
            {"built": 315_705_599},
            "stays: its build date, 1980-01-02, says nothing about its age",
        ),
        ({"built_before": 0}, {"built": 315_705_600}, "goes: {}, built 17063 days ago"),
        (
            {"built_before": 0},
            {"built": NOW + 1},
            f"stays: built {FUTURE}, built_before asks for less than a minute",
        ),
        (
            {"tagged_before": DAY},
            {"tagged": NOW},
            "stays: tagged, pulled or loaded less than a minute ago, tagged_before asks for 1 day",
        ),
        ({"tagged_before": DAY}, {"tagged": ago(31)}, "goes: {}, tagged 31 days ago"),
        (
            {"tagged_before": DAY},
            {"tagged": ago(1) + 1},
            "stays: tagged, pulled or loaded 23 hours ago, tagged_before asks for 1 day",
        ),
        (
            {"tagged_before": DAY},
            {"built": ago(99), "used": ago(99), "since": ago(99)},
            "stays: the Engine does not know when it was tagged, pulled or loaded",
        ),
        ({"unused_for": 9 * DAY}, {"used": ago(9)}, "goes: {}, unused for 9 days"),
        (
            {"unused_for": 9 * DAY},
            {"used": ago(8), "tagged": ago(20), "since": ago(30)},
            "stays: used 8 days ago, unused_for asks for 9 days",
        ),
        (
            {"unused_for": 9 * DAY},
            {"used": ago(40), "tagged": ago(8), "since": ago(30)},
            "stays: tagged, pulled or loaded 8 days ago, unused_for asks for 9 days",
        ),
        (
            {"unused_for": 9 * DAY},
            {"used": ago(40), "tagged": ago(30), "since": ago(8)},
            "stays: first seen here 8 days ago, unused_for asks for 9 days",
        ),
        (
            {"unused_for": 9 * DAY},
            {"used": ago(40), "tagged": ago(30), "since": ago(10)},
            "goes: {}, unused for 10 days",
        ),
        (
            {"unused_for": 9 * DAY},
            {"built": ago(99)},
            "stays: nobody knows when it was used last",
        ),
        # All of it has to hold.
        (
            {"built_before": DAY, "tagged_before": DAY, "unused_for": DAY},
            {"built": ago(50), "tagged": ago(31), "used": ago(20)},
            "goes: {}, built 50 days ago, tagged 31 days ago, unused for 20 days",
        ),
        (
            {"built_before": DAY, "tagged_before": DAY, "unused_for": 21 * DAY},
            {"built": ago(50), "tagged": ago(31), "used": ago(20)},
            "stays: used 20 days ago, unused_for asks for 21 days",
        ),
        (
            {"built_before": DAY, "tagged_before": 32 * DAY, "unused_for": DAY},
            {"built": ago(50), "tagged": ago(31), "used": ago(20)},
            "stays: tagged, pulled or loaded 31 days ago, tagged_before asks for 32 days",
        ),
        # Nothing is asked, so nothing need be known.
        ({}, {}, "goes: {}"),
        ({}, {"built": NOW, "tagged": NOW, "used": NOW, "since": NOW}, "goes: {}"),
    ],
)
def test_ages(shelf: Shelf, policy: dict[str, Any], times: dict[str, int], verdict: str) -> None:
    shelf.put("app", f"{APP}:1", **times)
    shelf.put("lost", **times)
    assert shelf.why("app", replace(UNUSED, **policy)) == verdict.format("no container uses it")
    said = verdict.format("no name, no container uses it")
    assert shelf.why("lost", Policy(**policy)) == said


# the newest


@pytest.mark.parametrize(
    ("count", "gone"),
    [
        (None, {"v3", "v2", "v1", "dev", "other"}),
        (0, {"v3", "v2", "v1", "dev", "other"}),
        (1, {"v3", "v2", "v1", "dev"}),
        (2, {"v2", "v1", "dev"}),
        (3, {"v1", "dev"}),
        (4, {"dev"}),
        (5, set()),
        (9, set()),
    ],
)
def test_keep_last_by_version(shelf: Shelf, count: int | None, gone: set[str]) -> None:
    """Images and not tags; one that is in use counts, and so does the best tag of an image."""
    shelf.put("v10", f"{APP}:1.10", f"{APP}:1", f"{APP}:latest", used_by={"db": "running"})
    shelf.put("v2", f"{APP}:1.2", tagged=NOW)
    shelf.put("v3", f"{APP}:aaa", f"{APP}:1.3", tagged=ago(9))
    shelf.put("v1", f"{APP}:1.1")
    shelf.put("dev", f"{APP}:dev")
    shelf.put("other", f"{WEB}:1")
    shelf.put("lost", tagged=NOW)
    policy = replace(UNUSED, keep_last=count)
    assert set(shelf.goers(policy).split()) == {*gone, "lost"}
    if count and count > 1:
        assert shelf.why("v3", policy) == f"stays: one of the newest {count} of {APP}"
    if count == 1:
        assert shelf.why("v3", policy) == ("goes: no container uses it, not one of the newest 1")
        assert shelf.why("lost", policy) == "goes: no name, no container uses it"


@pytest.mark.parametrize(
    ("count", "gone"),
    [
        (1, {"b", "c", "d", "e", "f"}),
        (2, {"c", "d", "e", "f"}),
        (3, {"d", "e", "f"}),
        (4, {"e", "f"}),
        (5, {"e"}),
        (6, set()),
    ],
)
def test_keep_last_by_time(shelf: Shelf, count: int, gone: set[str]) -> None:
    """`tagged`, else `built`; those of which no time is known come last, newer versions first."""
    shelf.put("a", f"{APP}:1", tagged=ago(1), built=ago(90))
    shelf.put("b", f"{APP}:2", built=ago(2))
    shelf.put("c", f"{APP}:3", tagged=ago(3), built=ago(0))
    shelf.put("d", f"{APP}:9", tagged=ago(4))
    shelf.put("e", f"{APP}:5", used=NOW, since=NOW)
    shelf.put("f", f"{APP}:6", built=0)
    policy = replace(UNUSED, keep_last=count, keep_last_by="time")
    assert set(shelf.goers(policy).split()) == gone
    assert "a" not in gone


def test_keep_last_of_any_repository(shelf: Shelf) -> None:
    shelf.put("old", f"{APP}:1", f"{WEB}:9")
    shelf.put("new", f"{APP}:2", f"{WEB}:8")
    shelf.put("oldest", f"{APP}:0", f"{WEB}:7")
    policy = replace(UNUSED, keep_last=1)
    assert shelf.goers(policy) == "oldest"
    assert shelf.why("new", policy) == f"stays: one of the newest 1 of {APP}"
    assert shelf.why("old", policy) == f"stays: one of the newest 1 of {WEB}"


# order


def test_cheapest_first_then_longest_unused() -> None:
    shelf = Shelf()
    pulled = [f"{APP}@{sha('pulled')}"]
    shelf.put("local-new", f"{WEB}:5", used=ago(1))
    shelf.put("local-old", f"{WEB}:6", since=ago(9))
    shelf.put("pulled-new", f"{APP}:1", digests=pulled, tagged=ago(2), used=ago(9))
    shelf.put("pulled-old", f"{APP}:2", digests=pulled, tagged=ago(9), used=ago(8))
    shelf.put("pulled-ever", digests=pulled)
    shelf.put("lost-new", used=ago(3), since=ago(9))
    shelf.put("lost-old", since=ago(4))
    shelf.put("b", f"{WEB}:2")
    shelf.put("a", f"{WEB}:3", f"{WEB}:1")
    assert shelf.goers() == (
        "lost-old lost-new pulled-ever pulled-old pulled-new a b local-old local-new"
    )


def test_a_child_goes_before_what_it_was_built_upon(shelf: Shelf) -> None:
    shelf.put("base", f"{WEB}:1", digests=[f"{WEB}@{sha('base')}"], used=ago(9))
    shelf.put("step", parent="base", used=ago(9))
    shelf.put("middle", f"{APP}:1", parent="step", used=ago(9))
    shelf.put("top", f"{APP}:2", parent="middle", used=ago(1))
    shelf.put("pulled", f"{WEB}:2", digests=[f"{WEB}@{sha('pulled')}"], used=ago(5))
    shelf.put("local", f"{APP}:3", used=ago(0))
    steps = {CLASSIC: "pulled top middle base local", CONTAINERD: "pulled top middle step base"}
    assert shelf.goers().startswith(steps[shelf.store])


def test_those_that_stay_are_told_by_name(shelf: Shelf) -> None:
    shelf.put("c", f"{WEB}:1")
    shelf.put("lost")
    shelf.put("b", f"{APP}:2")
    shelf.put("goes", f"{WEB}:2")
    shelf.put("a", f"{APP}:1")
    verdicts = shelf.decide(protected=dict.fromkeys(["a", "b", "c", "lost"], "why"))
    assert shelf.names(verdicts) == "goes a b c lost"
    assert [one.goes for one in verdicts] == [True] + 4 * [False]


# bases of the next bundle


def bases(**parts: str) -> tuple[Shelf, list[Verdict], dict[str, list[str]]]:
    """Images that go, in the order of their names, and a letter per layer."""
    shelf = Shelf()
    for number, name in enumerate(parts):
        shelf.put(name, f"{APP}:{name}", used=ago(90 - number))
    return shelf, shelf.decide(), {sha(name): list(letters) for name, letters in parts.items()}


@pytest.mark.parametrize(
    ("needed", "kept"),
    [
        ("", ""),
        ("x", ""),
        ("a", "four"),
        ("ab", "three"),
        ("abc", "three"),
        ("d", "four"),
        ("abcd", "four three"),
        ("e", "one"),
        ("abcde", "four one three"),
    ],
)
def test_bases_are_kept_by_few_images(needed: str, kept: str) -> None:
    shelf, verdicts, parts = bases(one="ae", two="ab", three="abc", four="ad")
    found = keep_bases(verdicts, needed, parts)
    assert shelf.names(one for one in found if not one.goes) == kept
    left = [name for name in ("one", "two", "three", "four") if name not in kept.split()]
    assert shelf.names(one for one in found if one.goes) == " ".join(left)
    for one in found:
        said = "the next thin bundle builds on its layers"
        assert one.reason == ("no container uses it" if one.goes else said)


def test_bases_that_stay_anyway() -> None:
    shelf, _verdicts, parts = bases(one="ab", two="abc", stays="ab")
    verdicts = shelf.decide(protected={"stays": "why"})
    assert keep_bases(verdicts, "ab", parts) == verdicts
    found = keep_bases(verdicts, "abc", parts)
    assert shelf.names(one for one in found if one.goes) == "one"
    assert [one.reason for one in found[1:]] == ["why", "the next thin bundle builds on its layers"]


def test_bases_keep_what_they_were_built_upon() -> None:
    shelf = stairs(CLASSIC)
    verdicts = shelf.decide()
    # The steps would go along: that they hold the layer helps nobody.
    parts = {sha("step1"): "s", sha("step2"): "st", sha("top"): "stu"}
    found = keep_bases(verdicts, {"s"}, parts)
    assert not any(one.goes for one in found) and along(found) == []
    reasons = {shelf.name(one.image.id): one.reason for one in found}
    assert reasons == {
        "top": "the next thin bundle builds on its layers",
        "base": "images that stay are built upon it",
        "step1": "images are built upon it",
        "step2": "images are built upon it",
    }


# targets and budgets


@pytest.mark.parametrize(
    ("wanted", "gone", "asked"),
    [
        (0, "", ""),
        (1, "a", "a"),
        (10, "a", "a"),
        (11, "a b c", "a b c"),
        (30, "a b c", "a b c"),
        (31, "a b c d", "a b c d"),
        (999, "a b c d", "a b c d"),
    ],
)
def test_until_the_target_is_reached(wanted: int, gone: str, asked: str) -> None:
    shelf, _verdicts, _parts = bases(a="", b="", c="", d="", e="")
    verdicts = shelf.decide(protected={"e": "why"})
    sizes = {"a": 10, "b": 0, "c": 20, "d": 5, "e": 999}
    seen = []

    def freed(id_: str) -> int:
        seen.append(shelf.name(id_))
        return sizes[seen[-1]]

    found = until(verdicts, freed, wanted)
    assert shelf.names(one for one in found if one.goes) == gone
    assert " ".join(seen) == asked
    stays = {shelf.name(one.image.id): one.reason for one in found if not one.goes}
    assert stays.pop("e") == "why"
    assert set(stays) == set("abcd") - set(gone.split())
    assert set(stays.values()) <= {"the target is reached without it"}
    assert shelf.names(found[len(gone.split()) :]) == " ".join(sorted([*stays, "e"]))


def test_nothing_goes_that_could_exceed_a_budget() -> None:
    shelf = Shelf()
    shelf.put("app", f"{APP}:1")
    verdicts = shelf.decide(protected={"app": "why"})
    assert exceeded(verdicts, Budgets(0, 0, 9), 0) == []
    assert exceeded(verdicts, Budgets(0, 0, 9), None) == []
    assert exceeded([], Budgets(), 0) == []


@pytest.mark.parametrize(
    ("budgets", "most", "said"),
    [
        (Budgets(), 10, []),
        (Budgets(), None, []),
        (Budgets(max_images=3), None, []),
        (Budgets(max_images=2), None, ["3 images would go, max_images allows 2: "]),
        (Budgets(max_bytes=10), 10, []),
        (Budgets(max_bytes=10), 11, ["up to 11 bytes would be freed, max_bytes allows 10: "]),
        (Budgets(max_bytes=10), None, ["how many bytes would be freed is not known"]),
        (Budgets(min_images_left=2), 0, []),
        (
            Budgets(min_images_left=3),
            0,
            ["2 images with a tag would be left, min_images_left asks for 3: narrow the policy"],
        ),
        (Budgets(0, 0, 9), 1, ["3 images", "up to 1 bytes", "2 images with a tag"]),
    ],
)
def test_budgets(budgets: Budgets, most: int | None, said: list[str]) -> None:
    shelf = Shelf()
    for name in ("one", "two", "stays", "too"):
        shelf.put(name, f"{APP}:{name}")
    shelf.put("lost")
    shelf.put("kept")
    verdicts = shelf.decide(protected=dict.fromkeys(["stays", "too", "kept"], "why"))
    found = exceeded(verdicts, budgets, most)
    assert len(found) == len(said)
    for sentence, beginning in zip(found, said):
        assert sentence.startswith(beginning) and "\n" not in sentence


def test_all_images_go_only_where_that_is_said_outright(shelf: Shelf) -> None:
    shelf.put("one", f"{APP}:1")
    shelf.put("lost")
    verdicts = shelf.decide()
    (said,) = exceeded(verdicts, Budgets(), 0)
    assert said.startswith("0 images with a tag would be left, min_images_left asks for 1: ")
    assert said.endswith("or set min_images_left to 0 if that is meant")
    assert exceeded(verdicts, Budgets(min_images_left=0), 0) == []
    # Nameless ones may all go.
    assert exceeded(shelf.decide(Policy()), Budgets(), 0) == []
    del shelf.subjects["one"]
    assert exceeded(shelf.decide(Policy()), Budgets(), 0) == []


# whatever the images and the policy

NAMES = [f"{repo}:{tag}" for repo in (APP, WEB) for tag in ("1", "2.0", "2.0-rc1", "dev")]
WHEN = st.none() | st.sampled_from([0, NOW + DAY, *(ago(days) for days in range(0, 30, 5))])
STATES = st.sampled_from(["running", "exited", "created", "paused"])


@st.composite
def shelves(draw: st.DrawFn) -> Shelf:
    """A tag is on one image only; each image was built upon one before it, or upon none."""
    shelf = Shelf(draw(st.sampled_from(STORES)))
    tags = draw(st.permutations(NAMES))
    for number in range(draw(st.integers(0, 7))):
        own = [tags.pop() for _name in range(draw(st.integers(0, min(2, len(tags)))))]
        pinned = [f"{WEB}@{sha(str(number))}"] if draw(st.integers(0, 3)) == 0 else []
        shelf.put(
            str(number),
            *own,
            parent=draw(st.sampled_from(["", *map(str, range(number))])),
            digests=pinned,
            labels=draw(st.sampled_from([{}, {}, {"keep": "yes"}])),
            used_by={"db": draw(STATES)} if draw(st.integers(0, 4)) == 0 else {},
            **{name: draw(WHEN) for name in TIMES},
        )
    return shelf


AGES = st.none() | st.sampled_from([0, 7 * DAY, 20 * DAY])
POLICIES = st.builds(
    Policy,
    scope=st.sampled_from(["dangling", "unused"]),
    repositories=st.sampled_from([(), (), (APP,), ("*/web",)]),
    built_before=AGES,
    tagged_before=AGES,
    unused_for=AGES,
    keep_last=st.none() | st.integers(0, 3),
    keep_last_by=st.sampled_from(["version", "time"]),
    protect=st.sampled_from([(), (), ("*:dev",), (f"{WEB}@*",)]),
    protect_labels=st.sampled_from([(), ("keep=yes",)]),
)
SOME = st.sets(st.integers(0, 6)).map(lambda found: {str(one): "why" for one in found})
FEW = st.sets(st.integers(0, 6), max_size=2).map(lambda found: {str(one): "why" for one in found})


def gone_of(verdicts: Sequence[Verdict]) -> set[str]:
    """IDs of all that is away afterwards."""
    return {*along(verdicts), *(one.image.id for one in verdicts if one.goes)}


@given(shelves(), POLICIES, FEW)
def test_what_is_used_or_protected_never_goes(
    shelf: Shelf, policy: Policy, protected: dict[str, str]
) -> None:
    verdicts = shelf.decide(policy, {k: v for k, v in protected.items() if k in shelf.subjects})
    gone = gone_of(verdicts)
    assert sorted(one.image.id for one in verdicts) == sorted(map(sha, shelf.subjects))
    assert all(one.reason for one in verdicts)
    for name, subject in shelf.subjects.items():
        image = subject.image
        held = image.containers or name in protected
        held = held or (policy.protect_labels and image.labels)
        held = held or (
            "*:dev" in policy.protect and any(":dev" in one for one in image.references)
        )
        assert not (held and image.id in gone)
        if policy.scope == "dangling" and image.id in gone:
            assert image.dangling or intermediate(image)


@given(shelves(), POLICIES, FEW, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    shelf: Shelf, policy: Policy, protected: dict[str, str], random: Any
) -> None:
    verdicts = shelf.decide(policy, protected)
    subjects = list(shelf.subjects.items())
    random.shuffle(subjects)
    shelf.subjects = dict(subjects)
    assert shelf.decide(policy, protected) == verdicts


@given(shelves(), POLICIES)
def test_keep_last_keeps_so_many(shelf: Shelf, policy: Policy) -> None:
    gone = gone_of(shelf.decide(policy))
    for repository in (APP, WEB):
        images = {
            subject.image.id
            for subject in shelf.subjects.values()
            if any(parse(one).name == repository for one in subject.image.references)
        }
        assert len(images - gone) >= min(policy.keep_last or 0, len(images))


@given(shelves(), POLICIES, FEW)
def test_a_child_goes_first(shelf: Shelf, policy: Policy, protected: dict[str, str]) -> None:
    """So an Engine takes every image of the plan: nothing that is left was built upon it."""
    verdicts = shelf.decide(policy, protected)
    order = [one.image.id for one in verdicts if one.goes]
    there = {one.image.id: one.image for one in verdicts}
    taken = []
    for id_ in order:
        image = there.pop(id_)
        children = [child for child in image.children if child in there]
        assert not (children and image.store == CLASSIC)
        assert not any(child in order for child in children)
        while image.parent in there:
            image = there[image.parent]
            busy = image.references or image.digests or image.containers
            if busy or image.store != CLASSIC or any(one in there for one in image.children):
                break
            taken.append(image.id)
            del there[image.id]
    assert along(verdicts) == taken


@given(shelves(), POLICIES, st.lists(st.integers(0, 9), min_size=7, max_size=7), st.integers(0, 30))
def test_a_target_takes_the_first_of_a_plan(
    shelf: Shelf, policy: Policy, sizes: list[int], wanted: int
) -> None:
    verdicts = shelf.decide(policy)
    found = until(verdicts, lambda id_: sizes[int(shelf.name(id_))], wanted)
    plan = [one for one in verdicts if one.goes]
    gone = [one for one in found if one.goes]
    assert gone == plan[: len(gone)]
    freed = [sizes[int(shelf.name(one.image.id))] for one in gone]
    assert sum(freed) >= wanted or len(gone) == len(plan)
    assert sum(freed[:-1]) < wanted or not gone
    assert sorted(one.image.id for one in found) == sorted(one.image.id for one in verdicts)
    assert set(along(found)) <= set(along(verdicts))


@given(shelves(), POLICIES, st.sets(st.sampled_from("abcd")), st.data())
def test_no_layer_is_lost_that_the_next_bundle_needs(
    shelf: Shelf, policy: Policy, needed: set[str], data: st.DataObject
) -> None:
    """On a classic store an image has the layers of what it was built upon."""
    parts: dict[str, set[str]] = {}
    for name, subject in shelf.subjects.items():
        own = data.draw(st.sets(st.sampled_from("abcde"), max_size=2))
        parts[sha(name)] = own | parts.get(subject.image.parent, set())
    verdicts = shelf.decide(policy)
    found = keep_bases(verdicts, needed, parts)
    assert sorted(one.image.id for one in found) == sorted(one.image.id for one in verdicts)
    assert gone_of(found) <= gone_of(verdicts)
    left = set[str]().union(*(own for id_, own in parts.items() if id_ not in gone_of(found)))
    assert needed & set[str]().union(*parts.values()) <= left
    assert keep_bases(found, needed, parts) == found
