# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patterns of .dockerignore: as documented, and as moby/patternmatcher reads them."""

from __future__ import annotations

import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.images.plugins.module_utils._dockerignore import (
    Ignore,
    InvalidPattern,
    parse,
)


def left_out(text: str, *paths: str) -> list[str]:
    ignore = parse(text)
    return [path for path in paths if ignore.leaves_out(path)]


@pytest.mark.parametrize(
    ("pattern", "out", "stays"),
    [
        # The examples of docs.docker.com/build/concepts/context.
        ("*/temp*", ["a/temporary.txt", "a/temp", "a/temp/x"], ["temp", "a/b/temp"]),
        ("*/*/temp*", ["a/b/temporary.txt"], ["a/temp", "a/b/c/temp"]),
        ("temp?", ["tempa", "tempb/x"], ["temp", "tempab", "a/tempa"]),
        ("**/*.go", ["x.go", "a/x.go", "a/b/x.go"], ["x.goo", "x.go.txt"]),
        # A name means the one at the top, and all that lies in it.
        ("a", ["a", "a/b", "a/b/c"], ["b/a", "ab", "A"]),
        ("a/b", ["a/b", "a/b/c"], ["a", "b", "a/bc", "c/a/b"]),
        ("/a", ["a", "a/b"], ["b/a"]),
        ("//a", ["a"], ["b/a"]),
        ("a/", ["a", "a/b"], ["ab"]),
        ("./a", ["a"], ["b/a"]),
        ("a/./b/../c", ["a/c"], ["a/b", "c"]),
        ("../a", [], ["a", "b/a"]),
        (".", [], ["a", ".a"]),
        ("/", [], ["a"]),
        ("*", ["a", ".a", "a/b"], []),
        # Two stars stand for any directories, none among them.
        ("**", ["a", "a/b"], []),
        ("**/a", ["a", "b/a", "c/b/a", "b/a/x"], ["ba", "b/ca"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a", "ab", "a/xb"]),
        ("**/a/**", ["a/b", "x/a/b"], ["a", "xa/b"]),
        ("**/node_modules", ["node_modules/x", "a/node_modules/b/c"], ["a/node_modules2"]),
        # Without a slash after them: the end of a path, its beginning, or whole directories.
        ("**a", ["a", "xa", "y/xa", "xa/b"], ["ab"]),
        ("**.txt", ["x.txt", "y/x.txt"], ["x.txtt"]),
        ("a**", ["a", "ab", "a/b"], ["ba"]),
        ("a**b", ["ab", "ax/b", "a/x/b"], ["axb"]),
        ("**a?", ["ab", "x/ab"], ["xab"]),
        # Classes of characters.
        ("[ab].txt", ["a.txt", "b.txt"], ["c.txt", "ab.txt"]),
        ("[a-c]", ["a", "b", "c"], ["d"]),
        ("[^a]", ["b", "^"], ["a", "bb"]),
        ("[^a-c]x", ["dx"], ["ax", "cx"]),
        ("[!a]", ["a", "!"], ["b"]),
        ("x[.+(|{$&]y", ["x.y", "x|y", "x&y"], ["xay"]),
        (r"[\]]", ["]"], ["a"]),
        (r"[\-a]", ["-", "a"], ["b"]),
        (r"[a\]b]c", ["ac", "]c", "bc"], ["c"]),
        (r"[\^a]", ["^", "a"], ["b"]),
        ("[[]", ["["], ["]"]),
        ("a]", ["a]"], ["a"]),
        # Escapes, and signs that mean nothing here.
        (r"\*", ["*"], ["a"]),
        (r"\!a", ["!a"], ["a"]),
        (r"a\b", ["ab"], [r"a\b"]),
        ("a.b+(c)|{d}$", ["a.b+(c)|{d}$"], ["aXb+(c)|{d}$"]),
        ("mit leer", ["mit leer", "mit leer/a"], ["mit"]),
        ("größe?", ["größen"], ["größe"]),
    ],
)
def test_what_a_pattern_leaves_out(pattern: str, out: list[str], stays: list[str]) -> None:
    assert left_out(pattern, *out, *stays) == out
    # And what takes back takes back the same.
    assert left_out(f"**\n!{pattern}", *out, *stays) == stays


@pytest.mark.parametrize(
    ("text", "out", "stays"),
    [
        ("*.md\n!README.md", ["a.md"], ["README.md"]),
        # The last one that matches decides.
        ("*.md\n!README*.md\nREADME-secret.md", ["a.md", "README-secret.md"], ["README-x.md"]),
        ("*.md\nREADME-secret.md\n!README*.md", ["a.md"], ["README-secret.md"]),
        ("!a\na", ["a"], []),
        ("a\n!a/b", ["a", "a/c"], ["a/b", "a/b/c"]),
        ("a\n!a/b\na/b/c", ["a", "a/b/c", "a/b/c/d"], ["a/b", "a/b/d"]),
        ("*\n!src\n**/node_modules", ["x", "src/node_modules/y"], ["src", "src/a"]),
        ("! a\n", [], ["a"]),
        ("a\n! /a", [], ["a"]),
        ("!!a", [], ["a", "!a"]),
        ("**\n!!a", ["a"], ["!a"]),
        # A pattern that changes nothing for a directory says nothing of what lies in it (tried with
        # buildx 0.29).
        ("x*\n!xa/k\nxa", ["xa", "xa/j", "xb/k"], ["xa/k"]),
        ("x*\n!xa/k\nxa\nxa/k", ["xa", "xa/k"], []),
    ],
)
def test_the_order_of_patterns(text: str, out: list[str], stays: list[str]) -> None:
    assert left_out(text, *out, *stays) == out


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("# a\nb", ["b"]),
        (" # a\n", ["# a"]),
        ("\n  \nb\n\n", ["b"]),
        ("  b\t \r\nc\r\n", ["b", "c"]),
        ("\ufeffb\n", ["b"]),
        ("\ufeff# b\n", []),
        ("b#c", ["b#c"]),
        ("b\x0cc\u2028d", ["b\x0cc\u2028d"]),
        ("", []),
    ],
)
def test_lines(text: str, out: list[str]) -> None:
    assert left_out(text, "a", "b", "c", "# a", "b#c", "b\x0cc\u2028d") == out


@pytest.mark.parametrize(
    "line", ["!", "! ", "[", "a[b", "[]", "[]a]", "[^]", "[a-]", "[-a]", "[z-a]", "a\\", "x\\"]
)
def test_no_pattern(line: str) -> None:
    with pytest.raises(InvalidPattern, match=re.escape(repr(line.strip()))):
        parse(f"good\n{line}\n")


@pytest.mark.parametrize(
    ("text", "maybe", "never"),
    [
        ("a", [], ["a", "b"]),
        ("*\n!a/b/c", ["a", "a/b", "a/b/c", "a/b/c/d"], ["b", "a/c", "a/bb", "ab"]),
        ("*\n!a/*.py\n!/d", ["a", "a/x", "d"], ["b"]),
        ("*\n!**/keep", ["a", "a/b"], []),
        ("*\n!*.py", ["a"], []),
        ("*\n!a/b\\*", ["a", "a/b"], ["b"]),
    ],
)
def test_where_something_may_be_taken_back(text: str, maybe: list[str], never: list[str]) -> None:
    ignore = parse(text)
    assert [path for path in (*maybe, *never) if ignore.takes_back(path)] == maybe


NAMES = st.lists(st.sampled_from(["a", "b", "ab", "*", "**", "?", "[ab]"]), min_size=1, max_size=3)
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "c"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.booleans(), NAMES), max_size=4), PATHS)
def test_nothing_is_taken_back_where_nothing_may_be(
    patterns: list[tuple[bool, list[str]]], parts: list[str]
) -> None:
    ignore = parse("\n".join("!" * back + "/".join(names) for back, names in patterns))
    above = ["/".join(parts[:number]) for number in range(1, len(parts))]
    closed = [one for one in above if ignore.leaves_out(one) and not ignore.takes_back(one)]
    assert not closed or ignore.leaves_out("/".join(parts))


@given(st.text("ab*?[]^!\\/-.#& \n", max_size=12))
def test_any_text_is_a_list_of_patterns_or_refused(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert isinstance(parse(text).leaves_out("a/b"), bool)
        except InvalidPattern as error:
            assert "correct it" in str(error) or "write a pattern" in str(error)


def test_without_patterns_everything_goes_in() -> None:
    assert not Ignore().leaves_out("a") and not Ignore().takes_back("a")
