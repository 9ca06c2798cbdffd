# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a clean-up may take, as users write it down. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _amounts, _patterns
from ansible_collections.fleet.images.plugins.module_utils._amounts import PolicyError

DANGLING, UNUSED = SCOPES = ("dangling", "unused")
VERSION, TIME = ORDERS = ("version", "time")
AGES = ("built_before", "tagged_before", "unused_for")


@dataclass(frozen=True)
class Policy:
    """Which images may go: those for which all of this holds.

    `scope`: `dangling` as `docker image prune` has it, or `unused` as `docker image prune -a`.
    `repositories`: patterns, one of which every name of the image matches; empty for all.
    `built_before`, `tagged_before`, `unused_for`: seconds before now, at least; None for any.
    `keep_last`: so many images per repository stay, the newest by `keep_last_by`, `version` or
    `time`. `protect`: patterns on names and IDs. `protect_labels`: `key` or `key=value`.
    """

    scope: str = DANGLING
    repositories: tuple[str, ...] = ()
    built_before: int | None = None
    tagged_before: int | None = None
    unused_for: int | None = None
    keep_last: int | None = None
    keep_last_by: str = VERSION
    protect: tuple[str, ...] = ()
    protect_labels: tuple[str, ...] = ()


def policy(params: Mapping[str, Any]) -> Policy:
    """The policy that options of these names make: durations are texts, lists are lists of texts.

    What is missing or None is the default of Policy; other options are left alone. Raises
    PolicyError, with the option's name, for whatever is no policy.
    """
    labels = _texts(params, "protect_labels")
    for text in labels:
        if not text.partition("=")[0]:
            raise PolicyError(f"protect_labels: {text!r} has no key; write key or key=value")
    ages = {name: _age(params, name) for name in AGES}
    return Policy(
        scope=_choice(params, "scope", SCOPES),
        repositories=_patterns_of(params, "repositories", ids=False),
        keep_last=_count(params, "keep_last"),
        keep_last_by=_choice(params, "keep_last_by", ORDERS),
        protect=_patterns_of(params, "protect", ids=True),
        protect_labels=labels,
        **ages,
    )


def _choice(params: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = params.get(name)
    if value is None:
        return choices[0]
    if value not in choices:
        raise PolicyError(f"{name}: {value!r} is unknown; wanted {' or '.join(choices)}")
    return str(value)


def _age(params: Mapping[str, Any], name: str) -> int | None:
    value = params.get(name)
    try:
        return None if value is None else _amounts.duration(value)
    except PolicyError as error:
        raise PolicyError(f"{name}: {error}") from error


def _count(params: Mapping[str, Any], name: str) -> int | None:
    value = params.get(name)
    if value is None:
        return None
    # True is an int to Python, and a slip of the pen to everybody else.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PolicyError(f"{name}: {value!r} is no count; wanted a whole number from 0 on")
    return value


def _texts(params: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = params.get(name)
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise PolicyError(f"{name}: {value!r} is no list; wanted a list of texts")
    for text in value:
        if not isinstance(text, str) or not text.strip():
            raise PolicyError(
                f"{name}: {text!r} is no text; take it out, or write what it should be"
            )
    return tuple(text.strip() for text in value)


def _patterns_of(params: Mapping[str, Any], name: str, ids: bool) -> tuple[str, ...]:
    texts = _texts(params, name)
    try:
        _patterns.patterns(texts, ids)
    except PolicyError as error:
        raise PolicyError(f"{name}: {error}") from error
    return texts
