# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_relay over a store with two images, and a program that answers as Distribution does."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from images import Store, as_lock

from ansible_collections.fleet.images.plugins.module_utils import _lock, _relay_process
from ansible_collections.fleet.images.plugins.modules import image_relay

Json = dict[str, Any]
HASH = "$2y$05$" + "a" * 53
STUB = Path(__file__).with_name("distribution_stub.py")


class Bench:
    """A store with two images, and the module over it. `check` mode first wherever it matters."""

    def __init__(self, root: Path, run_main: Callable[..., Json]) -> None:
        self.root, self._run_main = root, run_main
        self.store = Store.at(root / "store")
        self.web, self.tool = self.store.image("shop/web:1", "a"), self.store.image("tool:1", "b")
        self.lock = _lock.dump(as_lock(self.web, self.tool))
        self.command = root / "bin" / "docker-registry"
        self.command.parent.mkdir()
        self.command.write_text(f"#!{sys.executable}\n{STUB.read_text()}")
        self.command.chmod(0o700)
        self.directory = root / "store" / ".relay" / "relay"

    def run(self, check: bool = False, diff: bool = False, **options: Any) -> Json:
        given: Json = {"store": str(self.store.layout.root), **options}
        if options.get("state") != "stopped":
            given = {"lock": self.lock, "command": str(self.command), **given}
        given = {key: value for key, value in given.items() if value is not None}
        given.update({"_ansible_check_mode": check, "_ansible_diff": diff})
        return self._run_main(image_relay, given)

    def behave(self, what: str) -> None:
        self.command.with_name("behaviour").write_text(what)


@contextmanager
def benched(root: Path, run_main: Callable[..., Json]) -> Iterator[Bench]:
    """A bench, of which no relay is left."""
    made = Bench(root, run_main)
    try:
        yield made
    finally:
        for note in root.rglob("relay.json"):
            _relay_process.stop(note.parent)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
