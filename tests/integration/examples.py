# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the documentation, word for word: of modules and README files; the playbooks."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rig import ROOT

MODULES = sorted(p for p in (ROOT / "plugins/modules").glob("*.py") if p.name != "__init__.py")
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "roles").glob("*/README.md"))]
_BLOCK = re.compile(r"^```ya?ml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """One of them. `name`: that of its first task or play, or its first key."""

    place: str
    name: str
    text: str

    @property
    def id(self) -> str:
        """For messages, and for what is prepared."""
        return f"{self.place}: {self.name}"

    @property
    def content(self) -> Any:
        """The text, as YAML."""
        return yaml.safe_load(self.text)

    @property
    def kind(self) -> str:
        """What a user does with it: `tasks`, `plays`, `inventory`, or `variables`."""
        content = self.content
        if isinstance(content, list):
            return "plays" if any("hosts" in one for one in content) else "tasks"
        groups = (one for one in content.values() if isinstance(one, dict))
        return "inventory" if any("hosts" in one for one in groups) else "variables"


def of_module(module: Path) -> list[Example]:
    """The tasks of a module's EXAMPLES, one by one, with the comments above each."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXAMPLES":
            text = str(ast.literal_eval(node.value))
            tasks = re.split(r"(?m)^(?=- )", text)
            # What stands above the first task is no task.
            return [_example(module, task) for task in tasks if task.startswith("- ")]
    raise AssertionError(f"{module.name} has no EXAMPLES")


def of_page(page: Path) -> list[Example]:
    """The YAML blocks of a page."""
    return [_example(page, text) for text in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def _example(path: Path, text: str) -> Example:
    content = yaml.safe_load(text)
    first = content[0].get("name") if isinstance(content, list) else next(iter(content))
    return Example(str(path.relative_to(ROOT)), str(first), text)
