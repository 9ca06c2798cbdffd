# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What buildx_build does: an image for all its platforms, and the truth about what changed.

Look: what goes in, as a fingerprint, and what is under the tags. Plan: whether to build, and why.
Apply: buildx. Verify: what is under the tags now, and whether it differs from what was there,
platform by platform.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from ansible_collections.fleet.images.plugins.module_utils import (
    _build_command,
    _build_inputs,
    _build_plan,
    _built,
    _gzip,
    _oci_stream,
    _reproducible,
)
from ansible_collections.fleet.images.plugins.module_utils._build_doors import Doors
from ansible_collections.fleet.images.plugins.module_utils._build_result import (
    Found,
    Outcome,
    is_moved,
)
from ansible_collections.fleet.images.plugins.module_utils._build_run import (
    BuildFailed,
    Ran,
    Runner,
)
from ansible_collections.fleet.images.plugins.module_utils._buildx import BuildxError
from ansible_collections.fleet.images.plugins.module_utils._engine import EngineError
from ansible_collections.fleet.images.plugins.module_utils._fingerprint import of_labels
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout, LayoutError
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    Reference,
    canonical,
    parse,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import RegistryError
from ansible_collections.fleet.images.plugins.module_utils._shelf import Lacking, Shelf, place

Params = Mapping[str, Any]
_OCI = ("--output", "type=oci,dest=-")


@dataclass
class Build:
    """One run."""

    params: Params
    doors: Doors
    dry_run: bool = False
    tags: list[Reference] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """The module's result.

        Raises BuildFailed, BuildxError, ContextError, InvalidDockerfile, InvalidReference,
        EngineError, RegistryError, LayoutError, SdkError and OSError.
        """
        start = time.monotonic()
        self.tags = [_tag(text) for text in self.params["tags"] or ()]
        if not self.doors.places and not self.params["outputs"]:
            raise BuildxError(
                f"{self.tags[0]}: load is false, and neither push, store nor outputs says where the"
                " image goes; set one of them"
            )
        inputs = _build_inputs.gather(self.params, self.doors.resolve, not self.dry_run)
        before = self._look()
        decision = self._decide(inputs, before)
        if self.params["lint"] != "skip":
            self._lint(self.doors.runner(inputs.kind))
        decided = time.monotonic() - start
        outcome = Outcome(self.params, self.tags, inputs, decision, before, before, self.dry_run)
        if decision.build and not self.dry_run:
            outcome.after, outcome.told = self._apply(inputs, before, decision)
        return {
            **outcome.as_result(),
            "lint_findings": list(self.warnings),
            "seconds_to_decide": round(decided, 3),
            "seconds": round(time.monotonic() - start, 3),
        }

    def _look(self) -> Found:
        return {
            (kind, tag): place.look(tag)
            for kind, place in self.doors.places.items()
            for tag in self.tags
        }

    def _decide(self, inputs: _build_inputs.Inputs, before: Found) -> _build_plan.Decision:
        there = {
            f"{tag} in the {kind}": None
            if found is None
            else _build_plan.There(
                found.labels, found.platforms, kind == "engine", found.tells_platforms
            )
            for (kind, tag), found in before.items()
        }
        if self.params["outputs"]:
            return _build_plan.Decision(True, "what outputs names is written anew by each build")
        moving = set(map(canonical, self.params["will_change"] or ()))
        return _build_plan.decide(
            self.params["rebuild"],
            inputs.fingerprint,
            there,
            self.params["platforms"] or (),
            [name for name in inputs.bases if self.dry_run and canonical(name) in moving],
        )

    def _lint(self, runner: Runner) -> None:
        found = runner.check()
        if found and self.params["lint"] == "refuse":
            raise BuildxError(
                f"the Dockerfile: wanted without findings (lint: refuse), it has {len(found)}:"
                f" {'; '.join(found)}; mend them, or set lint: warn"
            )
        self.warnings += found

    def _apply(
        self,
        inputs: _build_inputs.Inputs,
        before: Found,
        decision: _build_plan.Decision,
    ) -> tuple[Found, dict[str, Any]]:
        """Builds, and looks again; what is there already goes nowhere."""
        runner = self.doors.runner(inputs.kind)
        labels = inputs.fingerprint.labels()
        result: dict[str, Any] = {}
        if self.params["verify_reproducible"]:
            result["reproducible"] = self._verify_reproducible(runner, labels)
        if decision.same and self.doors.makes_layouts():
            ran, found = self._built_aside(runner, labels)
            same = (one and one.platforms == found.platforms for one in before.values())
            if all(same):
                return before, {**result, **_told(ran)}
        try:
            ran = self._everywhere(runner, labels)
            after = self._look()
            self._verify(after, inputs, ran)
        except BuildFailed as error:
            error.changed = self._has_moved(before)
            raise
        return after, {**result, **_told(ran)}

    def _everywhere(self, runner: Runner, labels: Mapping[str, str]) -> Ran:
        """Builds into all places."""
        outputs = _build_command.outputs(self.params, self.doors.driver)
        if self.doors.layout:
            return self._into_store(runner, labels, outputs, self.doors.layout)
        ran, _nothing = runner.build(labels, outputs)
        return ran

    def _has_moved(self, before: Found) -> bool:
        """Whether a tag names something else now; nothing is known where it cannot be seen."""
        try:
            return is_moved(before, self._look())
        except (RegistryError, EngineError, LayoutError, OSError):
            return False

    def _oci(self) -> list[str]:
        times = _build_command.rewrites_times(self.params, self.doors.driver)
        return [_OCI[0], f"{_OCI[1]}{',rewrite-timestamp=true' if times else ''}"]

    def _built_aside(self, runner: Runner, labels: Mapping[str, str]) -> tuple[Ran, _built.Found]:
        """Builds without leaving anything anywhere, and what came out."""
        with _gzip.pool() as threads:
            shelf = Shelf(Layout("/nonexistent"), None, threads)
            ran, digest = self._layout_of(runner, labels, shelf)
            with _readable():
                return ran, _built.of_documents("", digest, shelf.document)

    def _layout_of(
        self,
        runner: Runner,
        labels: Mapping[str, str],
        shelf: Shelf,
        outputs: Sequence[str] = (),
        more: Sequence[str] = (),
    ) -> tuple[Ran, str]:
        """Builds, the result going onto the shelf as well; the digest of its index or manifest."""

        def receive(stream: IO[bytes]) -> str:
            return _oci_stream.receive(stream, shelf)

        with _readable():
            ran, digest = runner.build(labels, [*outputs, *self._oci()], receive, more)
        return ran, str(digest)

    def _verify_reproducible(
        self, runner: Runner, labels: Mapping[str, str]
    ) -> dict[str, dict[str, Any]]:
        """Builds twice without the cache; raises BuildFailed where the results differ."""
        self._need_layouts("verify_reproducible")
        found = []
        for _number in range(2):
            with _gzip.pool() as threads:
                shelf = Shelf(Layout("/nonexistent"), None, threads)
                _ran, digest = self._layout_of(runner, labels, shelf, (), ["--no-cache"])
                with _readable():
                    found.append(_reproducible.contents(digest, shelf.document))
        told = _reproducible.compare(*found)
        differing = _reproducible.sentence(told)
        if differing:
            raise BuildFailed(f"two builds differ: {differing}; nothing was pushed or kept", None)
        return told

    def _into_store(
        self, runner: Runner, labels: Mapping[str, str], outputs: Sequence[str], layout: Layout
    ) -> Ran:
        """Builds with the store as one of the results' places."""
        self._need_layouts("store")
        more = []
        if self.params["push"] and self.params["provenance"] is None:
            # The provenance that buildx adds by itself goes to registries only: another digest.
            more = ["--provenance=mode=min"]
        layout.create()
        with layout.using(), place(layout, False) as beside, _gzip.pool() as threads:
            shelf = Shelf(layout, beside, threads)
            ran, digest = self._layout_of(runner, labels, shelf, outputs, more)
            with _readable():
                images = [_built.locked(str(tag), digest, shelf.document) for tag in self.tags]
            for image in images:
                shelf.settle(image.all_blobs.values())
            layout.record(images)
        return ran

    def _need_layouts(self, option: str) -> None:
        if not self.doors.makes_layouts():
            raise BuildxError(
                f"{option}: wanted a builder that can write an OCI layout, an Engine with the"
                " classic image store cannot; give builder one with the driver docker-container, or"
                " turn on the containerd image store"
            )

    def _verify(self, after: Found, inputs: _build_inputs.Inputs, ran: Ran) -> None:
        """Raises BuildFailed where a tag does not name what was built."""
        for (kind, tag), found in after.items():
            wanted = inputs.fingerprint.digest
            if found is None or of_labels(found.labels) != wanted:
                there = "nothing" if found is None else found.digest or found.id
                raise BuildFailed(
                    f"{tag}: wanted in the {kind} what was built ({ran.digest}), there is {there};"
                    " see whether something else writes this tag",
                    None,
                )


@contextmanager
def _readable() -> Iterator[None]:
    """What is wrong with a result that buildx wrote, in a sentence."""
    try:
        yield
    except (_oci_stream.NoResult, Lacking, ValueError, LookupError, TypeError) as error:
        raise BuildFailed(
            f"the result of the build cannot be read ({type(error).__name__}: {error}); build it"
            " again, and see whether buildx and the Engine fit each other",
            None,
        ) from error


def _tag(text: str) -> Reference:
    reference = parse(text)
    if reference.digest or not reference.tag:
        raise BuildxError(
            f"tags: wanted registry/repository:tag, not {text!r}; leave the digest out"
        )
    return reference


def _told(ran: Ran) -> dict[str, Any]:
    return {"steps": len(ran.progress.instructions), "cached_steps": ran.progress.cached}
