# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on a node's loopback interface that misbehaves as its images' names say.

`faulty_registry.py PORT UPSTREAM LOG`: an image `m429x2/shop/tool` is `shop/tool` of UPSTREAM (a
URL), but the first two requests for a manifest are answered with 429. `m` is for manifests, `b` for
blobs; what happens is a status, `cut` (the connection breaks in the middle), `stall` (silence),
`slow` or `swap` (another image's manifest, or other bytes, under the digest that was asked for).
Each request is a line of LOG: seconds, method, path.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = re.compile(r"/v2/(?P<case>([mb])(\w+?)x(\d+))/(?P<rest>.+/(manifests|blobs)/[^/]+)\Z")
CODES = {429: "TOOMANYREQUESTS", 401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN"}
AFTER = "3"
OTHER = "2"  # the tag of what `swap` serves in the place of a manifest
PART = 100_000

left: dict[str, int] = {}
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream = log = ""

    def handle(self) -> None:
        """containerd tries TLS first, and falls back only where it is told in plain HTTP."""
        if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":
            self.connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            return
        super().handle()

    def log_message(self, *_unused: object) -> None:
        with lock, open(self.log, "a", encoding="utf-8") as file:
            file.write(f"{time.time():.3f} {self.command} {self.path}\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        match = NAME.match(self.path)
        if not match:
            self.answer(200 if self.path == "/v2/" else 404, b"{}", {})
            return
        fault = match[3] if match[6][0] == match[2] and self.is_due(match) else ""
        if fault.isdigit():
            code = CODES.get(int(fault), "UNKNOWN")
            body = json.dumps({"errors": [{"code": code, "message": f"made to say {fault}"}]})
            extra = {"Retry-After": AFTER} if fault == "429" else {}
            self.answer(int(fault), body.encode(), {"Content-Type": "application/json", **extra})
            return
        rest = match["rest"]
        if fault == "swap" and match[6] == "manifests":
            rest = f"{rest.rpartition('/')[0]}/{OTHER}"
        self.forward(rest, fault, match["rest"].rpartition("/")[2])

    def is_due(self, match: re.Match[str]) -> bool:
        with lock:
            left.setdefault(match["case"], int(match[4]))
            left[match["case"]] -= 1
            return left[match["case"]] >= 0

    def forward(self, rest: str, fault: str, name: str) -> None:
        accept = {"Accept": ", ".join(self.headers.get_all("Accept") or ["*/*"])}
        request = urllib.request.Request(f"{self.upstream}/v2/{rest}", headers=accept)
        if self.headers.get("Range"):
            request.add_header("Range", self.headers["Range"])
        try:
            with urllib.request.urlopen(request) as answer:
                kept = ("Content-Type", "Docker-Content-Digest", "Content-Range")
                headers = {k: answer.headers[k] for k in kept if answer.headers[k]}
                if fault == "swap":
                    headers["Docker-Content-Digest"] = name
                self.begin(answer.status, int(answer.headers["Content-Length"]), headers)
                if self.command != "HEAD":
                    self.pour(answer, fault if "/blobs/" in rest else fault.replace("swap", ""))
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read(), {"Content-Type": "application/json"})

    def pour(self, answer, fault: str) -> None:
        while chunk := answer.read(PART):
            if fault in ("cut", "stall"):
                self.wfile.write(chunk[: len(chunk) // 2])
                self.wfile.flush()
                time.sleep(120 if fault == "stall" else 0.1)
                self.close_connection = True
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            self.wfile.write(chunk[::-1] if fault == "swap" else chunk)
            time.sleep(0.025 if fault == "slow" else 0)

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.begin(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int, size: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(size), **headers}.items():
            self.send_header(key, value)
        self.end_headers()


def main() -> None:
    port, Handler.upstream, Handler.log = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
