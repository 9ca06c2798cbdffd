# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into a build: .dockerignore, the tree of a context, Dockerfiles, the fingerprint."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.module_utils import (
    _build_inputs,
    _cache,
    _context,
    _dockerfile,
    _dockerignore,
    _fingerprint,
)
from ansible_collections.fleet.images.plugins.module_utils._buildx import BuildxError
from ansible_collections.fleet.images.plugins.module_utils._registry import NotFound

DIGEST = f"sha256:{'a' * 64}"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("patterns", "out", "stays"),
    [
        ("*/temp*", ["a/temp", "a/temp1/x"], ["temp", "a/b/temp"]),
        ("*/*/temp*", ["a/b/temp"], ["a/temp"]),
        ("temp?", ["tempa", "tempa/x"], ["temp", "tempab"]),
        ("**/*.go", ["x.go", "a/b/x.go"], ["x.goo"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/c"], ["b", "a/x/bc"]),
        ("/foo/bar", ["foo/bar", "foo/bar/x"], ["x/foo/bar", "foo"]),
        ("foo/", ["foo", "foo/x"], ["foox"]),
        ("./foo", ["foo"], ["x/foo"]),
        ("# comment\n\n  a  ", ["a"], ["# comment"]),
        ("*.md\n!README.md", ["x.md"], ["README.md"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["README-secret.md", "x.md"], ["README-a.md"]),
        ("*\n!app", ["x"], ["app", "app/x"]),
        ("[a-c].txt", ["b.txt"], ["d.txt"]),
        ("[^a].txt", ["b.txt"], ["a.txt"]),
        (r"a\*b", ["a*b"], ["axb"]),
        ("a.b+", ["a.b+"], ["axb"]),
        ("**", ["x", "a/b"], []),
    ],
)
def test_what_is_left_out(patterns: str, out: list[str], stays: list[str]) -> None:
    ignore = _dockerignore.parse(patterns)
    assert [one for one in out if not ignore.leaves_out(one)] == []
    assert [one for one in stays if ignore.leaves_out(one)] == []


@pytest.mark.parametrize("text", ["!", "[z-a]"])
def test_a_line_that_is_no_pattern(text: str) -> None:
    with pytest.raises(_dockerignore.InvalidPattern, match=r"\.dockerignore"):
        _dockerignore.parse(text)


def tree(root: Path, patterns: str = "") -> str:
    return _context.read(root, _dockerignore.parse(patterns)).digest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A context with a file, a directory, and a link."""
    root = tmp_path / "context"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "a").write_text("one")
    (root / "sub" / "b").write_text("two")
    (root / "link").symlink_to("a")
    return root


def test_what_changes_the_digest_of_a_tree(root: Path) -> None:
    seen = [tree(root)]
    (root / "a").write_text("two")
    seen.append(tree(root))
    (root / "a").chmod(0o755)
    seen.append(tree(root))
    (root / "a").rename(root / "c")
    seen.append(tree(root))
    (root / "link").unlink()
    (root / "link").symlink_to("c")
    seen.append(tree(root))
    (root / "empty").mkdir()
    seen.append(tree(root))
    (root / "empty").chmod(0o700)
    seen.append(tree(root))
    assert len(set(seen)) == len(seen)
    os.utime(root / "c", (1, 1))
    assert tree(root) == seen[-1]


def test_what_is_left_out_does_not_count(root: Path) -> None:
    before = tree(root, "sub\n!sub/b")
    (root / "sub" / "deep" / "x").write_text("x")
    assert tree(root, "sub\n!sub/b") == before
    (root / "sub" / "b").write_text("x")
    assert tree(root, "sub\n!sub/b") != before
    # Of a directory that is left out, its mode counts where something in it is taken back.
    before = tree(root, "sub\n!sub/b")
    (root / "sub").chmod(0o700)
    assert tree(root, "sub\n!sub/b") != before
    assert tree(root, "sub") != tree(root, "sub\n!sub/b")


def test_a_file_is_read_again_only_where_its_status_changed(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(writable: bool = True) -> _context.Tree:
        memory = _context.Memory.of(root, writable)
        return _context.read(root, _dockerignore.parse(""), memory)

    assert read().read == 6
    assert read().read == 6  # too young to be believed
    later = time.time_ns() + 10**10
    monkeypatch.setattr("time.time_ns", lambda: later)
    first = read(writable=False)
    assert read(writable=False).read == 6  # a look keeps nothing
    assert read().read == 6
    again = read()
    assert (again.read, again.digest, again.bytes, again.files) == (0, first.digest, 6, 2)
    (root / "a").write_text("ONE")
    changed = read()
    assert changed.read == 3 and changed.digest != first.digest
    (file,) = (cache / "fleet-images" / "contexts").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("damaged")
    assert read().digest == changed.digest


def test_a_tree_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_more: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(root / "a"))

    monkeypatch.setattr(_context, "_hash", refuse)
    with pytest.raises(_context.ContextError, match=r"context .*/a cannot be read \(Permission"):
        tree(root)


def test_documents_behind_a_tag_are_kept(cache: Path) -> None:
    content = b'{"x": "\xc3\xa4"}'
    digest = _context.hashlib.sha256(content).hexdigest()
    one = _cache.Documents("a:1", True)
    assert one.find(f"sha256:{digest}") is None
    one.keep(f"sha256:{digest}", content)
    one.save()
    other = _cache.Documents("a:1", False)
    assert other.find(f"sha256:{digest}", len(content)) == content
    assert other.find(DIGEST) is None
    (file,) = (cache / "fleet-images" / "tags").iterdir()
    file.write_text(file.read_text().replace("x", "y"))
    assert _cache.Documents("a:1", False).find(f"sha256:{digest}") is None


DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG V=3.19 BASE=alpine
ARG X
FROM --platform=$BUILDPLATFORM ${BASE}:${V} AS Build
RUN --mount=type=cache,target=/x --mount=type=bind,from=golang:1,target=/g <<EOF
FROM not-this
EOF
COPY <<A <<"B" /x
FROM nor-this
A
FROM or-that
B
FROM build AS unused
COPY --from=nginx:1 /a /b
from base-$TARGETARCH
COPY --from=build \\
  # comment
  /a /b
COPY --from=0 --chown=a:b /a /b
ADD https://x.example/z /z
ADD --checksum=sha256:1 https://x.example/y /y
"""


def test_what_a_dockerfile_builds_on() -> None:
    parsed = _dockerfile.parse(DOCKERFILE)
    found = parsed.outside(platforms=["linux/amd64", "linux/arm64"], native="linux/amd64")
    assert found.images == [
        "alpine:3.19", "golang:1", "base-amd64", "base-arm64", "docker/dockerfile:1",
    ]  # fmt: skip
    assert found.remotes == ["https://x.example/z"]
    assert "nginx:1" in parsed.outside("unused").images
    assert "nginx:1" not in parsed.outside("build").images
    assert parsed.outside("build", {"V": "4"}).images[0] == "alpine:4"
    assert parsed.outside("0", contexts=["golang:1"]).images == [
        "alpine:3.19", "docker/dockerfile:1",
    ]  # fmt: skip
    with pytest.raises(_dockerfile.InvalidDockerfile, match="target none: wanted as a stage"):
        parsed.outside("none")


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("FROM scratch", []),
        ("FROM a AS b\nFROM b", ["a"]),
        ("FROM a AS b\nFROM B", ["a"]),
        ("ARG A=x\nFROM ${A:-y}", ["x"]),
        ("ARG A\nFROM ${A:-y}", ["y"]),
        ("ARG A=x\nFROM a${A:+b}", ["ab"]),
        ("FROM a\\\n  b", ["a"]),
        ("# escape=`\nFROM `\n a", ["a"]),
        ("FROM a\nRUN x \\\n# no\n\n  && y\nONBUILD COPY --from=q x y", ["a"]),
        ('FROM "a:1"', ["a:1"]),
        ("FROM a:1@sha256:b", ["a:1@sha256:b"]),
        ("\ufeffFROM a", ["a"]),
    ],
)
def test_ways_to_name_a_base(text: str, images: list[str]) -> None:
    assert _dockerfile.parse(text).bases() == images


def test_a_dockerfile_without_from() -> None:
    with pytest.raises(_dockerfile.InvalidDockerfile, match="wanted a FROM"):
        _dockerfile.parse("RUN x").bases()


def test_the_fingerprint_tells_its_parts() -> None:
    one = _fingerprint.Fingerprint({"context": 1, "args": {"a": "b"}})
    other = _fingerprint.Fingerprint({"context": 2, "args": {"a": "b"}})
    assert one.digest != other.digest
    assert one.digest == _fingerprint.Fingerprint({"args": {"a": "b"}, "context": 1}).digest
    assert other.changes(one.labels()) == ["context"]
    assert other.changes({}) == []
    assert _fingerprint.of_labels(one.labels()) == one.digest
    assert _fingerprint.of_labels(None) == ""


def params(path: Path | str, **more: Any) -> dict[str, Any]:
    return {"path": str(path), **more}


def resolve(reference: object) -> str:
    if "missing" in str(reference):
        raise NotFound(f"{reference}: the registry has no such tag")
    return DIGEST


def parts(found: _build_inputs.Inputs, other: _build_inputs.Inputs) -> list[str]:
    return other.fingerprint.changes(found.fingerprint.labels())


def test_everything_that_goes_in(root: Path) -> None:
    (root / "Dockerfile").write_text("ARG B=a:1\nFROM $B\n")
    first = _build_inputs.gather(params(root), resolve, False)
    assert first.bases == {"a:1": DIGEST} and not first.unseen
    for more, changed in (
        ({"args": {"B": "b:1"}}, ["args", "bases"]),
        ({"labels": {"x": "y"}}, ["labels"]),
        ({"target": "0"}, ["options"]),
        ({"platforms": ["linux/riscv64"]}, ["options"]),
        ({"secrets": [{"id": "a", "value": "b"}]}, ["options"]),
        ({"build_contexts": {"x": str(root)}}, ["contexts"]),
        ({"dockerfile_inline": "FROM a:1"}, ["dockerfile"]),
        ({"no_cache": True, "cache_from": ["x"], "builder": "y"}, []),
    ):
        assert parts(first, _build_inputs.gather(params(root, **more), resolve, False)) == changed
    value = {"secrets": [{"id": "a", "value": "b"}]}
    other = {"secrets": [{"id": "a", "value": "c"}]}
    found = [_build_inputs.gather(params(root, **one), resolve, False) for one in (value, other)]
    assert parts(*found) == []


def test_what_cannot_be_seen(root: Path) -> None:
    text = "FROM missing:1\nADD https://x.example/a /a\n"
    found = _build_inputs.gather(params(root, dockerfile_inline=text), resolve, False)
    assert found.bases == {"missing:1": ""} and len(found.unseen) == 2
    assert "has no such tag" in " ".join(found.unseen)
    url = params("https://x.example/context.tar.gz", dockerfile_inline="FROM a\n")
    assert _build_inputs.gather(url, resolve, False).unseen == [
        "https://x.example/context.tar.gz may change at any time"
    ]


def test_the_ignore_file_of_a_dockerfile_comes_first(root: Path) -> None:
    (root / "Dockerfile").write_text("FROM a\n")
    (root / ".dockerignore").write_text("a\n")
    before = _build_inputs.gather(params(root), resolve, False)
    (root / "Dockerfile.dockerignore").write_text("sub\n")
    after = _build_inputs.gather(params(root), resolve, False)
    assert parts(before, after) == ["context"]


def test_archives(root: Path, tmp_path: Path) -> None:
    archive = tmp_path / "context.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("./docker/Dockerfile")
        info.size = 7
        tar.addfile(info, io.BytesIO(b"FROM a\n"))
    found = _build_inputs.gather(params(archive, dockerfile="docker/Dockerfile"), resolve, False)
    assert found.kind == _build_inputs.ARCHIVE and found.bases == {"a": DIGEST}
    with pytest.raises(BuildxError, match="wanted Dockerfile in the archive"):
        _build_inputs.gather(params(archive), resolve, False)
    (root / "a").write_text("no tar")
    with pytest.raises(BuildxError, match="wanted a tar archive"):
        _build_inputs.gather(params(root / "a"), resolve, False)


def test_a_git_repository(tmp_path: Path) -> None:
    place = tmp_path / "repository.git"
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]

    def git(*words: str) -> str:
        command = ["git", "-C", str(place), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout

    subprocess.run(["git", "init", "-q", "-b", "main", str(place)], check=True, env=env)
    git("commit", "-q", "--allow-empty", "-m", "one")
    git("tag", "-a", "-m", "x", "v1")
    found = _build_inputs.Inputs(_build_inputs.GIT)
    url = f"file://{place}"
    commit = git("rev-parse", "HEAD").strip()
    assert _build_inputs._commit(f"{url}#main:sub", found) == f"{url}#{commit}:sub"
    assert _build_inputs._commit(f"{url}#v1", found) == f"{url}#{commit}:"
    assert _build_inputs._commit(f"{url}#{commit}", found) == f"{url}#{commit}"
    assert not found.unseen
    _build_inputs._commit(f"{url}#nothing", found)
    assert "the commit of" in found.unseen[0]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("git@git.example:a/b", "git"),
        ("https://git.example/a/b.git#main", "git"),
        ("ssh://git@git.example/a/b", "git"),
        ("github.com/a/b", "git"),
        ("https://files.example/a.tar.gz", "url"),
    ],
)
def test_kinds_of_context(path: str, kind: str) -> None:
    assert _build_inputs.kind_of({"path": path}) == kind


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"path": "/nothing/here"}, "context /nothing/here: wanted a directory"),
        ({"dockerfile": "Other"}, "Other: wanted as the Dockerfile"),
        ({"build_contexts": {"x": "/nothing"}}, "build context x: wanted the directory /nothing"),
        (
            {"build_contexts": {"x": "oci-layout:///no:1"}},
            "build context x: wanted an image layout",
        ),
    ],
)
def test_what_is_not_there(root: Path, more: dict[str, Any], message: str) -> None:
    (root / "Dockerfile").write_text("FROM a\n")
    with pytest.raises(BuildxError, match=message):
        _build_inputs.gather({**params(root), **more}, resolve, False)
