# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Examples of the documentation run as they stand: modules, README files, playbooks.

On a classic and a containerd store; `scenes.py` has what they need, and what is to come of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples import MODULES, PAGES, PLAYBOOKS, Example, of_module, of_page
from market import Market
from rig import Json, Rig
from scenes import BLOCKS, STOCK, Block, Module, Scene
from scenes import MODULES as MODULE_SCENES
from scenes import PLAYBOOKS as PLAYBOOK_SCENES
from stage import BUILDER, ENGINES, HOSTS, Outcome, Stage

EXAMPLES = [example for page in PAGES for example in of_page(page)]
HERE = "tests/integration/scenes.py"


@pytest.fixture(scope="module")
def opened(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stage, with registries of the names in the examples."""
    work = tmp_path_factory.mktemp("examples")
    market = Market(rig, work)
    try:
        market.open(STOCK)
        with market.trusted(HOSTS):
            stage = Stage(rig, market, work)
            with stage.lent():
                yield stage
    finally:
        market.close()


@pytest.fixture
def stage(opened: Stage) -> Stage:
    """The stage, swept."""
    opened.tidy()
    return opened


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_examples_of_a_module(request: pytest.FixtureRequest, path: Path) -> None:
    scene, examples = MODULE_SCENES.get(path.stem), of_module(path)
    assert scene, (
        f"the examples of {path.stem} are not run: tell in MODULES of {HERE} where they run, what"
        " they need, and which of them change something"
    )
    names = [example.name for example in examples]
    assert names == [*scene.examples], (
        f"MODULES of {HERE} tells of other examples of {path.stem} than its EXAMPLES has: name them"
        " there, in their order, with what they need and what is to come of them"
    )
    stage: Stage = request.getfixturevalue("stage")
    outcome = stage.run(
        [*scene.before, _tasks(scene, examples), *scene.after],
        {f"{number}.yml": example.text for number, example in enumerate(examples)},
        _variables(scene),
    )
    for example in examples:
        found = outcome.results.get(example.name, {})
        hosts = {"nodes": ENGINES, "builders": (BUILDER,)}.get(scene.hosts, HOSTS[:1])
        told = dict.fromkeys(hosts, scene.examples[example.name])
        if example.content[0].get("run_once"):
            told.pop(ENGINES[-1])
        assert found == told, f"{example.id}\n{outcome.output}"
    _judge(stage, scene, outcome)


def _tasks(scene: Module, examples: list[Example]) -> Json:
    """The play of a module's examples; each is a file of its own, as it stands."""
    tasks: list[Json] = []
    for number, example in enumerate(examples):
        tasks += scene.between.get(example.name, [])
        tasks.append({"ansible.builtin.import_tasks": f"{number}.yml"})
    return {"name": "Examples", "hosts": scene.hosts, "gather_facts": False, "tasks": tasks}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.id)
def test_block_of_a_page(request: pytest.FixtureRequest, example: Example) -> None:
    scene = BLOCKS.get(example.id)
    assert scene, (
        f"a block is not run: tell in BLOCKS of {HERE}, as {example.id!r}, what it needs, and what"
        " is to come of it"
    )
    if example.kind == "inventory":
        used = [name for name, one in PLAYBOOK_SCENES.items() if one.using == example.id]
        assert used, f"no playbook of PLAYBOOKS in {HERE} is run with it"
        return
    _run(request.getfixturevalue("stage"), scene, example)


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_playbook(request: pytest.FixtureRequest, path: Path) -> None:
    """By its name, with the inventory of the README."""
    scene = PLAYBOOK_SCENES.get(path.stem)
    assert scene, f"a playbook is not run: tell in PLAYBOOKS of {HERE} what {path.stem} needs"
    given = next(example for example in EXAMPLES if example.id == scene.using)
    _run(request.getfixturevalue("stage"), scene, given, f"fleet.images.{path.stem}")


def test_nothing_is_prepared_in_vain() -> None:
    """What has no example any more is gone from the scenes too."""
    assert {*MODULE_SCENES} <= {path.stem for path in MODULES}
    assert {*BLOCKS} <= {example.id for example in EXAMPLES}
    assert {*PLAYBOOK_SCENES} <= {path.stem for path in PLAYBOOKS}


def _run(stage: Stage, scene: Block, example: Example, playbook: str = "") -> None:
    """Runs a block of YAML, or a playbook with it."""
    files, flags, inventory = {"example.yml": example.text}, _variables(scene), ""
    if example.kind == "tasks":
        tasks = [{"ansible.builtin.import_tasks": "example.yml"}]
        body = {"name": "Example", "hosts": scene.hosts, "gather_facts": False, "tasks": tasks}
    else:
        if example.kind == "inventory":
            inventory = "example.yml"
        elif example.kind == "variables":
            flags += ["-e", "@example.yml"]
            using = next(one for one in EXAMPLES if one.id == scene.using)
            files["using.yml"] = using.text
            playbook = "using.yml"
        body = {"ansible.builtin.import_playbook": playbook or "example.yml"}
    outcome = stage.run([*scene.before, body, *scene.after], files, flags, inventory)
    assert outcome.changed() == {*scene.changes}, f"{example.id}\n{outcome.output}"
    _judge(stage, scene, outcome)


def _variables(scene: Scene) -> list[str]:
    return ["-e", json.dumps(scene.variables)]


def _judge(stage: Stage, scene: Scene, outcome: Outcome) -> None:
    """Nothing failed, and the nodes hold what they are to hold."""
    assert outcome.code == 0, outcome.output
    if scene.holds is not None:
        held = {node: stage.rig.names(node) - {"<none>:<none>"} for node in ENGINES}
        assert held == {node: {*scene.holds} for node in ENGINES}
