"""The registry's contents, made once and kept as a tar that every fleet gets a fresh copy of."""

from __future__ import annotations

import shutil
import socket
import ssl
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp

from . import images, layers, pusher, tool
from .console import FleetError, step, wait_until
from .outer_engine import Engine
from .places import HOST_FILES, cache_dir, key_of
from .recipes import BASE, ENGINE28, REGISTRY

CONTAINER = "fleet-build-registry"
PLACE = "/var/lib/registry"  # as in hostfiles/registry-*.yml
READY_SECONDS = 30


def tarball() -> Path:
    """The cached storage; its key is everything that the content is made from."""
    modules = (Path(module.__file__ or "") for module in (images, layers, pusher, tool))
    sources = [path.read_text() for path in (*modules, *sorted(tool.FILES.iterdir()))]
    return cache_dir("storage") / f"registry-{key_of(BASE.key, ENGINE28.key, *sources)}.tar"


def ensure(engine: Engine) -> Path:
    """Build the content images and push them into a registry, once per recipe."""
    final = tarball()
    if final.exists():
        return final
    work = Path(mkdtemp(prefix="storage-", dir=cache_dir("unfinished")))
    engine.docker("rm", "-fv", CONTAINER, check=False)
    try:
        address = _start(engine)
        with ThreadPoolExecutor(1) as pool:
            built = pool.submit(tool.push, engine, address, work)
            images.push_all(engine, pusher.Pusher(address), work)
            built.result()
        with step("kept the registry's contents"):
            engine.docker("stop", "-t", "5", CONTAINER)
            _keep(engine, work / "registry.tar", final)
    finally:
        engine.docker("rm", "-fv", CONTAINER, check=False)
        shutil.rmtree(work, ignore_errors=True)
    return final


def answers(url: str) -> bool:
    """Whether a registry is there; one that asks for a login is there too."""
    anyone = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), anyone)
    try:
        with opener.open(f"{url}/v2/", timeout=5):
            return True
    except OSError as error:
        return getattr(error, "code", None) == 401


def _start(engine: Engine) -> str:
    """The address of a registry on the loopback of this machine, only while the content is made."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = "/etc/fleet-registry.yml"
    engine.docker(
        *("create", "--name", CONTAINER, "--network", "host"),
        *("-e", f"REGISTRY_HTTP_ADDR={address}", REGISTRY.image),
        *("docker-registry", "serve", config),
    )
    engine.docker("cp", HOST_FILES / "registry-open.yml", f"{CONTAINER}:{config}")
    engine.docker("start", CONTAINER)
    wait_until("The registry for the contents", lambda: answers(f"http://{address}"), READY_SECONDS)
    return address


def _keep(engine: Engine, part: Path, final: Path) -> None:
    """`docker cp` writes a tar with the one directory `registry`: just what goes back later."""
    command = ["cp", f"{CONTAINER}:{PLACE}", "-"]
    with open(part, "wb") as out:
        engine.stream(command, out)
    if part.stat().st_size < 100_000_000:
        raise FleetError("The registry's contents came out too small; start again.")
    part.replace(final)
