# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands for Distribution's program: `distribution_stub.py serve config.yml` answers GET /v2/.

A file `behaviour` beside it changes what it does: `ends` (says why, and ends), `silent`, `taken`
(once, its port was taken by another).
"""

from __future__ import annotations

import http.server
import json
import ssl
import sys
import time
from pathlib import Path

CONFIG = json.loads(Path(sys.argv[2]).read_text())
HTTP = CONFIG["http"]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401 if "auth" in CONFIG else 200)
        for name, values in HTTP["headers"].items():
            self.send_header(name, values[0])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_unused: object) -> None:
        """Nothing."""


def main() -> None:
    behaviour = Path(sys.argv[0]).with_name("behaviour")
    what = behaviour.read_text() if behaviour.exists() else ""
    if what == "ends":
        sys.exit("panic: it does not like this configuration")
    if what == "taken":
        behaviour.unlink()
        sys.exit(f"listen tcp {HTTP['addr']}: bind: address already in use")
    if what == "silent":
        time.sleep(60)
    host, _colon, port = HTTP["addr"].rpartition(":")
    server = http.server.HTTPServer((host, int(port)), Handler)
    if "tls" in HTTP:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(HTTP["tls"]["certificate"], HTTP["tls"]["key"])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


main()
