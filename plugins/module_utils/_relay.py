# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_relay does: the tree of a lock, the process that serves it, and their removal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import (
    _relay_config,
    _relay_process,
    _relay_tree,
    _sweep,
)
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout
from ansible_collections.fleet.images.plugins.module_utils._lock import Lock, LockedImage
from ansible_collections.fleet.images.plugins.module_utils._relay_config import Wanted
from ansible_collections.fleet.images.plugins.module_utils._relay_process import Running
from ansible_collections.fleet.images.plugins.module_utils._relay_tree import (
    Difference,
    RelayError,
    Tree,
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_OWN = (
    _relay_config.CONFIG,
    _relay_config.CERTIFICATE,
    _relay_config.KEY,
    _relay_config.HTPASSWD,
    _relay_config.LOG,
)

Json = dict[str, Any]


def directory_of(name: str, store: str | None, given: str | None) -> Path:
    """The directory of a relay: the one given, else `.relay/<name>` in the store.

    Raises RelayError for a name that is no file name.
    """
    if given:
        return Path(os.path.abspath(given))
    if not _NAME.match(name):
        raise RelayError(
            f"name {name!r}: wanted letters, digits, dots, dashes and underscores; choose another"
        )
    return Path(os.path.abspath(store or ".")) / ".relay" / name


def started(store: str, lock: Lock, directory: Path, wanted: Wanted, dry_run: bool) -> Json:
    """Serves the lock's images that the store has whole; the module's result.

    An image that is not whole fails, and the others are served. Raises RelayError, OSError.
    """
    layout = Layout(os.path.abspath(store))
    with layout.using():
        good, reasons = _relay_tree.whole(layout, lock)
        if reasons and not good:
            raise RelayError("; ".join(reasons.values()))
        tree = _relay_tree.tree_of(good.values())
        if wanted.lease and not dry_run:
            _sweep.hold(layout, wanted.lease, {one.digest for one in tree.blobs.values()})
        with alone(directory, make=not dry_run):
            _check_owned(directory)
            before = _relay_tree.served(directory)
            difference = _relay_tree.look(layout, directory, tree)
            running = _relay_process.start(directory, wanted, dry_run=True)
            if not dry_run:
                _prepare(directory, wanted.lease)
                _relay_tree.apply(layout, directory, tree, difference)
                running = _start(directory, wanted, changed=bool(difference))
    images = [_entry(image, tree, difference, reasons) for image in lock.values()]
    return {
        "changed": bool(difference) or running.changed,
        "images": images,
        "bytes": tree.bytes,
        "address": wanted.address,
        "port": running.port,
        "pid": running.pid,
        "url": _relay_config.url_of(wanted, running.port),
        "ca": running.certificate if wanted.made else "",
        "failed": bool(reasons),
        "msg": "; ".join(reasons.values()) or f"{len(images)} images served, {tree.bytes} bytes",
        "diff": _diff(before, _relay_tree.told(tree.links), running),
    }


def stopped(directory: Path, dry_run: bool) -> Json:
    """Ends the relay and removes its directory; the module's result.

    Raises RelayError, OSError; EngineError and SdkError where it is a container.
    """
    if not directory.is_dir():
        return {"changed": False, "msg": f"no relay in {directory}", "diff": _lines([], [])}
    with alone(directory, make=False):
        _check_owned(directory)
        before = _relay_tree.served(directory)
        pid = _relay_process.pid_of(directory)
        if not dry_run:
            end(directory)
    running = ["the relay runs"] if pid else []
    msg = f"the relay in {directory} is gone"
    return {"changed": True, "msg": msg, "diff": _lines([*before, *running], [])}


def end(directory: Path) -> None:
    """Ends a relay and removes its directory, for who has that alone; raises as `stopped`."""
    _relay_process.stop(directory)
    _remove(directory)


def _start(directory: Path, wanted: Wanted, changed: bool) -> Running:
    try:
        return _relay_process.start(directory, wanted, dry_run=False)
    except RelayError as error:
        error.changed = changed
        raise


@contextlib.contextmanager
def alone(directory: Path, make: bool, wait: bool = True) -> Iterator[bool]:
    """One process at a time: a lock on the directory, which the one before may have removed.

    Whether the directory is there, and ours; False, too, where another has it and nobody waits.
    """
    while True:
        try:
            if make:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if make:
                continue
            yield False
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(directory)):
                    yield True
                    return
        except BlockingIOError:
            yield False
            return
        finally:
            os.close(descriptor)


def _check_owned(directory: Path) -> None:
    """Raises RelayError for a directory with something of somebody else in it."""
    if not directory.is_dir() or _relay_config.is_marked(directory):
        return
    found = sorted(os.listdir(directory))
    if found:
        raise RelayError(
            f"{directory}: wanted an empty directory or one of a relay, found {found[0]} and"
            f" {len(found) - 1} more in it; choose another dir"
        )


def _prepare(directory: Path, lease: str) -> None:
    """Marks the directory as a relay's, before there is anything in it, and whose it is now."""
    directory.chmod(0o700)
    note = _relay_config.note_of(directory)
    if not _relay_config.is_marked(directory) or note.get("lease", "") != lease:
        _relay_config.mark(directory, {**note, "lease": lease})


def _remove(directory: Path) -> None:
    """Removes what a relay has, the mark last, and the directory; raises RelayError, OSError."""
    if (directory / "docker").is_dir():
        shutil.rmtree(directory / "docker")
    for name in (*_OWN, *(f".{name}.tmp" for name in (*_OWN, _relay_config.NOTE))):
        (directory / name).unlink(missing_ok=True)
    left = sorted(set(os.listdir(directory)) - {_relay_config.NOTE})
    if left:
        raise RelayError(
            f"{directory}: {left[0]} is not the relay's own and stays; the relay has ended, remove"
            " the directory by hand"
        )
    (directory / _relay_config.NOTE).unlink(missing_ok=True)
    directory.rmdir()
    if directory.parent.name == ".relay":
        with contextlib.suppress(OSError):
            directory.parent.rmdir()


def _entry(
    image: LockedImage, tree: Tree, difference: Difference, reasons: Mapping[str, str]
) -> Json:
    """The result's entry of an image."""
    first = min(image.platforms, default="")
    blobs = image.all_blobs.values()
    paths = {*_relay_tree.tree_of([image]).links, *_relay_tree.tree_of([image]).blobs}
    action, reason = "none", "the relay serves it"
    if image.name in reasons:
        action, reason = "failed", reasons[image.name]
    elif paths & difference.put:
        action, reason = "served", "the relay did not serve it as the lock has it"
    return {
        "name": image.name,
        "id": image.platforms[first].config.digest if first else "",
        "digest": image.target.digest,
        "repository": _relay_tree.repositories(image)[0][0],
        "action": action,
        "reason": reason,
        "bytes": sum(blob.size for blob in blobs),
    }


def _diff(before: list[str], after: list[str], running: Running) -> dict[str, str]:
    """What it serves; and whether it runs as wanted, without any detail of its configuration."""
    state = [] if running.changed else ["the relay runs as wanted"]
    return _lines([*before, *state], [*after, "the relay runs as wanted"])


def _lines(before: list[str], after: list[str]) -> dict[str, str]:
    return {
        "before": "".join(f"{line}\n" for line in before),
        "after": "".join(f"{line}\n" for line in after),
    }
