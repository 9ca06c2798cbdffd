"""What every root file system consists of; a change here gives a new key in the cache."""

from __future__ import annotations

from dataclasses import dataclass

from .places import key_of

RECIPE_VERSION = 1
_LOGIN = ("openssh-server", "python3", "iproute2")
_ENGINE = ("docker.io", "containerd", "iptables", "procps")
_CLIENT = ("docker-cli", "docker-buildx")


@dataclass(frozen=True)
class Recipe:
    """One root file system: a Debian suite and the packages on top of its minimum."""

    name: str
    suite: str
    packages: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    """dpkg's path-exclude and path-include options: what of the packages is left out."""

    @property
    def key(self) -> str:
        """Names the content: suite, packages and the way it is built."""
        parts = (RECIPE_VERSION, self.suite, self.packages)
        return key_of(*parts, self.paths) if self.paths else key_of(*parts)

    @property
    def image(self) -> str:
        """Its name on the outer Engine."""
        return f"fleet-images/{self.name}:{self.key}"

    @property
    def outdated_release(self) -> bool:
        """A testing suite's Release file may be past its date on a mirror that stands still."""
        return self.suite == "forky"


BASE = Recipe("base", "bookworm")
BASTION = Recipe("bastion", "bookworm", (*_LOGIN, "docker-registry"))
REGISTRY = Recipe("registry", "bookworm", (*_LOGIN, "docker-registry", "tinyproxy"))
ENGINE20 = Recipe("engine20", "bookworm", (*_LOGIN, *_ENGINE))
ENGINE26 = Recipe("engine26", "trixie", (*_LOGIN, *_ENGINE, *_CLIENT))
# QEMU for one kind of foreign program, of dozens that would be half a gigabyte.
_QEMU = ("path-exclude=/usr/bin/qemu-*", "path-include=/usr/bin/qemu-aarch64")
ENGINE28 = Recipe(
    "engine28",
    "forky",
    (*_LOGIN, "openssh-client", *_ENGINE, *_CLIENT, "git", "qemu-user", "qemu-user-binfmt"),
    _QEMU,
)

# the slowest first: two are built at a time
RECIPES = (ENGINE28, ENGINE26, ENGINE20, REGISTRY, BASTION, BASE)
