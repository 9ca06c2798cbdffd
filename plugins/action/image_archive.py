# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action of image_archive: runs the module, and brings its bundles to the controller if asked."""

from __future__ import annotations

import base64
import os
import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError

from ansible_collections.fleet.images.plugins.module_utils._layout import write_atomically
from ansible_collections.fleet.images.plugins.module_utils._parts import PartError, check_sha256
from ansible_collections.fleet.images.plugins.plugin_utils._carried import CarriedModule

# Bytes of a bundle that is read through the shell: a file transfer costs more to begin.
SMALL = 1 << 20

Result = dict[str, Any]


class ActionModule(CarriedModule):
    """Runs on the controller; what it does to the host, the module does."""

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """The module's result, with `local_path` of each bundle that came here."""
        result = super().run(tmp, task_vars)
        directory = self._task.args.get("controller_dir")
        if directory and not self._task.check_mode:
            kept: list[Result] = []
            for bundle in result.get("bundles") or []:
                problem = self._bring(bundle, Path(directory).expanduser())
                if problem:
                    result.setdefault("failed_bundles", []).append(
                        {"path": bundle["path"], "reason": problem}
                    )
                    result.update(failed=True, msg=problem)
                else:
                    kept.append(bundle)
            if "bundles" in result:
                result["bundles"] = kept
        return result

    def _bring(self, bundle: Result, directory: Path) -> str:
        """Takes a bundle from the host to the controller; returns why it could not, or ''."""
        path = str(bundle["path"])
        if self._connection.transport == "local":
            bundle["local_path"] = path
            return ""
        local = directory / Path(path).name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if bundle["bytes"] <= SMALL:
                write_atomically(local, self._read(path))
            else:
                self._fetch(path, local)
            check_sha256(local, bundle["sha256"])
        except (AnsibleError, OSError, PartError, ValueError) as error:
            local.unlink(missing_ok=True)
            return f"{path}: could not be brought to the controller ({error}); run it again"
        self._low_level_execute_command(f"rm -f {shlex.quote(path)}")
        bundle["local_path"] = str(local)
        return ""

    def _read(self, path: str) -> bytes:
        done = self._low_level_execute_command(f"base64 {shlex.quote(path)}")
        if done["rc"] != 0:
            raise ValueError(" ".join(str(done["stderr"] or done["stdout"]).split()))
        return base64.b64decode(done["stdout"])

    def _fetch(self, path: str, local: Path) -> None:
        """A file as the login user reads it, in constant memory; it appears here whole."""
        beside = local.with_name(f".{local.name}.{os.getpid()}.tmp")
        try:
            self._connection.fetch_file(path, str(beside))
            os.replace(beside, local)
        finally:
            beside.unlink(missing_ok=True)
