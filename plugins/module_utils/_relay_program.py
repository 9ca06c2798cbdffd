# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A relay as a process of the host: the program of the distribution's package, or a given one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils import _relay_config as files
from ansible_collections.fleet.images.plugins.module_utils._relay_config import Json, Wanted
from ansible_collections.fleet.images.plugins.module_utils._relay_tree import RelayError

COMMANDS = ("docker-registry", "registry")
PLACES = ("/usr/bin", "/usr/local/bin")
_MOST_LOG = 2000


class Program:
    """One process of Distribution's program, which outlives the module."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()
        self.what = ""

    def find(self) -> None:
        """Raises RelayError where the program is not there."""
        self.what = find_command(self._wanted.command)

    def is_noted(self, note: Json) -> bool:
        """Whether a running process is of this program; where none is named, any will do."""
        if "container" in note:
            return False
        wanted = self._wanted.command
        return not wanted or find_command(wanted) == note.get("command")

    def begin(self, directory: Path) -> Json:
        """Starts it; what to note of it, `pid` among it. Raises OSError.

        Variables REGISTRY_* would overrule the configuration.
        """
        env = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        files.write(directory / files.LOG, "")
        self._directory = directory
        with (directory / files.LOG).open("ab") as log:
            # The module has to end while this goes on.
            self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                [self.what, "serve", str(directory / files.CONFIG)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd="/",
                start_new_session=True,
            )
        return {"pid": self._process.pid, "command": self.what}

    def ended(self) -> str:
        """What it ended with; '' while it runs."""
        code = self._process.poll() if self._process else None
        return "" if code is None else f"exit code {code}"

    def words(self) -> str:
        """The end of what it wrote, on one line; '' for nothing."""
        try:
            content = (self._directory / files.LOG).read_bytes()[-_MOST_LOG:]
        except OSError:
            return ""
        return files.last_lines(content)

    def end(self) -> None:
        """Ends it at once."""
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


def find_command(given: str) -> str:
    """The path of Distribution's program; raises RelayError where there is none."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    for name in [given] if given else COMMANDS:
        found = shutil.which(name, path=path)
        if found:
            return os.path.abspath(found)
    raise RelayError(
        f"a relay on {socket.gethostname()}: wanted the program {given or ' or '.join(COMMANDS)},"
        " found none; install the distribution's package docker-registry there, or set command, or"
        " image where the Engine there has one, or carry bundles with the role airgap"
    )
