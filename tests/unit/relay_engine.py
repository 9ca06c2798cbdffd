# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Engine that has a registry's image, and runs what Distribution is stood for by as containers.

As by a real one, a container's process shows on the host with the command line that it was given.
"""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_stub import EngineStub

Json = dict[str, Any]
IMAGE = "docker.io/library/registry:2"
STUB = Path(__file__).with_name("distribution_stub.py")


@dataclass
class Box:
    """One container."""

    name: str
    body: Json
    process: subprocess.Popen[bytes] | None = None
    wrote: bytes = b""

    def inspected(self, id_: str) -> Json:
        code = self.process.poll() if self.process else None
        running = self.process is not None and code is None
        if self.process and self.process.stderr and not running:
            self.wrote += self.process.stderr.read()
        state = {"Running": running, "ExitCode": code or 0}
        state["Pid"] = self.process.pid if self.process and running else 0
        return {"Id": id_, "Config": {**self.body, "Tty": False}, "State": state}


class RelayEngine(EngineStub):
    """`config`: of the image. `program`: what its containers run, by Python."""

    def __init__(self, program: Path = STUB) -> None:
        super().__init__("classic")
        self.config: Json = {"Entrypoint": ["/entrypoint.sh"], "Env": ["PATH=/bin"]}
        self.image = "sha256:" + "1" * 64
        self.has_image = True
        self.rootless = False
        self.program = program
        self.boxes: dict[str, Box] = {}

    def __exit__(self, *unused: object) -> None:
        for id_ in list(self.boxes):
            self.discard(id_)
        super().__exit__(*unused)

    def discard(self, id_: str) -> None:
        """As `docker rm --force`."""
        box = self.boxes.pop(id_)
        if box.process:
            box.process.kill()
            box.process.wait()

    def also(self, method: str, path: str, query: dict[str, str]) -> tuple[int, Any] | None:
        if path == "/info" and self.rootless:
            kind = {"Driver": "overlay2", "DockerRootDir": "/", "OSType": "linux"}
            return 200, {**kind, "Architecture": "x86_64", "SecurityOptions": ["name=rootless"]}
        if path == f"/images/{IMAGE}/json" and self.has_image:
            return 200, {"Id": self.image, "Config": self.config}
        matched = re.match(r"/containers/([^/]+)(/\w+)?$", path)
        if not matched:
            return None
        if matched[1] == "create":
            return self.create(query["name"])
        named = {box.name: id_ for id_, box in self.boxes.items()}
        id_ = named.get(matched[1], matched[1])
        if id_ not in self.boxes:
            return 404, {"message": f"No such container: {matched[1]}"}
        return self.container(method, id_, matched[2] or "")

    def create(self, name: str) -> tuple[int, Any]:
        id_ = hashlib.sha256(f"{name} {len(self.seen)}".encode()).hexdigest()
        if name in {box.name for box in self.boxes.values()}:
            return 409, {"message": f"Conflict. The container name {name} is already in use"}
        self.boxes[id_] = Box(name, self.body)
        return 201, {"Id": id_, "Warnings": []}

    def container(self, method: str, id_: str, what: str) -> tuple[int, Any]:
        box = self.boxes[id_]
        if method == "DELETE":
            self.discard(id_)
            return 204, None
        if what == "/start":
            words = [sys.executable, str(self.program), *box.body["Cmd"]]
            pipe = subprocess.PIPE
            box.process = subprocess.Popen(words, stderr=pipe, start_new_session=True)
            return 204, None
        if what == "/logs":
            box.inspected(id_)
            return 200, struct.pack(">BxxxL", 2, len(box.wrote)) + box.wrote
        return 200, box.inspected(id_)
