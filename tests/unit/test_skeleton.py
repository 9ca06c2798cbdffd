# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metadata, documentation, roles and playbooks agree with each other."""

from __future__ import annotations

import ast
import fnmatch
import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(p for p in (ROOT / "plugins/modules").glob("*.py") if p.name != "__init__.py")
ROLES = sorted(p for p in (ROOT / "roles").glob("*") if p.is_dir())
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
GROUPS = ("engine", "registry")


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def _git_files(*options: str) -> list[str]:
    """Paths from the root as `git ls-files` knows them; skips where there is no git checkout."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z", "--exclude-standard", *options],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name.rstrip("/") for name in done.stdout.split("\0") if name]


def _documented(module: Path, block: str) -> Any:
    """A module's DOCUMENTATION, EXAMPLES or RETURN, parsed; None if it has none."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == block:
            return yaml.safe_load(ast.literal_eval(node.value))
    return None


def _fragments(module: Path) -> list[str]:
    named = (_documented(module, "DOCUMENTATION") or {}).get("extends_documentation_fragment", [])
    return [named] if isinstance(named, str) else list(named)


def _groups() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = _load(ROOT / "meta/runtime.yml")["action_groups"]
    return groups


# galaxy.yml


def _kept_out(path: str) -> bool:
    """Whether `ansible-galaxy collection build` leaves out this path or a directory above it."""
    patterns = _load(ROOT / "galaxy.yml")["build_ignore"]
    above = [path, *(str(p) for p in Path(path).parents if str(p) != ".")]
    return any(fnmatch.fnmatch(part, pattern) for part in above for pattern in patterns)


@pytest.mark.parametrize(
    "rubbish",
    [
        ".ansible/tmp/x",
        ".cache/sanity-2.19/x",
        ".ci/run",
        ".fleet/test/inventory.yml",
        ".git/HEAD",
        ".hypothesis/x",
        ".mypy_cache/x",
        ".pytest_cache/x",
        ".ruff_cache/x",
        ".venv-py39/bin/python",
        ".venv/bin/python",
        "dist/x",
        "fleet-images-0.1.0.tar.gz",
        "plugins/modules/__pycache__/x.pyc",
        "tests/output/x",
        "tests/unit/.hypothesis/x",
    ],
)
def test_rubbish_is_not_packed(rubbish: str) -> None:
    assert _kept_out(rubbish)


def test_what_git_ignores_is_not_packed() -> None:
    ignored = _git_files("--others", "--ignored", "--directory")
    assert [path for path in ignored if not _kept_out(path)] == []


def test_everything_else_is_packed() -> None:
    lost = [path for path in _git_files("-co") if _kept_out(path) and not path.startswith(".")]
    assert lost == []


# meta/runtime.yml and the modules' documentation


@pytest.mark.parametrize("group", GROUPS)
def test_action_group_names_modules_that_exist(group: str) -> None:
    assert sorted(set(_groups()[group]) - {module.stem for module in MODULES}) == []


@pytest.mark.parametrize("group", GROUPS)
def test_action_group_holds_just_the_modules_with_its_options(group: str) -> None:
    with_options = [m.stem for m in MODULES if f"fleet.images.{group}" in _fragments(m)]
    assert sorted(_groups()[group]) == with_options


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_module_states_its_attributes(module: Path) -> None:
    stated = (_documented(module, "DOCUMENTATION") or {}).get("attributes", {})
    assert "fleet.images.attributes" in _fragments(module)
    for name in ("check_mode", "diff_mode", "idempotent"):
        assert stated.get(name, {}).get("support") in ("full", "partial", "none", "N/A"), name


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_module_examples_are_tasks_that_use_it(module: Path) -> None:
    tasks = _documented(module, "EXAMPLES")
    assert isinstance(tasks, list)
    assert tasks
    assert all(isinstance(task, dict) and task.get("name") for task in tasks)
    assert f"fleet.images.{module.stem}:" in module.read_text(encoding="utf-8")


# roles and playbooks


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_role_documents_just_its_defaults(role: Path) -> None:
    """Every default is an option, and every option that is not required has a default."""
    specs = (_load(role / "meta/argument_specs.yml") or {}).get("argument_specs", {})
    options: dict[str, Any] = {}
    for spec in specs.values():
        options.update(spec.get("options") or {})
    required = {name for name, option in options.items() if option.get("required")}
    defaults = set(_load(role / "defaults/main.yml") or {})
    assert "main" in specs
    assert sorted(set(options) - required) == sorted(defaults)
    assert [name for name in options if not name.startswith(f"{role.name}_")] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_role_has_a_readme(role: Path) -> None:
    assert (role / "README.md").is_file()


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_playbook_is_short(playbook: Path) -> None:
    assert len(playbook.read_text(encoding="utf-8").splitlines()) < 20


# README.md


def _table(heading: str) -> list[str]:
    """The first column of a table of README.md, without its backquotes."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [row.split("|")[1].strip().strip("`") for row in rows]


def test_readme_has_every_module() -> None:
    assert sorted(_table("module")) == [module.stem for module in MODULES]


def test_readme_has_every_role_and_leads_to_it() -> None:
    assert sorted(_table("role")) == [role.name for role in ROLES]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [r.name for r in ROLES if f"[README](roles/{r.name}/README.md)" not in text] == []


def test_readme_has_every_playbook() -> None:
    wanted = [f"fleet.images.{playbook.stem}" for playbook in PLAYBOOKS]
    assert sorted(_table("playbook")) == wanted


# every file


def test_no_file_names_a_machine() -> None:
    """Neither a directory of one machine nor the host of a package index or mirror."""
    directories = r"(?<![\w.}~/-])/(?:root|work)/|\.pyenv/(?:versions|shims)/\d"
    hosts = "|".join(
        re.escape(f"{name}.{domain}")
        for name, domain in [("pypi", "org"), ("pythonhosted", "org"), ("deb.debian", "org")]
        + [("archive.ubuntu", "com"), ("galaxy.ansible", "com"), ("download.docker", "com")]
    )
    pattern = re.compile(f"{directories}|{hosts}")
    found = []
    for name in _git_files("-co"):
        path = ROOT / name
        if not path.is_file() or path == Path(__file__).resolve():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name}: {hit.group()}" for hit in pattern.finditer(text)]
    assert found == []
