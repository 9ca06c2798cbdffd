# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_pull does: from its options to wanted images, and through the pulls to the result."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _pull
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._hostlock import HostLock
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Lock,
    LockedImage,
    LockError,
    select,
)
from ansible_collections.fleet.images.plugins.module_utils._pull_plan import Decision, Want, wanted
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    ImageSpec,
    InvalidReference,
    parse,
    parse_images,
)
from ansible_collections.fleet.images.plugins.module_utils._retry import Retrier
from ansible_collections.fleet.images.plugins.module_utils._trust import trusted

Params = Mapping[str, Any]


def pull(params: Params, lock: Lock | None, dry_run: bool) -> dict[str, Any]:
    """The module's result, its `errors` and its `warnings`.

    `lock`: what the images of the list are pinned to; None where the list alone counts. An image
    that it lacks fails, and is not pulled by its tag.
    Raises EngineError, SdkError, InvalidReference, LockTimeout, TrustError, OSError.
    """
    specs = _specs(params, lock)
    engine = Engine(params)
    wants, refused = [], []
    for spec in specs:
        try:
            want = wanted(spec, _pinned(spec, lock), params["via"] or "", _own(engine))
            _check(want, params["tag_policy"])
            wants.append(want)
        except (InvalidReference, LockError) as error:
            bare = Want(spec.key, spec.reference, spec.destination)
            refused.append(_pull.Outcome(Decision(bare, "", "failed", str(error)), str(error)))
    outcomes, before = _pulled(engine, params, wants, dry_run)
    order = {spec.key: number for number, spec in enumerate(specs)}
    outcomes = sorted([*outcomes, *refused], key=lambda one: order[one.decision.want.name])
    warnings = [_advice(want) for want in wants if want.unpredictable]
    return {
        **_pull.report(outcomes, before),
        "engine": engine.facts.as_dict(),
        "warnings": warnings if params["tag_policy"] == "warn" else [],
    }


def _specs(params: Params, lock: Lock | None) -> list[ImageSpec]:
    if lock is None or params["images"] is not None:
        return parse_images(params["images"])
    return [ImageSpec(parse(name), (), image.as_) for name, image in sorted(lock.items())]


def _pinned(spec: ImageSpec, lock: Lock | None) -> LockedImage | None:
    return None if lock is None else select(lock, [spec.key])[spec.key]


def _own(engine: Engine) -> str:
    return engine.facts.platform


def _check(want: Want, tag_policy: str) -> None:
    if want.unpredictable and tag_policy == "refuse":
        raise InvalidReference(_advice(want))


def _advice(want: Want) -> str:
    return (
        f"{want.name}: a concrete tag or a digest is wanted, since {want.source.tag} may be another"
        " image tomorrow; choose one, or set tag_policy: allow"
    )


def _pulled(
    engine: Engine, params: Params, wants: list[Want], dry_run: bool
) -> tuple[list[_pull.Outcome], Mapping[str, str]]:
    """The outcomes, and what the tags named before."""
    puller = _pull.Puller(
        engine,
        params["registry_username"] or "",
        params["registry_password"] or "",
        params["policy"] == "always",
        params["parallel"],
        Retrier(params["retries"], params["retry_delay"]),
        params["stall_timeout"],
        params["known"],
    )
    with _way(engine, params):
        outcomes = puller.plan(wants, ask=dry_run)
        if dry_run or not any(one.decision.action in ("pull", "tag") for one in outcomes):
            return outcomes, puller.tags
        if params["jitter"]:
            time.sleep(random.uniform(0, params["jitter"]))
        with HostLock(params["docker_host"], "image_pull", params["lock_timeout"]):
            # What another run brought meanwhile need not be pulled again.
            outcomes = puller.plan(wants, ask=False)
            before = puller.tags
            puller.run(outcomes)
    return outcomes, before


@contextlib.contextmanager
def _way(engine: Engine, params: Params) -> Iterator[None]:
    """While the Engine trusts the registry that the images come from."""
    if not params["via_ca"]:
        yield
        return
    with trusted(engine.host, parse(f"{params['via']}/x").registry, params["via_ca"]):
        yield
