# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An execution environment gets just what the code asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _sdk

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
NAMED = yaml.safe_load((ROOT / "meta/execution-environment.yml").read_text(encoding="utf-8"))


def _lines(name: str) -> list[str]:
    """A requirement file without its comments."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _packages(name: str) -> set[str]:
    return {re.split(r"[<>=~! ]", line)[0] for line in _lines(name) if not line.startswith(" ")}


def test_python_packages_are_those_that_the_code_imports() -> None:
    assert NAMED["dependencies"]["python"] == "requirements.txt"
    assert _packages("requirements.txt") == set(_sdk.system_versions())


def test_python_packages_are_in_the_pack_for_hosts() -> None:
    pack = _packages("roles/docker_sdk/files/requirements.txt")
    assert _packages("requirements.txt") - pack == set()


def test_system_packages_name_their_kind_of_system() -> None:
    lines = _lines(NAMED["dependencies"]["system"])
    assert lines
    assert [line for line in lines if not re.search(r"\[platform:(dpkg|rpm)\]$", line)] == []
