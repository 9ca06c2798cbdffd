# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a clean-up: which images go and why, what that frees, and why it may be refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import (
    _amounts,
    _holdings,
    _plan_file,
    _policy,
    _protection,
    _reclaim,
    _removal,
    _retention,
    _stock,
    _survey,
)
from ansible_collections.fleet.images.plugins.module_utils._amounts import (
    Percent,
    PolicyError,
    Target,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC
from ansible_collections.fleet.images.plugins.module_utils._policy import Policy
from ansible_collections.fleet.images.plugins.module_utils._reclaim import Range, Stock
from ansible_collections.fleet.images.plugins.module_utils._removal import Entry, Removal
from ansible_collections.fleet.images.plugins.module_utils._retention import Budgets, Verdict
from ansible_collections.fleet.images.plugins.module_utils._survey import Survey

Params = Mapping[str, Any]


@dataclass
class Plan:
    """What goes from one Engine, and what stays.

    `goes`: verdicts in the order of removal, `stays`: the others. `removal`: what is to be done for
    it. `frees`: image ID -> the bytes that go with it, in that order. `settled`: entries of a saved
    plan that are not to be done any more. `refused`: why none of it may be done.
    """

    goes: list[Verdict]
    stays: list[Verdict]
    removal: Removal
    stock: Stock
    frees: dict[str, Range]
    settled: list[Entry] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def total(self) -> Range:
        """The bytes that all of it frees."""
        return _reclaim.total(self.frees.values())

    def entries(self) -> list[dict[str, Any]]:
        """The module's `plan`."""
        return [
            {
                **_survey.names(one.image),
                "reason": one.reason,
                "bytes": self.frees[one.image.id].least,
                "bytes_max": self.frees[one.image.id].most,
            }
            for one in self.goes
        ]

    def kept(self) -> list[dict[str, Any]]:
        """The module's `kept`."""
        return [{**_survey.names(one.image), "reason": one.reason} for one in self.stays]


@dataclass(frozen=True)
class Wishes:
    """What the options ask for, checked before anything is looked at.

    `target`: bytes, or a part of the disk, that are to be free; None for no such limit.
    """

    policy: Policy
    budgets: Budgets
    target: Target | None
    params: Params

    @property
    def times_matter(self) -> bool:
        """Whether it matters when images were tagged."""
        policy = self.policy
        by_time = policy.keep_last is not None and policy.keep_last_by == "time"
        return by_time or policy.tagged_before is not None or self.ledger_path is not None

    @property
    def ledger_path(self) -> str | None:
        """The ledger, where last uses matter."""
        matters = self.policy.unused_for is not None or self.target is not None
        return self.params["ledger_path"] if matters else None


def wishes(params: Params) -> Wishes:
    """Raises PolicyError for whatever is no policy."""
    if params["keep_bases"] and params["lock"] is None and not params["lock_path"]:
        raise PolicyError(
            "keep_bases: a lock was wanted, which says what the next bundle brings; none is given,"
            " set lock or lock_path"
        )
    most = params["max_bytes"]
    budgets = Budgets(
        params["max_images"],
        None if most is None else _amounts.amount(most),
        params["min_images_left"],
    )
    target = params["free_target"]
    return Wishes(
        _policy.policy(params),
        budgets,
        None if target is None else _amounts.parse_target(target),
        params,
    )


def make(engine: Engine, wanted: Wishes, survey: Survey, now: int) -> Plan:
    """The plan by policy. Raises EngineError, PolicyError and what `_protection` raises."""
    params = wanted.params
    protected = _protection.protected(engine, survey.images, params)
    verdicts = _retention.decide(survey.subjects(), wanted.policy, now, protected)
    stock = _read_stock(engine, survey, verdicts)
    if params["keep_bases"]:
        verdicts = _bases(engine, verdicts, stock, params)
    verdicts = _last_copies(engine, verdicts, params)
    if wanted.target is not None:
        verdicts = _until(engine, wanted.target, verdicts, survey, stock)
    return _planned(engine, wanted, verdicts, survey, stock)


def again(engine: Engine, wanted: Wishes, survey: Survey, now: int) -> Plan:
    """The part of a saved plan that still holds. Raises as `make` does."""
    saved = _plan_file.read(wanted.params["apply"], engine)
    protected = _protection.protected(engine, survey.images, wanted.params)
    guard = Policy(
        scope="unused",
        protect=wanted.policy.protect,
        protect_labels=wanted.policy.protect_labels,
    )
    found = {
        one.image.id: one for one in _retention.decide(survey.subjects(), guard, now, protected)
    }
    verdicts, settled = [], []
    for entry in saved:
        verdict = found.pop(entry.id, None)
        if verdict is None:
            settled.append(entry.settled(None, "it is gone already"))
            continue
        reason = entry.differs(verdict.image) or ("" if verdict.goes else verdict.reason)
        verdicts.append(Verdict(verdict.image, not reason, reason or entry.reason))
    verdicts = _last_copies(engine, verdicts, wanted.params)
    names = {entry.id: entry for entry in saved}
    settled += [names[o.image.id].settled(o.image, o.reason) for o in verdicts if not o.goes]
    outside = [
        replace(one, goes=False, reason="the plan does not name it") for one in found.values()
    ]
    stock = _read_stock(engine, survey, verdicts)
    plan = _planned(engine, wanted, [*verdicts, *outside], survey, stock)
    plan.settled = settled
    return plan


def _read_stock(engine: Engine, survey: Survey, verdicts: Sequence[Verdict]) -> Stock:
    """What images hold; nothing is asked where none of them goes."""
    doomed = [one.image.id for one in verdicts if one.goes]
    return _stock.read(engine, survey.images, doomed) if doomed else Stock({}, {})


def _planned(
    engine: Engine, wanted: Wishes, verdicts: Sequence[Verdict], survey: Survey, stock: Stock
) -> Plan:
    store = engine.facts.store
    rules = _removal.Rules(store, _removal.SKIP, force=True, prune=store == CLASSIC)
    told = {one.image.id: one for one in verdicts if one.goes}
    removal = _removal.whole((one.image for one in told.values()), survey.images, rules)
    goes = [told.pop(job.image.id) for job in removal.jobs]
    for job, one in zip(removal.jobs, goes):
        job.last.reason = one.reason
    order = [one.image.id for one in goes]
    stays = [*told.values(), *(one for one in verdicts if not one.goes)]
    groups = _together(engine, order, survey)
    frees = dict(zip(order, _reclaim.freed(stock, groups)))
    plan = Plan(goes, stays, removal, stock, frees)
    plan.refused = _retention.exceeded([*goes, *stays], wanted.budgets, plan.total.most)
    return plan


def _together(engine: Engine, order: Sequence[str], survey: Survey) -> Sequence[tuple[str, ...]]:
    """For each image that goes, itself and what goes along with it.

    A classic store keeps nameless images for what was built upon them. On a containerd store each
    is looked at by itself, so the Engine is told to take none along.
    """
    if engine.facts.store == CLASSIC:
        return _reclaim.along(order, survey.images)
    return [(id_,) for id_ in order]


def _bases(
    engine: Engine, verdicts: Sequence[Verdict], stock: Stock, params: Params
) -> list[Verdict]:
    """Keeps the layers that the lock's images need.

    A stock knows them by chain ID, on a containerd store that can be read by the digests of blobs.
    """
    platform = engine.facts.platform
    locked = [one for one in _protection.lock_of(params).values() if one.runs_on(platform)]
    needed: set[str] = set()
    for layers in (one.on(platform).layers for one in locked):
        needed.update(_holdings.chain_ids([layer.diff_id for layer in layers]))
        needed.update(layer.digest for layer in layers)
    return _retention.keep_bases(verdicts, needed, stock.parts)


def _last_copies(engine: Engine, verdicts: Sequence[Verdict], params: Params) -> list[Verdict]:
    """Keeps what no registry serves any more of the images that are the fleet's last copies."""
    login = (params["registry_username"] or "", params["registry_password"] or "")
    registries, last = _protection.Registries(engine, *login), set(params["last_copies"])

    def checked(one: Verdict) -> Verdict:
        wrong = registries.lack(one.image) if one.goes and one.image.id in last else ""
        told = f"the last copy in the fleet, and {wrong}"
        return replace(one, goes=False, reason=told) if wrong else one

    return list(map(checked, verdicts))


def _until(
    engine: Engine,
    target: Target,
    verdicts: Sequence[Verdict],
    survey: Survey,
    stock: Stock,
) -> list[Verdict]:
    """Goers as far as the target wants them, by the least that each is sure to free."""
    disk = _stock.disk(engine)
    if disk is None:
        raise PolicyError(
            f"free_target: the disk of the images of {engine.host} was wanted, it cannot be read"
            " from here; run this on the Engine's own host"
        )
    order = [one.image.id for one in verdicts if one.goes]
    groups = dict(zip(order, _together(engine, order, survey)))
    reclaim = _reclaim.Reclaim(stock)
    wanted = target.of(disk.total) if isinstance(target, Percent) else target
    return _retention.until(
        verdicts, lambda id_: reclaim.remove(*groups[id_]).least, wanted - disk.free
    )
