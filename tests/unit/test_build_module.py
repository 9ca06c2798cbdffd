# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""buildx_build and its doors with a program in the place of docker, and what is hidden from all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.module_utils import (
    _build,
    _build_doors,
    _buildx,
    _built,
    _glance,
    _hidden,
)
from ansible_collections.fleet.images.plugins.module_utils._build_run import BuildFailed, Runner
from ansible_collections.fleet.images.plugins.module_utils._buildx import Buildx, BuildxError
from ansible_collections.fleet.images.plugins.modules import buildx_build

DOCKER = """\
#!{python}
import json, os, sys, time
place = {place!r}
words = sys.argv[1:]
words = words[words.index("buildx") + 1:]
open(place + "/calls", "a").write(json.dumps(words) + "\\n")
if words[0] == "version":
    print("github.com/docker/buildx " + open(place + "/version").read() + " abc")
elif words[0] == "inspect":
    if words[1:] == ["nobody"]:
        sys.exit('ERROR: no builder "nobody" found')
    print(open(place + "/inspect").read())
else:
    for line in open(place + "/progress"):
        sys.stderr.write(line)
        sys.stderr.flush()
    if os.path.exists(place + "/sleep"):
        time.sleep(60)
    if "--metadata-file" in words:
        with open(words[words.index("--metadata-file") + 1], "w") as file:
            file.write(json.dumps({{"containerimage.digest": "sha256:" + "a" * 64}}))
    open(place + "/environment", "w").write(json.dumps(dict(os.environ)))
    open(place + "/read", "w").write("".join(
        open(word.partition("src=")[2]).read() for word in words if word.startswith("id=")
    ) + sys.stdin.read())
    if os.path.exists(place + "/output"):
        sys.stdout.write(open(place + "/output").read())
    sys.exit(int(open(place + "/code").read()))
"""
INSPECT = """\
Name:          two
Driver:        docker-container
Last Activity: now

Nodes:
Name:             two0
Endpoint:         unix:///var/run/docker.sock
Status:           running
BuildKit version: v0.25
Platforms:        linux/amd64*, linux/386
Labels:
 org.mobyproject.buildkit.worker.executor: oci

Name:      two1
Endpoint:  ssh://root@arm1
Status:    inactive
Error:     it is away
Platforms: linux/arm64*
"""


class Place:
    """The directory of a program that stands for docker."""

    def __init__(self, root: Path) -> None:
        self.root = root
        program = root / "docker"
        program.write_text(DOCKER.format(python=sys.executable, place=str(root)))
        program.chmod(0o755)
        self.write(version="v0.29.1", inspect=INSPECT, progress="", code="0")

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.root / name).write_text(text)

    def calls(self) -> list[list[str]]:
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def read(self, name: str) -> str:
        return (self.root / name).read_text()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The program is the first docker on the path; the home directory is empty."""
    place = tmp_path / "docker-place"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "DOCKER_CONFIG", "BUILDX_CONFIG", "BUILDX_BUILDER"):
        monkeypatch.delenv(name, raising=False)
    return Place(place)


def params(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """The module's options, those that are not given as their defaults."""
    context = tmp_path / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\n")
    spec = buildx_build.options()
    usual = {name: one.get("default") for name, one in spec.items()}
    return {**usual, "path": str(context), "tags": ["a:1"], "docker_host": "unix:///x", **more}


class Nothing:
    """A place where results go, and what it is to have after each build."""

    kind = "engine"

    def __init__(self, *found: _built.Found | None) -> None:
        self.found = list(found)

    def look(self, _reference: object) -> _built.Found | None:
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]


def build(
    options: dict[str, Any],
    place: Nothing,
    tmp_path: Path,
    check: bool = False,
    layouts: bool = False,
) -> Any:
    with _build_doors.Doors(options, str(tmp_path), check) as doors:
        doors.__dict__["places"] = {"engine": place}
        doors.__dict__["makes_layouts"] = lambda: layouts
        return _build.Build(options, doors, check).run()


def fingerprint(options: dict[str, Any], tmp_path: Path) -> str:
    told = build(options, Nothing(None), tmp_path, check=True)
    return str(told["fingerprint"])


def found(label: str, manifest: str = "m") -> _built.Found:
    labels = {"fleet.images.fingerprint": label}
    return _built.Found("sha256:x", "sha256:y", {"linux/amd64": manifest}, {}, labels)


def test_an_unchanged_build_starts_nothing(docker: Place, tmp_path: Path) -> None:
    options = params(tmp_path)
    label = fingerprint(options, tmp_path)
    told = build(options, Nothing(found(label)), tmp_path)
    assert not told["changed"] and docker.calls() == []
    assert told["images"][0]["action"] == "none" and told["digest"] == "sha256:x"


def test_a_build(docker: Place, tmp_path: Path) -> None:
    step = {"vertexes": [{"digest": "1", "name": "[1/1] COPY a b", "cached": True}]}
    docker.write(progress=json.dumps(step) + "\n")
    options = params(tmp_path, args={"A": True})
    label = fingerprint(options, tmp_path)
    assert docker.calls() == []
    told = build(options, Nothing(None, found(label)), tmp_path)
    assert told["changed"] and (told["steps"], told["cached_steps"]) == (1, 1)
    words = docker.calls()[-1]
    assert words[-1] == options["path"] and "A=true" in words
    assert f"fleet.images.fingerprint={label}" in words
    assert told["diff"]["before"] == {"docker.io/library/a:1 in the engine": {}}


def test_the_same_again_is_no_change(docker: Place, tmp_path: Path) -> None:
    options = params(tmp_path, rebuild="always")
    label = fingerprint(options, tmp_path)
    told = build(options, Nothing(found(label), found(label)), tmp_path)
    assert not told["changed"] and "the same as before" in told["msg"]
    told = build(options, Nothing(found(label), found(label, "other")), tmp_path)
    assert told["changed"]


def test_a_result_that_goes_nowhere(docker: Place, tmp_path: Path) -> None:
    options = params(tmp_path, load=False)
    for check in (True, False):
        with (
            _build_doors.Doors(options, str(tmp_path), check) as doors,
            pytest.raises(BuildxError, match="a:1: load is false, and neither push"),
        ):
            _build.Build(options, doors, check).run()


def test_an_engine_that_tells_one_platform_only(docker: Place, tmp_path: Path) -> None:
    options = params(tmp_path, platforms=["linux/amd64", "linux/arm64"])
    one = replace(found(fingerprint(options, tmp_path)), tells_platforms=False)
    assert not build(options, Nothing(one), tmp_path)["changed"]
    assert build(options, Nothing(replace(one, tells_platforms=True)), tmp_path, check=True)[
        "changed"
    ]


def test_a_user_without_a_home(docker: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert _buildx.driver_of("", "unix:///x") == "docker"


def test_a_result_that_is_no_image(docker: Place, tmp_path: Path) -> None:
    docker.write(output="no tar")
    options = params(tmp_path, rebuild="always")
    label = fingerprint(options, tmp_path)
    with pytest.raises(BuildFailed, match="the result of the build cannot be read"):
        build(options, Nothing(found(label)), tmp_path, layouts=True)


def test_a_store_beside_the_classic_store(docker: Place, tmp_path: Path) -> None:
    options = params(tmp_path, store=str(tmp_path / "store"))
    with pytest.raises(BuildxError, match="store: wanted a builder that can write an OCI layout"):
        build(options, Nothing(None), tmp_path)


def test_another_image_under_the_tag_afterwards(docker: Place, tmp_path: Path) -> None:
    for after in (None, found("sha256:other")):
        with pytest.raises(BuildFailed, match="wanted in the engine what was built"):
            build(params(tmp_path), Nothing(None, after), tmp_path)


def test_a_failure_after_which_a_tag_has_moved(docker: Place, tmp_path: Path) -> None:
    docker.write(code="1", progress="ERROR: failed to push the second tag\n")
    for after, moved in ((None, False), (found("x"), True)):
        with pytest.raises(BuildFailed, match="failed to push the second tag") as failed:
            build(params(tmp_path), Nothing(None, after), tmp_path)
        assert failed.value.changed is moved


def test_what_changes_before_is_foreseen(docker: Place, tmp_path: Path) -> None:
    options = params(tmp_path, dockerfile_inline="FROM base:1\n", will_change=["base:1"])
    told = build(options, Nothing(None), tmp_path, check=True)
    told = build(options, Nothing(found(told["fingerprint"])), tmp_path, check=True)
    assert told["changed"] and "builds on what changes: base:1" in told["msg"]


def runner(docker: Place, tmp_path: Path, hidden: _hidden.Hidden, **more: Any) -> Runner:
    options = params(tmp_path, **more)
    return Runner(Buildx(options), options, "directory", hidden, str(tmp_path))


def test_a_step_that_fails(docker: Place, tmp_path: Path) -> None:
    vertex = {"digest": "1", "name": "[linux/arm64 2/2] RUN x", "error": "exit code: 1"}
    log = {"vertex": "1", "data": "YSB0b3BzZWNyZXQgd29yZAo="}
    lines = [{"vertexes": [vertex]}, {"logs": [log]}]
    docker.write(code="1", progress="".join(json.dumps(line) + "\n" for line in lines))
    with _hidden.Hidden() as hidden:
        hidden.remember("topsecret")
        with pytest.raises(BuildFailed) as failed:
            runner(docker, tmp_path, hidden).build({}, [])
    assert "the step 'RUN x' failed for linux/arm64: exit code: 1" in str(failed.value)
    assert "its last line: a ******** word" in str(failed.value)
    assert failed.value.step and list(failed.value.step.lines) == ["a ******** word"]


def test_nothing_is_built_where_no_machine_runs_it(docker: Place, tmp_path: Path) -> None:
    vertex = {"digest": "1", "name": "[linux/s390x 2/2] RUN x", "error": "exit code: 255"}
    docker.write(code="1", progress=json.dumps({"vertexes": [vertex]}) + "\n")
    with _hidden.Hidden() as hidden, pytest.raises(BuildFailed) as failed:
        runner(docker, tmp_path, hidden, platforms=["linux/s390x"]).build({}, [])
    assert "no way to run programs of linux/s390x" in str(failed.value)


def test_a_silent_build_is_ended(docker: Place, tmp_path: Path) -> None:
    step = {"vertexes": [{"digest": "1", "name": "[1/1] RUN x", "started": "t"}]}
    docker.write(sleep="", progress=json.dumps(step) + "\n")
    with _hidden.Hidden() as hidden, pytest.raises(BuildFailed) as failed:
        runner(docker, tmp_path, hidden, stall_timeout=1).build({}, [])
    assert "said nothing for 1 s and was ended, while doing: RUN x" in str(failed.value)


def test_what_is_read_is_no_excuse(docker: Place, tmp_path: Path) -> None:
    """A full disk here comes before what buildx says of it; else its own words do."""

    def full(_stream: object) -> None:
        raise OSError(28, "No space left on device")

    def wrong(_stream: object) -> None:
        raise ValueError("cut")

    docker.write(code="1", progress="ERROR: failed to build: its own words\n")
    with _hidden.Hidden() as hidden:
        with pytest.raises(OSError, match="No space"):
            runner(docker, tmp_path, hidden).build({}, [], full)
        with pytest.raises(BuildFailed, match="buildx said: its own words"):
            runner(docker, tmp_path, hidden).build({}, [], wrong)
        docker.write(code="0")
        with pytest.raises(ValueError, match="cut"):
            runner(docker, tmp_path, hidden).build({}, [], wrong)


def test_a_check_of_the_dockerfile(docker: Place, tmp_path: Path) -> None:
    finding = {
        "ruleName": "Casing",
        "detail": "as",
        "location": {"ranges": [{"start": {"line": 3}}]},
    }
    docker.write(output=json.dumps({"warnings": [finding], "buildError": {"message": "bad"}}))
    with _hidden.Hidden() as hidden:
        assert runner(docker, tmp_path, hidden).check() == ["line 3: Casing: as", "error: bad"]
        docker.write(output="no json", code="1")
        assert runner(docker, tmp_path, hidden).check() == ["no json"]
        docker.write(version="0.14.0")
        with pytest.raises(BuildxError, match=r"0\.14\.0: lint needs 0\.15\.0 or newer"):
            runner(docker, tmp_path, hidden).check()


def test_secrets_reach_the_command_and_nothing_else(
    docker: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_HOST", "of the environment")
    (tmp_path / "secret").write_text("of a file\n")
    items = [
        {"id": "v", "value": "of the task"},
        {"id": "e", "env": "OF_HOST"},
        {"id": "f", "src": str(tmp_path / "secret")},
    ]
    with _hidden.Hidden() as hidden:
        fields = _hidden.secrets(items, hidden)
        assert fields[1:] == [
            {"id": "e", "env": "OF_HOST"},
            {"id": "f", "src": str(tmp_path / "secret")},
        ]
        read = subprocess.run(["cat", fields[0]["src"]], capture_output=True, check=True).stdout
        assert read == b"of the task"
        told = "x of the task, of the environment, of a file y"
        assert hidden.mask(told) == "x ********, ********, ******** y"
        one = runner(docker, tmp_path, hidden, secrets=items[:1])
        one.build({}, [])
    assert docker.read("read") == "of the task"
    assert "of the task" not in json.dumps(docker.calls())
    assert not os.path.exists(fields[0]["src"])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"id": "a", "env": "NOT_THERE"}, "secret a: wanted from the environment variable"),
        ({"id": "a", "src": "/not/there"}, "secret a: wanted from the file /not/there"),
        ({"id": "a"}, r"\(none is given\)"),
    ],
)
def test_a_secret_that_is_not_there(item: dict[str, str], message: str) -> None:
    with _hidden.Hidden() as hidden, pytest.raises(BuildxError, match=message):
        _hidden.secrets([item], hidden)


def test_a_login_that_stands_on_no_disk(docker: Place, tmp_path: Path) -> None:
    usual = tmp_path / ".docker"
    (usual / "contexts").mkdir(parents=True)
    theirs = {
        "auths": {"other.example": {"auth": "x"}}, "proxies": {"p": 1}, "credsStore": "pass",
        "credHelpers": {"reg.example": "a", "b.example": "b"},
    }  # fmt: skip
    (usual / "config.json").write_text(json.dumps(theirs))
    with _hidden.Hidden() as hidden:
        with _hidden.login(
            ["reg.example", "docker.io"], "me", "password", hidden, str(tmp_path)
        ) as env:
            place = Path(env["DOCKER_CONFIG"])
            command = ["cat", str(place / "config.json")]
            config = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            assert set(config["auths"]) == {
                "other.example", "reg.example", "https://index.docker.io/v1/",
            }  # fmt: skip
            assert config["proxies"] == {"p": 1} and config["credsStore"] == "pass"
            # An empty helper means the file itself.
            helpers = {"reg.example": "", "https://index.docker.io/v1/": "", "b.example": "b"}
            assert config["credHelpers"] == helpers
            assert (place / "config.json").is_symlink() and (place / "contexts").is_symlink()
            assert env["BUILDX_CONFIG"] == str(usual / "buildx")
            assert hidden.mask("a password b") == "a ******** b"
        assert not place.exists()
        with _hidden.login(["a"], "", "", hidden, str(tmp_path)) as env:
            assert env == {}


def test_the_command_and_its_builder(docker: Place, tmp_path: Path) -> None:
    options = {
        "docker_host": "tcp://x:1",
        "validate_certs": True,
        "ca_path": "/ca",
        "client_cert": "/c",
    }
    buildx = Buildx(options)
    assert buildx.version == (0, 29, 1)
    words = "docker --tlsverify --tlscacert /ca --tlscert /c buildx ls"
    assert " ".join(buildx.command("ls")) == words
    assert buildx.environment["DOCKER_HOST"] == "tcp://x:1"
    assert Buildx({"tls": True}).command()[1] == "--tls"
    found = buildx.inspect("two")
    assert found and found.driver == "docker-container"
    assert found.platforms == ("linux/amd64", "linux/386", "linux/arm64")
    assert [one.status for one in found.nodes] == ["running", "inactive"]
    assert found.nodes[1].error == "it is away"
    assert buildx.inspect("nobody") is None


@pytest.mark.parametrize(
    ("version", "message"),
    [("0.12.1", "0.12.1: this module needs 0.13.0 or newer"), ("what", "found none")],
)
def test_a_buildx_that_is_of_no_use(docker: Place, version: str, message: str) -> None:
    docker.write(version=version)
    with pytest.raises(BuildxError, match=message):
        Buildx({})


def test_no_docker_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildxError, match="the command docker: wanted on this host"):
        Buildx({})


def test_the_driver_without_a_command(docker: Place, tmp_path: Path) -> None:
    place = tmp_path / ".docker" / "buildx"
    (place / "instances").mkdir(parents=True)
    (place / "instances" / "one").write_text('{"Driver": "remote"}')
    assert _buildx.driver_of("One", "unix:///x") == "remote"
    assert _buildx.driver_of("", "unix:///x") == "docker"
    (place / "current").write_text('{"Key": "unix:///x", "Name": "one", "Global": false}')
    assert _buildx.driver_of("", "unix:///x") == "remote"
    assert _buildx.driver_of("", "unix:///y") == "docker"
    (place / "current").write_text('{"Key": "", "Name": "gone", "Global": true}')
    assert _buildx.driver_of("", "unix:///y") == "docker"
    assert docker.calls() == []


def test_a_glance_at_an_engine(tmp_path: Path) -> None:
    for host in ("tcp://127.0.0.1:9", f"unix://{tmp_path}/none"):
        with pytest.raises(_glance.Unanswered):
            _glance.inspect(host, "a:1")
