# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes `ansible_collections.fleet.images` importable, with or without Ansible installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _importable() -> bool:
    try:
        return importlib.util.find_spec("ansible_collections.fleet.images") is not None
    except ModuleNotFoundError:
        return False


def pytest_configure() -> None:
    """Put the directory that holds `ansible_collections` first on the path.

    It is the one above this checkout where that lies under its own name, else the one in which
    `scripts/setup` made a link to this checkout.
    """
    named = ROOT.parts[-3:] == ("ansible_collections", "fleet", "images")
    sys.path.insert(0, str(ROOT.parents[2] if named else ROOT / ".venv" / "collections"))
    if not _importable():
        raise pytest.UsageError(
            "ansible_collections.fleet.images is not there: run 'make venv' once."
        )
