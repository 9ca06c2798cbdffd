# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes `ansible_collections.fleet.images` importable, with or without Ansible installed.

And the fixtures of several files: Engines that are stubs, and modules that run in this process.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from engine_stub import KINDS, EngineStub, complaints

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


@pytest.fixture(autouse=True)
def _host_locks_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Engines of tests have no lock on this machine."""
    from ansible_collections.fleet.images.plugins.module_utils import _hostlock

    monkeypatch.setattr(_hostlock, "PLACES", (tmp_path_factory.mktemp("locks"),))


@pytest.fixture
def no_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK of these tests, not that of a pack on this machine."""
    from ansible_collections.fleet.images.plugins.module_utils import _sdk

    monkeypatch.setenv(_sdk.ENVIRONMENT, str(tmp_path / "no pack"))


@pytest.fixture(params=list(KINDS))
def stub(request: pytest.FixtureRequest) -> Iterator[EngineStub]:
    """An Engine of each kind; what is uploaded to it is to be in order."""
    with EngineStub(request.param) as running:
        yield running
        assert [one for upload in running.uploads for one in complaints(upload)] == []


@pytest.fixture
def classic() -> Iterator[EngineStub]:
    with EngineStub("classic") as running:
        yield running


@pytest.fixture
def containerd() -> Iterator[EngineStub]:
    with EngineStub("containerd") as running:
        yield running


@pytest.fixture
def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[ModuleType, dict[str, Any]], dict[str, Any]]:
    """Runs a module's main() with arguments and returns its result, `rc` among it."""
    from ansible.module_utils import basic

    warned: list[str] = []
    # Ansible shows warnings itself, and has none in the result, as soon as another test of this
    # process has loaded a part of its controller.
    monkeypatch.setattr(
        basic.AnsibleModule, "warn", lambda _self, text, **_more: warned.append(text)
    )

    def run(module: ModuleType, arguments: dict[str, Any]) -> dict[str, Any]:
        warned.clear()
        # As each age of ansible-core takes them in a test.
        try:
            from ansible.module_utils.testing import patch_module_args
        except ImportError:
            content = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
            monkeypatch.setattr(basic, "_ANSIBLE_ARGS", content)
            patched: Any = contextlib.nullcontext()
        else:
            patched = patch_module_args(arguments)
        with patched, pytest.raises(SystemExit) as ended:
            module.main()
        out = capsys.readouterr().out.strip().splitlines()[-1]
        told = {"warnings": [*warned]} if warned else {}
        return {**json.loads(out), **told, "rc": ended.value.code}

    return run
