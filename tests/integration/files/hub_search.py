# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Hub as far as Engines ask it for a search: GET /v1/search?q=TERM&n=LIMIT.

hub_search.py CERTIFICATE KEY NAME...: serves TLS on port 443, and knows these repositories.
"""

from __future__ import annotations

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

CERTIFICATE, KEY, *NAMES = sys.argv[1:]


class Hub(BaseHTTPRequestHandler):
    """Finds every repository that has the term in its name."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        term, limit = query.get("q", [""])[0], int(query.get("n", ["25"])[0])
        found = [_row(name) for name in NAMES if term in name][:limit]
        body = json.dumps({"num_results": len(found), "query": term, "results": found}).encode()
        self.send_response(200 if address.path == "/v1/search" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _row(name: str) -> dict[str, object]:
    facts = {"description": f"About {name}", "star_count": 1, "is_automated": False}
    return {"name": name, "is_official": "/" not in name, **facts}


server = HTTPServer(("", 443), Hub)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
