# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of `docker buildx` that make, change, boot, stop and remove one builder."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._builder_plan import (
    ANEW,
    APPEND,
    CREATE,
    KEPT,
    LEAVE,
    MEND,
    WITH_DAEMON,
    Kept,
    Plan,
    Wanted,
)
from ansible_collections.fleet.images.plugins.module_utils._builder_store import (
    DEFAULT_CONFIG,
    Store,
)
from ansible_collections.fleet.images.plugins.module_utils._builder_words import Settings, arguments
from ansible_collections.fleet.images.plugins.module_utils._buildx import (
    Buildx,
    BuildxError,
    Node,
    current_builder,
)

DEFAULT = "default"
"""The builder of the Engine itself."""

BUILDKIT_DIR = "/etc/buildkit"
"""Where a configuration lies beside BuildKit, with the certificates that it names."""


class BuilderError(Exception):
    """A builder cannot be what was wanted; the text is one sentence with the next step.

    `changed`: whether something of it is not as it was.
    """

    def __init__(self, message: str, changed: bool = False) -> None:
        super().__init__(message)
        self.changed = changed


@dataclass
class Undo:
    """What has been done until a command failed."""

    retired: bool = False
    booting: bool = False


class Commands:
    """The commands for one builder. `work`: a directory for files of this run."""

    def __init__(
        self, name: str, buildx: Buildx, store: Store, options: Mapping[str, Any], work: Path
    ) -> None:
        self.name, self.buildx, self.store, self.options, self.work = (
            *(name, buildx, store, options, work),
        )
        self.here = str(options["docker_host"])
        # Seconds for a command that asks nodes; buildx itself gives up after 20.
        self.patience = float(max(options["timeout"], 30))
        self.warnings: list[str] = []
        self._undo = Undo()
        self.config = self._given_config()

    def _given_config(self) -> str:
        """A file with the configuration that was named, '' without one."""
        content = self.options["buildkitd_config"]
        if content is None:
            return ""
        path = self.work / "buildkitd.toml"
        path.touch(mode=0o600)
        path.write_text(content, encoding="utf-8")
        return str(path)

    def look(self) -> tuple[Node, ...]:
        """The nodes as they are now; raises BuildxError."""
        told = self.buildx.inspect(self.name, self.patience)
        return told.nodes if told else ()

    def read_config(self, plan: Plan) -> Mapping[str, bytes]:
        """The named configuration as buildx keeps it: it writes it anew, with certificates beside.

        Raises BuilderError.
        """
        first = replace(plan.nodes[0], platforms=())
        made, _told = self.rehearse(replace(plan, nodes=(first,)))
        return made.nodes[0].files

    def with_files(self, wanted: Wanted, files: Mapping[str, bytes]) -> Wanted:
        """The same wishes, of every node with that configuration."""
        nodes = wanted.nodes and tuple(replace(one, files=files) for one in wanted.nodes)
        return replace(wanted, nodes=nodes, common=replace(wanted.common, files=files))

    def rehearse(self, plan: Plan) -> tuple[Kept, tuple[Node, ...]]:
        """What buildx makes of the plan's nodes, in a directory of its own; raises BuilderError."""
        with self._elsewhere() as (buildx, store):
            self._create(buildx, plan.driver, plan.nodes)
            made = store.builder(self.name)
            told = buildx.inspect(self.name, self.patience)
        if not made or not told:
            raise BuilderError(f"builder {self.name}: buildx made none of it; is its disk full?")
        return made, told.nodes

    @contextlib.contextmanager
    def _elsewhere(self) -> Iterator[tuple[Buildx, Store]]:
        """A buildx that knows of no builder; what it is told is forgotten."""
        with tempfile.TemporaryDirectory(dir=self.work) as place:
            usual = self.store.directory / DEFAULT_CONFIG
            if usual.is_file():
                shutil.copy(usual, place)
            yield Buildx(self.options, {"BUILDX_CONFIG": place}), Store(Path(place))

    def apply(self, plan: Plan, found: Kept | None) -> None:
        """Does what was planned; raises BuilderError."""
        for step in plan.steps:
            if step.retire and found and step.before:
                self._retire(found.driver, step.before, step.cache == KEPT, step.do == LEAVE)
        left = [one.settings.name for one in plan.steps if one.do in (LEAVE, ANEW)]
        if plan.remade:
            self._run("rm", "--keep-daemon", self.name)
        if plan.remade or not found:
            self._create(self.buildx, plan.driver, plan.nodes)
            return
        for node in left:
            self._run("create", "--name", self.name, "--node", node, "--leave")
        for step in plan.steps:
            if step.do in (ANEW, APPEND, MEND):
                carried = self._config_of(step.settings) if step.do != MEND else self.config
                self._make(self.buildx, plan.driver, step.settings, carried, append=True)

    def _create(self, buildx: Buildx, driver: str, nodes: tuple[Settings, ...]) -> None:
        for number, node in enumerate(nodes):
            self._make(buildx, driver, node, self._config_of(node), append=number > 0)

    def _make(self, buildx: Buildx, driver: str, node: Settings, config: str, append: bool) -> None:
        words = arguments(self.name, driver, node, config, self.here, append)
        try:
            buildx.run("create", *words, timeout=self.patience)
        except BuildxError as error:
            raise BuilderError(
                f"builder {self.name}, node {node.name}: wanted with driver {driver} at"
                f" {node.endpoint or 'its cluster'}, buildx said: {error.words}; mend what it names"
            ) from error

    def _run(self, *words: str) -> None:
        try:
            self.buildx.run(*words, timeout=self.patience)
        except BuildxError as error:
            raise BuilderError(f"builder {self.name}: {words[0]}: {error.words}") from error

    def _config_of(self, node: Settings) -> str:
        """The path of a configuration that a node has or is to have, '' for none.

        What buildx keeps names files as they lie beside BuildKit; it reads them from here again.
        """
        if self.config or not node.files:
            return self.config
        place = Path(tempfile.mkdtemp(dir=self.work))
        for name, content in node.files.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = content
            for other in node.files:
                inside, here = f'"{BUILDKIT_DIR}/{other}"', f'"{place / other}"'
                text = text.replace(inside.encode(), here.encode())
            path.write_bytes(text)
        return str(place / "buildkitd.toml")

    def _retire(self, driver: str, node: Settings, keep: bool, leaves: bool = False) -> None:
        """Removes the BuildKit of one node, which `create --leave` would leave running.

        A buildx that knows just this node removes it. Where a host is gone, its node leaves all the
        same.
        """
        bare = replace(node, platforms=(), flags=(), files={})
        flags = ["--keep-state"] if keep else []
        with self._elsewhere() as (buildx, _store):
            words = arguments(self.name, driver, bare, "", self.here, append=False)
            try:
                buildx.run("create", *words, timeout=self.patience)
                buildx.run("rm", "--force", *flags, self.name, timeout=self.patience)
            except BuildxError as error:
                message = (
                    f"builder {self.name}, node {node.name}: its BuildKit at {node.endpoint} was to"
                    f" be removed, buildx said: {error.words}"
                )
                if not leaves:
                    raise BuilderError(f"{message}; mend that first") from error
                self.warnings.append(f"{message}; the node has left all the same")
        self._undo.retired = True

    @contextlib.contextmanager
    def undoing(self, plan: Plan) -> Iterator[Undo]:
        """After an error the builder is what it was; what was removed of it boots by itself."""
        before = self.store.read(self.name)
        try:
            yield self._undo
        except (BuilderError, BuildxError, OSError) as error:
            with contextlib.suppress(BuilderError, BuildxError, OSError):
                self._take_back(plan, before)
            changed = self._undo.retired or self.store.read(self.name) != before
            raise BuilderError(str(error), changed) from error

    def _take_back(self, plan: Plan, before: bytes | None) -> None:
        made = [one for one in plan.steps if one.do in (CREATE, APPEND, ANEW)]
        if self._undo.booting and plan.driver in WITH_DAEMON:
            for step in made:
                with contextlib.suppress(BuilderError):
                    self._retire(plan.driver, step.settings, keep=True)
        if before is None:
            self.buildx.run("rm", "--keep-daemon", self.name, check=False, timeout=self.patience)
            self._undo.retired = False
        self.store.restore(self.name, before)

    def boot(self) -> None:
        """Starts what does not run; raises BuilderError."""
        seconds = float(self.options["boot_timeout"])
        try:
            self.buildx.run("inspect", "--bootstrap", self.name, timeout=seconds)
        except BuildxError as error:
            raise BuilderError(
                f"builder {self.name}: wanted booted within {seconds:g} s, buildx said:"
                f" {error.words}; see that its nodes answer and have or reach the image of BuildKit"
                " (driver_opts.image)"
            ) from error

    def stop(self) -> None:
        """Stops what runs; raises BuilderError."""
        try:
            self.buildx.run("stop", self.name, timeout=float(self.options["boot_timeout"]))
        except BuildxError as error:
            raise BuilderError(
                f"builder {self.name}: wanted stopped, buildx said: {error.words}; stop it there"
            ) from error

    def remove(self, keep: bool) -> None:
        """Removes the builder, those nodes that do not answer too; raises BuilderError."""
        words = ["rm", "--force", *(["--keep-state"] if keep else []), self.name]
        try:
            self.buildx.run(*words, timeout=self.patience)
        except BuildxError as error:
            if self.store.read(self.name) is not None:
                raise BuilderError(
                    f"builder {self.name}: wanted absent, it stays: {error}"
                ) from error
            self.warnings.append(
                f"builder {self.name} is removed, but not all of its nodes: {error.words}"
            )

    def use(self) -> None:
        """Makes it the current one; raises BuilderError."""
        self._run("use", self.name)
        current = current_builder(self.here) or DEFAULT
        if current != self.name:
            raise BuilderError(
                f"builder {self.name}: wanted current for {self.here}, found {current} afterwards;"
                f" run docker buildx use {self.name}",
                changed=True,
            )

    def unanswered(self, node: Node, state: str) -> BuilderError:
        """The error for a node that is not in the wanted state."""
        return BuilderError(
            f"builder {self.name}, node {node.name} at {node.endpoint}: wanted"
            f" {state or 'booted'}, found {node.status or 'no answer'}"
            f" ({node.error or 'it does not answer'}); see that it can be reached and runs"
        )
