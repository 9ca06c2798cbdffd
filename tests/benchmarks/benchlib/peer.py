"""community.docker as it is released, and what its modules need on hosts without a network."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

# community.docker comes inside the package `ansible`. This release's supports ansible-core 2.17 and
# newer; the version of Python is told only to be offered it.
RELEASE, PYTHON = "ansible==14.5.0", "3.14"
COLLECTIONS = ("community/docker", "community/library_inventory_filtering_v1")
NEEDS = "requests==2.32.5"


def collections(cache: Path) -> Path:
    """A directory of collections with community.docker, unpacked once."""
    place = cache / RELEASE
    if (place / "complete").exists():
        return place
    offered = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON]
    _pip("download", *offered, "--dest", str(cache), RELEASE)
    wheel = next(cache.glob(f"{RELEASE.replace('==', '-')}-*.whl"))
    wanted = tuple(f"ansible_collections/{name}/" for name in COLLECTIONS)
    with zipfile.ZipFile(wheel) as whole:
        whole.extractall(place, [name for name in whole.namelist() if name.startswith(wanted)])
    wheel.unlink()
    (place / "complete").touch()
    return place


def version(place: Path) -> str:
    """The version of community.docker in a directory of collections."""
    manifest = place / "ansible_collections/community/docker/MANIFEST.json"
    return str(json.loads(manifest.read_text())["collection_info"]["version"])


def needs(cache: Path) -> Path:
    """requests and what it needs, as pure Python for any host, installed once."""
    tree = cache / NEEDS
    if not tree.exists():
        anywhere = ["--platform", "any", "--implementation", "py", "--abi", "none"]
        place = ["--python-version", "3.11", "--target", f"{tree}.part"]
        _pip("install", "--only-binary=:all:", *anywhere, *place, NEEDS)
        Path(f"{tree}.part").rename(tree)
    return tree


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", words[0], "--quiet", *words[1:]]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)} failed: {done.stderr.strip()}")
