# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the task as arguments of `docker buildx build`."""

from __future__ import annotations

import csv as reader
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.images.plugins.module_utils._build_command import (
    arguments,
    csv,
    outputs,
    rewrites_times,
    text,
    texts,
    wants_load,
)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, []),
        ({"tags": None, "args": None, "push": False, "provenance": None}, []),
        ({"tags": ["a:1", "b:2"]}, ["--tag", "a:1", "--tag", "b:2"]),
        ({"builder": "fleet"}, ["--builder", "fleet"]),
        ({"dockerfile": "/x/Dockerfile"}, ["--file", "/x/Dockerfile"]),
        ({"target": "final"}, ["--target", "final"]),
        ({"network": "none"}, ["--network", "none"]),
        ({"shm_size": "128m"}, ["--shm-size", "128m"]),
        ({"cache_from": ["type=registry,ref=r/c"]}, ["--cache-from", "type=registry,ref=r/c"]),
        ({"cache_to": ["type=inline", "x"]}, ["--cache-to", "type=inline", "--cache-to", "x"]),
        ({"ssh": ["default", "git=/k"]}, ["--ssh", "default", "--ssh", "git=/k"]),
        ({"ulimits": ["nofile=1:2"]}, ["--ulimit", "nofile=1:2"]),
        ({"no_cache_filter": ["a", "b"]}, ["--no-cache-filter", "a", "--no-cache-filter", "b"]),
        ({"args": {"A": "x y", "B": 2}}, ["--build-arg", "A=x y", "--build-arg", "B=2"]),
        ({"args": {"A": True, "B": ""}}, ["--build-arg", "A=true", "--build-arg", "B="]),
        ({"labels": {"a.b": "c=d"}}, ["--label", "a.b=c=d"]),
        ({"annotations": {"index:a": "b"}}, ["--annotation", "index:a=b"]),
        ({"build_contexts": {"x": "docker-image://a"}}, ["--build-context", "x=docker-image://a"]),
        ({"add_hosts": {"h": "10.0.0.1", "6": "::1"}},
         ["--add-host", "h:10.0.0.1", "--add-host", "6:::1"]),
        ({"platforms": ["linux/amd64", "linux/arm64"]}, ["--platform", "linux/amd64,linux/arm64"]),
        ({"pull": True}, ["--pull"]),
        ({"no_cache": True}, ["--no-cache"]),
        ({"pull": False, "no_cache": False}, []),
        ({"provenance": "false"}, ["--provenance=false"]),
        ({"provenance": "False"}, ["--provenance=false"]),
        ({"provenance": "mode=max,builder-id=https://CI/1"}, ["--provenance=mode=max,builder-id=https://CI/1"]),
        ({"sbom": "True"}, ["--sbom=true"]),
        ({"sbom": "generator=r.example/Scan:V1"}, ["--sbom=generator=r.example/Scan:V1"]),
        # Not among them: the context, where the result goes, and secrets.
        ({"path": "/x", "push": True, "load": True, "store": "/s", "outputs": ["x"],
          "secrets": [{"id": "t", "value": "s3cret"}], "registry_password": "s3cret"}, []),
    ],
)  # fmt: skip
def test_each_option(params: dict[str, Any], words: list[str]) -> None:
    assert arguments(params, {}) == words


def test_labels_of_the_fingerprint_stand_above_the_users() -> None:
    found = arguments({"labels": {"a": "1", "b": "2"}}, {"b": "3", "c": "4"})
    assert found == ["--label", "a=1", "--label", "b=3", "--label", "c=4"]


def test_the_task_is_not_changed() -> None:
    params = {"labels": {"a": "1"}, "tags": ["x"]}
    arguments(params, {"b": "2"})
    assert params == {"labels": {"a": "1"}, "tags": ["x"]}


PUSH, LOAD = "type=image,push=true", "type=docker"
REWRITE = ",rewrite-timestamp=true"


@pytest.mark.parametrize(
    ("params", "docker", "other"),
    [
        ({}, [LOAD], [LOAD]),
        ({"load": False}, [], []),
        ({"load": True}, [LOAD], [LOAD]),
        ({"push": True}, [PUSH], [PUSH]),
        # The Engine's own builder keeps what it pushes.
        ({"push": True, "load": True}, [PUSH], [PUSH, LOAD]),
        ({"push": True, "load": False}, [PUSH], [PUSH]),
        ({"store": "/s"}, [], []),
        ({"store": "/s", "load": True}, [LOAD], [LOAD]),
        ({"outputs": ["type=local,dest=/x"]}, ["type=local,dest=/x"], ["type=local,dest=/x"]),
        ({"outputs": ["a", "b"], "push": True}, [PUSH, "a", "b"], [PUSH, "a", "b"]),
        ({"source_date_epoch": 0}, [LOAD], [LOAD + REWRITE]),
        ({"source_date_epoch": 7, "push": True, "load": True}, [PUSH],
         [PUSH + REWRITE, LOAD + REWRITE]),
    ],
)  # fmt: skip
def test_where_the_result_goes(params: dict[str, Any], docker: list[str], other: list[str]) -> None:
    for driver, wanted in (("docker", docker), ("docker-container", other), ("remote", other)):
        found = outputs(params, driver)
        assert found[::2] == ["--output"] * len(wanted) and found[1::2] == wanted


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({}, True),
        ({"load": None, "push": False, "store": None, "outputs": None}, True),
        ({"push": True}, False),
        ({"store": "/s"}, False),
        ({"outputs": ["x"]}, False),
        ({"push": True, "load": True}, True),
        ({"load": False}, False),
    ],
)
def test_whether_the_engine_gets_it(params: dict[str, Any], wanted: bool) -> None:
    assert wants_load(params) is wanted


def test_times_are_rewritten_on_the_way_out_only() -> None:
    assert rewrites_times({"source_date_epoch": 0}, "kubernetes")
    assert not rewrites_times({"source_date_epoch": 0}, "docker")
    assert not rewrites_times({"source_date_epoch": None}, "remote")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(True, "true"), (False, "false"), (1, "1"), (1.5, "1.5"), ("True", "True")],
)
def test_values(value: Any, wanted: str) -> None:
    assert text(value) == wanted and texts({1: value}) == {"1": wanted}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"id": "a", "src": "/b"}, "id=a,src=/b"),
        ({"id": "a,b"}, '"id=a,b"'),
        ({"id": 'a"b', "env": "C"}, '"id=a""b",env=C'),
        ({"src": "/a b=c"}, "src=/a b=c"),
        ({"src": "/a\nb"}, '"src=/a\nb"'),
        ({}, ""),
    ],
)
def test_fields_in_one_argument(fields: dict[str, str], wanted: str) -> None:
    assert csv(fields) == wanted


@given(st.dictionaries(st.sampled_from(["id", "src"]), st.text('ab,"= ', max_size=6), min_size=1))
def test_fields_are_read_as_they_were(fields: dict[str, str]) -> None:
    (row,) = reader.reader([csv(fields)], strict=True)
    assert row == [f"{name}={value}" for name, value in fields.items()]
