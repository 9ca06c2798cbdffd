# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Relays that killed runs have left: which they are, and their end.

Only a relay that was started with a lease of the store can be one: it belongs to a run. It stays
while the lease does, which the run removes at its end and which counts for a day; and while
somebody is connected to it. One whose process has ended, with its host or by itself, serves nobody.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils import (
    _relay,
    _relay_config,
    _relay_process,
    _sweep,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import EngineError
from ansible_collections.fleet.images.plugins.module_utils._relay_tree import RelayError
from ansible_collections.fleet.images.plugins.module_utils._sdk import SdkError

# As the kernel names the state of a connection (include/net/tcp_states.h).
_ESTABLISHED = "01"


def sweep(store: Path, own: Path | None, dry_run: bool) -> list[str]:
    """Ends and removes them; the names of those that went, or would. `own`: the caller's.

    What cannot be ended, as a container whose Engine does not answer, stays for another run.
    """
    gone = []
    for directory in sorted((store / ".relay").glob("*")):
        if directory == own:
            continue
        with contextlib.suppress(RelayError, EngineError, SdkError, OSError):
            with _relay.alone(directory, make=False, wait=False) as ours:
                if not ours or not is_left(store, directory):
                    continue
                if not dry_run:
                    _relay.end(directory)
            gone.append(directory.name)
    return gone


def is_left(store: Path, directory: Path) -> bool:
    """Whether a relay is one that a run has left behind."""
    lease = _relay_config.note_of(directory).get("lease")
    if not lease or not _relay_config.is_marked(directory):
        return False
    if not _relay_process.pid_of(directory):
        return True
    port = _relay_config.port_of(_relay_config.read(directory / _relay_config.CONFIG))
    return _sweep.is_over(store, str(lease)) and not is_connected(port)


def is_connected(port: int) -> bool:
    """Whether somebody has a connection to this port of the host."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _number, here, _there, state = line.split()[:4]
            if state == _ESTABLISHED and int(here.rpartition(":")[2], 16) == port:
                return True
    return False
