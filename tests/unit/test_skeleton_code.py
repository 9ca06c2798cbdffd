# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rooms keep their rules: short modules, short functions, and pure parts that stay pure."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Union

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(p for p in (ROOT / "plugins").rglob("*.py") if p.name != "__init__.py")
MODULES = [p for p in PLUGINS if p.parent.name == "modules"]
ON_HOSTS = [p for p in PLUGINS if p.parent.name in ("modules", "module_utils")]
PURE = (
    "_reference",
    "_lock",
    "_manifest",
    "_holdings",
    "_inventory",
    "_removal",
    "_versions",
    "_amounts",
    "_patterns",
    "_compose",
    "_policy",
    "_conditions",
    "_dockerignore",
    "_dockerfile",
    "_fingerprint",
    "_progress",
    "_build_command",
    "_build_plan",
    "_builder_plan",
    "_builder_words",
    "_reproducible",
    "_retention",
    "_reclaim",
    "_reach",
)
ROOMS = "ansible_collections.fleet.images.plugins.module_utils."
PURE_FILES = [p for p in PLUGINS if p.parent.name == "module_utils" and p.stem in PURE]

MODULE_LINES = 150
FUNCTION_LINES = 40
DOC_BLOCKS = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
# Parts of the standard library that reach outside of the process, or know what time it is.
OUTSIDE = {
    "ftplib", "glob", "http", "io", "multiprocessing", "os", "pathlib", "random", "secrets",
    "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys",
    "tarfile", "tempfile", "threading", "time", "urllib", "zipfile",
}  # fmt: skip
OUTSIDE_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _docstring_lines(function: Function) -> int:
    return _lines(function.body[0]) if ast.get_docstring(function) is not None else 0


def _imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports; a relative import is given with its dots."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            if name == ROOMS.rstrip("."):
                yield from (ROOMS + alias.name for alias in node.names)
            else:
                yield name


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_module_is_thin(module: Path) -> None:
    blocks = [
        node
        for node in _tree(module).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in DOC_BLOCKS
    ]
    length = len(module.read_text(encoding="utf-8").splitlines())
    assert length - sum(_lines(block) for block in blocks) <= MODULE_LINES


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_functions_are_short(path: Path) -> None:
    """At most 40 lines each, docstring aside."""
    functions = [
        n for n in ast.walk(_tree(path)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths = {f.name: _lines(f) - _docstring_lines(f) for f in functions}
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", PURE_FILES, ids=lambda path: path.stem)
@pytest.mark.skipif(sys.version_info < (3, 10), reason="the list of the standard library is newer")
def test_pure_room_imports_only_the_standard_library_and_pure_rooms(path: Path) -> None:
    allowed = {ROOMS + name for name in PURE}
    foreign = [
        name
        for name in _imports(path)
        if name not in allowed and name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert foreign == []


@pytest.mark.parametrize("path", PURE_FILES, ids=lambda path: path.stem)
def test_pure_room_does_no_input_or_output(path: Path) -> None:
    calls = [
        node.func.id
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert [name for name in _imports(path) if name.split(".")[0] in OUTSIDE] == []
    assert [name for name in calls if name in OUTSIDE_CALLS] == []


@pytest.mark.parametrize("path", ON_HOSTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_arrows_point_one_way(path: Path) -> None:
    """What runs on a managed host imports nothing that is only on the controller."""
    controller = ("ansible.plugins", "ansible.utils", "ansible.parsing", "ansible.errors")
    own = "ansible_collections.fleet.images.plugins."
    upwards = [
        name
        for name in _imports(path)
        if name.startswith(controller)
        or (name.startswith(own) and not name.startswith(own + "module_utils"))
    ]
    assert upwards == []
