# SPDX-License-Identifier: Apache-2.0
"""Relabelling: every action, regular expressions as Go reads them, and what is refused."""

from __future__ import annotations

import hashlib

import pytest
from tests.unit.prometheus_parts import content_of, labels

from otelauto.agent.prometheus.relabel import anchored, expanded, relabelled, rule_of
from otelauto.errors import ConfigError

SERIES = labels("m", a="foo", b="bar", c="baz", d="")


def rules(text: str):
    blocks = "".join(f"write_relabel_config {{\n{each}\n}}\n" for each in text.split("---"))
    endpoint = f'endpoint {{\n url = "http://h/"\n{blocks}}}'
    content = content_of(f'prometheus.remote_write "x" {{\n{endpoint}\n}}')
    return [rule_of(b) for b in content.blocks["endpoint"][0].blocks["write_relabel_config"]]


def applied(text: str) -> dict[str, str] | None:
    found = relabelled(SERIES, rules(text))
    return dict(found) if found is not None else None


BASE = dict(labels("m", a="foo", b="bar", c="baz"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('source_labels = ["a"]\nregex = "f(.*)"\ntarget_label = "d"\nreplacement = "ch$1-ch${1}"',
         {**BASE, "d": "choo-choo"}),
        (('source_labels = ["a", "b"]\nregex = "f(.*);(.*)r"\ntarget_label = "a"\n'
          'replacement = "b${1}${2}m"'), {**BASE, "a": "boobam"}),
        ('source_labels = ["a"]\nregex = "oo"\ntarget_label = "d"\nreplacement = "x"', BASE),
        ('source_labels = ["a"]\nregex = "f.*"\ntarget_label = "a"\nreplacement = ""',
         {k: v for k, v in BASE.items() if k != "a"}),
        ('target_label = "env"\nreplacement = "prod"', {**BASE, "env": "prod"}),
        ('source_labels = ["a"]\ntarget_label = "x_$1"\nreplacement = "y"', {**BASE, "x_foo": "y"}),
        ('source_labels = ["a"]\nregex = "(?P<n>f).*"\ntarget_label = "d"\nreplacement = "${n}$n"',
         {**BASE, "d": "ff"}),
        ('source_labels = ["a"]\ntarget_label = "d"\nreplacement = "$1x$$$9"', {**BASE, "d": "$"}),
        ('source_labels = ["a"]\nregex = "foo"\naction = "drop"', None),
        ('source_labels = ["a"]\nregex = "fo"\naction = "drop"', BASE),
        ('source_labels = ["a"]\nregex = "foo|x"\naction = "keep"', BASE),
        ('source_labels = ["missing"]\nregex = "foo"\naction = "keep"', None),
        ('source_labels = ["missing"]\nregex = ""\naction = "keep"', BASE),
        ('source_labels = ["a", "b"]\nseparator = "-"\nregex = "foo-bar"\naction = "drop"', None),
        ('source_labels = ["a"]\ntarget_label = "b"\naction = "keepequal"', None),
        ('source_labels = ["a"]\ntarget_label = "b"\naction = "dropequal"', BASE),
        ('source_labels = ["a"]\ntarget_label = "d"\naction = "uppercase"', {**BASE, "d": "FOO"}),
        (('source_labels = ["a"]\ntarget_label = "d"\naction = "uppercase"\n---\n'
          'source_labels = ["d"]\ntarget_label = "d"\naction = "lowercase"'), {**BASE, "d": "foo"}),
        ('regex = "(b|c)"\naction = "labeldrop"', dict(labels("m", a="foo"))),
        ('regex = "__name__|c"\naction = "labelkeep"', dict(labels("m", c="baz"))),
        ('regex = "([ab])"\nreplacement = "bar_$1"\naction = "labelmap"',
         {**BASE, "bar_a": "foo", "bar_b": "bar"}),
        ('regex = ".*"\naction = "labeldrop"', None),
        ('source_labels = ["c"]\ntarget_label = "d"\nmodulus = 1000\naction = "hashmod"',
         {**BASE, "d": str(int(hashlib.md5(b"baz").hexdigest()[16:], 16) % 1000)}),
    ],
)  # fmt: skip
def test_actions(text: str, expected: dict[str, str] | None) -> None:
    assert applied(text) == expected


def test_hashmod_is_that_of_prometheus() -> None:
    """From Prometheus's own test: "foo\\nbar" and the like; 976 for "baz" modulo 1000."""
    found = applied('source_labels = ["c"]\ntarget_label = "d"\nmodulus = 1000\naction = "hashmod"')
    assert found is not None
    assert found["d"] == "976"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('target_label = "d"\naction = "hashmod"', "modulus"),
        ('source_labels = ["a"]', "target_label"),
        ('action = "lowercase"', "target_label"),
        ('target_label = "0"', "no label name"),
        ('target_label = "$1"\naction = "uppercase"', "no label name"),
        ('replacement = "-"\naction = "labelmap"', "no label name"),
        ('source_labels = ["a"]\nregex = "x"\naction = "labeldrop"', "does not use source_labels"),
        ('target_label = "a"\nregex = "x"\naction = "keepequal"', "does not use regex"),
        ('regex = "("\ntarget_label = "a"', "regular expression"),
    ],
)
def test_a_bad_rule_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        rules(text)


@pytest.mark.parametrize(
    ("regex", "matching", "other"),
    [
        (r"[[:alpha:]]+\d", "ab1", "a\u00e91"),
        (r"(?i)FOO|bar", "BAR", "bars"),
        (r"x(?i:y)z", "xYz", "Xyz"),
        (r"((?i)a|b)c", "Bc", "BC"),
        (r"a.b", "a\nb", "ab"),
        (r"foo\z", "foo", "foo\n"),
        (r"[]a]+", "]a", "b"),
        (r"[^]a]+", "b", "]"),
        (r"[a&&b]+", "&a", "c"),
        (r"[\]x-]+", "]-x", "y"),
        (r"[+--]+", "+,-", "."),
        (r"[--/]+", "-./", "+"),
        (r"[a-c-]+", "b-", "d"),
        (r"[[:digit:]-x]+", "1-x", "y"),
        (r"a{2,3}", "aa", "a"),
        (r"(?<year>\d{4})", "2024", "24"),
        (r"\w+", "a_9", "\u00e9"),
        (r"a{,2}", "a{,2}", "aa"),
    ],
)
def test_expressions_are_those_of_go(regex: str, matching: str, other: str) -> None:
    pattern = anchored(regex)
    assert pattern.fullmatch(matching)
    assert not pattern.fullmatch(other)


@pytest.mark.parametrize(
    "regex",
    [r"(a)\1", r"(?=a)", r"(?!a)", r"(?<=a)b", r"(?<!a)b", r"(?P=x)", r"(?>a)", r"a*+", r"(?#c)",
     r"(?x)a", r"(?L)a", r"[a", r"a)", r"(a", r"\pL", r"x(?i)y", r"[[:^alpha:]]", "a" * 10_001,
     r"[a--b]", r"a{1001}", r"a{2,1001}"],
)  # fmt: skip
def test_what_go_does_not_have_is_refused(regex: str) -> None:
    with pytest.raises(ConfigError):
        anchored(regex)


def test_templates_are_expanded_as_in_go() -> None:
    match = anchored("(?P<one>a)(b)(c)?").fullmatch("ab")
    assert match is not None
    assert expanded(match, "$1-${2}-$3-$one-$1x-${1}x-$$-$0-$(") == "a-b--a--ax-$-ab-$("
