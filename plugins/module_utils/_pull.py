# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pulling images: several at once, tried again where that helps, verified, and only then named.

Whatever fails, every tag is what it was before, and no name stays that nobody asked for.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import (
    _holdings,
    _pull_asked,
    _pull_plan,
    _pull_words,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._holdings import CONTAINERD, Holdings
from ansible_collections.fleet.images.plugins.module_utils._pull_plan import Decision, Want
from ansible_collections.fleet.images.plugins.module_utils._reference import Reference, parse
from ansible_collections.fleet.images.plugins.module_utils._registry_auth import engine_login
from ansible_collections.fleet.images.plugins.module_utils._retry import Retrier, Retryable
from ansible_collections.fleet.images.plugins.module_utils._stream import Pulled


class PullError(Exception):
    """An image that cannot be pulled; the message has the Engine's words and the next step."""


@dataclass
class Outcome:
    """What became of one image. `bytes` that came, None where only the pull tells; seconds."""

    decision: Decision
    error: str = ""
    digest: str = ""
    identity: str = ""
    bytes: int | None = 0
    seconds: float = 0.0
    attempts: int = 0
    same: bool = False

    @property
    def done(self) -> bool:
        """Whether something is, or would be, another than before."""
        return not self.error and not self.same and self.decision.action != "none"

    def as_dict(self) -> dict[str, Any]:
        """The entry of the module's `images`."""
        reason = "the registry has the image that is there" if self.same else self.decision.reason
        return {
            "name": self.decision.want.name,
            "destination": self.decision.want.here,
            "id": self.identity,
            "digest": self.digest,
            "state": self.decision.state,
            "action": "failed" if self.error else "pulled" if self.done else "none",
            "reason": self.error or reason,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "attempts": self.attempts,
        }


@dataclass
class Puller:
    """Pulls into one Engine. `always`: ask the registry what a tag names. `stall_timeout`: seconds.

    `known`: the blob lists of a bastion's store, for the containerd store.
    """

    engine: Engine
    username: str = ""
    password: str = field(default="", repr=False)
    always: bool = False
    parallel: int = 3
    retrier: Retrier = field(default_factory=Retrier)
    stall_timeout: int = 600
    known: Sequence[Mapping[str, Any]] = ()
    _images: list[Mapping[str, Any]] = field(default_factory=list)
    _before: Holdings | None = None
    _logins: dict[str, str] = field(default_factory=dict)

    def plan(self, wants: Sequence[Want], ask: bool) -> list[Outcome]:
        """What is to be done for each; `ask`: learn every digest from the registry beforehand.

        What the registry refuses to tell is a failed outcome. Changes nothing. Raises EngineError.
        """
        self._images = self.engine.listed()
        platforms = {want.platform for want in wants}
        holdings = {one: self._holdings(one) for one in sorted(platforms | {""})}
        found = [Outcome(_pull_plan.decide(w, self._images, holdings[w.platform])) for w in wants]
        if any(one.decision.action == "pull" and one.decision.want.locked for one in found):
            # Which layers are lacking is a question of its own on a classic store.
            holdings[""] = self.engine.holdings(self.known)
            found = [
                Outcome(_pull_plan.decide(w, self._images, holdings[w.platform])) for w in wants
            ]
        self._before = holdings[""]
        with ThreadPoolExecutor(max(1, self.parallel)) as pool:
            list(pool.map(lambda one: self._ask(one, ask, holdings), found))
        for one in found:
            one.identity = one.decision.identity
            one.digest = one.decision.want.digest
            one.bytes = one.decision.bytes
            one.error = one.error or (one.decision.reason if _failed(one) else "")
        self._refuse_unfit([one for one in found if one.decision.action == "pull"])
        return found

    def _refuse_unfit(self, outcomes: Sequence[Outcome]) -> None:
        """Refuses the images of a lock where they surely do not fit.

        The classic store keeps their content, which is as large at least as the blobs; the
        containerd store the blobs as well. Of the latter nobody knows which layers it has, unless
        it has no image or the blob lists of a store are given.
        """
        facts, before = self.engine.facts, self._before
        pinned = [(one, one.decision.want.locked) for one in outcomes if not one.error]
        double = facts.store == CONTAINERD
        if before is None or facts.free is None or (double and before.ids and not self.known):
            return
        lacking = [blob for _one, locked in pinned if locked for blob in before.lacking(locked)]
        need = sum({blob.digest: blob.size for blob in lacking}.values()) * (2 if double else 1)
        if need > facts.free:
            for one in (one for one, locked in pinned if locked):
                one.error = (
                    f"{facts.data_path}: at least {need} bytes are wanted free for the pull,"
                    f" {facts.free} are; remove images (docker image prune), or enlarge the disk"
                )

    @property
    def tags(self) -> Mapping[str, str]:
        """What every tag named when it was planned: full reference -> image ID."""
        return self._before.tags if self._before else {}

    def _holdings(self, platform: str) -> Holdings:
        """What the Engine has for a platform, '' for its own, from as few calls as it allows."""
        own = self.engine.facts.platform
        if self.engine.facts.store == CONTAINERD and self.engine.tells_manifests:
            return _holdings.read_containerd(platform or own, self._images, self.known)
        if self.engine.facts.store != CONTAINERD and not platform:
            # What is there shows by its ID.
            return _holdings.read_classic(own, self._images, ())
        found = self.engine.holdings(self.known)
        if not platform:
            return found
        whole = {id_ for id_ in found.ids if self._platform_of(id_) == platform}
        return replace(found, platform=platform, whole=frozenset(whole))

    def _platform_of(self, id_: str) -> str:
        return _holdings.inspected_platform(self.engine.inspect(id_))

    def _ask(self, outcome: Outcome, every: bool, holdings: Mapping[str, Holdings]) -> None:
        """Learns which digest the tag has now, where that decides or is to be foretold."""
        decision = outcome.decision
        want, action = decision.want, decision.action
        foretell = every and action == "pull"
        if want.locked is not None or not (foretell or (self.always and not want.digest)):
            return
        try:
            login = self._login(want.source)
            tried = self.retrier.call(
                lambda: self._told(want, lambda: self.engine.digest(want.source, login))
            )
        except (PullError, Retryable) as error:
            outcome.error = str(error)
            outcome.attempts = getattr(error, "attempts", 1)
            return
        outcome.attempts = tried.attempts
        if not want.digest:
            want = replace(want, digest=tried.value)
            pinned = replace(want.source, tag=None, digest=tried.value)
            outcome.decision = _pull_plan.decide(
                replace(want, source=pinned), self._images, holdings[want.platform]
            )

    def run(self, outcomes: Sequence[Outcome]) -> None:
        """Does what was decided; every image is tried, and what failed has its `error`."""
        todo = [one for one in outcomes if one.decision.action == "pull" and not one.error]
        with ThreadPoolExecutor(max(1, self.parallel)) as pool:
            futures = {pool.submit(self._pull, one): one for one in todo}
            for future in as_completed(futures):
                future.result()
                self._finish(futures[future])
        for one in outcomes:
            if one.decision.action == "tag" and not one.error:
                self._finish(one)
        self._look_again([one for one in outcomes if one.done])

    def _pull(self, outcome: Outcome) -> None:
        """Pulls one image, under the name of its source; notes the error where that fails."""
        started, want = time.monotonic(), outcome.decision.want
        try:
            done = self.retrier.call(lambda: self._told(want, lambda: self._pull_once(want)))
        except (PullError, Retryable) as error:
            outcome.error = str(error)
            outcome.attempts += getattr(error, "attempts", 1)
        else:
            outcome.digest = outcome.digest or done.value.digest
            outcome.attempts += done.attempts
            if want.locked is None:
                outcome.bytes = done.value.bytes
        outcome.seconds = time.monotonic() - started

    def _pull_once(self, want: Want) -> Pulled:
        pulled = Pulled()
        login = self._login(want.source)
        for message in self.engine.pull(want.source, login, self.stall_timeout, want.platform):
            pulled.take(message)
        if pulled.error:
            raise EngineError(pulled.error)
        return pulled

    def _told(self, want: Want, ask: Callable[[], Any]) -> Any:
        """The answer; raises Retryable where another try may help, else PullError."""
        try:
            return ask()
        except EngineError as error:
            registry = want.source.registry
            words, wait = self._completed(want, error.words)
            step = _pull_words.next_step(words, registry)
            text = f"{want.name}: wanted from {registry}, the Engine said: {words}; {step}"
            if not error.lost and not _pull_words.is_passing(words):
                raise PullError(text) from error
            raise Retryable(text, after=wait) from error

    def _completed(self, want: Want, words: str) -> tuple[str, float | None]:
        """The words, with the status that they keep back, and what the registry asks to wait."""
        wait = _pull_words.told_wait(words)
        limited, bare = _pull_words.is_limited(words), _pull_words.keeps_status(words)
        if wait is not None or not (limited or bare):
            return words, wait
        platform = want.platform or self.engine.facts.platform
        answer = _pull_asked.about(
            want.source, platform, (self.username, self.password), blobs=bare
        )
        if bare and answer.status:
            words = f"{words}, and the registry answers: {answer.status}"
        return words, answer.after

    def _login(self, reference: Reference) -> str:
        registry = reference.registry
        if registry not in self._logins:
            self._logins[registry] = engine_login(registry, self.username, self.password)
        return self._logins[registry]

    def _finish(self, outcome: Outcome) -> None:
        """Verifies what was pulled, gives it its name, and takes away the name it came under."""
        want = outcome.decision.want
        try:
            if not outcome.error:
                outcome.error = self._verify(outcome)
            named = want.source.tag and want.source.tagged == want.here
            with self._without_source(outcome):
                if not outcome.error and want.destination.tag and not named:
                    self.engine.tag(outcome.identity, want.destination)
        except EngineError as error:
            outcome.error = outcome.error or f"{want.name}: {error}"

    def _verify(self, outcome: Outcome) -> str:
        """What is wrong with what is there now; '' for nothing. Notes the image's ID."""
        decision = outcome.decision
        want = decision.want
        if decision.action == "tag":
            return ""
        found = self.engine.inspect(str(want.source)) or {}
        identity = str(found.get("Id", ""))
        if not identity:
            return f"{want.name}: pulled, but the Engine does not have {want.source}; run it again"
        before = self.tags.get(want.here)
        # Nobody could tell beforehand: a classic store knows digests of what it pulled itself only.
        outcome.same = before == identity and decision.state == "stale" and not want.platform
        outcome.identity = identity
        if want.locked is None:
            return ""
        if identity != decision.identity:
            return f"{want.name}: wanted {decision.identity} after the pull, found {identity}"
        there = (found.get("RootFS") or {}).get("Layers") or []
        if list(want.locked.on(self.engine.facts.platform).diff_ids) != there:
            return f"{want.name}: the layers of {identity} are not those of the lock"
        return ""

    @contextlib.contextmanager
    def _without_source(self, outcome: Outcome) -> Iterator[None]:
        """Takes away the name that an image was pulled under, where nobody asked for it.

        Before the image gets its own name, and held by a spare one meanwhile: with name@digest, the
        containerd store removes every name that the image has in that repository (seen on Engines
        26.1 and 28.5). Where it has others there, name@digest stays; it goes with the last of them.
        """
        source = outcome.decision.want.source
        identity = self._only_so_named(outcome)
        if not identity or outcome.error:
            if identity:
                self.engine.untag(source)
            yield
            return
        spare = Reference("localhost", "fleet-images/pulled", str(os.getpid()))
        self.engine.tag(identity, spare)
        try:
            self.engine.untag(source)
            yield
        finally:
            self.engine.untag(spare)

    def _only_so_named(self, outcome: Outcome) -> str:
        """The ID of the image whose source name is to go; '' where that name stays."""
        want = outcome.decision.want
        name = str(want.source)
        kept = want.source.digest and _pull_plan.keeps_digest(want, self.engine.facts.store)
        if outcome.decision.action != "pull" or (kept and not outcome.error):
            return ""
        if name == want.here or name in _names(self._images):
            return ""
        # By the list: an Engine finds an image by a digest under whatever name.
        images = self.engine.listed()
        tags = _holdings.read_classic("", images, ()).tags
        identity = {**_pull_plan.digests(images), **tags}.get(name, "")
        there = {tag for tag, id_ in tags.items() if id_ == identity} - {name}
        return "" if any(parse(tag).name == want.source.name for tag in there) else identity

    def _look_again(self, outcomes: Sequence[Outcome]) -> None:
        """Compares, in one call, what every name stands for now with what was wanted."""
        if not outcomes:
            return
        try:
            self._images = self.engine.listed()
            whole, tags = self._whole()
        except EngineError as error:
            for one in outcomes:
                one.error = f"{one.decision.want.name}: not verified, {error}"
            return
        for one in outcomes:
            here = one.decision.want.here
            found = tags.get(here) or _pull_plan.digests(self._images).get(here)
            if found != one.identity:
                one.error = f"{here}: wanted {one.identity}, the Engine has {found} after the pull"
            elif one.decision.want.locked and whole is not None and found not in whole:
                one.error = f"{here}: {found} is there, but not whole; run it again"

    def _whole(self) -> tuple[frozenset[str] | None, Mapping[str, str]]:
        """IDs of whole images, None where a look at each would be needed; and all tags."""
        platform = self.engine.facts.platform
        if self.engine.facts.store == CONTAINERD and self.engine.tells_manifests:
            found = _holdings.read_containerd(platform, self._images, ())
            return found.whole, found.tags
        return None, _holdings.read_classic(platform, self._images, ()).tags


def _names(images: Sequence[Mapping[str, Any]]) -> set[str]:
    """Every name that the Engine lists, with tag or with digest."""
    tags = _holdings.read_classic("", images, ()).tags
    return {*tags, *_pull_plan.digests(images)}


def _failed(outcome: Outcome) -> bool:
    return outcome.decision.action == "failed"


def report(outcomes: Sequence[Outcome], before: Mapping[str, str]) -> dict[str, Any]:
    """The module's result and its `errors`. `before`: tag -> image ID."""
    done = [one for one in outcomes if one.done]
    sizes = [one.bytes for one in done]
    lines = [(one.decision.want.here, one.identity or one.digest or "new") for one in done]
    return {
        "changed": bool(done),
        "images": [one.as_dict() for one in outcomes],
        "bytes": None if None in sizes else sum(size or 0 for size in sizes),
        "errors": list(dict.fromkeys(one.error for one in outcomes if one.error)),
        "diff": {
            "before": "".join(f"{tag}: {before[tag]}\n" for tag, _id in lines if tag in before),
            "after": "".join(f"{tag}: {id_}\n" for tag, id_ in lines),
        },
    }
