# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sends a file to a host in checksummed parts, over whatever connection Ansible has to it.

A part that is there with the right checksum is not sent again, so a broken transfer goes on
where it stopped. Runs on the controller, as the login user of the host (never `become`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path

from ansible.errors import AnsibleActionFail, AnsibleError

from ansible_collections.fleet.images.plugins.module_utils._arriving import STOP
from ansible_collections.fleet.images.plugins.module_utils._parts import (
    PART_SIZE,
    Concatenated,
    Part,
    cut,
    part_file,
    pieces,
)
from ansible_collections.fleet.images.plugins.plugin_utils._beside import (
    Beside,
    Told,
    once,
    tell,
)

Run = Callable[[str], "tuple[int, str, str]"]
Pipe = Callable[[str, bytes], "tuple[int, str, str]"]
Put = Callable[[str, str], object]

# Only a directory of one's own, that nobody else can write to, takes parts: root may load them.
_PREPARE = """
umask 077
mkdir -p {base} && [ -O {base} ] && [ ! -L {base} ] && chmod 700 {base} && mkdir -p {here} &&
cd {here} && rm -f {stop} && df -Pk . | tail -n 1 | awk '{{print "free", $4}}' &&
for part in *.part; do [ -f "$part" ] && sha256sum "$part"; done; [ -d {here} ]
"""
_PIPE = """
umask 077
mkdir -p {base} && [ -O {base} ] && [ ! -L {base} ] && chmod 700 {base} && mkdir -p {here} &&
cat >{part}
"""
_DROP = "cd {here} && rm -f {names}"
_REMOVE = "rm -rf {here}; rmdir {base} 2>/dev/null || true"


def cut_once(files: Sequence[Path], directory: Path) -> tuple[list[Part], str]:
    """What `_parts.cut` says of these files, which are read once for all the hosts of a run.

    `directory`: of this run of Ansible, shared by its processes; the first one reads, and the
    others wait for what it notes there. Raises OSError.
    """
    told = once(_name(files), lambda: _told(*cut(files)), directory)
    return [Part(**part) for part in told["parts"]], str(told["whole"])


def note_cut(files: Sequence[Path], sums: Sequence[str], whole: str, directory: Path) -> None:
    """Notes for `cut_once` that these files are the parts, and what was found of them (SHA-256).

    Not for parts that are larger than those that are cut. Raises OSError.
    """
    sizes = [file.stat().st_size for file in files]
    if max(sizes) > PART_SIZE:
        return
    starts = [0, *accumulate(sizes)]
    parts = [
        Part(part_file(number), starts[number], size, sums[number])
        for number, size in enumerate(sizes)
    ]
    tell(_name(files), _told(parts, whole), directory)


def _told(parts: Sequence[Part], whole: str) -> Told:
    return {"parts": [asdict(part) for part in parts], "whole": whole}


def _name(files: Sequence[Path]) -> str:
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"parts-{hashlib.sha256(json.dumps(stats).encode()).hexdigest()}"


class Staging:
    """A directory on the host for the parts of one file. `run` runs a shell line there."""

    def __init__(self, run: Run, put: Put, base: str, name: str) -> None:
        self._run, self._put = run, put
        self._base = base.rstrip("/")
        self.path = f"{self._base}/{name}"

    def place(self, part: Part) -> str:
        """Where a part lies on the host."""
        return f"{self.path}/{part.name}"

    def begin(self, parts: Sequence[Part]) -> list[Part]:
        """Makes the directory ready, and returns the parts that are lacking there.

        Raises AnsibleActionFail, AnsibleConnectionFailure.
        """
        there, free = self._look()
        lacking = [part for part in parts if there.get(part.name) != part.sha256]
        # Who waits for a part must not take a broken one for it.
        broken = [part.name for part in lacking if part.name in there]
        if broken:
            names = " ".join(map(shlex.quote, broken))
            self._run(_DROP.format(here=shlex.quote(self.path), names=names))
        wanted = sum(part.size for part in lacking)
        if wanted > free:
            raise AnsibleActionFail(
                f"{self._base}: {wanted} bytes are wanted free for the bundle, {free} are; set"
                " staging_dir to a larger disk, or remove images (docker image prune)"
            )
        return lacking

    def pipe(self, run: Pipe, file: Path, part: Part) -> None:
        """Brings a small file there in one trip, into the standard input of a shell line.

        `run`: as that of the class, with the input. Raises AnsibleActionFail, OSError.
        """
        names = {"base": self._base, "here": self.path, "part": self.place(part)}
        line = _PIPE.format(**{key: shlex.quote(name) for key, name in names.items()})
        code, out, err = run(line, file.read_bytes())
        if code != 0:
            raise AnsibleActionFail(self._no_place(err or out))

    def _no_place(self, told: str) -> str:
        return (
            f"{self._base}: wanted a directory of the login user's own for the bundle, found none"
            f" and could not make one ({told.strip()}); set staging_dir"
        )

    def _look(self) -> tuple[dict[str, str], int]:
        """The parts that are there (name -> SHA-256), and the free bytes beside them."""
        names = {"base": self._base, "here": self.path, "stop": STOP}
        line = _PREPARE.format(**{key: shlex.quote(name) for key, name in names.items()})
        code, out, err = self._run(line)
        rows = [row.split() for row in out.splitlines()]
        free = [int(row[1]) * 1024 for row in rows if len(row) == 2 and row[0] == "free"]
        if code != 0 or not free:
            raise AnsibleActionFail(self._no_place(err or out))
        there = {row[1]: row[0] for row in rows if len(row) == 2 and len(row[0]) == 64}
        return there, free[0]

    def put(self, files: Sequence[Path], part: Part) -> None:
        """Brings one part of the files, which are read as one, there.

        Raises as `begin` does, and OSError.
        """
        target = self.place(part)
        whole = _file_of(files, part)
        if whole is not None:
            self._put(str(whole), target)
            return
        with (
            Concatenated(files) as source,
            tempfile.NamedTemporaryFile(prefix="fleet-images-") as piece,
        ):
            source.seek(part.offset)
            for chunk in pieces(source, part.size):
                piece.write(chunk)
            piece.flush()
            self._put(piece.name, target)

    def give_up(self) -> None:
        """Tells who waits for parts that no more will come, as well as that can be told."""
        with (
            contextlib.suppress(AnsibleError, OSError),
            tempfile.NamedTemporaryFile(prefix="fleet-images-") as nothing,
        ):
            self._put(nothing.name, f"{self.path}/{STOP}")

    def remove(self) -> None:
        """Takes the parts away again, and the directory above if nothing else is in it."""
        self._run(_REMOVE.format(base=shlex.quote(self._base), here=shlex.quote(self.path)))


class Bringing(Beside):
    """The sending of parts, which may go on while something on the host reads them already.

    `wanted`: bytes to send. `sent`: those so far. `error`: what ended it early, or None.
    """

    def __init__(self, staging: Staging, files: Sequence[Path], lacking: Sequence[Part]) -> None:
        super().__init__()
        self._staging, self._files, self._lacking = staging, files, lacking
        self.wanted = sum(part.size for part in lacking)
        self.sent = 0
        self.error: Exception | None = None

    def run(self) -> None:
        """Sends all of them now. Raises AnsibleActionFail, AnsibleConnectionFailure, OSError."""
        try:
            for part in self._lacking:
                if self.ended.is_set():
                    return
                self._staging.put(self._files, part)
                self.sent += part.size
        except Exception as error:  # of any connection plugin
            self.error = error
            raise

    def work(self) -> None:
        """`run`, and the host is told where that fails; who started it raises the error again."""
        try:
            self.run()
        except Exception:
            self._staging.give_up()


def _file_of(files: Sequence[Path], part: Part) -> Path | None:
    """The file that the part is, if it is one that other programs can read by its name."""
    start = 0
    for file in files:
        found = file.stat()
        if (start, found.st_size) == (part.offset, part.size):
            return file if found.st_nlink > 0 else None
        start += found.st_size
    return None
