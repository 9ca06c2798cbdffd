# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints, whether to build by them, and whether two builds gave the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from images import digest

from ansible_collections.fleet.images.plugins.module_utils._build_plan import (
    ALWAYS,
    AUTO,
    NEVER,
    Decision,
    There,
    decide,
)
from ansible_collections.fleet.images.plugins.module_utils._fingerprint import (
    LABEL,
    PARTS,
    Fingerprint,
    of_labels,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference
from ansible_collections.fleet.images.plugins.module_utils._reproducible import (
    Content,
    compare,
    contents,
    sentence,
)

PARTS_NOW = {"context": "sha256:1", "args": {"A": "1", "B": "2"}, "bases": {}, "dockerfile": "x"}
NOW = Fingerprint(PARTS_NOW)


# the fingerprint


@pytest.mark.parametrize(
    ("parts", "same"),
    [
        (PARTS_NOW, True),
        (dict(reversed(PARTS_NOW.items())), True),
        ({**PARTS_NOW, "args": {"B": "2", "A": "1"}}, True),
        ({**PARTS_NOW, "args": {"A": "2", "B": "1"}}, False),
        ({**PARTS_NOW, "args": {}}, False),
        ({**PARTS_NOW, "dockerfile": None}, False),
        ({**PARTS_NOW, "more": ""}, False),
        ({name: one for name, one in PARTS_NOW.items() if name != "bases"}, False),
        ({**PARTS_NOW, "dockerfile": "x\udcff\u2028"}, False),
    ],
)
def test_the_fingerprint_is_that_of_all_parts(parts: dict[str, Any], same: bool) -> None:
    other = Fingerprint(parts)
    assert (other.digest == NOW.digest) is same
    assert other.digest.startswith("sha256:") and len(other.digest) == 71


def test_what_cannot_be_seen_is_no_part_of_it() -> None:
    assert Fingerprint(PARTS_NOW, ("a URL",)).digest == NOW.digest


def test_the_fingerprint_stays_the_same_over_releases() -> None:
    """Another one would have every image built again."""
    assert Fingerprint({}).digest == (
        "sha256:ede0de807492408040925c13f91e20c5a5152f167d2e5fc064c61aa4b71f7267"
    )


def test_labels() -> None:
    labels = NOW.labels()
    assert labels[LABEL] == NOW.digest == of_labels(labels)
    names = [part.partition("=")[0] for part in labels[PARTS].split(",")]
    assert names == sorted(PARTS_NOW) and len(labels[PARTS]) < 100


@pytest.mark.parametrize("labels", [None, {}, {"other": "x"}, {LABEL: ""}])
def test_without_a_fingerprint(labels: Any) -> None:
    assert of_labels(labels) == ""


@pytest.mark.parametrize(
    ("then", "changes"),
    [
        (PARTS_NOW, []),
        ({**PARTS_NOW, "context": "sha256:2"}, ["context"]),
        ({**PARTS_NOW, "context": "", "args": {}}, ["args", "context"]),
        ({**PARTS_NOW, "old": 1}, ["old"]),
        ({"context": "sha256:1"}, ["args", "bases", "dockerfile"]),
    ],
)
def test_what_changed(then: dict[str, Any], changes: list[str]) -> None:
    assert NOW.changes(Fingerprint(then).labels()) == changes


@pytest.mark.parametrize("labels", [{}, {PARTS: ""}, {PARTS: ",,"}])
def test_without_parts_nothing_is_said_of_changes(labels: dict[str, str]) -> None:
    assert NOW.changes(labels) == []


def test_parts_in_disorder_are_changed_ones() -> None:
    assert NOW.changes({PARTS: "nonsense"}) == [*sorted(PARTS_NOW), "nonsense"]


# the decision

BOTH = {"linux/amd64": "sha256:a", "linux/arm64": "sha256:b"}
LABELS = NOW.labels()
OLD = Fingerprint({**PARTS_NOW, "context": "sha256:0"}).labels()
GOOD = There(LABELS, BOTH)
SILENT = "a does not say what it was built from"
ONLY = "a has linux/amd64, linux/arm64 only"
UNSEEN = Fingerprint(PARTS_NOW, ("a URL may change", "a repository"))


@pytest.mark.parametrize(
    ("rebuild", "there", "how", "build", "reason"),
    [
        (AUTO, {"a": GOOD}, {}, False, "nothing that goes in has changed"),
        (AUTO, {"a": GOOD, "b": GOOD}, {}, False, "nothing that goes in has changed"),
        # What is missing is built, whatever else is said.
        (AUTO, {"a": None}, {}, True, "not there yet: a"),
        (AUTO, {"a": None, "b": GOOD, "c": None}, {}, True, "not there yet: a, c"),
        (NEVER, {"a": GOOD, "b": None}, {}, True, "not there yet: b"),
        (ALWAYS, {"a": None}, {}, True, "not there yet: a"),
        # What is there stays.
        (NEVER, {"a": There(OLD, BOTH)}, {}, False, "it is there, and rebuild is never"),
        (NEVER, {"a": GOOD}, {"moving": ["x"]}, False, "it is there, and rebuild is never"),
        # What goes in has changed.
        (AUTO, {"a": There(OLD, BOTH)}, {}, True, "changed since it was built: context"),
        (AUTO, {"a": GOOD, "b": There(OLD, BOTH)}, {}, True, "changed since it was built: context"),
        (ALWAYS, {"a": There(OLD, BOTH)}, {}, True, "changed since it was built: context"),
        (AUTO, {"a": There({}, BOTH)}, {}, True, SILENT),
        (AUTO, {"a": There({LABEL: "sha256:0"}, BOTH)}, {}, True, SILENT),
        # Platforms.
        (AUTO, {"a": GOOD}, {"platforms": ["linux/arm64", "linux/amd64"]}, False, "nothing that"),
        (AUTO, {"a": GOOD}, {"platforms": ["linux/arm64/v8", "x86_64"]}, False, "nothing that"),
        (AUTO, {"a": GOOD}, {"platforms": ["linux/amd64", *BOTH]}, False, "nothing that"),
        (AUTO, {"a": GOOD}, {"platforms": ["linux/amd64"]}, True, ONLY),
        (AUTO, {"a": GOOD}, {"platforms": [*BOTH, "linux/arm"]}, True, ONLY),
        (AUTO, {"a": There(LABELS, {})}, {"platforms": ["linux/arm"]}, True, "a has no platform"),
        (AUTO, {"a": There(LABELS, {})}, {}, False, "nothing that"),
        # Bases that other builds of the play make.
        (AUTO, {"a": GOOD}, {"moving": ["x", "y"]}, True, "it builds on what changes: x, y"),
    ],
)  # fmt: skip
def test_decisions(
    rebuild: str, there: dict[str, Any], how: dict[str, Any], build: bool, reason: str
) -> None:
    found = decide(rebuild, NOW, there, **how)
    assert found.build is build and found.reason.startswith(reason)
    assert not found.same


OTHER = There(LABELS, {**BOTH, "linux/amd64": "sha256:c"})


@pytest.mark.parametrize(
    ("rebuild", "fingerprint", "there", "reason"),
    [
        (ALWAYS, NOW, {"a": GOOD}, "rebuild is always"),
        (ALWAYS, UNSEEN, {"a": GOOD}, "rebuild is always"),
        (AUTO, UNSEEN, {"a": GOOD}, "only a build can tell: a URL may change; a repository"),
        (AUTO, NOW, {"a": GOOD, "b": OTHER}, "not the same image in all places: a, b"),
        (ALWAYS, NOW, {"a": GOOD, "b": OTHER}, "not the same image in all places: a, b"),
    ],
)
def test_what_may_turn_out_the_same(
    rebuild: str, fingerprint: Fingerprint, there: dict[str, There], reason: str
) -> None:
    assert decide(rebuild, fingerprint, there) == Decision(True, reason, True)


def test_an_engine_has_names_of_its_own() -> None:
    """A classic store by its ID, a loaded archive by another manifest: that is no difference."""
    engine = There(LABELS, {"linux/amd64": "sha256:id"}, True)
    moved = There(LABELS, {"linux/amd64": "sha256:other"}, True)
    assert not decide(AUTO, NOW, {"registry": GOOD, "engine": engine}).build
    assert decide(AUTO, NOW, {"engine": engine, "second tag": moved}).same
    assert decide(AUTO, NOW, {"registry": GOOD, "store": OTHER, "engine": engine}).same


def test_a_platform_that_is_none() -> None:
    with pytest.raises(InvalidReference, match="is no platform"):
        decide(AUTO, NOW, {"a": GOOD}, ["linux/amd64/v1/x"])


# two builds


def image(documents: dict[str, bytes], platform: str, *steps: tuple[str, str], **more: Any) -> str:
    """The digest of a manifest: of each step what made it, and its layer ('' for none)."""
    os_name, architecture = platform.split("/")
    history = [{"created_by": by} if layer else {"created_by": by, "empty_layer": True}
               for by, layer in steps]  # fmt: skip
    diff_ids = [digest(layer) for _by, layer in steps if layer]
    config = {"os": os_name, "architecture": architecture, "history": history, **more}
    config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    manifest = {"config": {"digest": put(documents, config)}}
    return put(documents, manifest)


def put(documents: dict[str, bytes], document: Any) -> str:
    content = json.dumps(document).encode()
    named = digest(content.decode())
    documents[named] = content
    return named


def index(documents: dict[str, bytes], **manifests: str) -> str:
    entries = [
        {"digest": one, "platform": {"os": "linux", "architecture": name}}
        for name, one in manifests.items()
    ]
    nothing = {"os": "unknown", "architecture": "unknown"}
    entries.append({"digest": digest("an attestation"), "platform": nothing})
    return put(documents, {"manifests": entries})


BASE, RUN = ("ADD rootfs", "base"), ("RUN make", "made")


def test_the_content_of_an_index() -> None:
    documents: dict[str, bytes] = {}
    amd64 = image(documents, "linux/amd64", BASE, ("ENV a=b", ""), RUN)
    arm64 = image(documents, "linux/arm64", BASE)
    found = contents(index(documents, amd64=amd64, arm64=arm64), documents.__getitem__)
    assert found == {
        "linux/amd64": Content(
            amd64, ((digest("base"), "ADD rootfs"), (digest("made"), "RUN make"))
        ),
        "linux/arm64": Content(arm64, ((digest("base"), "ADD rootfs"),)),
    }


def test_the_content_of_a_manifest() -> None:
    documents: dict[str, bytes] = {}
    manifest = image(documents, "linux/amd64", BASE)
    assert list(contents(manifest, documents.__getitem__)) == ["linux/amd64"]


def test_layers_without_a_history() -> None:
    documents: dict[str, bytes] = {}
    manifest = image(documents, "linux/amd64", BASE, RUN, history=[])
    found = contents(manifest, documents.__getitem__)["linux/amd64"]
    assert [by for _diff_id, by in found.layers] == ["", ""]


ONE = Content("sha256:1", (("d0", "ADD"), ("d1", "RUN make")))
TIMES = Content("sha256:2", ONE.layers)
LAYER = Content("sha256:2", (("d0", "ADD"), ("d2", "RUN make")))
MORE = Content("sha256:2", (*ONE.layers, ("d3", "RUN more")))


@pytest.mark.parametrize(
    ("second", "layers", "words"),
    [
        ({"p": ONE}, [], ""),
        ({"p": TIMES}, [], "p: its config, as its times (set source_date_epoch)"),
        ({"p": LAYER}, [(1, "RUN make", ["d1", "d2"])], "p: layer 1 (RUN make)"),
        ({"p": MORE}, [(2, "RUN more", ["", "d3"])], "p: layer 2 (RUN more)"),
    ],
)
def test_what_differs(second: Any, layers: list[Any], words: str) -> None:
    told = compare({"p": ONE}, second)
    assert told["p"]["reproducible"] is (not words)
    found = [(one["number"], one["created_by"], one["diff_ids"]) for one in told["p"]["layers"]]
    assert found == layers and sentence(told) == words


def test_each_platform_is_told() -> None:
    told = compare({"a": ONE, "b": ONE, "c": ONE}, {"a": LAYER, "b": ONE, "d": ONE})
    assert {name: one["reproducible"] for name, one in told.items()} == {
        "a": False, "b": True, "c": False, "d": False,
    }  # fmt: skip
    assert sentence(told).startswith("a: layer 1 (RUN make); c: ")
