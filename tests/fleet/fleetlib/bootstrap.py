"""Everything that does not belong to one fleet: the outer Engine, root file systems, contents."""

from __future__ import annotations

from pathlib import Path

from . import outer_engine, prerequisites, rootfs, storage
from .console import say
from .outer_engine import Engine
from .places import forget_unused, locked
from .recipes import BASE, RECIPES


def bootstrap() -> tuple[Engine, Path]:
    """Make what is missing; answers with the Engine and the tar of the registry's contents."""
    prerequisites.require_root()
    with locked("bootstrap"):
        prerequisites.ensure(prerequisites.HELPERS)
        engine = outer_engine.ensure()
        rootfs.ensure_all(engine)
        contents = storage.ensure(engine)
        forget_unused(contents.parent, {contents})
        kept = {rootfs.tarball(recipe) for recipe in RECIPES}
        forget_unused(rootfs.tarball(BASE).parent, kept)
    say(f"outer Engine at {engine.address}, contents in {contents}")
    return engine, contents
