# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action of image_archive: runs the module, and brings its bundles to the controller if asked."""

from __future__ import annotations

import base64
import copy
import shlex
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError

from ansible_collections.fleet.images.plugins.module_utils._layout import write_atomically
from ansible_collections.fleet.images.plugins.module_utils._parts import PartError, check_sha256
from ansible_collections.fleet.images.plugins.plugin_utils._carried import CarriedModule
from ansible_collections.fleet.images.plugins.plugin_utils._taking import Taking
from ansible_collections.fleet.images.plugins.plugin_utils._transfer import note_cut

# Bytes of a bundle that is read through the shell: a file transfer costs more to begin.
SMALL = 1 << 20

Result = dict[str, Any]


class ActionModule(CarriedModule):
    """Runs on the controller; what it does to the host, the module does."""

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """The module's result, with `local_path` and `local_files` of what came here."""
        directory = self._task.args.get("controller_dir")
        if not directory or self._task.check_mode:
            return super().run(tmp, task_vars)
        if self._connection.transport == "local":
            # They stay, so they are to be flushed to disk and put in place at once.
            self._task.args = {**self._task.args, "controller_dir": None}
            result = super().run(tmp, task_vars)
            for bundle in result.get("bundles") or []:
                bundle.update(local_path=bundle["path"], local_files=bundle["files"])
            return result
        return self._run_and_bring(Path(directory).expanduser(), tmp, task_vars)

    def _run_and_bring(self, directory: Path, tmp: str | None, task_vars: Result | None) -> Result:
        taking = self._taking(directory)
        # Of other connections nobody knows whether they carry two things at once.
        if self._connection.transport == "ssh" and self._task.args.get("split_size"):
            taking.start()
        try:
            result = super().run(tmp, task_vars)
        finally:
            taking.end()
        kept: list[Result] = []
        for bundle in result.get("bundles") or []:
            problem = self._bring(bundle, directory, taking)
            if problem:
                failed = {"path": bundle["path"], "reason": problem}
                result.setdefault("failed_bundles", []).append(failed)
                result.update(failed=True, msg=problem)
            else:
                kept.append(bundle)
        if "bundles" in result:
            result["bundles"] = kept
        return result

    def _taking(self, directory: Path) -> Taking:
        # Of its own, because a connection plugin keeps the state of what it runs.
        beside = copy.copy(self)
        beside._connection = copy.copy(self._connection)

        def run(line: str) -> str:
            done = beside._low_level_execute_command(line, sudoable=False, executable="/bin/sh")
            return str(done["stdout"])

        wanted = self._task.args.get("bundles") or [self._task.args]
        paths = [str(one["path"]) for one in wanted if one.get("path")]
        return Taking(run, beside._connection.fetch_file, paths, directory)

    def _bring(self, bundle: Result, directory: Path, taking: Taking) -> str:
        """Takes a bundle from the host to the controller; returns why it could not, or ''."""
        path = str(bundle["path"])
        pairs = list(zip(bundle["files"], bundle["file_sha256"]))
        try:
            if bundle["bytes"] <= SMALL:
                files = [self._read(file, sha256, directory) for file, sha256 in pairs]
            else:
                files = [taking.take(file, sha256) for file, sha256 in pairs]
        except (AnsibleError, OSError, PartError, ValueError) as error:
            for file, _sha256 in pairs:
                (directory / Path(file).name).unlink(missing_ok=True)
            return f"{path}: could not be brought to the controller ({error}); run it again"
        names = " ".join(shlex.quote(file) for file in bundle["files"])
        self._low_level_execute_command(f"rm -f {names}")
        note_cut(files, bundle["file_sha256"], bundle["sha256"], Path(C.DEFAULT_LOCAL_TMP))
        bundle["local_path"] = str(directory / Path(path).name)
        bundle["local_files"] = [str(file) for file in files]
        return ""

    def _read(self, path: str, sha256: str, directory: Path) -> Path:
        """A small file, through the shell."""
        done = self._low_level_execute_command(f"base64 {shlex.quote(path)}")
        if done["rc"] != 0:
            raise ValueError(" ".join(str(done["stderr"] or done["stdout"]).split()))
        local = directory / Path(path).name
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(local, base64.b64decode(done["stdout"]))
        check_sha256(local, sha256)
        return local
