# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles that are damaged, cut, for another platform or thin against what another node has."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rig import NEW_NGINX, NODES, Json, Rig, State
from workshop import AMD64, ARM64, BIG, LOCAL, Workshop, cut, flipped, member, regions

HERE = "/var/tmp/bad-bundles"


@dataclass(frozen=True)
class Case:
    """A bundle, what image_load is told with it, and what the error says."""

    name: str
    bundle: bytes
    told: tuple[str, ...]
    args: Json = field(default_factory=dict)

    @property
    def task(self) -> Json:
        args = {"src": f"{HERE}/{self.name}.tar", "remote_src": True, **self.args}
        return {"name": self.name, "fleet.images.image_load": args}


NAMES = [
    *("flipped-layer-with-sum", "flipped-layer", "flipped-index-with-sum", "flipped-index"),
    *("flipped-manifest", "cut", "cut-with-sum", "cut-between-members"),
    *("other-platform", "other-platform-than-lock", "thin-for-another", "thin-tried"),
]


@dataclass(frozen=True)
class Loads:
    """Every case on every node: the results, and what nodes held before and after all of them."""

    thin: Path
    cases: dict[str, Case]
    results: Json
    before: dict[str, State]
    after: dict[str, State]


def make_cases(work: Path, shop: Workshop) -> list[Case]:
    thin, arm, big = (work / f"{name}.tar" for name in ("thin", "arm", "big-thin"))
    whole = hashlib.sha256(thin.read_bytes()).hexdigest()
    nginx = shop.lock["images"][NEW_NGINX]
    layer = member(shop.layers(NEW_NGINX)[-1])
    manifest = member(nginx["platforms"][AMD64]["manifest"]["digest"])
    at = content_of(thin, "index.json").index(b"sha256:") + 20
    known = {"lock": shop.lock_of(NEW_NGINX), "known": shop.known}
    summed = {**known, "sha256": whole}
    no_sum = ("wanted SHA-256 " + whole, "found ", "copy it anew")
    base = shop.layers(BIG)[0]
    thin_for_another = ("is missing, the bundle leaves it out and this Engine", "plan again, or")
    return [
        Case("flipped-layer-with-sum", flipped(thin, layer), no_sum, summed),
        Case("flipped-layer", flipped(thin, layer), ("holds other content", "make it anew"), known),
        Case("flipped-index-with-sum", flipped(thin, "index.json", at), no_sum, summed),
        Case(
            "flipped-index",
            flipped(thin, "index.json", at),
            ("its index is not whole", "make it anew"),
        ),
        Case(
            "flipped-manifest",
            flipped(thin, manifest),
            ("holds other content under it", "make it anew"),
        ),
        Case(
            "cut",
            cut(thin, layer),
            ("wanted a whole tar archive, found a damaged or cut one", "copy or make it anew"),
            known,
        ),
        Case("cut-with-sum", cut(thin, layer), no_sum, summed),
        Case(
            "cut-between-members",
            cut(thin, layer, whole=True),
            ("wanted a whole tar archive, found a damaged or cut one", "copy or make it anew"),
            known,
        ),
        Case(
            "other-platform",
            arm.read_bytes(),
            (NEW_NGINX, f"wanted for {AMD64}, the lock has {ARM64}"),
        ),
        Case(
            "other-platform-than-lock",
            arm.read_bytes(),
            ("does not hold this image", "from the same lock"),
            known,
        ),
        Case(
            "thin-for-another",
            big.read_bytes(),
            (BIG, base, *thin_for_another),
            {"lock": shop.lock_of(BIG), "known": shop.known},
        ),
        Case("thin-tried", big.read_bytes(), (BIG, "plan again, or bring a full bundle")),
    ]


def content_of(bundle: Path, name: str) -> bytes:
    first, size = regions(bundle)[name]
    return bundle.read_bytes()[first : first + size]


def make_bundles(rig: Rig, work: Path, shop: Workshop) -> None:
    """Thin ones for what the nodes have, one of another platform, one thin for another node."""
    thin = {"path": f"{work}/thin.tar", "images": [NEW_NGINX], "blobs": shop.layers(NEW_NGINX)[-1:]}
    arm = {"path": f"{work}/arm.tar", "images": [NEW_NGINX], "platform": ARM64}
    big = {"path": f"{work}/big-thin.tar", "images": [BIG], "blobs": shop.layers(BIG)[-1:]}
    done = rig.results("localhost", [shop.archive_task("make", [thin, arm, big])], LOCAL)
    assert done["make"]["localhost"]["changed"], done


def packed(cases: list[Case]) -> bytes:
    """All bundles in one tar, to be brought to a node at once."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for case in cases:
            info = tarfile.TarInfo(f"{case.name}.tar")
            info.size = len(case.bundle)
            tar.addfile(info, io.BytesIO(case.bundle))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def loads(seeded: Rig, shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loads]:
    work = tmp_path_factory.mktemp("bad-bundles")
    make_bundles(seeded, work, shop)
    cases = make_cases(work, shop)
    content = packed(cases)
    for node in NODES:
        seeded.inside(node, "mkdir", "-p", HERE)
        seeded.put(node, content, HERE)
    before = seeded.held_by_all()
    results = seeded.results("nodes", [case.task for case in cases])
    after = seeded.held_by_all()
    yield Loads(work / "thin.tar", {case.name: case for case in cases}, results, before, after)
    for node in NODES:
        seeded.inside(node, "rm", "-rf", HERE)


@pytest.mark.parametrize("name", NAMES)
def test_bad_bundle_fails_with_a_clear_sentence_on_every_node(loads: Loads, name: str) -> None:
    case = loads.cases[name]
    for node in NODES:
        result = loads.results[name][node]
        assert result.get("failed"), (node, result)
        assert not result["changed"]
        assert "\n" not in result["msg"]
        for words in case.told:
            assert words in result["msg"], (node, result["msg"])


@pytest.mark.parametrize("node", NODES)
def test_nodes_have_what_they_had(loads: Loads, node: str) -> None:
    assert loads.after[node] == loads.before[node]


def test_cases_are_all_tested(loads: Loads) -> None:
    assert sorted(loads.cases) == sorted(NAMES)


def test_good_bundle_loads(seeded: Rig, loads: Loads) -> None:
    """The cases above differ from this one by what is wrong with them, and by nothing else."""
    args = {**loads.cases["flipped-layer-with-sum"].task["fleet.images.image_load"]}
    args.update(src=str(loads.thin), remote_src=False)
    done = seeded.results("nodes", [{"name": "good", "fleet.images.image_load": args}])
    assert all(result["changed"] for result in done["good"].values()), done
    assert all(NEW_NGINX in seeded.names(node) for node in NODES)
