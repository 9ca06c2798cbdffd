# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of a builder's node, and their spellings: as users write them, as buildx keeps them.

Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ansible_collections.fleet.images.plugins.module_utils._build_command import (
    field as csv_field,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    parse_platform,
)

ENTITLEMENT = "--allow-insecure-entitlement"
IMPLIED = f"{ENTITLEMENT}=network.host"
"""The flag that buildx adds by itself."""
# What store.ValidateName in buildx takes.
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9._-]*\Z")
# The buildx that first takes an option of a driver, as the drivers' factory.go has them.
_SINCE: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("docker-container", "default-load"): (0, 14, 0),
    ("docker-container", "provenance-add-gha"): (0, 30, 0),
    ("remote", "default-load"): (0, 14, 0),
    ("kubernetes", "default-load"): (0, 14, 0),
    ("kubernetes", "limits.ephemeral-storage"): (0, 14, 0),
    ("kubernetes", "requests.ephemeral-storage"): (0, 14, 0),
    ("kubernetes", "schedulername"): (0, 14, 0),
    ("kubernetes", "timeout"): (0, 15, 0),
    ("kubernetes", "buildkit-root-volume-memory"): (0, 26, 0),
}


class SettingError(ValueError):
    """A setting that no builder can have; the text is one sentence with the next step."""


@dataclass(frozen=True)
class Settings:
    """What buildx keeps of a node. `files`: its buildkitd.toml and the certificates for that."""

    name: str
    endpoint: str = ""
    platforms: tuple[str, ...] = ()
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Wish:
    """What is wanted of a node; None for what was not named."""

    name: str
    endpoint: str | None = None
    platforms: tuple[str, ...] | None = None
    driver_opts: Mapping[str, str] | None = None
    flags: tuple[str, ...] | None = None
    files: Mapping[str, bytes] | None = None

    def upon(self, found: Settings) -> Settings:
        """A node with what was named, and else as it is."""
        named = {
            key: value for key, value in vars(self).items() if key != "name" and value is not None
        }
        # Of flags that nobody named, buildx adds its own again.
        return replace(found, **named)


@dataclass(frozen=True)
class Setting:
    """A setting that differs, in words."""

    name: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: wanted {self.wanted}, found {self.found}"


def check_name(what: str, name: str) -> str:
    """The name of a builder or node as buildx keeps it; raises SettingError."""
    if not _NAME.match(name):
        raise SettingError(
            f"{what} {name!r}: wanted a name that begins with a letter, of letters, digits, dots,"
            " dashes and underscores; choose another"
        )
    return name.lower()


def platforms_of(given: Sequence[str]) -> tuple[str, ...]:
    """Platforms in one spelling each; raises SettingError."""
    try:
        return tuple(dict.fromkeys(map(parse_platform, given)))
    except InvalidReference as error:
        raise SettingError(f"platforms: {error}") from error


def flags_of(given: Sequence[str]) -> tuple[str, ...]:
    """Flags of buildkitd, one by one; raises SettingError."""
    try:
        return tuple(word for one in given for word in shlex.split(one))
    except ValueError as error:
        raise SettingError(f"buildkitd_flags: {given!r} cannot be read ({error})") from error


def newer(driver: str, options: Iterable[str]) -> list[tuple[str, tuple[int, ...]]]:
    """Those options of a driver that not every buildx takes, with the first that does."""
    known = [(f"driver_opts.{one}", _SINCE.get((driver, one))) for one in sorted(options)]
    found = [(name, since) for name, since in known if since]
    if driver == "kubernetes" and any(one.startswith("env.") for one in options):
        found.append(("driver_opts.env.*", (0, 28, 0)))
    return found


def same_endpoint(found: str, wanted: str) -> bool:
    """Whether buildx makes the one of the other: it completes the address of an Engine.

    None is wanted where buildx chooses it, as for Kubernetes.
    """
    if not wanted:
        return True
    whole = wanted if "://" in wanted else f"tcp://{wanted}"
    return found in (wanted, whole, f"{whole}:2375", f"{whole}:2376")


def same_flags(found: Sequence[str], wanted: Settings, driver: str) -> bool:
    """Whether a node has the wanted flags, apart from the one that buildx adds by itself."""
    if tuple(found) == wanted.flags:
        return True
    alone = not any(flag.startswith(ENTITLEMENT) for flag in wanted.flags)
    on_host = driver == "docker-container" and wanted.driver_opts.get("network") == "host"
    return (alone or on_host) and tuple(found) == (*wanted.flags, IMPLIED)


def masked(options: Mapping[str, str]) -> dict[str, str]:
    """Options of a driver to be shown: a variable may hold a password."""
    return {
        key: "(hidden)" if key.startswith("env.") else value
        for key, value in sorted(options.items())
    }


def told(name: str, *nodes: Settings) -> list[str]:
    """A setting of each of these nodes, in words."""
    return [_told(name, node) for node in nodes]


def _told(name: str, node: Settings) -> str:
    if name == "endpoint":
        return node.endpoint or "none"
    if name == "platforms":
        return ",".join(node.platforms) or "none"
    if name == "driver_opts":
        return ",".join(f"{k}={v}" for k, v in masked(node.driver_opts).items()) or "none"
    if name == "buildkitd_flags":
        return " ".join(node.flags) or "none"
    return f"one of {sum(map(len, node.files.values()))} bytes" if node.files else "none"


def arguments(
    builder: str, driver: str, node: Settings, config: str, here: str, append: bool
) -> list[str]:
    """The words after `docker buildx create` that make a node.

    `config`: the path of its buildkitd.toml, '' without one. `here`: the endpoint that buildx takes
    by itself; it is left out, since buildx then knows that its TLS cannot be kept.
    """
    words = ["--name", builder, "--driver", driver, "--node", node.name]
    words += ["--append"] if append else []
    for platform in node.platforms:
        words += ["--platform", platform]
    for key, value in sorted(node.driver_opts.items()):
        words += ["--driver-opt", csv_field(f"{key}={value}")]
    if node.flags:
        words += ["--buildkitd-flags", " ".join(map(shlex.quote, node.flags))]
    words += ["--buildkitd-config", config] if config else []
    if node.endpoint and node.endpoint != here and driver != "kubernetes":
        words.append(node.endpoint)
    return words
