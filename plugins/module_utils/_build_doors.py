# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a build reaches the world by: registries, the Engine, a store, and buildx itself.

Each is opened when it is needed first: an unchanged build needs no buildx, and often no Engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import (
    _built,
    _glance,
    _hidden,
    _holdings,
    _registry_options,
)
from ansible_collections.fleet.images.plugins.module_utils._build_command import wants_load
from ansible_collections.fleet.images.plugins.module_utils._build_run import Runner
from ansible_collections.fleet.images.plugins.module_utils._buildx import Buildx, driver_of
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout
from ansible_collections.fleet.images.plugins.module_utils._reference import Reference, parse
from ansible_collections.fleet.images.plugins.module_utils._registry import Registry


class Doors:
    """The doors of one task. `place`: a directory for temporary files, which the task removes."""

    def __init__(self, params: Mapping[str, Any], place: str, dry_run: bool = False) -> None:
        self._params = params
        self._place = place
        self._dry_run = dry_run
        self._stack = ExitStack()
        self.hidden = self._stack.enter_context(_hidden.Hidden())
        self._tagged = {parse(text).registry for text in params["tags"] or ()}
        self.driver = driver_of(params["builder"] or "", params["docker_host"])
        self.layout = Layout(params["store"]) if params["store"] else None
        options = _registry_options.options_from(params)
        anonymous = replace(options, username=None, password=None)
        self._own = self._stack.enter_context(Registry(options))
        self._other = self._stack.enter_context(Registry(anonymous))

    def __enter__(self) -> Doors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @cached_property
    def engine(self) -> Engine:
        """The Engine; raises EngineError, SdkError."""
        return Engine(self._params)

    @cached_property
    def places(self) -> dict[str, _built.Place]:
        """Where the result goes, by the kind of place; raises EngineError, SdkError."""
        found: dict[str, _built.Place] = {}
        if self._params["push"]:
            found["registry"] = _built.InRegistry(self._own, not self._dry_run)
        if self.layout:
            found["store"] = _built.InStore(self.layout)
        if wants_load(self._params):
            found["engine"] = _built.InEngine(self.engine)
        return found

    @property
    def writes_engine(self) -> bool:
        """Whether the build puts an image into the Engine."""
        return wants_load(self._params) or (self.driver == "docker" and bool(self._params["push"]))

    def makes_layouts(self) -> bool:
        """Whether the builder can give an OCI layout: an Engine with the classic store cannot."""
        return self.driver != "docker" or self.engine.facts.store == _holdings.CONTAINERD

    def resolve(self, reference: Reference) -> str:
        """The digest of a base image as the builder would find it.

        The Engine's own BuildKit takes what the Engine has, unless it is told to pull.
        Raises EngineError, RegistryError, SdkError.
        """
        if self.driver == "docker" and not self._params["pull"] and reference.tag:
            inspected = self._inspect(reference.tagged)
            if inspected is not None:
                return _digest_of(inspected, reference)
        named = reference.registry in self._tagged
        return (self._own if named else self._other).resolve(reference).digest

    def _inspect(self, name: str) -> Mapping[str, Any] | None:
        try:
            return _glance.inspect(self._params["docker_host"], name)
        except _glance.Unanswered:
            return self.engine.inspect(name)

    @cached_property
    def buildx(self) -> Buildx:
        """The command, with the task's login; raises BuildxError."""
        login = _hidden.login(
            sorted(self._tagged),
            self._params["registry_username"] or "",
            self._params["registry_password"] or "",
            self.hidden,
            self._place,
        )
        environment = self._stack.enter_context(login)
        epoch = self._params["source_date_epoch"]
        if epoch is not None:
            environment = {**environment, "SOURCE_DATE_EPOCH": str(epoch)}
        return Buildx(self._params, environment)

    def runner(self, kind: str) -> Runner:
        """What runs the build of a context of this kind; raises BuildxError."""
        return Runner(self.buildx, self._params, kind, self.hidden, self._place)


def _digest_of(inspected: Mapping[str, Any], reference: Reference) -> str:
    """The digest by which a registry knows the Engine's image, else the Engine's own ID of it."""
    for one in inspected.get("RepoDigests") or ():
        name, _at, digest = str(one).rpartition("@")
        if digest and parse(name).name == reference.name:
            return digest
    return str(inspected["Id"])
