# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""buildx_build with a stub of the command docker: create, repeat, change, and what goes wrong."""

from __future__ import annotations

import base64
import json
import sys
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from images import AMD64, ARM64, digest
from registry_stub import RegistryStub
from registry_uploads import Uploads

pytest.importorskip("requests")
pytest.importorskip("docker")
pytest.importorskip("ansible")

from ansible_collections.fleet.images.plugins.module_utils import _registry, _retry
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout
from ansible_collections.fleet.images.plugins.modules import buildx_build

Json = dict[str, Any]
Call = Callable[..., Json]
BOTH = [AMD64, ARM64]
PROGRAM = Path(__file__).with_name("building_stub.py")
LOGIN = ("robot", "pa55-for-tests")


class Docker:
    """The command: what it was called with, and what it does otherwise."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.set()

    def set(self, **behaviour: Any) -> None:
        (self.root / "behaviour").write_text(json.dumps(behaviour))

    @property
    def calls(self) -> list[Json]:
        path = self.root / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def builds(self) -> list[Json]:
        return [call for call in self.calls if "build" in call["words"]]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """On the PATH, with a builder `fleet` of the driver docker-container in use."""
    root = tmp_path / "docker"
    (root / "instances").mkdir(parents=True)
    (root / "instances" / "fleet").write_text('{"Driver": "docker-container"}')
    (root / "current").write_text('{"Global": true, "Name": "fleet"}')
    path = root / "bin" / "docker"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{PROGRAM}" "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent))
    monkeypatch.setenv("BUILDX_CONFIG", str(root))
    monkeypatch.setenv("BUILDX_STUB", str(root))
    for name in ("DOCKER_CONFIG", "BUILDX_BUILDER", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    return Docker(root)


@pytest.fixture
def stub() -> Iterator[RegistryStub]:
    with RegistryStub() as running:
        Uploads(running)
        yield running


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile").write_text("FROM scratch\nCOPY . .\n")
    (tmp_path / "app" / "main.py").write_text("print()")
    return tmp_path / "app"


@pytest.fixture
def call(
    run_main: Callable[..., Json],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    app: Path,
    docker: Docker,
    stub: RegistryStub,
    no_pack: None,
) -> Call:
    """`call(option=…)` builds the app and pushes it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_registry, "Retrier", lambda: _retry.Retrier(sleep=lambda _time: None))
    (tmp_path / "tmp").mkdir()

    def run(check: bool = False, **options: Any) -> Json:
        arguments = {
            "path": str(app),
            "tags": [f"{stub.name}/shop/app:1"],
            "platforms": BOTH,
            "push": True,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            "_ansible_remote_tmp": str(tmp_path / "tmp"),
            **options,
        }
        return run_main(
            buildx_build, {key: one for key, one in arguments.items() if one is not None}
        )

    return run


def puts(stub: RegistryStub) -> int:
    return len(stub.asked("PUT /v2/"))


def good(result: Json) -> Json:
    assert not result.get("failed"), result["msg"]
    return result


def settled(call: Call, docker: Docker, **options: Any) -> None:
    """What is there stays, and nothing is started for that."""
    before = len(docker.calls)
    for check in (True, False):
        again = good(call(check, **options))
        assert not again["changed"] and again["images"][0]["action"] == "none", again
        assert again["diff"]["before"] == again["diff"]["after"]
    assert len(docker.calls) == before


def changes(call: Call, **options: Any) -> Json:
    """Foretold and done."""
    foreseen = good(call(True, **options))
    assert foreseen["changed"] and foreseen["digest"] == ""
    made = good(call(**options))
    assert made["changed"] and made["fingerprint"] == foreseen["fingerprint"]
    assert made["images"][0]["reason"] == foreseen["images"][0]["reason"]
    return made


def test_create_repeat_change(call: Call, docker: Docker, stub: RegistryStub, app: Path) -> None:
    foreseen = good(call(True))
    assert foreseen["changed"] and docker.calls == [] and puts(stub) == 0
    made = changes(call)
    assert made["images"][0]["action"] == "pushed" and len(docker.builds) == 1
    assert made["digest"] == stub.tags["shop/app:1"] and sorted(made["platforms"]) == BOTH
    assert made["lock"]["images"] and made["context"]["files"] == 2
    settled(call, docker)
    (app / "main.py").write_text("print(1)")
    changed = changes(call)
    assert "changed since it was built: context" in changed["msg"]
    assert changed["digest"] == stub.tags["shop/app:1"] != made["digest"]
    settled(call, docker)
    changes(call, args={"A": "1"})
    settled(call, docker, args={"A": "1"})
    changes(call, args={"A": "1"}, platforms=[ARM64])
    (app / ".dockerignore").write_text("Dockerfile\n*.log\n.dockerignore")
    changes(call)
    (app / "x.log").write_text("not in it")
    settled(call, docker)
    del stub.tags["shop/app:1"]
    changes(call)


def test_a_base_that_moves(call: Call, docker: Docker, stub: RegistryStub, app: Path) -> None:
    (app / "Dockerfile").write_text(f"ARG V=1\nFROM {stub.name}/base:$V AS base\nFROM base\n")
    first = stub.add_image("base:1", ["a"])
    stub.writes.hold("base", first["digest"])
    made = changes(call)
    assert made["bases"] == {f"{stub.name}/base:1": first["digest"]}
    settled(call, docker)
    second = stub.add_image("base:1", ["b"])
    stub.writes.hold("base", second["digest"])
    assert "changed since it was built: bases" in changes(call)["msg"]
    settled(call, docker)
    # One that another build of the play makes: check mode cannot know its digest.
    base = [f"{stub.name}/base:1"]
    foreseen = good(call(True, will_change=base))
    assert foreseen["changed"] and f"builds on what changes: {base[0]}" in foreseen["msg"]
    assert not good(call(will_change=base))["changed"]
    # A registry that does not tell: only a build can.
    stub.fault("HEAD /v2/base", status=403, times=99)
    stub.fault("GET /v2/base", status=403, times=99)
    assert good(call(True))["changed"]


def test_a_build_that_gives_the_same_is_no_change(
    call: Call, docker: Docker, stub: RegistryStub
) -> None:
    good(call())
    before, tag = puts(stub), stub.tags["shop/app:1"]
    again = good(call(rebuild="always"))
    assert not again["changed"] and "the same as before" in again["msg"]
    assert puts(stub) == before and stub.tags["shop/app:1"] == tag
    assert len(docker.builds) == 2 and "type=oci,dest=-" in docker.builds[1]["words"]
    assert again["images"][0]["action"] == "none" and again["digest"] == tag
    docker.set(noise=True)
    assert good(call(rebuild="always"))["changed"] and puts(stub) > before


def test_rebuild_never(call: Call, docker: Docker, app: Path) -> None:
    good(call(rebuild="never"))
    (app / "main.py").write_text("changed")
    settled(call, docker, rebuild="never")


def test_a_second_tag(call: Call, docker: Docker, stub: RegistryStub) -> None:
    good(call())
    tags = [f"{stub.name}/shop/app:{one}" for one in "12"]
    both = changes(call, tags=tags)
    assert [one["action"] for one in both["images"]] == ["none", "pushed"]
    settled(call, docker, tags=tags)


def test_into_a_store(call: Call, docker: Docker, stub: RegistryStub, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    made = changes(call, store=store)
    assert docker.builds[-1]["words"].count("--output") == 2
    (entry,) = Layout(store).names()
    assert entry["digest"] == made["digest"] == stub.tags["shop/app:1"]
    settled(call, docker, store=store)
    settled(call, docker, store=store, push=False)
    other = str(tmp_path / "other")
    alone = changes(call, store=other, push=False)
    assert len(docker.builds[-1]["words"]) and alone["images"][0]["action"] == "built"


@pytest.mark.parametrize("push", [True, False])
def test_a_result_that_is_cut(
    call: Call, docker: Docker, stub: RegistryStub, tmp_path: Path, push: bool
) -> None:
    docker.set(cuts=700)
    result = call(store=str(tmp_path / "store"), push=push)
    assert result.get("failed"), result
    assert Layout(tmp_path / "store").names() == []


def test_a_result_that_is_cut_is_told(call: Call, docker: Docker, tmp_path: Path) -> None:
    docker.set(cuts=700)
    assert "Traceback" not in call(store=str(tmp_path / "store"), push=False)["msg"]


# what the command is told


def test_arguments(call: Call, docker: Docker, stub: RegistryStub, app: Path) -> None:
    good(call(args={"A": True}, labels={"l": "m"}, source_date_epoch=5, target="0"))
    (version, build) = docker.calls
    words = build["words"]
    assert words[:4] == ["buildx", "build", "--progress", "rawjson"] and words[-1] == str(app)
    pairs = list(zip(words, words[1:]))
    for pair in [
        ("--tag", f"{stub.name}/shop/app:1"),
        ("--platform", ",".join(BOTH)),
        ("--build-arg", "A=true"),
        ("--label", "l=m"),
        ("--file", f"{app}/Dockerfile"),
        ("--output", "type=image,push=true,rewrite-timestamp=true"),
    ]:
        assert pair in pairs
    assert build["environment"]["SOURCE_DATE_EPOCH"] == "5"
    assert build["environment"]["DOCKER_HOST"].startswith("unix://")
    assert version["words"] == ["buildx", "version"]


def test_an_inline_dockerfile(call: Call, docker: Docker, app: Path) -> None:
    (app / "Dockerfile").unlink()
    text = "FROM scratch\nCOPY main.py /\n"
    changes(call, dockerfile_inline=text)
    assert docker.builds[0]["input"] == text
    settled(call, docker, dockerfile_inline=text)


def test_secrets(
    call: Call, docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s3").write_text("s3cret-of-src")
    monkeypatch.setenv("S3", "s3cret-of-env")
    secrets = [
        {"id": "a", "value": "s3cret-of-value"},
        {"id": "b", "src": str(tmp_path / "s3")},
        {"id": "c", "env": "S3"},
    ]
    made = good(call(secrets=secrets))
    (build,) = docker.builds
    assert build["secrets"] == {"a": "s3cret-of-value", "b": "s3cret-of-src", "c": "s3cret-of-env"}
    docker.set(fails="failed to solve: s3cret-of-value, s3cret-of-src and s3cret-of-env")
    failed = call(secrets=secrets, rebuild="always")
    assert failed["failed"] and "********, ******** and ********" in failed["msg"]
    for result in (made, failed):
        shown = {key: one for key, one in result.items() if key != "invocation"}
        assert "s3cret" not in json.dumps([shown, build["words"]])
    assert "s3cret-of-value" not in json.dumps([made, failed])
    assert list((tmp_path / "tmp").rglob("*config.json")) == []


def test_a_secret_that_is_not_there(call: Call, docker: Docker, stub: RegistryStub) -> None:
    result = call(secrets=[{"id": "a", "env": "NONE_OF_IT"}])
    assert result["failed"] and "secret a: wanted from the environment variable" in result["msg"]
    assert docker.builds == [] and puts(stub) == 0


def test_a_login(call: Call, docker: Docker, tmp_path: Path) -> None:
    login: Json = {"registry_username": LOGIN[0], "registry_password": LOGIN[1]}
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"credsStore": "none"}')
    with RegistryStub(login=LOGIN, scheme="basic") as closed:
        Uploads(closed)
        tags = [f"{closed.name}/shop/app:1"]
        made = changes(call, tags=tags, **login)
        settled(call, docker, tags=tags, **login)
        refused = call(tags=tags, rebuild="always", registry_username="robot",
                       registry_password="wr0ng-9876")  # fmt: skip
        assert refused["failed"] and "refused access" in refused["msg"]
    token = base64.b64encode(":".join(LOGIN).encode()).decode()
    shown = json.dumps([made, refused, docker.calls])
    assert not [one for one in (LOGIN[1], "wr0ng-9876", token) if one in shown]
    place = Path(docker.builds[0]["environment"]["DOCKER_CONFIG"])
    assert not place.exists() and docker.builds[0]["environment"]["BUILDX_CONFIG"]


# what goes wrong


def vertex(name: str, **more: Any) -> Json:
    return {"digest": digest(name), "name": name, "started": "2026-01-01T00:00:00Z", **more}


def test_a_step_that_fails_on_one_platform(call: Call, docker: Docker, stub: RegistryStub) -> None:
    good(call())
    tag = stub.tags["shop/app:1"]
    arm = "[linux/arm64 2/2] RUN make"
    data = base64.b64encode(b"compiling\nmake: no rule\n").decode()
    told = [
        {"vertexes": [vertex("[linux/amd64 2/2] RUN make"), vertex(arm)]},
        {"logs": [{"vertex": digest(arm), "data": data}]},
        {"vertexes": [vertex("[linux/amd64 2/2] RUN make", error="context canceled")]},
        {"vertexes": [vertex(arm, error="exit code: 2")]},
    ]
    docker.set(tells=[json.dumps(one) for one in told], fails="failed to build: exit code: 2")
    result = call(args={"A": "2"})
    assert result["failed"] and not result["changed"]
    assert result["failed_step"] == {
        "name": "RUN make",
        "platform": "linux/arm64",
        "lines": ["compiling", "make: no rule"],
    }
    for words in (
        "'RUN make' failed for linux/arm64: exit code: 2",
        "its last line: make: no rule",
    ):
        assert words in result["msg"]
    assert stub.tags["shop/app:1"] == tag


def test_cached_steps_are_counted(call: Call, docker: Docker) -> None:
    told = {"vertexes": [vertex("[1/2] FROM a", cached=True), vertex("[ 2/10] RUN b")]}
    docker.set(tells=[json.dumps(told)])
    made = good(call())
    assert (made["steps"], made["cached_steps"]) == (2, 1)


def test_a_failure_of_buildx_itself(call: Call, docker: Docker) -> None:
    docker.set(fails='no builder "x" found')
    result = call()
    assert result["failed"] and 'no builder "x" found' in result["msg"]
    assert "failed_step" not in result


def test_something_else_writes_the_tag(call: Call, docker: Docker) -> None:
    docker.set(plain=True)
    result = call()
    assert result["failed"] and "see whether something else writes this tag" in result["msg"]


def test_no_buildx(call: Call, docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    good(call())
    monkeypatch.setenv("PATH", "/nonexistent")
    # It is not needed where nothing is to be built.
    assert not good(call())["changed"]
    result = call(args={"A": "1"})
    assert result["failed"] and "the command docker: wanted on this host" in result["msg"]


@pytest.mark.parametrize(
    ("version", "lint", "message"),
    [
        ("v0.12.0", "skip", "docker buildx 0.12.0: this module needs 0.13.0 or newer"),
        ("v0.14.9", "warn", "docker buildx 0.14.9: lint needs 0.15.0 or newer"),
    ],
)
def test_a_buildx_that_is_too_old(
    call: Call, docker: Docker, version: str, lint: str, message: str
) -> None:
    docker.set(version=version)
    result = call(lint=lint)
    assert result["failed"] and message in result["msg"] and docker.builds == []


FINDING = {
    "ruleName": "FromAsCasing",
    "detail": "'as' and 'FROM' keywords' casing do not match",
    "location": {"ranges": [{"start": {"line": 1}}]},
}


def test_lint(call: Call, docker: Docker, stub: RegistryStub) -> None:
    docker.set(version="v0.15.0", findings={"warnings": [FINDING]})
    refused = call(lint="refuse")
    found = f"line 1: FromAsCasing: {FINDING['detail']}"
    assert refused["failed"] and f"it has 1: {found}" in refused["msg"] and puts(stub) == 0
    for check in (True, False):
        warned = good(call(check, lint="warn"))
        assert warned["lint_findings"] == [found] and f"the Dockerfile: {found}" in str(
            warned["warnings"]
        )
    docker.set(version="v0.15.0")
    assert good(call(lint="refuse"))["lint_findings"] == []


def test_two_builds_that_differ(call: Call, docker: Docker, stub: RegistryStub) -> None:
    docker.set(noise=True)
    result = call(verify_reproducible=True)
    assert (
        result["failed"] and "two builds differ: linux/amd64: layer 0 (COPY . .)" in result["msg"]
    )
    assert puts(stub) == 0 and all("--no-cache" in one["words"] for one in docker.builds)
    docker.set()
    made = good(call(verify_reproducible=True))
    assert made["reproducible"] == {one: {"reproducible": True, "layers": []} for one in BOTH}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "/nonexistent"}, "context /nonexistent: wanted a directory"),
        ({"tags": ["UPPER"]}, "is no image reference"),
        ({"tags": [f"r.example/x:1@{digest('x')}"]}, "leave the digest out"),
        ({"tags": None}, "required"),
        ({"dockerfile": "none"}, "wanted as the Dockerfile, cannot be read"),
        ({"dockerfile": "x", "dockerfile_inline": "y"}, "mutually exclusive"),
        ({"dockerfile_inline": "RUN x"}, "wanted a FROM"),
        ({"target": "none"}, "wanted as a stage of the Dockerfile"),
        ({"platforms": ["a/b/c/d"]}, "is no platform"),
        ({"build_contexts": {"x": "/nonexistent"}}, "build context x: wanted the directory"),
        ({"secrets": [{"id": "x"}]}, "one of the following is required: src, env, value"),
        ({"secrets": [{"id": "x", "env": "a", "value": "b"}]}, "mutually exclusive: src|env|value"),
        ({"registry_username": "x"}, "required together"),
        ({"rebuild": "sometimes"}, "value of rebuild must be one of"),
    ],
)
def test_bad_options(
    call: Call, docker: Docker, stub: RegistryStub, options: Json, message: str
) -> None:
    for check in (True, False):
        result = call(check, **options)
        assert result["failed"] and message in result["msg"], result["msg"]
    assert docker.builds == [] and puts(stub) == 0


def test_a_registry_that_is_down(call: Call, docker: Docker) -> None:
    with RegistryStub() as gone:
        name = gone.name
    result = call(tags=[f"{name}/shop/app:1"])
    assert result["failed"] and "Connection refused" in result["msg"] and docker.builds == []


def test_a_registry_that_goes_away_meanwhile(
    call: Call, docker: Docker, stub: RegistryStub
) -> None:
    good(call())
    tag = stub.tags["shop/app:1"]
    stub.fault("manifests/1", status=500, times=0)
    stub.fault("PUT /v2/shop/app/manifests/1", status=500, times=9)
    result = call(args={"A": "3"})
    assert result["failed"] and stub.tags["shop/app:1"] == tag
    assert urllib.error.HTTPError.__name__ in result["msg"] or "500" in result["msg"]
