"""Build root file systems with mmdebstrap, keep them in the cache, hand them to the Engine."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp

from . import mirror, prerequisites
from .console import FleetError, run, say, step
from .outer_engine import Engine
from .places import cache_dir
from .recipes import RECIPES, Recipe

BUILD_SECONDS = 1500
SIDE_BY_SIDE = 2
_LEAVE_OUT = ("doc", "man", "locale", "info")
# offline servers know no mirror, and two hosts never share a key that a package made
_FORGET = (
    ': >"$1/etc/apt/sources.list"; '
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/apt.conf.d/99mmdebstrap'
)


def ensure_all(engine: Engine) -> None:
    """Every recipe as an image of the outer Engine; only what is missing is built."""
    missing = [r for r in RECIPES if not engine.has_image(r.image)]
    if not missing:
        return
    clear_unfinished()
    mirror.debian_mirror()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(lambda recipe: _ensure(engine, recipe), missing))


def tarball(recipe: Recipe) -> Path:
    """The cached root file system; it counts only under this name."""
    return cache_dir("rootfs") / f"{recipe.name}-{recipe.key}.tar"


def clear_unfinished() -> None:
    """What an interrupted run left half done is only in this directory.

    A bootstrap that outlived its killed run may still write there: it fails, and nothing is lost.
    """
    shutil.rmtree(cache_dir("unfinished"), ignore_errors=True)


def _ensure(engine: Engine, recipe: Recipe) -> None:
    tar = tarball(recipe)
    if not tar.exists():
        with step(f"built root file system {recipe.name} ({recipe.suite})"):
            _build(recipe, tar)
    with step(f"imported {recipe.name} into the outer Engine"):
        engine.docker("import", tar, recipe.image, timeout=300)


def _build(recipe: Recipe, final: Path) -> None:
    """Beside and renamed: a half file never has the final name."""
    address = mirror.debian_mirror()
    temporary = Path(mkdtemp(prefix=f"{recipe.name}-", dir=cache_dir("unfinished")))
    part = temporary / "root.tar"
    try:
        run(
            _command(recipe, part, address),
            timeout=BUILD_SECONDS,
            env={**os.environ, "TMPDIR": str(temporary), "DEBIAN_FRONTEND": "noninteractive"},
        )
    except FleetError as error:
        say(f"  mmdebstrap for {recipe.suite}: {error}")
        raise FleetError(
            f"The root file system {recipe.name} ({recipe.suite}) cannot be built from the "
            f"mirror {address}; it may hang or lack the suite. Just start again."
        ) from error
    part.replace(final)
    shutil.rmtree(temporary, ignore_errors=True)


def _command(recipe: Recipe, target: Path, address: str) -> list[str]:
    options = mirror.apt_options()
    if recipe.outdated_release:
        options.append('Acquire::Check-Valid-Until "false";')
    # its own mounts end with it: nobody can delete through what an interrupted run left mounted
    command = ["unshare", "--mount", "--propagation", "private"]
    command += ["mmdebstrap", "--mode=root", "--variant=minbase", "--skip=output/dev"]
    command += [f"--keyring={prerequisites.keyring()}"]
    command += [f"--aptopt={option}" for option in options]
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEAVE_OUT]
    command += [f"--dpkgopt={option}" for option in recipe.paths]
    if recipe.packages:
        command.append(f"--include={','.join(recipe.packages)}")
    command.append(f"--customize-hook={_FORGET}")
    return [*command, recipe.suite, str(target), address]
