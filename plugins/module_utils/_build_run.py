# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of `docker buildx build`, or of its check of a Dockerfile, and what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from ansible_collections.fleet.images.plugins.module_utils import _build_command, _hidden
from ansible_collections.fleet.images.plugins.module_utils._build_inputs import (
    ARCHIVE,
    DIRECTORY,
    dockerfile_path,
)
from ansible_collections.fleet.images.plugins.module_utils._buildx import (
    Buildx,
    BuildxError,
    read_object,
)
from ansible_collections.fleet.images.plugins.module_utils._progress import Progress, Step
from ansible_collections.fleet.images.plugins.module_utils._reference import parse_platform

T = TypeVar("T")
Params = Mapping[str, Any]

_LINT_WORDS = 4000
# What a kernel says of a program that it does not run, ENOEXEC.
_NO_PROGRAM = "exec format error"


class BuildFailed(Exception):
    """A build failed; the message has the step and the last words of it.

    `step`: the one that failed, None where it was none of the Dockerfile's. `changed`: whether some
    tag names another image all the same, as the first of two that were to be pushed.
    """

    def __init__(self, message: str, step: Step | None) -> None:
        super().__init__(message)
        self.step = step
        self.changed = False


@dataclass
class Ran:
    """A build that came to its end. `metadata`: what buildx wrote about its result."""

    progress: Progress
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The digest of the index or manifest; '' where buildx tells none."""
        return str(self.metadata.get("containerimage.digest") or "")


class Runner:
    """Runs buildx for one task: `place` is a directory for temporary files without secrets."""

    def __init__(
        self, buildx: Buildx, params: Params, kind: str, hidden: _hidden.Hidden, place: str
    ) -> None:
        self.buildx = buildx
        self._params = params
        self._kind = kind
        self._hidden = hidden
        self._place = place
        self._secrets = [
            word
            for fields in _hidden.secrets(params.get("secrets") or (), hidden)
            for word in ("--secret", _build_command.csv(fields))
        ]

    def build(
        self,
        labels: Mapping[str, str],
        outputs: Sequence[str],
        receive: Callable[[IO[bytes]], T] | None = None,
        more: Sequence[str] = (),
    ) -> tuple[Ran, T | None]:
        """Builds. `receive` reads what comes on the standard output. Raises BuildFailed, OSError.

        What `receive` raises counts only where the build itself did not fail.
        """
        descriptor, metadata = tempfile.mkstemp(prefix="fleet-images-", dir=self._place)
        os.close(descriptor)
        words = ["build", "--progress", "rawjson", "--metadata-file", metadata, *more]
        words += [*self._arguments(labels), *self._secrets, *outputs, self._context()]
        try:
            progress, received = self._run(words, receive)
            return Ran(progress, read_object(Path(metadata))), received
        finally:
            Path(metadata).unlink()

    def check(self) -> list[str]:
        """What the Dockerfile's own check finds (`--call check`), a line for each finding."""
        self.buildx.need("lint", _build_command.NEEDS["lint"])
        words = ["build", "--progress", "rawjson", "--call", "check,format=json"]
        words += [*self._arguments({}), self._context()]
        chunks: list[bytes] = []

        def receive(stream: IO[bytes]) -> None:
            chunks.extend(iter(lambda: stream.read(1 << 16), b""))

        try:
            self._run(words, receive)
        except BuildFailed:
            # It ends so where it finds something as well; then it says what.
            if not chunks:
                raise
        return _findings(b"".join(chunks))

    def _arguments(self, labels: Mapping[str, str]) -> list[str]:
        params = {**self._params, "dockerfile": self._params.get("dockerfile")}
        if params.get("dockerfile_inline"):
            params["dockerfile"] = "-"
        elif self._kind == DIRECTORY:
            params["dockerfile"] = dockerfile_path(self._params)
        return _build_command.arguments(params, labels)

    def _context(self) -> str:
        return "-" if self._kind == ARCHIVE else str(self._params["path"])

    def _input(self) -> str:
        """What stands on the standard input: an inline Dockerfile, or an archive."""
        if self._params.get("dockerfile_inline"):
            return self._hidden.path(str(self._params["dockerfile_inline"]).encode())
        return str(self._params["path"]) if self._kind == ARCHIVE else os.devnull

    def _run(
        self, words: Sequence[str], receive: Callable[[IO[bytes]], T] | None
    ) -> tuple[Progress, T | None]:
        progress = Progress()
        received: T | None = None
        problem: Exception | None = None
        with open(self._input(), "rb") as stdin:
            stdout = subprocess.PIPE if receive else subprocess.DEVNULL
            process = self.buildx.start(*words, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)
            listener = _Listener(process, progress, int(self._params["stall_timeout"]))
            try:
                if receive and process.stdout:
                    received = receive(process.stdout)
            except Exception as error:
                # The build's own failure comes first, unless it is only that nobody reads on.
                problem = error
                process.stdout.close() if process.stdout else None
            except BaseException:
                process.terminate()
                raise
            finally:
                code = process.wait()
                listener.end()
        if listener.stalled:
            raise BuildFailed(self._silence(progress), None)
        if code and not isinstance(problem, OSError):
            raise self._failure(progress)
        if problem:
            raise problem
        return progress, received

    def _silence(self, progress: Progress) -> str:
        doing = self._hidden.mask(", ".join(progress.running) or "nothing that it names")
        return (
            f"{self._shown}: wanted built, buildx said nothing for"
            f" {self._params['stall_timeout']} s and was ended, while doing: {doing}; see what"
            " hangs there, or set stall_timeout"
        )

    @property
    def _shown(self) -> str:
        return str((self._params["tags"] or [self._params["path"]])[0])

    def _failure(self, progress: Progress) -> BuildFailed:
        step = progress.failed
        words = self._hidden.mask(progress.error or (step.error if step else "") or "nothing")
        if step is None or not step.is_instruction:
            return BuildFailed(f"{self._shown}: wanted built, buildx said: {words}", None)
        lines = [self._hidden.mask(line) for line in step.lines]
        step.lines.clear()
        step.lines.extend(lines)
        step.name = self._hidden.mask(step.name)
        where = f" for {step.platform}" if step.platform else ""
        text = f"{self._shown}: wanted built, the step '{step.name}' failed{where}: {words}"
        last = next((line for line in reversed(lines) if line.strip()), "")
        text += f"; its last line: {last.strip()}" if last else ""
        return BuildFailed(text + self._hint(step), step)

    def _hint(self, step: Step) -> str:
        """What to do where the builder has no way to run programs of the step's platform."""
        wanted = [step.platform] if step.platform else self._params["platforms"] or ()
        try:
            builder = self.buildx.inspect(self._params["builder"] or "")
        except BuildxError:
            return ""
        runs = [parse_platform(one) for one in builder.platforms] if builder else []
        lacking = [one for one in wanted if runs and parse_platform(one) not in runs]
        # What an Engine's builder tells may be older than what its kernel runs now.
        if not lacking and not any(_NO_PROGRAM in line for line in step.lines):
            return ""
        return (
            f"; the builder has no way to run programs of {', '.join(wanted) or 'that kind'}: let"
            " the role image_build register QEMU, or add a node that is such a machine"
        )


class _Listener:
    """Reads what buildx tells, in a thread, and ends a buildx that tells nothing for too long."""

    def __init__(self, process: subprocess.Popen[bytes], progress: Progress, limit: int) -> None:
        self.stalled = False
        self._process, self._progress, self._limit = process, progress, limit
        self._heard = time.monotonic()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._read, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        for line in self._process.stderr or ():
            self._heard = time.monotonic()
            self._progress.feed(line)

    def _watch(self) -> None:
        while not self._ended.wait(1):
            if self._limit and time.monotonic() - self._heard > self._limit:
                self.stalled = True
                self._process.terminate()
                return

    def end(self) -> None:
        """Waits for the last line of a process that has ended."""
        self._threads[0].join()
        self._ended.set()
        self._threads[1].join()


def _findings(content: bytes) -> list[str]:
    """The findings of `--call check,format=json`, each on one line."""
    try:
        told = json.loads(content)
        warnings = told.get("warnings") or ()
        found = [_finding(one) for one in warnings]
        error = (told.get("buildError") or {}).get("message")
        return [*found, *([f"error: {error}"] if error else [])]
    except (ValueError, AttributeError, LookupError, TypeError):
        text = content.decode("utf-8", "replace")[:_LINT_WORDS]
        return [line for line in text.splitlines() if line.strip()]


def _finding(warning: Mapping[str, Any]) -> str:
    ranges = (warning.get("location") or {}).get("ranges") or [{}]
    line = (ranges[0].get("start") or {}).get("line")
    rule, detail = warning.get("ruleName"), warning.get("detail") or warning.get("description")
    return f"line {line}: {rule}: {detail}" if line else f"{rule}: {detail}"
