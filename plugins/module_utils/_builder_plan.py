# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be done about a builder: wanted settings against those that buildx keeps.

Pure. A setting that nobody named is not compared, and stays; an empty one is wanted empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ansible_collections.fleet.images.plugins.module_utils._builder_words import (
    Setting,
    SettingError,
    Settings,
    Wish,
    same_endpoint,
    same_flags,
    told,
)

CREATE, APPEND, MEND, LEAVE, ANEW = "created", "added", "changed", "left", "remade"
KEPT, LOST = "kept", "lost"
WITH_DAEMON = ("docker-container", "kubernetes")
"""Drivers that start a BuildKit of their own, with the settings of the time when it is made."""


@dataclass(frozen=True)
class Kept:
    """A builder as buildx keeps it."""

    name: str
    driver: str
    nodes: tuple[Settings, ...] = ()

    def node(self, name: str) -> Settings | None:
        """The node of a name."""
        return next((one for one in self.nodes if one.name == name), None)


@dataclass(frozen=True)
class Wanted:
    """A builder as it is wanted.

    `driver`: '' for the one that it has. `nodes`: None for those that it has, which then have the
    settings of `common`. `common` names no endpoint. `here`: the endpoint of a node without one.
    """

    name: str
    driver: str = ""
    nodes: tuple[Wish, ...] | None = None
    common: Wish = field(default_factory=lambda: Wish(""))
    here: str = ""


@dataclass(frozen=True)
class Step:
    """What happens to one node, and why.

    `settings`: as it is afterwards, for LEAVE as it was. `retire`: its BuildKit is removed, as it
    stands in `before`. `cache`: what becomes of its build cache, '' where it is not touched.
    """

    do: str
    settings: Settings
    reason: str
    before: Settings | None = None
    retire: bool = False
    cache: str = ""


@dataclass(frozen=True)
class Plan:
    """`steps`: what is to be done. `driver`, `nodes`: what the builder then is.

    `remade`: no node of it stays as it is, so that buildx has to be told of it anew.
    """

    driver: str
    nodes: tuple[Settings, ...]
    steps: tuple[Step, ...] = ()
    remade: bool = False


def plan(found: Kept | None, wanted: Wanted, idle: Sequence[str] = ()) -> Plan:
    """What is to be done, so that a builder is as wanted.

    `idle`: the names of those nodes that are known to have no BuildKit, so that there is none to
    remove. Raises SettingError for what no builder can be.
    """
    driver = wanted.driver or (found.driver if found else "docker-container")
    same = found if found and found.driver == driver else None
    nodes = _targets(same or Kept(wanted.name, driver), wanted)
    _check(driver, nodes, wanted)
    if not found:
        return Plan(driver, nodes, _created(nodes, "there is no such builder"))
    if not same:
        reason = f"driver: wanted {driver}, found {found.driver}"
        gone = tuple(_leave(found, one, idle, reason) for one in found.nodes)
        return Plan(driver, nodes, (*gone, *_created(nodes, reason)), remade=True)
    names = {one.name for one in nodes}
    gone = tuple(
        _leave(found, one, idle, "it is not wanted") for one in found.nodes if one.name not in names
    )
    stepping = (_step(found, one, idle) for one in nodes)
    steps = (*gone, *(one for one in stepping if one))
    left = {one.settings.name for one in steps if one.do in (LEAVE, ANEW)}
    remade = bool(steps) and left >= {one.name for one in found.nodes}
    return Plan(driver, nodes, steps, remade)


def differences(found: Settings, wanted: Settings, driver: str) -> list[Setting]:
    """The settings of a node that are not as wanted."""
    unlike = {
        "endpoint": not same_endpoint(found.endpoint, wanted.endpoint),
        "platforms": {*found.platforms} != {*wanted.platforms},
        "driver_opts": dict(found.driver_opts) != dict(wanted.driver_opts),
        "buildkitd_flags": not same_flags(found.flags, wanted, driver),
        "buildkitd_config": _filled(found.files) != _filled(wanted.files),
    }
    shared = dict(found.driver_opts).items() & dict(wanted.driver_opts).items()
    shown = [
        replace(one, driver_opts={k: v for k, v in one.driver_opts.items() if (k, v) not in shared})
        for one in (wanted, found)
    ]
    return [Setting(name, *told(name, *shown)) for name, differs in unlike.items() if differs]


def _targets(found: Kept, wanted: Wanted) -> tuple[Settings, ...]:
    """The nodes as they are to be: what was named upon what is there."""
    here = wanted.here if found.driver == "docker-container" else ""
    if wanted.nodes is None:
        kept = found.nodes or (Settings(f"{found.name}0", here),)
        return tuple(wanted.common.upon(one) for one in kept)
    return tuple(
        wish.upon(found.node(wish.name) or Settings(wish.name, here)) for wish in wanted.nodes
    )


def _check(driver: str, nodes: Sequence[Settings], wanted: Wanted) -> None:
    """What buildx refuses, or would take from one node silently when it gives it to another."""
    lacking = [one.name for one in nodes if driver == "remote" and not one.endpoint]
    if lacking:
        raise SettingError(
            f"node {lacking[0]}: driver remote: wanted an endpoint, the address of a BuildKit,"
            " found none; set it in nodes"
        )
    if driver == "kubernetes" and any(one.endpoint for one in wanted.nodes or ()):
        raise SettingError(
            f"builder {wanted.name}: driver kubernetes takes no endpoint; it uses KUBECONFIG, leave"
            " the endpoint out"
        )
    places = [("name", one.name, one.name) for one in nodes]
    places += [("endpoint", one.endpoint, one.name) for one in nodes if one.endpoint]
    places += [("platform", which, one.name) for one in nodes for which in one.platforms]
    owners: dict[tuple[str, str], str] = {}
    for kind, value, node in places:
        owner = owners.setdefault((kind, value), node)
        if owner != node or places.count((kind, value, node)) > 1:
            raise SettingError(
                f"builder {wanted.name}: {kind} {value}: wanted at one node, found at {owner} and"
                f" {node}; buildx keeps it at one, name it there only"
            )


def _created(nodes: Sequence[Settings], reason: str) -> tuple[Step, ...]:
    return tuple(
        Step(APPEND if number else CREATE, one, reason) for number, one in enumerate(nodes)
    )


def _leave(found: Kept, node: Settings, idle: Sequence[str], reason: str) -> Step:
    retire = found.driver in WITH_DAEMON and node.name not in idle
    return Step(LEAVE, node, reason, node, retire, LOST if found.driver in WITH_DAEMON else "")


def _step(found: Kept, target: Settings, idle: Sequence[str]) -> Step | None:
    """What a node needs that is to stay."""
    before = found.node(target.name)
    if before is None:
        return Step(APPEND, target, "the builder has no such node")
    unlike = differences(before, target, found.driver)
    if not unlike:
        return None
    reason = "; ".join(map(str, unlike))
    names = {one.name for one in unlike}
    daemon = found.driver in WITH_DAEMON and names != {"platforms"}
    retire = daemon and target.name not in idle
    others = [one.endpoint for one in found.nodes if one is not before]
    if not retire and target.endpoint not in others and _can_be_mended(before, target, names):
        return Step(MEND, target, reason, before)
    # The cache is a volume of the node's name, on the Engine that the node is on.
    stays = found.driver == "docker-container" and "endpoint" not in names
    return Step(ANEW, target, reason, before, retire, (KEPT if stays else LOST) if daemon else "")


def _can_be_mended(before: Settings, target: Settings, names: set[str]) -> bool:
    """Whether `docker buildx create --append` does it.

    It takes what is not empty only, adds files of a configuration to those that are there, and
    crashes where there are none.
    """
    filled = {
        "platforms": target.platforms,
        "driver_opts": target.driver_opts,
        "buildkitd_flags": target.flags,
        "buildkitd_config": before.files and {*before.files} <= {*target.files},
    }
    return all(filled.get(name, True) for name in names)


def _filled(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """An empty configuration is the same as none."""
    return {name: content for name, content in files.items() if content.strip()}
