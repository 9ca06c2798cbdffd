# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action of image_load: plans on the host first, and sends the bundle only where it is missing."""

from __future__ import annotations

import base64
import copy
import time
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.fleet.images.plugins.module_utils import (
    _archive,
    _load,
    _lock,
    _parts,
    _tar,
    _unpacked,
)
from ansible_collections.fleet.images.plugins.module_utils._arguments import engine_arguments
from ansible_collections.fleet.images.plugins.module_utils._bundle import BundleError
from ansible_collections.fleet.images.plugins.plugin_utils._carried import Carried
from ansible_collections.fleet.images.plugins.plugin_utils._transfer import (
    Bringing,
    Staging,
    cut_once,
)

LOAD = "fleet.images.image_load"
PLAN = "fleet.images.image_plan"
STAGING = "/var/tmp/fleet-images"
# Bytes of a bundle that goes along with the module, as most updates do: four trips less.
SMALL = 1 << 18
# Up to this it goes through a shell: the start of a file transfer costs more.
PIPED = 4 << 20

Result = dict[str, Any]


class ActionModule(Carried):
    """Runs on the controller; what it does to the host, the two modules do."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """The task's result, as image_load documents it."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        if boolean(self._task.args.get("remote_src", False), strict=False):
            return self._module(LOAD, self._task.args, task_vars)
        try:
            return self._load_from_controller(dict(self._task.args), task_vars)
        except (BundleError, _parts.PartError, OSError) as error:
            # Ansible would add the text of each cause to the message, which says it all.
            raise AnsibleActionFail(str(error)) from None

    def _load_from_controller(self, args: Result, task_vars: Result) -> Result:
        files = self._source(args)
        if boolean(args.get("planned", False), strict=False) and not self._task.check_mode:
            return self._send_and_load(args, files, task_vars)
        with _archive.opened(files, Path(C.DEFAULT_LOCAL_TMP)) as archive:
            return self._load_archive(args, files, archive, task_vars)

    def _load_archive(
        self, args: Result, files: list[Path], archive: _archive.Archive, task_vars: Result
    ) -> Result:
        if args.get("lock") is None and args.get("lock_path") is None:
            args["lock"] = _lock.dump(archive.images)
        planned = self._module(PLAN, self._plan_args(args), task_vars)
        if "images" not in planned:
            return planned
        lock = archive.images if args.get("lock") is None else _lock.load(args["lock"])
        _refuse_unfit(planned, lock, archive, bool(args.get("known")))
        todo = [image for image in planned["images"] if image["action"] == "loaded"]
        if not todo:
            return _foreseen(planned, 0)
        to_send = _to_send(args, files, archive)
        if self._task.check_mode:
            return _foreseen(planned, sum(file.stat().st_size for file in to_send))
        return self._send_and_load(args, to_send, task_vars)

    def _source(self, args: Result) -> list[Path]:
        """The archive's files, compared with the checksums beside them."""
        if not args.get("src"):
            raise AnsibleActionFail("image_load: src is wanted, the bundle on the controller")
        try:
            src = self._found(args["src"])
        except AnsibleError:
            raise AnsibleActionFail(
                f"{args['src']}: a bundle is wanted on the controller, none is there; make it with"
                " image_archive, or set remote_src where it lies on the host"
            ) from None
        files = _parts.split_parts(src)
        _parts.check_sums(src, files)
        return files

    def _found(self, src: str) -> Path:
        """The whole archive, or the first part of one that was split."""
        try:
            return Path(self._find_needle("files", src))
        except AnsibleError:
            return Path(self._find_needle("files", str(_parts.part_name(Path(src), 1))))

    def _plan_args(self, args: Result) -> Result:
        names = {"lock", "lock_path", "images", "known"}
        for name, spec in engine_arguments().items():
            names.update((name, *spec.get("aliases", ())))
        return {name: value for name, value in args.items() if name in names}

    def _send_and_load(self, args: Result, files: list[Path], task_vars: Result) -> Result:
        started = time.monotonic()
        parts, whole = cut_once(files, Path(C.DEFAULT_LOCAL_TMP))
        wanted = str(args.get("sha256") or whole)
        if whole != wanted.lower():
            raise AnsibleActionFail(
                f"{files[0]}: wanted SHA-256 {wanted}, found {whole}; it is damaged or another"
                " file, copy or make it anew"
            )
        args.update(remote_src=True, sha256=whole)
        size = sum(part.size for part in parts)
        if size <= SMALL:
            with _parts.Concatenated(files) as file:
                args["content"] = base64.b64encode(file.readall()).decode()
            result, sent, resumed = self._module(LOAD, args, task_vars), size, 0
        else:
            result, sent, resumed = self._load_in_parts(args, files, parts, task_vars)
        seconds = round(time.monotonic() - started, 3)
        return {**result, "bytes_sent": sent, "bytes_resumed": resumed, "seconds": seconds}

    def _load_in_parts(
        self, args: Result, files: list[Path], parts: list[_parts.Part], task_vars: Result
    ) -> tuple[Result, int, int]:
        """The module's result, bytes sent, and bytes that were there from a broken transfer."""
        size, base = sum(part.size for part in parts), args.get("staging_dir") or STAGING
        # Of its own, because a connection plugin keeps the state of what it runs.
        beside = copy.copy(self._connection)
        staging = Staging(self._shell, beside.put_file, base, args["sha256"][:16])
        there = [
            {"path": staging.place(part), "size": part.size, "sha256": part.sha256}
            for part in parts
        ]
        args.update(parts=there, sha256=None)
        piped = 0
        if len(files) == len(parts) == 1 and size <= PIPED and self._can_pipe():
            staging.pipe(self._shell, files[0], parts[0])
            piped, bringing = size, Bringing(staging, files, [])
        else:
            args["members"] = _listed(files)
            if args["members"] is not None:
                # The digest of every blob is compared while it is loaded: once is enough.
                args["parts"] = [{**part, "sha256": ""} for part in there]
            bringing = Bringing(staging, files, staging.begin(parts))
        try:
            result = self._load_meanwhile(bringing, args, task_vars)
        except AnsibleConnectionFailure as error:
            bringing.error = error
            raise
        finally:
            # What came before the connection broke is kept for the next time.
            if bringing.error is None:
                staging.remove()
        return result, piped + bringing.sent, size - piped - bringing.wanted

    def _load_meanwhile(self, bringing: Bringing, args: Result, task_vars: Result) -> Result:
        """The module's result. Over ssh it begins to load while parts are still being sent."""
        if self._connection.transport != "ssh":
            bringing.run()
            return self._module(LOAD, args, task_vars)
        bringing.start()
        try:
            result = self._module(LOAD, args, task_vars)
        finally:
            bringing.end()
        if bringing.error and result.get("failed"):
            raise bringing.error
        bringing.error = None  # The load needed no more.
        return result

    def _can_pipe(self) -> bool:
        return bool(self._connection.has_pipelining)

    def _shell(self, line: str, content: bytes | None = None) -> tuple[int, str, str]:
        done = self._low_level_execute_command(
            line, sudoable=False, in_data=content, executable="/bin/sh"
        )
        return int(done["rc"]), str(done["stdout"]), str(done["stderr"])


def _listed(files: list[Path]) -> list[Result] | None:
    """Where each member lies in a plain tar, so that the module need not have all of it to see."""
    if _unpacked.compression(files):
        return None
    return [
        {"name": name, "offset": region.offset, "size": region.length}
        for name, region in _tar.members(files, str(files[0])).items()
    ]


def _to_send(args: Result, files: list[Path], archive: _archive.Archive) -> list[Path]:
    """The files that go to the host: the archive as it is, which is least where it is compressed.

    But with zstd it goes unpacked, because hardly any host has that.
    """
    if _unpacked.compression(files) != _unpacked.ZSTD:
        return files
    if args.get("sha256"):
        _parts.check_sha256(files[0], args.pop("sha256"), *files[1:])
    return [path for path in archive.paths if isinstance(path, Path)]


def _refuse_unfit(
    planned: Result, lock: _lock.Lock, archive: _archive.Archive, known: bool
) -> None:
    """Marks in the plan what this bundle cannot bring, as the module would: it is not even sent.

    A containerd store whose layers are not known is left to try.
    """
    engine = planned["engine"]
    missing: set[str] = set()
    told = _load.tells_layers(engine["store"], known)
    for image in planned["images"]:
        name = image["lock_name"]
        if image["action"] != "loaded" or name not in lock:
            continue
        layers = lock[name].on(engine["platform"]).layers
        lacking = [one for one in layers if one.digest in planned["blobs"]]
        reason = _load.unfit(name, lacking, archive, engine["version"], told)
        if reason:
            missing.update(_load.absent(lacking, archive))
            image.update(action="failed", reason=reason, bytes=0)
    planned["missing_layers"] = sorted(missing)


def _foreseen(planned: Result, size: int) -> Result:
    """What a load does, or would do in check mode, as far as the plan tells."""
    images = [
        {
            **{key: image[key] for key in ("name", "id", "digest", "action", "reason", "bytes")},
            "seconds": 0.0,
        }
        for image in planned["images"]
    ]
    todo = [image for image in images if image["action"] == "loaded"]
    errors = [image["reason"] for image in images if image["action"] == "failed"]
    failed = {"failed": True, "msg": "; ".join(errors)} if errors else {}
    wanted = sum(image["bytes"] for image in todo) if errors else planned["bytes"]
    return {
        "changed": bool(todo),
        "images": images,
        "bytes": wanted,
        "bytes_sent": size,
        "bytes_resumed": 0,
        "missing_layers": planned["missing_layers"],
        "seconds": 0.0,
        "diff": planned["diff"],
        "msg": f"{len(todo)} of {len(images)} images to load, {planned['bytes']} bytes",
        **failed,
    }
