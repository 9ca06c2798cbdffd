"""The image that buildx really builds for two platforms, with RUN steps on both of them."""

from __future__ import annotations

from pathlib import Path

from .console import step
from .containers import ENGINE_OPTIONS
from .images import VERSIONS, lend_mirror
from .outer_engine import Engine
from .places import FLEET_DIR
from .recipes import ENGINE28

CONTAINER = "fleet-build-tool"
FILES = FLEET_DIR / "files" / "tool"
BUILD_SECONDS = 600


def push(engine: Engine, registry: str, work: Path) -> None:
    """Build all versions in a throw-away container with an Engine of its own, and push them.

    Index and attestations name the time of the build: digests differ from cache to cache.
    """
    engine.docker("rm", "-fv", CONTAINER, check=False)
    try:
        with step("built the tool for two platforms"):
            engine.docker(
                *("run", "--name", CONTAINER, "--init", "--network", "host", *ENGINE_OPTIONS),
                *("-v", f"{FILES}:/tool:ro", *lend_mirror(work, ENGINE28), ENGINE28.image),
                *("/tool/build", registry, *VERSIONS),
                timeout=BUILD_SECONDS,
            )
    finally:
        engine.docker("rm", "-fv", CONTAINER, check=False)
