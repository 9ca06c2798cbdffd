# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of buildx_build as the arguments of `docker buildx build`. Pure: no I/O.

https://docs.docker.com/reference/cli/docker/buildx/build/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Params = Mapping[str, Any]

NEEDS: Mapping[str, tuple[int, int, int]] = {
    "lint": (0, 15, 0),
}
"""The version of buildx that an option needs, beyond what every build needs."""

_REPEATED = {
    "tags": "--tag",
    "cache_from": "--cache-from",
    "cache_to": "--cache-to",
    "ssh": "--ssh",
    "ulimits": "--ulimit",
    "no_cache_filter": "--no-cache-filter",
}
_SINGLE = {
    "builder": "--builder",
    "dockerfile": "--file",
    "target": "--target",
    "network": "--network",
    "shm_size": "--shm-size",
}
_PAIRS = {
    "args": "--build-arg",
    "labels": "--label",
    "annotations": "--annotation",
    "build_contexts": "--build-context",
}


def text(value: Any) -> str:
    """A value of the task as the command line has it: `true` and `false` in small letters."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def texts(pairs: Mapping[str, Any] | None) -> dict[str, str]:
    """The values of a dictionary of the task as the command line has them."""
    return {str(name): text(value) for name, value in (pairs or {}).items()}


def arguments(params: Params, labels: Mapping[str, str]) -> list[str]:
    """What both a build and a check of the Dockerfile are told.

    `labels`: those of the fingerprint, beside the user's. The context, the outputs and the secrets
    are not in it.
    """
    pairs = {name: texts(params.get(name)) for name in _PAIRS}
    pairs["labels"] = {**pairs["labels"], **labels}
    words = [
        word for name, flag in _SINGLE.items() if params.get(name) for word in (flag, params[name])
    ]
    for name, flag in _REPEATED.items():
        words += [word for value in params.get(name) or () for word in (flag, text(value))]
    for name, flag in _PAIRS.items():
        words += [word for key, value in pairs[name].items() for word in (flag, f"{key}={value}")]
    for host, address in (params.get("add_hosts") or {}).items():
        words += ["--add-host", f"{host}:{address}"]
    if params.get("platforms"):
        words += ["--platform", ",".join(params["platforms"])]
    for name, flag in (("pull", "--pull"), ("no_cache", "--no-cache")):
        words += [flag] if params.get(name) else []
    for name in ("provenance", "sbom"):
        if params.get(name) is not None:
            words.append(f"--{name}={_switch(text(params[name]))}")
    return words


def _switch(value: str) -> str:
    """`true` and `false` in small letters, however YAML has them; anything else as it is."""
    return value.lower() if value.lower() in ("true", "false") else value


def outputs(params: Params, driver: str) -> list[str]:
    """The arguments that say where the result goes, the store aside.

    A builder with the `docker` driver keeps in its Engine what it pushes, and takes one of the two
    only.
    """
    times = ",rewrite-timestamp=true" if rewrites_times(params, driver) else ""
    words: list[str] = []
    if params.get("push"):
        words += ["--output", f"type=image,push=true{times}"]
    if wants_load(params) and not (params.get("push") and driver == "docker"):
        words += ["--output", f"type=docker{times}"]
    for value in params.get("outputs") or ():
        words += ["--output", str(value)]
    return words


def wants_load(params: Params) -> bool:
    """Whether the image is wanted in the Engine: where it says so, or nothing else is asked for."""
    elsewhere = params.get("push") or params.get("outputs") or params.get("store")
    given = params.get("load")
    return bool(given) if given is not None else not elsewhere


def rewrites_times(params: Params, driver: str) -> bool:
    """Whether the times of files become the given one, which BuildKit does on the way out only.

    The Engine's own BuildKit unpacks what it builds, and cannot do both.
    """
    return params.get("source_date_epoch") is not None and driver != "docker"


def csv(fields: Mapping[str, str]) -> str:
    """`id=x,src=y` in one argument; a value with a comma or a quote stands in quotes."""
    return ",".join(field(f"{name}={value}") for name, value in fields.items())


def field(word: str) -> str:
    """One field of comma-separated values."""
    if not any(one in word for one in ',"\n'):
        return word
    return '"' + word.replace('"', '""') + '"'
