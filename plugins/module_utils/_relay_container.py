# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A relay as a container of the host's own Engine, of an image that is there: nothing is pulled.

The directory of the relay is there read-only, at its own path, and the network is the host's: so
configuration, process and answer are those of a relay without a container. API:
https://docs.docker.com/reference/api/engine/version/v1.41/
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _relay_config as files
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._relay_config import Json, Wanted
from ansible_collections.fleet.images.plugins.module_utils._relay_tree import RelayError

LABEL = "fleet.images.relay"
# Of an image that names no program of its own.
_PROGRAM = "registry"
# What a registry needs: to read what its user owns, and a port below 1024.
_RIGHTS = ("DAC_OVERRIDE", "NET_BIND_SERVICE")


class Container:
    """One container of a registry's image. Raises EngineError, SdkError and RelayError."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._engine = connect(wanted.docker_host)
        self._image: Mapping[str, Any] = {}
        self._id = ""
        self.what = f"a container of {wanted.image}"

    def find(self) -> None:
        """Raises RelayError where the Engine lacks the image, or is in a network of its own."""
        name = self._wanted.image
        self._image = self._engine.inspect(name) or {}
        if not self._image:
            raise RelayError(
                f"{self.what}: wanted on the Engine at {self._engine.host}, which does not have the"
                " image; load it there (image_load) or pull it (image_pull), since a relay pulls"
                " nothing by itself"
            )
        if "name=rootless" in (self._engine.get("/info").get("SecurityOptions") or ()):
            raise RelayError(
                f"{self.what}: wanted in the network of the host, the Engine at"
                f" {self._engine.host} is rootless and has one of its own; leave image out, and"
                " install the distribution's package docker-registry"
            )

    def is_noted(self, note: Json) -> bool:
        """Whether a running container is of this image and program."""
        self._image = self._engine.inspect(self._wanted.image) or {}
        wanted = [self._image.get("Id"), self._wanted.command, self._wanted.docker_host]
        return [note.get(key) for key in ("image", "command", "docker_host")] == wanted

    def begin(self, directory: Path) -> Json:
        """Creates and starts it; what to note of it, `pid` among it."""
        name = f"fleet-images-relay-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"
        self._clear(name, directory)
        created = self._engine.post("/containers/create", body=self._body(directory), name=name)
        self._id = str(created["Id"])
        note = {
            "container": self._id,
            "image": self._image["Id"],
            "command": self._wanted.command,
            "docker_host": self._wanted.docker_host,
        }
        # Whoever is killed from here on leaves what the next one finds.
        files.mark(directory, {**note, "lease": self._wanted.lease})
        try:
            self._engine.post("/containers/{0}/start", self._id)
        except EngineError as error:
            raise RelayError(
                f"{self.what}: it does not start, the Engine at {self._engine.host} said:"
                f" {error.words}; give an image of CNCF Distribution, or set command to its program"
            ) from error
        return {**note, "pid": int(self._state().get("Pid") or 0)}

    def _clear(self, name: str, directory: Path) -> None:
        """Removes a container of ours that has this name; raises RelayError for another's."""
        found = inspect(self._engine, name)
        if not found:
            return
        if ((found.get("Config") or {}).get("Labels") or {}).get(LABEL) != str(directory):
            raise RelayError(
                f"{self.what}: the Engine at {self._engine.host} has a container {name} that is"
                " another's; remove or rename it"
            )
        discard(self._engine, str(found["Id"]))

    def _body(self, directory: Path) -> Json:
        config = self._image.get("Config") or {}
        program = self._wanted.command or ("" if config.get("Entrypoint") else _PROGRAM)
        overruling = [
            name
            for name in (line.partition("=")[0] for line in config.get("Env") or ())
            if name.startswith("REGISTRY_")
        ]
        return {
            "Image": self._image["Id"],
            **({"Entrypoint": [program]} if program else {}),
            "Cmd": ["serve", str(directory / files.CONFIG)],
            # A name without a value takes the variable away.
            "Env": overruling,
            "User": f"{os.getuid()}:{os.getgid()}",
            "WorkingDir": "/",
            "Labels": {LABEL: str(directory)},
            "HostConfig": {
                "Binds": [f"{directory}:{directory}:ro"],
                "NetworkMode": "host",
                "UsernsMode": "host",
                "RestartPolicy": {"Name": "no"},
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "CapAdd": list(_RIGHTS),
                # The store's files keep their SELinux label.
                "SecurityOpt": ["no-new-privileges", "label=disable"],
            },
        }

    def _state(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = inspect(self._engine, self._id).get("State") or {}
        return found

    def ended(self) -> str:
        """What it ended with; '' while it runs."""
        state = self._state()
        return "" if state.get("Running") else f"exit code {state.get('ExitCode')}"

    def words(self) -> str:
        """The end of what it wrote, on one line; '' for nothing."""
        try:
            return files.last_lines(self._engine.logs(self._id))
        except EngineError:
            return ""

    def end(self) -> None:
        """Ends and removes it at once."""
        if self._id:
            discard(self._engine, self._id)


def connect(docker_host: str) -> Engine:
    """The Engine of this host; raises RelayError for one elsewhere, EngineError, SdkError."""
    if not docker_host.startswith("unix://"):
        raise RelayError(
            f"docker_host {docker_host}: wanted the socket of this host's own Engine, since the"
            " relay serves files of this host; leave image out, or give unix:///var/run/docker.sock"
        )
    return Engine({"docker_host": docker_host})


def inspect(engine: Engine, name: str) -> Mapping[str, Any]:
    """What an Engine tells of a container, empty where it has none; raises EngineError."""
    try:
        found: Mapping[str, Any] = engine.get("/containers/{0}/json", name)
    except EngineError as error:
        if error.status == 404:
            return {}
        raise
    return found


def discard(engine: Engine, id_: str) -> bool:
    """Ends and removes a container, with its volumes; whether it was there. Raises EngineError."""
    try:
        engine.delete("/containers/{0}", id_, force=1, v=1)
    except EngineError as error:
        if error.status == 404:
            return False
        raise
    return True
