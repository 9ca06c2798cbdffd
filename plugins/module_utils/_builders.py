# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What buildx_builder does: a builder as it is wanted, with as little as possible made anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _builder_plan
from ansible_collections.fleet.images.plugins.module_utils._build_command import texts
from ansible_collections.fleet.images.plugins.module_utils._builder_commands import (
    DEFAULT,
    BuilderError,
    Commands,
)
from ansible_collections.fleet.images.plugins.module_utils._builder_plan import (
    APPEND,
    CREATE,
    KEPT,
    LEAVE,
    LOST,
    WITH_DAEMON,
    Kept,
    Plan,
    Wanted,
)
from ansible_collections.fleet.images.plugins.module_utils._builder_store import Store
from ansible_collections.fleet.images.plugins.module_utils._builder_words import (
    Settings,
    Wish,
    check_name,
    flags_of,
    masked,
    newer,
    platforms_of,
)
from ansible_collections.fleet.images.plugins.module_utils._buildx import (
    Builder,
    Buildx,
    Node,
    current_builder,
    directory,
)

PRESENT, ABSENT, BOOTED, STOPPED = STATES = ("present", "absent", "booted", "stopped")
DRIVERS = ("docker", "docker-container", "remote", "kubernetes")
OWN = "docker"
"""The driver of the builder that every docker context has."""
RUNNING = "running"

Json = dict[str, Any]


def settle(options: Mapping[str, Any], dry_run: bool, work: str) -> Json:
    """Makes a builder what the options of the module say; the module's result.

    `work`: a directory for files of this run, which the caller removes. Raises BuilderError,
    BuildxError, SettingError, OSError.
    """
    name = check_name("builder", options["name"])
    buildx, store = Buildx(options), Store(directory())
    found, here = store.builder(name), str(options["docker_host"])
    current = current_builder(here) or DEFAULT
    commands = Commands(name, buildx, store, options, Path(work))
    told = buildx.inspect(name, commands.patience)
    if options["state"] == ABSENT:
        result = _absent(commands, found, told, dry_run)
    elif found is None and (told or options["driver"] == OWN):
        result = _own(commands, told)
    else:
        result = _Settling(commands, found, told, dry_run).run()
    if options["use"] and options["state"] != ABSENT and current != name:
        reason = f"current: wanted {name}, found {current}"
        result["actions"].append(_action("used", reason))
        if not dry_run:
            commands.use()
        current = name
    if result["builder"]:
        now = current if dry_run else current_builder(here) or DEFAULT
        result["builder"]["current"] = now == name
    return _finished(name, result, commands.warnings)


def _finished(name: str, result: Json, warnings: Sequence[str]) -> Json:
    """The result with what follows from its actions."""
    actions = result["actions"]
    did = [f"{one['node']} {one['action']}".strip() for one in actions]
    caches = {one["cache"] for one in actions} - {""}
    lost = ", the build cache is kept" if caches == {KEPT} else ""
    return {
        **result,
        "changed": bool(actions),
        "msg": f"builder {name}: {', '.join(did) or 'nothing to do'}{lost}",
        "warnings": list(warnings),
    }


def _action(action: str, reason: str, node: str = "", cache: str = "") -> Json:
    return {"action": action, "node": node, "reason": reason, "cache": cache}


def _absent(commands: Commands, found: Kept | None, told: Builder | None, dry_run: bool) -> Json:
    """Removes a builder."""
    if found is None and told:
        raise BuilderError(
            f"builder {commands.name}: wanted absent, found the builder of the docker context of"
            f" that name, which goes with it only; leave it, or run docker context rm"
            f" {commands.name}"
        )
    actions = []
    if found:
        keep = bool(commands.options["keep_state"])
        cache = (KEPT if keep else LOST) if found.driver in WITH_DAEMON else ""
        actions = [_action("removed", "it is there", cache=cache)]
        if not dry_run:
            commands.remove(keep)
    before = _shown(found) if found else ""
    return {"actions": actions, "builder": None, "diff": _diff(commands.name, before, "")}


def _own(commands: Commands, told: Builder | None) -> Json:
    """The builder of a docker context: it is there, and nothing of it can be set."""
    name, options = commands.name, commands.options
    if not told:
        raise BuilderError(
            f"builder {name}: driver docker: wanted a builder of that name, found no docker context"
            " of it, and buildx makes no other with that driver; use the name default, or another"
            " driver"
        )
    if options["driver"] not in (None, OWN):
        raise BuilderError(
            f"builder {name}: wanted driver {options['driver']}, found the builder of the docker"
            " context of that name, which has the driver docker; choose another name"
        )
    given = [key for key in (*_SETTINGS, "nodes") if options[key]]
    if given or options["state"] == STOPPED:
        what = given[0] if given else "state stopped"
        raise BuilderError(
            f"builder {name}: {what}: wanted with driver docker, which is the Engine itself and"
            " takes no such setting; leave it out, or use another driver"
        )
    if told.error:
        raise BuilderError(f"builder {name}: wanted {options['state']}, it said: {told.error}")
    nodes = [_node(node.name, node, {}) for node in told.nodes]
    builder = {"name": name, "driver": told.driver, "nodes": nodes}
    return {"actions": [], "builder": builder, "diff": _diff(name, "", "")}


_SETTINGS = ("driver_opts", "platforms", "buildkitd_flags", "buildkitd_config")


class _Settling:
    """The way of a builder from what it is to what it shall be."""

    def __init__(
        self, commands: Commands, found: Kept | None, told: Builder | None, dry_run: bool
    ) -> None:
        self.commands, self.found, self.dry_run = commands, found, dry_run
        self.options = commands.options
        self.state = str(commands.options["state"])
        self.told = {one.name: one for one in told.nodes} if told else {}
        self.driver = commands.options["driver"] or (found.driver if found else "docker-container")

    def run(self) -> Json:
        """Plans, does it, and looks again; the result so far."""
        if self.driver == OWN:
            raise BuilderError(
                f"builder {self.commands.name}: wanted driver docker, found"
                f" {_driver(self.found)}, and buildx makes none with that driver; remove"
                " it, or choose another driver"
            )
        if self.state == STOPPED and self.driver == "remote":
            raise BuilderError(
                f"builder {self.commands.name}: wanted stopped, found driver remote, whose BuildKit"
                " runs by itself; stop it where it runs, or use the state present"
            )
        wanted = self._wanted()
        idle = [one.name for one in self.told.values() if one.status == "inactive"]
        plan = _builder_plan.plan(self.found, wanted, idle)
        actions = [_action(one.do, one.reason, one.settings.name, one.cache) for one in plan.steps]
        before = _shown(self.found, self._statuses()) if self.found else ""
        moved = self._moved(plan)
        made = self._foreseen(plan, moved) if self.dry_run else self._done(plan, moved, wanted)
        nodes = [_node(one.name, self.told.get(one.name), _settings(one)) for one in _sorted(made)]
        return {
            # To be booted, a remote BuildKit has to answer only.
            "actions": actions if self.driver == "remote" else [*actions, *moved],
            "builder": {"name": made.name, "driver": made.driver, "nodes": nodes},
            "diff": _diff(self.commands.name, before, _shown(made, self._statuses())),
        }

    def _statuses(self) -> Mapping[str, Node] | None:
        """The nodes' states, where they were asked for."""
        return self.told if self.state in (BOOTED, STOPPED) else None

    def _wanted(self) -> Wanted:
        """The options as wishes; a configuration as buildx reads it."""
        options, name = self.options, self.commands.name
        common = Wish(name, **_named(options))
        nodes = None
        if options["nodes"]:
            nodes = tuple(
                self._wish(f"{name}{number}", one) for number, one in enumerate(options["nodes"])
            )
        for wish in nodes or (common,):
            for option, version in newer(self.driver, wish.driver_opts or {}):
                self.commands.buildx.need(option, version)
        wanted = Wanted(name, options["driver"] or "", nodes, common, options["docker_host"])
        if not self.commands.config:
            return wanted
        files = self.commands.read_config(_builder_plan.plan(self.found, wanted))
        return self.commands.with_files(wanted, files)

    def _wish(self, name: str, given: Json) -> Wish:
        """A node of the list: its own settings upon those of all nodes."""
        own = {key: value for key, value in given.items() if value is not None}
        merged = {key: self.options[key] for key in ("platforms", "buildkitd_flags")}
        if self.options["driver_opts"] is not None or "driver_opts" in own:
            both = {**(self.options["driver_opts"] or {}), **own.get("driver_opts", {})}
            own["driver_opts"] = both
        endpoint = own.pop("endpoint", None)
        endpoint = self.options["docker_host"] if endpoint == "default" else endpoint
        name = check_name("node", own.pop("name", name))
        return Wish(name, endpoint, **_named({**merged, **own}))

    def _moved(self, plan: Plan) -> list[Json]:
        """Nodes to be started or stopped."""
        anew = {one.settings.name for one in plan.steps if one.retire or one.do in (CREATE, APPEND)}
        runs = {one.name: one for one in self.told.values() if one.status == RUNNING}
        running = {one.name for one in plan.nodes if one.name in runs and one.name not in anew}
        if self.state == BOOTED:
            rest = sorted({one.name for one in plan.nodes} - running)
            return [_action("booted", f"{BOOTED}: it does not run", one) for one in rest]
        if self.state == STOPPED:
            return [_action("stopped", f"{STOPPED}: it runs", one) for one in sorted(running)]
        return []

    def _foreseen(self, plan: Plan, moved: Sequence[Json]) -> Kept:
        """What the builder would be, with the errors that the commands would give."""
        made = self.found
        if plan.steps or not made:
            made, told = self.commands.rehearse(plan)
            self.told = {one.name: one for one in told}
        for step in plan.steps:
            if step.retire and step.do != LEAVE:
                old = self.told[step.settings.name]
                self.told[old.name] = replace(old, status="inactive")
        status = {BOOTED: RUNNING, STOPPED: "stopped"}.get(self.state, "")
        for one in moved:
            node = self.told.get(one["node"], Node(one["node"]))
            lost = node.status != RUNNING and (node.error or plan.driver == "remote")
            if self.state == BOOTED and lost:
                raise self.commands.unanswered(node, BOOTED)
            self.told[node.name] = replace(node, status=status)
        return made

    def _done(self, plan: Plan, moved: Sequence[Json], wanted: Wanted) -> Kept:
        """Does it; what the builder is then."""
        with self.commands.undoing(plan) as undo:
            if plan.steps:
                self.commands.apply(plan, self.found)
            if moved and self.state == BOOTED:
                undo.booting = True
                self.commands.boot()
            elif moved:
                self.commands.stop()
            made = self.commands.store.builder(self.commands.name)
            left = _builder_plan.plan(made, wanted).steps
            if left or not made:
                reasons = "; ".join(one.reason for one in left)
                raise BuilderError(
                    f"builder {self.commands.name}: wanted as told, found afterwards: {reasons};"
                    f" look at docker buildx inspect {self.commands.name}"
                )
            if plan.steps or moved:
                self.told = {one.name: one for one in self.commands.look()}
            self._check_states(moved)
        return made

    def _check_states(self, moved: Sequence[Json]) -> None:
        for one in moved:
            node = self.told.get(one["node"], Node(one["node"]))
            if (node.status == RUNNING) != (self.state == BOOTED):
                raise self.commands.unanswered(node, self.state)


def _driver(found: Kept | None) -> str:
    return f"driver {found.driver}" if found else "none"


def _named(options: Mapping[str, Any]) -> Json:
    """The settings that were named, as a Wish has them."""
    named: Json = {}
    if options.get("platforms") is not None:
        named["platforms"] = platforms_of(options["platforms"])
    if options.get("driver_opts") is not None:
        named["driver_opts"] = texts(options["driver_opts"])
    if options.get("buildkitd_flags") is not None:
        named["flags"] = flags_of(options["buildkitd_flags"])
    return named


def _sorted(builder: Kept) -> list[Settings]:
    """Its nodes; those that were made anew are last in the file."""
    return sorted(builder.nodes, key=lambda one: one.name)


def _settings(node: Settings) -> Json:
    return {
        "endpoint": node.endpoint,
        "pinned": list(node.platforms),
        "driver_opts": masked(node.driver_opts),
        "buildkitd_flags": list(node.flags),
    }


def _node(name: str, told: Node | None, settings: Json) -> Json:
    """A node as the result tells of it."""
    told = told or Node(name)
    platforms = list(told.platforms) or settings.get("pinned", [])
    state = {"platforms": platforms, "status": told.status, "error": told.error}
    return {"name": name, "endpoint": told.endpoint, **settings, **state}


def _shown(builder: Kept | None, told: Mapping[str, Node] | None = None) -> str:
    """A builder as the diff has it."""
    if builder is None:
        return ""
    nodes = {}
    for one in _sorted(builder):
        content = b"".join(name.encode() + one.files[name] for name in sorted(one.files))
        digest = hashlib.sha256(content).hexdigest()[:12] if content else ""
        nodes[one.name] = {**_settings(one), "buildkitd_config": digest}
        if told is not None:
            nodes[one.name]["running"] = one.name in told and told[one.name].status == RUNNING
    return json.dumps({"driver": builder.driver, "nodes": nodes}, indent=2) + "\n"


def _diff(name: str, before: str, after: str) -> Json:
    header = f"builder {name}"
    return {
        "before": before,
        "after": after,
        "before_header": header,
        "after_header": header,
    }
