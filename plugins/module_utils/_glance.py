# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One question to an Engine on a socket of this host, without the Docker SDK.

For a look that needs no more: the SDK takes longer to come than such an Engine to answer.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

SCHEME = "unix://"
_SECONDS = 60


class Unanswered(Exception):
    """There is no answer to be had this way: another kind of address, or an Engine in trouble."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def inspect(docker_host: str, name: str) -> Mapping[str, Any] | None:
    """One image as the Engine describes it, None where it has no such image; raises Unanswered."""
    if not docker_host.startswith(SCHEME):
        raise Unanswered(docker_host)
    connection = _Connection(docker_host[len(SCHEME) :])
    try:
        connection.request("GET", f"/images/{quote(name, safe='/:@')}/json")
        answer = connection.getresponse()
        content = answer.read()
        if answer.status == http.client.NOT_FOUND:
            return None
        found = json.loads(content)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unanswered(str(error)) from error
    finally:
        connection.close()
    if answer.status != http.client.OK or not isinstance(found, dict):
        raise Unanswered(f"status {answer.status}")
    return found
