# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_prune does: look, plan, remove image by image what is as planned, look again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import (
    _build_cache,
    _info,
    _inventory,
    _leaks,
    _ledger,
    _plan_file,
    _prune_plan,
    _stock,
    _survey,
)
from ansible_collections.fleet.images.plugins.module_utils._build_cache import Limits
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC
from ansible_collections.fleet.images.plugins.module_utils._hostlock import HostLock
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image
from ansible_collections.fleet.images.plugins.module_utils._prune_plan import Plan, Wishes
from ansible_collections.fleet.images.plugins.module_utils._removal import Entry, Job
from ansible_collections.fleet.images.plugins.module_utils._remove import Remover

Params = Mapping[str, Any]
Result = dict[str, Any]


def prune(params: Params, dry_run: bool) -> Result:
    """The module's result, its `errors` and its `warnings`.

    Raises EngineError, SdkError, LockError, LockTimeout, QueryError, PolicyError, OSError where it
    cannot begin.
    """
    wanted = _prune_plan.wishes(params)
    limits = _build_cache.limits(params["build_cache"])
    engine = Engine(params)
    if limits is not None:
        _build_cache.check(engine, limits)
    run = Run(engine, wanted, limits, int(time.time()))
    if dry_run or params["plan_path"]:
        run.look()
        return run.foreseen(dry_run)
    with HostLock(params["docker_host"], "image_prune", params["lock_timeout"]):
        run.look()
        return run.done()


@dataclass
class Run:
    """One run over one Engine. `now`: seconds since 1970."""

    engine: Engine
    wanted: Wishes
    limits: Limits | None
    now: int
    warnings: list[str] = field(default_factory=list)

    def look(self) -> None:
        """Looks at the Engine and plans; raises what `prune` raises."""
        again = bool(self.wanted.params["apply"])
        self.survey = _survey.look(
            self.engine, self.wanted.times_matter, self.wanted.ledger_path, self.now
        )
        make = _prune_plan.again if again else _prune_plan.make
        self.plan = make(self.engine, self.wanted, self.survey, self.now)
        if self.survey.ledger and self.survey.ledger.trouble:
            self.warnings.append(self.survey.ledger.trouble)

    @property
    def entries(self) -> list[Entry]:
        """What becomes of each image of the plan; none where the plan is refused."""
        todo = [] if self.plan.refused else self.plan.removal.entries
        return [*self.plan.settled, *todo]

    def foreseen(self, dry_run: bool) -> Result:
        """What a run would do; with a path for the plan, that it is there, and nothing removed."""
        self._count_bytes()
        path, refused = self.wanted.params["plan_path"], bool(self.plan.refused)
        if not path:
            return self._result({} if refused else self._beside(dry_run=True), dry_run)
        result = self._result({}, dry_run)
        content = _plan_file.dumps(result["plan"], self.engine)
        result["changed"] = not refused and _plan_file.write(Path(path), content, dry_run)
        result["msg"] = f"{path} has the plan, {len(self.plan.goes)} images; nothing was removed"
        result["images"], result["left"]["after"] = [], result["left"]["before"]
        if not dry_run:
            self._note(result)
        return result

    def done(self) -> Result:
        """What came of the plan; nothing of it is done where it is refused."""
        free, layers = self._free(), None
        classic = self.engine.facts.store == CLASSIC
        remover = Remover(self.engine, prune=classic, sweeping=True)
        beside: Result = {}
        if not self.plan.refused:
            layers = self._layers() if self.plan.goes else None
            self._remove(remover)
            # An Engine that went away is asked nothing more.
            if not any(one.action == "failed" for one in self.entries):
                beside = self._beside(dry_run=False)
        result = self._result(beside, dry_run=False)
        after = self._free()
        known = free is not None and after is not None
        result["reclaimed"]["measured"] = (after or 0) - (free or 0) if known else None
        result["reclaimed"]["reported"] = self._reported(remover, layers)
        self._note(result)
        return result

    def _remove(self, remover: Remover) -> None:
        """Image by image; where the Engine goes away, the rest is said to be not done."""
        jobs, done = self.plan.removal.jobs, []
        for number, job in enumerate(jobs):
            try:
                reason = _changed(self.engine, job)
            except EngineError as error:
                for late in jobs[number:]:
                    late.last.end("failed", f"{late.image.name}: not removed, {error}")
                break
            if reason:
                job.last.end("kept", reason)
            elif remover.do(job):
                done.append(job)
        if done:
            remover.verify(done)
        self._count_bytes()

    def _count_bytes(self) -> None:
        """Notes the bytes that go with each image, none with one that stays after all."""
        for entry in self.plan.removal.entries:
            gone = entry.image if entry.action == "removed" else None
            entry.bytes = self.plan.frees[gone.id].least if gone else 0

    def _free(self) -> int | None:
        """Bytes free on the disk of the images, None where that is not this host's."""
        disk = _stock.disk(self.engine)
        return disk.free if disk else None

    def _layers(self) -> int | None:
        """Bytes of all layers as the containerd store tells them, None where it does not."""
        if self.engine.facts.store == CLASSIC:
            return None
        try:
            return _info.layers_bytes(_info.disk_usage(self.engine))
        except EngineError:
            return None

    def _reported(self, remover: Remover, before: int | None) -> int | None:
        """Bytes by the Engine's answers: layers that it released, or its disk usage less."""
        if not remover.deleted:
            return 0
        if self.engine.facts.store == CLASSIC:
            sizes = self.plan.stock.sizes
            return sum(sizes[key].least for key in set(remover.deleted) if key in sizes)
        after = self._layers()
        return None if before is None or after is None else max(0, before - after)

    def _beside(self, dry_run: bool) -> Result:
        """What is, or would be, done about build cache and leaks."""
        found: Result = {}
        if self.limits is not None:
            told = _build_cache.records(self.engine)
            most = _build_cache.foreseen(told, self.limits, self._free(), self.now)
            gone = _build_cache.prune(self.engine, self.limits) if most and not dry_run else 0
            found["build_cache"] = {"foreseen": most, "reported": None if dry_run else gone}
        if self.wanted.params["leaks"] != "ignore":
            found["leaks"] = self._leaked(dry_run)
        return found

    def _leaked(self, dry_run: bool) -> list[Result]:
        """The leaks, and what is, or would be, done about each."""
        found = _leaks.find(self.engine)
        if found.blind:
            self.warnings.append(f"leaks: {found.blind}")
        gone = {leak.id: (leak.removable, leak.reason) for leak in found.leaks}
        if self.wanted.params["leaks"] != "remove":
            gone = {}
        elif not dry_run:
            outcomes = _leaks.remove(self.engine, found.leaks)
            gone = {one.leak.id: (one.gone, one.reason or one.leak.reason) for one in outcomes}
        told = []
        for leak in found.leaks:
            removed, reason = gone.get(leak.id, (False, leak.reason))
            action = "removed" if removed else "none"
            told.append({**asdict(leak), "reason": reason, "action": action})
        return told

    def _result(self, beside: Result, dry_run: bool) -> Result:
        told = self.entries
        gone = [one for one in told if one.action == "removed"]
        cache = beside.get("build_cache") or {}
        freed = cache.get("foreseen" if dry_run else "reported")
        leaks = [one for one in beside.get("leaks") or () if one["action"] == "removed"]
        total, count = self.plan.total, len(_shown(self.survey.images))
        failed = [one.reason for one in told if one.action == "failed"]
        return {
            "changed": bool(gone or freed or leaks),
            "plan": self.plan.entries(),
            "kept": self.plan.kept(),
            "images": [one.as_dict() for one in told],
            "reclaimed": {
                "predicted_min": total.least,
                "predicted_max": total.most,
                "reported": None,
                "measured": None,
            },
            "left": {"before": count, "after": count - len(gone)},
            "bytes": total.least,
            "engine": self.engine.facts.as_dict(),
            "diff": {"prepared": _diff(self.plan)},
            "msg": f"{len(gone)} of {count} images removed, {total.least} bytes",
            "warnings": self.warnings,
            "errors": list(dict.fromkeys([*self.plan.refused, *failed])),
            **beside,
        }

    def _note(self, result: Result) -> None:
        """The ledger and the log; where they cannot be written, a warning says so."""
        gone = {one["id"] for one in result["images"] if one["action"] == "removed"}
        ledger, params = self.survey.ledger, self.wanted.params
        try:
            if ledger is not None:
                left = [one.id for one in self.survey.images if one.id not in gone]
                ledger.note(left, self.survey.used, self.now)
                _ledger.write(Path(params["ledger_path"]), ledger)
            if gone and params["log_path"]:
                _log(Path(params["log_path"]), result["images"], self.now)
        except OSError as error:
            self.warnings.append(
                f"{error.filename}: what was done could not be noted ({error.strerror});"
                " set ledger_path and log_path to files that this user may write"
            )


def _changed(engine: Engine, job: Job) -> str:
    """Why an image is not what was planned any more; '' where it is. Raises EngineError."""
    image = job.image
    there = engine.inspect(image.id)
    if there is None:
        return ""  # Its removal finds that it is gone.
    tags = _inventory.tags(there)
    if tags != set(image.references):
        return f"it had the names {_list(image.references)}, and has {_list(tags)} now"
    for one in engine.get("/containers/json", all=1):
        if one.get("ImageID") == image.id:
            return f"the container {str((one.get('Names') or ['/'])[0])[1:]} uses it by now"
    return ""


def _shown(images: Sequence[Image]) -> list[Image]:
    """The images that `docker images` shows: not those that only others are built upon."""
    return [one for one in images if one.references or one.digests or not one.children]


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _diff(plan: Plan) -> str:
    """Every image with its reason: what goes, with the bytes that go with it, and what stays."""
    lines = []
    for one in plan.goes:
        freed = plan.frees[one.image.id]
        size = f"{freed.least}" if freed.exact else f"{freed.least} to {freed.most or 'more'}"
        lines.append(f"- {one.image.name} ({one.image.id[7:19]}), {size} bytes: {one.reason}")
    lines += [
        f"  {one.image.name} ({one.image.id[7:19]}) stays: {one.reason}" for one in plan.stays
    ]
    return "".join(f"{line}\n" for line in lines)


def _log(path: Path, images: Sequence[Mapping[str, Any]], now: int) -> None:
    """One line for each image that was removed; raises OSError."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    with path.open("a", encoding="utf-8") as file:
        for one in images:
            if one["action"] == "removed":
                told = {key: one[key] for key in ("name", "id", "reason", "bytes")}
                file.write(json.dumps({"at": when, "what": "image_prune", **told}) + "\n")
