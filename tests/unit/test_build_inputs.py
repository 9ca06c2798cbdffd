# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into a build: contexts of all kinds, Dockerfiles, bases and options."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from images import digest

from ansible_collections.fleet.images.plugins.module_utils import _build_inputs
from ansible_collections.fleet.images.plugins.module_utils._build_inputs import (
    ARCHIVE,
    DIRECTORY,
    GIT,
    URL,
    Inputs,
    gather,
    kind_of,
)
from ansible_collections.fleet.images.plugins.module_utils._buildx import BuildxError
from ansible_collections.fleet.images.plugins.module_utils._dockerfile import InvalidDockerfile
from ansible_collections.fleet.images.plugins.module_utils._engine import EngineError
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    Reference,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import RegistryError

Look = Callable[..., Inputs]
COMMIT = "c" * 40


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A context with a Dockerfile."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "app"
    write(root, {"Dockerfile": "FROM alpine:3.20", "main.py": "print()", "junk": "x"})
    return root


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def resolved(reference: Reference) -> str:
    return digest(str(reference))


@pytest.fixture
def look(root: Path) -> Look:
    """`look(option=…)`: what goes into a build of the context."""

    def run(resolve: Any = resolved, remember: bool = False, **params: Any) -> Inputs:
        return gather({"path": str(root), **params}, resolve, remember)

    return run


# kinds of context


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("https://h.example/app.git", GIT),
        ("https://h.example/app.git#main:docker", GIT),
        ("HTTPS://h.example/app.GIT", GIT),
        ("http://h.example/app.git?ref=main", GIT),
        ("git@h.example:app", GIT),
        ("ssh://git@h.example/app", GIT),
        ("git://h.example/app", GIT),
        ("github.com/shop/app", GIT),
        ("https://h.example/app.tar.gz", URL),
        ("https://h.example/app.gitx", URL),
        ("https://h.example/app#x.git", URL),
        (".", DIRECTORY),
        (__file__, ARCHIVE),
    ],
)
def test_kinds(path: str, kind: str) -> None:
    assert kind_of({"path": path}) == kind


def test_a_directory_comes_before_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "github.com" / "app").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert kind_of({"path": "github.com/app"}) == DIRECTORY


@pytest.mark.parametrize("path", ["/nonexistent", "ftp://h/x", "", "-"])
def test_nothing(path: str, look: Look) -> None:
    with pytest.raises(BuildxError, match="there is nothing on this host; correct path"):
        look(path=path)


# a directory


def test_a_directory(look: Look) -> None:
    found = look()
    assert found.kind == DIRECTORY and found.unseen == []
    assert found.tree.files == 3 and found.parts["context"] == found.tree.digest
    assert found.parts["dockerfile"] == "FROM alpine:3.20"
    name = "docker.io/library/alpine:3.20"
    assert found.bases == {"alpine:3.20": digest(name)} == found.parts["bases"]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"args": {"A": "1"}}, "args"),
        ({"labels": {"A": "1"}}, "labels"),
        ({"dockerfile_inline": "FROM scratch"}, "dockerfile"),
        ({"target": "0"}, "options"),
        ({"network": "none"}, "options"),
        ({"shm_size": "1m"}, "options"),
        ({"ulimits": ["nofile=1"]}, "options"),
        ({"ssh": ["default"]}, "options"),
        ({"provenance": "false"}, "options"),
        ({"sbom": "true"}, "options"),
        ({"source_date_epoch": 0}, "options"),
        ({"platforms": ["linux/s390x"]}, "options"),
        ({"annotations": {"a": "b"}}, "options"),
        ({"add_hosts": {"a": "b"}}, "options"),
        ({"secrets": [{"id": "t", "value": "x"}]}, "options"),
        ({"build_contexts": {"x": "docker-image://busybox"}}, "contexts"),
    ],
)
def test_what_changes_the_fingerprint(look: Look, options: dict[str, Any], part: str) -> None:
    before, after = look().fingerprint, look(**options).fingerprint
    assert after.digest != before.digest
    assert part in after.changes(before.labels())


@pytest.mark.parametrize(
    "options",
    [
        {"args": {}, "labels": None, "platforms": [], "ssh": [], "target": ""},
        {"tags": ["x"], "push": True, "builder": "b", "no_cache": True, "pull": True},
        {"cache_from": ["x"], "cache_to": ["y"], "rebuild": "always", "lint": "warn"},
        {"platforms": [f"linux/{os.uname().machine}"]},
        {"registry_password": "s3cret"},
    ],
)
def test_what_does_not(look: Look, options: dict[str, Any]) -> None:
    assert look(**options).fingerprint == look().fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"args": {"A": True}}, {"args": {"A": "true"}}),
        ({"args": {"A": 1}}, {"args": {"A": "1"}}),
        ({"args": {"A": "1", "B": "2"}}, {"args": {"B": "2", "A": "1"}}),
        ({"platforms": ["linux/arm64", "linux/386"]}, {"platforms": ["i386", "linux/arm64/v8"]}),
        # Of a secret its name counts, not its content or where it comes from.
        ({"secrets": [{"id": "a", "value": "x"}]}, {"secrets": [{"id": "a", "env": "Y"}]}),
        ({"secrets": [{"id": "a"}, {"id": "b"}]}, {"secrets": [{"id": "b"}, {"id": "a"}]}),
    ],
)  # fmt: skip
def test_two_ways_to_say_the_same(look: Look, one: Any, other: Any) -> None:
    assert look(**one).fingerprint.digest == look(**other).fingerprint.digest


def test_no_secret_is_in_what_goes_in(look: Look) -> None:
    found = look(secrets=[{"id": "t", "value": "s3cret-1"}], registry_password="s3cret-2")
    assert "s3cret" not in repr(found)


def test_platforms_that_are_none(look: Look) -> None:
    with pytest.raises(InvalidReference, match="is no platform"):
        look(platforms=["linux/amd64/v1/x"])


def test_a_platform_decides_what_it_builds_on(look: Look) -> None:
    text = "FROM x-$TARGETARCH$TARGETVARIANT"
    found = look(dockerfile_inline=text, platforms=["linux/arm64/v8", "linux/x86_64"])
    assert list(found.bases) == ["x-arm64", "x-amd64"]


def test_remembering(look: Look, root: Path, tmp_path: Path) -> None:
    look(remember=False)
    assert not (tmp_path / "cache").exists()
    for path in root.iterdir():
        os.utime(path, (1, 1))
    look(remember=True)
    look(remember=True, build_contexts={"x": str(write(tmp_path / "x", {"a": "b"}))})


# Dockerfiles


def test_a_dockerfile_elsewhere(look: Look, root: Path, tmp_path: Path) -> None:
    write(root, {"docker/app.Dockerfile": "FROM one"})
    write(tmp_path, {"outside": "FROM two"})
    assert list(look(dockerfile="docker/app.Dockerfile").bases) == ["one"]
    assert list(look(dockerfile=str(tmp_path / "outside")).bases) == ["two"]
    assert list(look(dockerfile_inline="FROM three").bases) == ["three"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dockerfile": "none"}, BuildxError, r"none: wanted as the Dockerfile.*No such file"),
        ({"dockerfile": "."}, BuildxError, "Is a directory"),
        ({"dockerfile_inline": "RUN x"}, InvalidDockerfile, "wanted a FROM"),
        ({"target": "none"}, InvalidDockerfile, "target none: wanted as a stage"),
        ({"build_contexts": {"x": "/nonexistent"}}, BuildxError, "build context x: wanted the dir"),
        ({"build_contexts": {"x": "oci-layout:///none"}}, BuildxError, "x: wanted an"),
    ],
)  # fmt: skip
def test_what_goes_wrong(look: Look, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        look(**options)


@pytest.mark.parametrize(
    ("files", "options", "count"),
    [
        ({}, {}, 3),
        ({".dockerignore": "junk"}, {}, 3),
        ({".dockerignore": "*"}, {}, 0),
        ({"Dockerfile.dockerignore": "**"}, {}, 0),
        # That of the Dockerfile itself comes first.
        ({"Dockerfile.dockerignore": "", ".dockerignore": "*"}, {}, 5),
        ({"a/b.dockerignore": "*", "a/b": "FROM x", ".dockerignore": ""}, {"dockerfile": "a/b"}, 0),
        ({"Dockerfile.dockerignore": "*"}, {"dockerfile_inline": "FROM x"}, 4),
        ({".dockerignore": "*"}, {"dockerfile_inline": "FROM x"}, 0),
        ({".dockerignore": "\ufeff*\r\n!main.py\r\n"}, {}, 1),
    ],
)
def test_dockerignore(look: Look, root: Path, files: Any, options: Any, count: int) -> None:
    write(root, files)
    assert look(**options).tree.files == count


def test_a_dockerignore_that_is_none(look: Look, root: Path) -> None:
    write(root, {".dockerignore": "a\n!\n"})
    with pytest.raises(BuildxError, match=r"\.dockerignore: cannot be used: .*takes back nothing"):
        look()
    (root / ".dockerignore").unlink()
    (root / ".dockerignore").mkdir()
    with pytest.raises(BuildxError, match="Is a directory"):
        look()


# bases

PINNED = f"alpine@{digest('x')}"


def test_bases_by_digest_are_not_asked_for(look: Look) -> None:
    found = look(resolve=None, dockerfile_inline=f"FROM {PINNED}")
    assert found.bases == {PINNED: digest("x")} and found.unseen == []


@pytest.mark.parametrize("error", [RegistryError("it is down"), EngineError("it is down")])
def test_bases_that_cannot_be_asked_for(look: Look, error: Exception) -> None:
    def resolve(reference: Reference) -> str:
        if reference.tag == "3.20":
            raise error
        return resolved(reference)

    found = look(resolve=resolve, build_contexts={"x": "docker-image://busybox:1"})
    assert found.bases["alpine:3.20"] == "" and found.bases["busybox:1"]
    assert found.unseen == ["base image it is down"]


def test_bases_that_are_no_references(look: Look) -> None:
    found = look(dockerfile_inline="FROM UPPER/x\nCOPY --from=${A#b} / /")
    assert found.bases["${A#b}"] == ""
    assert any("is no image reference" in one for one in found.unseen)


def test_what_is_fetched_without_a_checksum_is_unseen(look: Look) -> None:
    found = look(dockerfile_inline="FROM scratch\nADD https://h/x /x")
    assert found.unseen == ["ADD https://h/x has no checksum"] and found.bases == {}


# further contexts


def test_a_directory_as_a_further_context(look: Look, tmp_path: Path) -> None:
    place = write(tmp_path / "more", {"a": "1", "log": "2"})
    before = look(build_contexts={"more": str(place)}).fingerprint
    write(place, {"a": "3"})
    after = look(build_contexts={"more": str(place)}).fingerprint
    assert after.changes(before.labels()) == ["contexts"]
    # Its own .dockerignore counts, as the builder has it.
    write(place, {".dockerignore": "log\n.dockerignore"})
    before = look(build_contexts={"more": str(place)}).fingerprint
    write(place, {"log": "4"})
    assert look(build_contexts={"more": str(place)}).fingerprint == before


def test_images_as_further_contexts(look: Look) -> None:
    found = look(build_contexts={"alpine:3.20": f"docker-image://{PINNED}"})
    assert found.bases == {PINNED: digest("x")}


@pytest.mark.parametrize("suffix", ["", "@" + digest("x"), ":v1", ":v1@" + digest("x")])
def test_a_layout_as_a_further_context(look: Look, tmp_path: Path, suffix: str) -> None:
    place = write(tmp_path / "layout", {"index.json": "{}"})
    value = {"x": f"oci-layout://{place}{suffix}"}
    before = look(build_contexts=value).fingerprint
    write(place, {"index.json": "{ }"})
    assert look(build_contexts=value).fingerprint.changes(before.labels()) == ["contexts"]


def test_a_url_as_a_further_context(look: Look) -> None:
    found = look(build_contexts={"x": "https://h.example/a.tar"})
    assert found.unseen == ["https://h.example/a.tar may change at any time"]


def test_a_url_as_the_context(look: Look) -> None:
    found = look(path="https://h.example/a.tar", dockerfile_inline="FROM scratch")
    assert found.unseen == ["https://h.example/a.tar may change at any time"]
    bare = look(path="https://h.example/a.tar")
    assert bare.unseen[1:] == ["the Dockerfile is in the repository"]
    assert bare.parts["dockerfile"] is None


# archives


def archive(path: Path, files: dict[str, str], pack: Any = None, link: str = "") -> Path:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        if link:
            info = tarfile.TarInfo("Dockerfile")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    path.write_bytes(pack(content.getvalue()) if pack else content.getvalue())
    return path


@pytest.mark.parametrize("pack", [None, gzip.compress, bz2.compress])
@pytest.mark.parametrize("name", ["Dockerfile", "./Dockerfile"])
def test_an_archive(look: Look, tmp_path: Path, pack: Any, name: str) -> None:
    path = archive(tmp_path / "a", {"x": "y", name: "FROM busybox"}, pack)
    found = look(path=str(path))
    assert found.kind == ARCHIVE and list(found.bases) == ["busybox"]
    archive(path, {"x": "z", name: "FROM busybox"}, pack)
    changes = look(path=str(path)).fingerprint.changes(found.fingerprint.labels())
    assert changes == ["context"]


def test_another_dockerfile_of_an_archive(look: Look, tmp_path: Path) -> None:
    path = archive(tmp_path / "a", {"docker/x": "FROM busybox"})
    assert list(look(path=str(path), dockerfile="docker//x").bases) == ["busybox"]
    with pytest.raises(BuildxError, match="an archive with dockerfile_inline"):
        look(path=str(path), dockerfile_inline="FROM y")
    linked = archive(tmp_path / "b", {"docker/x": "FROM busybox"}, link="docker/x")
    assert list(look(path=str(linked)).bases) == ["busybox"]


def test_archives_that_are_none(look: Look, tmp_path: Path) -> None:
    path = archive(tmp_path / "a", {"x": "y"})
    with pytest.raises(BuildxError, match="wanted Dockerfile in the archive, it has none"):
        look(path=str(path))
    packed = gzip.compress(
        archive(tmp_path / "b", {"x": "y" * 9999, "Dockerfile": ""}).read_bytes()
    )
    broken = packed[:60] + b"\xff" * 10 + packed[70:]
    dangling = archive(tmp_path / "c", {"x": "y"}, link="nowhere").read_bytes()
    for content in (b"", b"text", packed[:100], broken, dangling):
        path.write_bytes(content)
        with pytest.raises(BuildxError, match="wanted a tar archive, it cannot be read"):
            look(path=str(path))


# git


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`git(word, …)` in a repository that lies at https://h.example/app.git; what it said."""
    if not shutil.which("git"):
        pytest.skip("there is no git")
    settings = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://h.example/",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "HOME": str(tmp_path),
    }
    for person in ("AUTHOR", "COMMITTER"):
        settings |= {f"GIT_{person}_NAME": "x", f"GIT_{person}_EMAIL": "x@h.example"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path / "app.git"), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "app.git").mkdir()
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "one")
    return git


HOME = "https://h.example/app.git"


def test_branches_and_tags(repository: Callable[..., str], look: Look) -> None:
    one = repository("rev-parse", "HEAD")
    repository("tag", "light")
    repository("tag", "-a", "-m", "x", "heavy")
    repository("checkout", "-q", "-b", "aaa/main")
    repository("commit", "-q", "--allow-empty", "-m", "two")
    repository("branch", "zzz/main")
    repository("branch", "zzz/heavy")
    two = repository("rev-parse", "HEAD")
    repository("checkout", "-q", "main")
    for suffix, commit in {
        "": one, "#": one, "#main": one, "#light": one, "#heavy": one, "#:dir": one,
        "#aaa/main": two, "#refs/heads/main": one, "#heads/zzz/main": two, "#refs/tags/heavy": one,
    }.items():  # fmt: skip
        found = look(path=HOME + suffix, dockerfile_inline="FROM x")
        directory = suffix.partition(":")[2]
        assert found.parts["context"] == f"{HOME}#{commit}:{directory}", suffix
        assert found.unseen == []


def test_a_branch_that_moves(repository: Callable[..., str], look: Look) -> None:
    before = look(path=HOME)
    assert before.unseen == ["the Dockerfile is in the repository"]
    again = look(path=HOME)
    repository("commit", "-q", "--allow-empty", "-m", "two")
    after = look(path=HOME)
    assert before.fingerprint == again.fingerprint
    assert after.fingerprint.changes(before.fingerprint.labels()) == ["context"]


def test_a_repository_as_a_further_context(repository: Callable[..., str], look: Look) -> None:
    found = look(build_contexts={"x": f"{HOME}#main"})
    assert found.parts["contexts"] == {"x": f"{HOME}#{repository('rev-parse', 'HEAD')}:"}


@pytest.mark.parametrize(
    ("suffix", "words"),
    [("#none", "it has no such branch or tag"), ("#mai", "it has no such branch or tag")],
)
def test_no_such_branch(
    repository: Callable[..., str], look: Look, suffix: str, words: str
) -> None:
    found = look(path=HOME + suffix, dockerfile_inline="FROM x")
    assert found.unseen == [f"the commit of {HOME} ({words})"]
    repository("branch", "x/none")
    listed = look(path=f"{HOME}#none", dockerfile_inline="FROM x")
    assert listed.unseen == [f"the commit of {HOME} (it has no branch or tag none)"]


def test_no_such_repository(repository: Callable[..., str], look: Look) -> None:
    found = look(path="https://h.example/none.git", dockerfile_inline="FROM x")
    (words,) = found.unseen
    assert words.startswith("the commit of https://h.example/none.git (") and "\n" not in words


def test_a_commit_is_not_asked_for(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    for commit in (COMMIT, "d" * 64):
        url = f"{HOME}#{commit}:dir"
        found = look(path=url, dockerfile_inline="FROM x")
        assert found.parts["context"] == url and found.unseen == []


def test_without_git_or_an_answer(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "No such file" in look(path=HOME).unseen[0]

    def late(command: list[str], **how: Any) -> Any:
        raise subprocess.TimeoutExpired(command, how["timeout"])

    monkeypatch.setattr(subprocess, "run", late)
    assert "timed out after 60" in look(path=HOME).unseen[0]


def test_git_asks_nobody_and_takes_no_options(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(command: list[str], **how: Any) -> Any:
        seen.update(how, command=command)
        return subprocess.CompletedProcess(command, 0, f"{COMMIT}\tHEAD\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    found = look(path="github.com/shop/app")
    assert found.parts["context"] == f"https://github.com/shop/app#{COMMIT}:"
    assert seen["env"]["GIT_TERMINAL_PROMPT"] == "0" and seen["stdin"] == subprocess.DEVNULL
    assert seen["command"][:4] == ["git", "ls-remote", "--exit-code", "--"]


def test_dockerfile_path() -> None:
    path = _build_inputs.dockerfile_path
    assert path({"path": "/a"}) == "/a/Dockerfile"
    assert path({"path": "/a", "dockerfile": "b/c"}) == "/a/b/c"
    assert path({"path": "/a", "dockerfile": "/b/c"}) == "/b/c"
