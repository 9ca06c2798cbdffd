# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Image references and platforms, in one canonical spelling each. Pure: no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

# The grammar of https://github.com/distribution/reference (reference.go, regexp.go).
_REGISTRY = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?\Z"
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}\Z")
_LONGEST_REPOSITORY = 255
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9_.]+)?\Z")

# What `uname -m` and older tools say, and what the OCI image index says for the same machine
# (https://github.com/containerd/platforms, database.go).
_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armv8l": "arm64",
    "armhf": "arm/v7",
    "armv7l": "arm/v7",
    "armel": "arm/v6",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
}
# A bare "arm" means v7, "arm64" v8 and "amd64" v1 to every Engine; only one spelling may reach a
# lock.
_DEFAULT_VARIANTS = {("arm", ""): "v7", ("arm64", "v8"): "", ("amd64", "v1"): ""}
# The lowest variant of an architecture; a machine runs those from its own down to this one.
_LOWEST_VARIANTS = {"arm": 5, "arm64": 8, "amd64": 1}
_VARIANT = re.compile(r"v([1-9][0-9]?)\Z")


class InvalidReference(ValueError):
    """A text that names no image, no digest or no platform; the message says what was wanted."""


@dataclass(frozen=True)
class Reference:
    """An image's name, fully spelled: `registry/repository[:tag][@digest]`."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """`registry/repository`, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def tagged(self) -> str:
        """`registry/repository:tag`: what an Engine lists; a reference without tag has none.

        Raises InvalidReference where there is no tag.
        """
        if self.tag is None:
            raise InvalidReference(
                f"{self}: a tag is wanted, since an offline Engine cannot name an image by digest"
                " alone; write name:tag@digest"
            )
        return f"{self.name}:{self.tag}"

    @property
    def familiar(self) -> str:
        """The short form that Docker prints: without `docker.io/` and `library/`."""
        text = str(self)
        for prefix in (f"{DEFAULT_REGISTRY}/library/", f"{DEFAULT_REGISTRY}/"):
            short = self.name[len(prefix) :]
            # `docker.io/a.b/c` has no short form: `a.b/c` is on the registry a.b.
            if text.startswith(prefix) and _split_registry(short) == (
                DEFAULT_REGISTRY,
                self.repository,
            ):
                return text[len(prefix) :]
        return text

    def pinned(self, digest: str) -> Reference:
        """The same name with this digest (`sha256:<64 hex>`)."""
        return replace(self, digest=check_digest(digest))

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def parse(text: str) -> Reference:
    """The reference that a user's text means, as Docker itself reads it.

    `nginx` is `docker.io/library/nginx:latest`; a digest without tag stays without tag.
    Raises InvalidReference for a text that is no reference.
    """
    rest, at, digest = text.strip().partition("@")
    if at:
        check_digest(digest, text)
    head, slash, tail = rest.rpartition("/")
    last, colon, tag = tail.partition(":")
    if colon and not _TAG.match(tag):
        raise InvalidReference(f"{text!r}: {tag!r} is no tag; wanted registry/repository:tag")
    registry, repository = _split_registry(f"{head}{slash}{last}")
    # Docker takes 64 hex digits for an image's ID, never for a name.
    good = _REPOSITORY.match(repository) and len(repository) <= _LONGEST_REPOSITORY
    if not good or not _REGISTRY.match(registry) or _IDENTIFIER.match(rest):
        raise InvalidReference(
            f"{text!r} is no image reference; wanted registry/repository:tag, with a repository"
            " in lower case"
        )
    default = None if at else DEFAULT_TAG
    return Reference(registry, repository, tag if colon else default, digest if at else None)


def canonical(text: str) -> str:
    """A name in its one spelling; the text itself where it is no reference."""
    try:
        return str(parse(text))
    except InvalidReference:
        return text


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_host:
        first, rest = DEFAULT_REGISTRY, name
    if first == "index.docker.io":
        first = DEFAULT_REGISTRY
    if first == DEFAULT_REGISTRY and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


def check_digest(digest: str, inside: str = "") -> str:
    """The digest itself, where it is `sha256:` and 64 hex digits; raises InvalidReference else."""
    if not _DIGEST.match(digest):
        where = f"{inside!r}: " if inside else ""
        raise InvalidReference(f"{where}{digest!r} is no digest; wanted sha256: and 64 hex digits")
    return digest


def parse_platform(text: str) -> str:
    """A platform in one spelling, `os/architecture[/variant]`; raises InvalidReference.

    `x86_64`, `linux/x86_64` and `linux/amd64` are all `linux/amd64`.
    """
    parts = text.strip().lower().split("/")
    if len(parts) == 1:
        parts.insert(0, "linux")
    parts[1:2] = _ARCHITECTURES.get(parts[1], parts[1]).split("/")
    os_name, architecture, variant = (*parts, "", "")[:3]
    variant = _DEFAULT_VARIANTS.get((architecture, variant), variant)
    joined = "/".join(part for part in (os_name, architecture, variant) if part)
    if len(parts) > 3 or not _PLATFORM.match(joined):
        raise InvalidReference(f"{text!r} is no platform; wanted os/architecture, as linux/amd64")
    return joined


def runnable(platform: str) -> tuple[str, ...]:
    """The platforms whose images a machine of this platform runs, best first, its own included.

    Variants downwards, as platformVector in
    https://github.com/containerd/platforms/blob/main/compare.go has them; but never another
    architecture (386 on amd64, arm on arm64), which not every machine can run.
    """
    os_name, architecture, variant = (*platform.split("/"), "", "")[:3]
    number = _VARIANT.match(variant)
    lowest = _LOWEST_VARIANTS.get(architecture)
    if not number or lowest is None:
        return (platform,)
    numbers = range(int(number[1]), lowest - 1, -1)
    found = (parse_platform(f"{os_name}/{architecture}/v{one}") for one in numbers)
    return tuple(found) or (platform,)


def platform_of(entry: Mapping[str, Any]) -> str:
    """The platform that an index entry or an image config states; '' where it states none.

    Keys as in the OCI image index and image config: `os`, `architecture`, `variant`.
    """
    os_name, architecture = entry.get("os"), entry.get("architecture")
    if not os_name or not architecture or "unknown" in (os_name, architecture):
        return ""
    parts = (os_name, architecture, entry.get("variant") or "")
    return parse_platform("/".join(part for part in parts if part))


@dataclass(frozen=True)
class ImageSpec:
    """One wanted image: a string, or a dict of `name`, `digest`, `platforms` and `as`."""

    reference: Reference
    platforms: tuple[str, ...] = ()
    as_: Reference | None = None

    @property
    def key(self) -> str:
        """The name under which a lock keeps this image: the reference without digest."""
        return str(replace(self.reference, digest=None) if self.reference.tag else self.reference)

    @property
    def destination(self) -> Reference:
        """The name that the image gets on a host: `as`, or its own."""
        return self.as_ or self.reference


def parse_images(items: Sequence[str | Mapping[str, Any]]) -> list[ImageSpec]:
    """The user's list, parsed, in its order, each image once; raises InvalidReference."""
    specs: dict[str, ImageSpec] = {}
    for item in items:
        spec = _parse_image(item)
        known = specs.setdefault(spec.key, spec)
        if known != spec:
            platforms = (*known.platforms, *spec.platforms)
            both = tuple(dict.fromkeys(platforms)) if known.platforms and spec.platforms else ()
            if replace(known, platforms=()) != replace(spec, platforms=()):
                raise InvalidReference(f"{spec.key} stands twice in the list, with two meanings")
            specs[spec.key] = replace(known, platforms=both)
    return list(specs.values())


def _parse_image(item: str | Mapping[str, Any]) -> ImageSpec:
    if isinstance(item, str):
        return ImageSpec(parse(item))
    if not isinstance(item, Mapping) or not _is_image(item):
        raise InvalidReference(
            f"{item!r} is no image; wanted a string, or a dict of name, digest, platforms, as"
        )
    reference = parse(item["name"])
    if item.get("digest"):
        reference = reference.pinned(item["digest"])
    platforms = item.get("platforms") or ()
    platforms = [platforms] if isinstance(platforms, str) else platforms
    destination = parse(item["as"]) if item.get("as") else None
    return ImageSpec(
        reference, tuple(dict.fromkeys(parse_platform(text) for text in platforms)), destination
    )


def _is_image(item: Mapping[str, Any]) -> bool:
    """Whether a user's dict has the right keys, with texts in them."""
    platforms = item.get("platforms") or []
    texts = [item.get("name"), item.get("digest") or "", item.get("as") or ""]
    texts += platforms if isinstance(platforms, (list, tuple)) else [platforms]
    return not set(item) - {"name", "digest", "platforms", "as"} and all(
        isinstance(text, str) for text in texts
    )
