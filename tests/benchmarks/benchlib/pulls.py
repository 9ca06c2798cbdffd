"""Pulling: many images on one host beside a loop of community.docker, and updates by a tunnel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from fleetlib import layers, operations
from fleetlib.layers import Layer, Member
from fleetlib.places import cache_dir
from fleetlib.pusher import DOCKER, Image, Pusher
from fleetlib.recipes import BASE
from fleetlib.rootfs import tarball

from .contenders import HERE, ROOT, SETTINGS
from .stage import BASTION as HOST
from .stage import PYTHON, REGISTRY, Stage
from .targets import Verdict

TEMPLATE = Path(__file__).with_name("pulls.md")
COUNT = 20
OWN_BYTES = 2_000_000  # of each of an image's two own layers
TOP_BYTES = 900_000
UPDATES = 3  # by each way
RELAY_HOST, STORE = "bastion1", "/var/lib/fleet-images/bench"
PRESENT_FASTER, PULL_FASTER = 10.0, 1.5
SLOWER, SLOWER_BY = 1.1, 0.5
MOST_OF_BYTES, BYTES_BESIDES = 1.05, 256 * 1024

Json = dict[str, Any]


@dataclass(frozen=True)
class Pulled:
    """Seconds of each run by what was run, and bytes: of an update, and on the link for one."""

    seconds: Mapping[str, Sequence[float]]
    changed: int
    moved: int

    def typical(self, name: str) -> float:
        """The median of the seconds."""
        return median(self.seconds[name])


def measure(stage: Stage, work: Path, collections: Path, tree: Path) -> Pulled:
    """Runs everything on one host, whose Engine is emptied first."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    stage.empty(tree)
    # As hosts are that the role docker_sdk has seen; what the other one needs is there, too.
    sdk = {"ansible.builtin.include_role": {"name": "fleet.images.docker_sdk"}}
    _play(stage, work / "sdk", str(ROOT / ".venv" / "collections"), [sdk], ())
    changed = _push(stage.registry_address)
    images = [f"{REGISTRY}/bench/app-{number:02}:1" for number in range(COUNT)]
    ours = [{"fleet.images.image_pull": {"images": images}}]
    peer = [{"community.docker.docker_image_pull": {"name": "{{ item }}"}, "loop": images}]
    paths = {"ours": str(ROOT / ".venv" / "collections"), "peer": str(collections)}
    found: dict[str, list[float]] = {}

    def took(name: str, who: str, tasks: list[Json], *flags: str) -> None:
        seconds = _play(stage, work / name, paths[who], tasks, flags)
        found.setdefault(name, []).append(seconds)

    for _round in range(3):
        for who, tasks in (("ours", ours), ("peer", peer)):
            _remove_all(stage)
            took(f"pull, {who}", who, tasks)
            took(f"present, {who}", who, tasks)
            took(f"check, {who}", who, tasks, "--check")
    moved = _updates(stage, work, lambda name, tasks: took(name, "ours", tasks))
    return Pulled(found, changed, moved)


def _updates(stage: Stage, work: Path, took: Callable[[str, list[Json]], None]) -> int:
    """Updates straight from the registry and by a tunnel, in turn; bytes of one by the tunnel."""
    names = [f"{REGISTRY}/bench/shop:{number}" for number in range(2 * UPDATES + 1)]
    relay = _relay(stage, work, names)
    tunnel = {"tunnel": {"host": RELAY_HOST, "port": relay["port"]}}
    pull = {"lock": relay["lock"]}
    moved, idle = [], 0

    def one(name: str, number: int, way: Json) -> int:
        before = _received(stage)
        task = {"fleet.images.image_pull": {**pull, "images": [names[number]], **way}}
        took(name, [task])
        return _received(stage) - before

    one("first", 0, {})
    for number in range(1, 2 * UPDATES + 1, 2):
        one("update, registry", number, {})
        moved.append(one("update, tunnel", number + 1, tunnel))
    idle = one("no-op, tunnel", 2 * UPDATES, tunnel)
    _relay(stage, work, names, state="stopped")
    return max(moved) - idle


def _relay(stage: Stage, work: Path, names: list[str], state: str = "started") -> Json:
    """A relay on the first bastion that serves these images: its port, and their lock."""
    fetch = {"images": names, "store": STORE, "registry_validate_certs": False}
    told = work / "relay.json"
    started = [
        {"fleet.images.image_fetch": fetch, "register": "fetched"},
        {
            "fleet.images.image_relay": {"store": STORE, "lock": "{{ fetched.lock }}"},
            "register": "relay",
        },
        {
            "ansible.builtin.copy": {
                "content": "{{ {'port': relay.port, 'lock': fetched.lock} | to_json }}",
                "dest": str(told),
                "mode": "0600",
            },
            "delegate_to": "localhost",
            "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        },
    ]
    stopped = [{"fleet.images.image_relay": {"store": STORE, "state": state}}]
    paths = str(ROOT / ".venv" / "collections")
    tasks = started if state == "started" else stopped
    _play(stage, work / f"relay-{state}", paths, tasks, (), RELAY_HOST)
    found: Json = json.loads(told.read_text())
    return found


def _play(
    stage: Stage,
    place: Path,
    collections: str,
    tasks: list[Json],
    flags: Sequence[str],
    host: str = HOST,
) -> float:
    """Runs tasks on a host; seconds of the last one, over a connection that is there.

    Raises SystemExit where one fails.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    interpreter = {"ansible_python_interpreter": PYTHON} if host == HOST else {}
    play = {
        "hosts": host,
        "gather_facts": False,
        # In check mode too: a raw that is skipped leaves the connection to the task that is timed.
        "tasks": [{"ansible.builtin.raw": "true", "check_mode": False}, *tasks],
        "vars": interpreter,
    }
    (place / "play.json").write_text(json.dumps([play]))
    environment = {
        **os.environ,
        **SETTINGS,
        "ANSIBLE_COLLECTIONS_PATH": collections,
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(place / "cp"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "bench_profile",
        "BENCH_PROFILE": str(place / "profile"),
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(place / "play.json")]
    command += ["-i", str(stage.state / "inventory.yml"), *flags]
    os.sync()
    done = subprocess.run(
        command, env=environment, cwd=place, check=False, capture_output=True, text=True
    )
    (place / "output").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        raise SystemExit(f"{place.name} ended with {done.returncode}, see {place}/output")
    rows = map(json.loads, (place / "profile").read_text().splitlines())
    return float([row["seconds"] for row in rows if row["event"] == "host"][-1])


def _received(stage: Stage) -> int:
    return int(operations.net_bytes(stage.fleet)[HOST]["rx"])


def _remove_all(stage: Stage) -> None:
    stage.inside(HOST, "sh", "-c", "docker images -aq | sort -u | xargs -r docker rmi --force")


def _push(address: str) -> int:
    """The images, and the bytes of an update's layer."""
    registry = Pusher(address)
    with TemporaryDirectory(dir=cache_dir("unfinished")) as place:
        work = Path(place)
        plain = work / "base.tar"
        shutil.copyfile(tarball(BASE), plain)
        base = layers.compress(plain)
        for number in range(COUNT):
            own = [_layer(work, f"app-{number}-{part}", OWN_BYTES) for part in range(2)]
            _tag(registry, f"bench/app-{number:02}", "1", [base, *own])
        for number in range(2 * UPDATES + 1):
            top = _layer(work, f"shop-{number}", TOP_BYTES)
            _tag(registry, "bench/shop", str(number), [base, top])
    return top.size


def _layer(work: Path, name: str, size: int) -> Layer:
    content = {f"opt/bench/{name}": Member(layers.noise(name, size))}
    return layers.compress(layers.pack(content, work / f"{name}.tar"))


def _tag(registry: Pusher, repository: str, tag: str, parts: Sequence[Layer]) -> None:
    image = Image(parts, "2026-01-15T00:00:00Z", {"Cmd": ["/bin/true"]})
    registry.tag(repository, tag, registry.image(repository, image, DOCKER))


def judge(pulled: Pulled) -> Sequence[Verdict]:
    """The targets of this part."""
    seconds = pulled.typical
    direct, tunnel = seconds("update, registry"), seconds("update, tunnel")
    most = SLOWER * direct + SLOWER_BY
    most_bytes = round(MOST_OF_BYTES * pulled.changed) + BYTES_BESIDES
    return [
        _faster(f"{COUNT} images that are there", pulled, "present", PRESENT_FASTER),
        _faster(f"{COUNT} images that are there, check mode", pulled, "check", PRESENT_FASTER),
        _faster(f"{COUNT} images to pull", pulled, "pull", PULL_FASTER),
        Verdict(
            "update by a tunnel: seconds",
            f"at most {most:.1f} (from the registry {direct:.1f})",
            f"{tunnel:.1f}",
            tunnel <= most,
        ),
        Verdict(
            "update by a tunnel: bytes, Ansible's own aside",
            f"at most {most_bytes:,}",
            f"{pulled.moved:,}",
            pulled.moved <= most_bytes,
        ),
    ]


def _faster(what: str, pulled: Pulled, name: str, wanted: float) -> Verdict:
    ratio = pulled.typical(f"{name}, peer") / pulled.typical(f"{name}, ours")
    target = f"{what}: times faster than a loop of community.docker"
    return Verdict(target, f"at least {wanted:g}", f"{ratio:.1f}", ratio >= wanted)


def section(pulled: Pulled, verdicts: str) -> str:
    """What docs/benchmarks.md tells of it."""
    rows = [
        f"| {name} | {pulled.typical(name):.1f} | {', '.join(f'{one:.1f}' for one in runs)} |\n"
        for name, runs in pulled.seconds.items()
        if name not in ("first", "no-op, tunnel")
    ]
    text = TEMPLATE.read_text(encoding="utf-8")
    return text.format(count=COUNT, own=OWN_BYTES // 10**6, rows="".join(rows), verdicts=verdicts)
