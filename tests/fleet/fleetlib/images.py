"""Images that the registry holds: two real services, a heavy image, stand-ins for ARM variants.

Both services stand on one base layer, and their versions differ in a small top layer only: that
is what an update looks like.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import layers, mirror
from .console import step
from .layers import Layer, Member
from .outer_engine import Engine
from .pusher import DOCKER, OCI, Image, Pusher
from .recipes import BASE, Recipe
from .rootfs import tarball

CONTENT_VERSION = 1
VERSIONS = ("1", "2")
CREATED = {"1": "2026-01-15T00:00:00Z", "2": "2026-02-15T00:00:00Z"}
# Registries call arm64 "v8" or give it no variant; nginx has the one, this the other.
ARM = (("arm", "v6"), ("arm", "v7"), ("arm64", "v8"))
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PREPARE = r"""
set -e
export DEBIAN_FRONTEND=noninteractive
printf '%s\n' "$FLEET_APT_OPTIONS" >/tmp/apt.conf
export APT_CONFIG=/tmp/apt.conf
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
apt-get update
apt-get install --yes --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/apt/* /var/log/dpkg.log /var/cache/debconf/*-old
rm -rf /usr/sbin/policy-rc.d /tmp/* /etc/ssl/private/ssl-cert-snakeoil.key
# the just-in-time compiler weighs more than all the rest, and a test needs none
rm -rf /usr/lib/*/libLLVM* /usr/lib/postgresql/*/lib/llvmjit* /usr/lib/postgresql/*/lib/bitcode
"""

_START_POSTGRES = b"""#!/bin/sh
# Make a database cluster at the first start, then serve it in the foreground.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --pgdata="$PGDATA" --auth=trust --locale=C --encoding=UTF8 >/dev/null
fi
exec postgres -D "$PGDATA" -c listen_addresses='*'
"""


@dataclass(frozen=True)
class Service:
    """What makes one family of images: its packages and how it runs."""

    packages: tuple[str, ...]
    config: dict[str, object]


NGINX = Service(
    ("nginx-light",),
    {
        "Cmd": ["nginx", "-g", "daemon off;"],
        "Env": [f"PATH={_PATH}"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    },
)
POSTGRES = Service(
    ("postgresql-15",),
    {
        "Cmd": ["/usr/local/bin/start-postgres"],
        "Env": [f"PATH=/usr/lib/postgresql/15/bin:{_PATH}", "PGDATA=/var/lib/postgresql/data"],
        "ExposedPorts": {"5432/tcp": {}},
        "StopSignal": "SIGINT",
        "User": "postgres",
        "WorkingDir": "/var/lib/postgresql",
    },
)


def push_all(engine: Engine, registry: Pusher, work: Path) -> None:
    """Build every layer and push every image in its format."""
    with ThreadPoolExecutor(2) as pool:
        big = pool.submit(_big_layers, work)
        with step("built the services' layers"):
            base = layers.compress(_copy_base(work))
            nginx = layers.compress(_installed(engine, NGINX, "nginx", work))
            postgres = layers.compress(_installed(engine, POSTGRES, "postgres", work))
        with step("built the heavy layers"):
            heavy = big.result()
    with step("pushed the images"):
        for version in VERSIONS:
            _push_nginx(registry, [base, nginx], version, work)
            _push_postgres(registry, [base, postgres], version, work)
            _push_big(registry, heavy, version, work)
        _push_arm(registry, work)


def _push_nginx(registry: Pusher, below: list[Layer], version: str, work: Path) -> None:
    """OCI, as an index of two platforms; the arm64 part is a small stand-in."""
    created = CREATED[version]
    page = f"<!doctype html>\n<title>shop</title>\n<h1>shop nginx version {version}</h1>\n"
    top = {
        "var/www/html/index.html": Member(page.encode()),
        "usr/local/share/shop/assets": Member(layers.noise(f"nginx-{version}", 3000)),
    }
    real = Image([*below, _layer(top, f"nginx-top-{version}", work)], created, NGINX.config)
    note = Member(f"stand-in for arm64, version {version}\n".encode())
    small = _layer({"stand-in": note}, f"nginx-arm64-{version}", work)
    other = Image([small], created, {"Cmd": ["/stand-in"]}, "arm64")
    manifests = [registry.image("shop/nginx", image, OCI) for image in (real, other)]
    registry.tag("shop/nginx", version, registry.index("shop/nginx", manifests))


def _push_postgres(registry: Pusher, below: list[Layer], version: str, work: Path) -> None:
    """Docker schema 2, as `docker push` from a classic store makes it."""
    top = {
        "usr/local/bin/start-postgres": Member(_START_POSTGRES, 0o755),
        "usr/local/share/shop/version": Member(f"shop postgres version {version}\n".encode()),
        "usr/local/share/shop/schema": Member(layers.noise(f"postgres-{version}", 3000)),
    }
    layer = _layer(top, f"postgres-top-{version}", work)
    image = Image([*below, layer], CREATED[version], POSTGRES.config)
    registry.tag("shop/postgres", version, registry.image("shop/postgres", image, DOCKER))


def _push_big(registry: Pusher, below: list[Layer], version: str, work: Path) -> None:
    """Half a gigabyte, of which an update changes 200 kB."""
    top = {"opt/big/release": Member(layers.noise(f"big-{version}", 200_000))}
    layer = _layer(top, f"big-top-{version}", work)
    image = Image([*below, layer], CREATED[version], {"Cmd": ["/opt/big/release"]})
    registry.tag("shop/big", version, registry.image("shop/big", image, DOCKER))


def _push_arm(registry: Pusher, work: Path) -> None:
    """An index of variants, each a tiny stand-in with a config and a layer of its own."""
    manifests = []
    for architecture, variant in ARM:
        note = Member(f"stand-in for {architecture} {variant}\n".encode())
        layer = _layer({"stand-in": note}, f"arm-{architecture}-{variant}", work)
        command = {"Cmd": ["/stand-in", variant]}
        image = Image([layer], CREATED["1"], command, architecture, variant)
        manifests.append(registry.image("shop/arm", image, OCI))
    registry.tag("shop/arm", "1", registry.index("shop/arm", manifests))


def _big_layers(work: Path) -> list[Layer]:
    tars = (layers.big_layer(n, work / f"big-{n}.tar") for n in range(layers.BIG_LAYERS))
    return [layers.compress(tar) for tar in tars]


def _layer(members: dict[str, Member], name: str, work: Path) -> Layer:
    return layers.compress(layers.pack(members, work / f"{name}.tar"))


def _copy_base(work: Path) -> Path:
    """The base root file system as the lowest layer, beside the other layers."""
    link = work / "base.tar"
    link.symlink_to(tarball(BASE))
    return link


def _installed(engine: Engine, service: Service, name: str, work: Path) -> Path:
    """The layer that installing the packages makes, on the Engine that is there anyway."""
    container = f"fleet-build-{name}"
    archive = work / f"{name}-saved.tar"
    image = f"fleet-images/build-{name}:work"
    engine.docker("rm", "-fv", container, check=False)
    try:
        engine.docker(
            *("run", "--name", container, "--network", "host", *lend_mirror(work, BASE)),
            *(BASE.image, "sh", "-c", _PREPARE, "sh", *service.packages),
            timeout=900,
        )
        engine.docker("commit", container, image)
        engine.docker("save", "-o", archive, image)
    finally:
        engine.docker("rm", "-fv", container, check=False)
        engine.docker("rmi", "-f", image, check=False)
    return layers.last_layer_of_archive(archive, work / f"{name}.tar")


def lend_mirror(work: Path, recipe: Recipe) -> list[str]:
    """Lend apt in a container this machine's way to the mirror; nothing of it stays there."""
    sources = work / f"{recipe.suite}.list"
    lenient = "[check-valid-until=no] " if recipe.outdated_release else ""
    sources.write_text(f"deb {lenient}{mirror.debian_mirror()} {recipe.suite} main\n")
    mounts = ["-v", f"{sources}:/etc/apt/sources.list:ro"]
    mounts += ["-e", "FLEET_APT_OPTIONS=" + "\n".join(mirror.apt_options())]
    if mirror.debian_mirror().startswith("https"):
        mounts += ["-v", "/etc/ssl/certs:/etc/ssl/certs:ro"]
    for variable in ("http_proxy", "https_proxy", "no_proxy"):
        if variable in os.environ:
            mounts += ["-e", variable]
    return mounts
