# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs modules on hosts without the Docker SDK too: there, the SDK travels along with the task.

That is how check mode tells the truth about a host before the role docker_sdk changed it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase

from ansible_collections.fleet.images.plugins.module_utils._sdk import CARRIED
from ansible_collections.fleet.images.plugins.plugin_utils._beside import once

MAKER = Path(__file__).resolve().parents[2] / "roles" / "docker_sdk" / "files" / "make_pack.py"
"""The program of the role docker_sdk that makes the pack, or finds it in the cache."""

Result = dict[str, Any]


class PackError(Exception):
    """There is no pack on the controller; the text is one sentence with the next step."""


class Carried(ActionBase):  # type: ignore[misc]
    """An action that runs modules which need the SDK.

    A module that lacks it fails with `sdk_missing`. Then the pack is sent into the temporary
    directory of the task, which Ansible removes at its end, and the module runs once more, with
    `sdk_carried` in its result. A host that has the SDK is asked nothing. A task with `async` runs
    once: it ends after the action.
    """

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True
    _pack_environment: dict[str, str] | None = None

    def cleanup(self, force: bool = False) -> None:
        """Ends the task on the host; the pack that was sent goes with its directory."""
        super().cleanup(force)
        self._pack_environment = None

    def _module(self, name: str, args: Result, task_vars: Result) -> Result:
        """The result of a module on the host, which gets the SDK for it where it has none."""
        result = self._run_module(name, args, task_vars)
        if not result.pop("sdk_missing", False) or self._pack_environment:
            return result
        settings = self._settings(task_vars)
        if settings["source"] == "system":
            return result
        try:
            pack = make_pack(settings["pack"], settings["cache_dir"])
        except (PackError, OSError, subprocess.SubprocessError) as error:
            return {
                **result,
                "msg": f"{result['msg'].rstrip('.')}; and no pack came along: {error}",
            }
        self._pack_environment = {CARRIED: f"{pack['sha256']}:{self._send(pack['path'])}"}
        result = self._run_module(name, args, task_vars)
        result.pop("sdk_missing", None)
        return {**result, "sdk_carried": True}

    def _run_module(self, name: str, args: Result, task_vars: Result) -> Result:
        usual = self._task.environment
        self._task.environment = [*(usual or []), self._pack_environment or {}]
        try:
            result: Result = self._execute_module(
                module_name=name, module_args=dict(args), task_vars=task_vars
            )
        finally:
            self._task.environment = usual
        return result

    def _settings(self, task_vars: Result) -> dict[str, str]:
        """What the inventory says to the role docker_sdk: its `source`, `pack` and `cache_dir`."""
        names = ("source", "pack", "cache_dir")
        given = {name: task_vars.get(f"docker_sdk_{name}") or "" for name in names}
        return {name: str(value) for name, value in self._templar.template(given).items()}

    def _send(self, pack: str) -> str:
        shell = self._connection._shell
        place = shell.tmpdir or self._make_tmp_path()
        path: str = self._transfer_file(pack, shell.join_path(place, Path(pack).name))
        # For a task that becomes another user.
        self._fixup_perms2([place, path])
        return path


class CarriedModule(Carried):
    """An action that runs the module of the task, and nothing else."""

    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """The module's result."""
        result: Result = super().run(tmp, task_vars)
        if self._task.async_val:
            return {**result, **self._execute_module(task_vars=task_vars, wrap_async=True)}
        return {**result, **self._module(self._task.action, self._task.args, task_vars or {})}


def make_pack(given: str, cache_dir: str) -> dict[str, str]:
    """The `path` and `sha256` of the pack in the controller's cache, made there if it is not.

    `given`: a prepared pack to take instead ('' for none); `cache_dir`: '' for the role's default.
    One process at a time makes it; the others of a run of Ansible read what that one noted. Raises
    PackError, OSError and subprocess.SubprocessError.
    """
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fleet-images" / "sdk"
    cache = Path(cache_dir or usual).expanduser()
    asked = hashlib.sha256(json.dumps([given, str(cache)]).encode()).hexdigest()
    return once(f"sdk-pack-{asked}", lambda: _run_maker(given, cache), Path(C.DEFAULT_LOCAL_TMP))


def _run_maker(given: str, cache: Path) -> dict[str, str]:
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, str(MAKER), "--cache-dir", str(cache), "--pack", given]
    with open(cache / ".lock", "a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise PackError(done.stderr.strip())
    made: dict[str, str] = json.loads(done.stdout)
    return made
