# SPDX-License-Identifier: Apache-2.0
"""The standard form of a River file: what it looks like, and that it changes white space only."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.river import comments

from otelauto.agent.river import ast
from otelauto.agent.river.diagnostics import RiverError, Source
from otelauto.agent.river.lexer import quote
from otelauto.agent.river.parser import parse_file
from otelauto.agent.river.printer import formatted

FORMS = [
    ("", ""),
    ("\n\n", ""),
    ("a=1", "a = 1\n"),
    ("\n\na=1\n\n\n\nb=2\n\n", "a = 1\n\nb = 2\n"),
    ("a=1\nlong = 2\n\nb=3", "a    = 1\nlong = 2\n\nb = 3\n"),
    ("a=1\n// c\nlong=2", "a = 1\n// c\nlong = 2\n"),
    ("a=[\n1]\nlong=2", "a = [\n\t1]\nlong = 2\n"),
    ("a=1 // c\nlong=2", "a    = 1 // c\nlong = 2\n"),
    ("a{}", "a { }\n"),
    ("a{\n\n}", "a { }\n"),
    ("a{b=1}", "a {\n\tb = 1\n}\n"),
    ("a{b=1\nlong=2}", "a {\n\tb    = 1\n\tlong = 2\n}\n"),
    ("a{b{c=1}\nd=2}", "a {\n\tb {\n\t\tc = 1\n\t}\n\td = 2\n}\n"),
    ('a.b   .c  "d"{}', 'a.b.c "d" { }\n'),
    ("a{ // c\n}", "a { // c\n}\n"),
    ("a{\n// c\n}", "a {\n\t// c\n}\n"),
    ("a{/* c */}", "a { /* c */\n}\n"),
    ("/* c */ a=1", "/* c */\na = 1\n"),
    ("a=1 /* c */", "a = 1 /* c */\n"),
    ("a = 1 /* x\ny */ b = 2", "a = 1 /* x\ny */\nb = 2\n"),
    ("a=[1,2 ,3]", "a = [1, 2, 3]\n"),
    ("a=[ 1 , [ ] , { } ]", "a = [1, [], {}]\n"),
    ('a={b=1,"c d"=2}', 'a = { b = 1, "c d" = 2 }\n'),
    ("a={\nb=1,\nlong=2,\n}", "a = {\n\tb    = 1,\n\tlong = 2,\n}\n"),
    ("a=f([{\nb=1,\n}])", "a = f([{\n\tb = 1,\n}])\n"),
    ("a=1+\n2", "a = 1 +\n\t2\n"),
    ("a{b=1+ // c\n2}", "a {\n\tb = 1 + // c\n\t\t2\n}\n"),
    ("a=-1- -2*!b", "a = -1 - -2 * !b\n"),
    ("a=(1+2)^3", "a = (1 + 2) ^ 3\n"),
    ("a=f (1) [2] . b", "a = f(1)[2].b\n"),
    ("a=1 .b", "a = 1 .b\n"),
    ("a=`x\n  y`\nlong=1", "a = `x\n  y`\nlong = 1\n"),
    ("a=1\r\nb{\r\n}\r\n// c\r\n", "a = 1\nb { }\n// c\n"),
    ("\ufeffa=1", "a = 1\n"),
    ("a = 1   // c   \n", "a = 1 // c\n"),
]


@pytest.mark.parametrize(("text", "expected"), FORMS)
def test_the_standard_form(text, expected):
    assert formatted(Source("f", text)) == expected
    assert formatted(Source("f", expected)) == expected


def test_what_is_no_river_is_not_formatted():
    with pytest.raises(RiverError):
        formatted(Source("f", "a = ["))


def meaning(node):
    """A syntax tree without its positions."""
    match node:
        case tuple() | list():
            return [meaning(each) for each in node]
        case ast.Name():
            return node.text
        case str() | None:
            return node
    names = [name for name in node.__slots__ if name != "position"]
    return [type(node).__name__, *(meaning(getattr(node, name)) for name in names)]


BLANKS = st.sampled_from(["", " ", "  ", "\t", " /* c */ ", "\r"])
BREAKS = st.sampled_from(
    ["", " ", "\n", "\n\n\n", " // c\n", "\n// c\n", "/* c\n d */", " /* c */ "]
)
ENDS = st.sampled_from(
    ["\n", "\n\n\n", " // c\n", "\n\n// c\n\n", " /* c */\n", " /* c\n d */ ", "\r\n"]
)
NAMES = st.sampled_from(["a", "long_name", "é", "b1"])
STRINGS = st.one_of(st.text(max_size=5).map(quote), st.sampled_from(["`x\n y`", "`//`", '"/*"']))
LITERALS = st.one_of(STRINGS, st.sampled_from(["1", "010", "1.5", ".5", "1e3", "true", "null"]))
OPERATORS = st.sampled_from(["+", "-", "*", "/", "%", "^", "==", "!=", "<", ">=", "||", "&&"])


def _lists(expr, opening, closing):
    element = st.tuples(BREAKS, expr, BLANKS).map("".join)
    return st.tuples(st.lists(element, max_size=3), st.booleans(), BREAKS).map(
        lambda parts: (
            opening
            + ",".join(parts[0])
            + ("," + parts[2] if parts[0] and parts[1] else "")
            + closing
        )
    )


def _fields(expr):
    name = st.one_of(NAMES, st.just('"x y"'))
    field = st.tuples(name, BLANKS, st.just("="), BREAKS, expr).map("".join)
    return _lists(field, "{", "}")


def _larger(expr):
    return st.one_of(
        st.tuples(st.just("("), BREAKS, expr, BLANKS, st.just(")")).map("".join),
        _lists(expr, "[", "]"),
        _fields(expr),
        st.tuples(st.sampled_from(["-", "!", "- "]), expr).map("".join),
        st.tuples(expr, BLANKS, OPERATORS, BREAKS, expr).map("".join),
        st.tuples(NAMES, BLANKS, _lists(expr, "(", ")")).map("".join),
        st.tuples(NAMES, BLANKS, st.just("."), BREAKS, NAMES).map("".join),
        st.tuples(NAMES, BLANKS, st.just("["), BREAKS, expr, st.just("]")).map("".join),
        st.just("1 .a"),
    )


EXPRESSIONS = st.recursive(st.one_of(LITERALS, NAMES), _larger, max_leaves=6)
ATTRIBUTES = st.tuples(NAMES, BLANKS, st.just("="), BREAKS, EXPRESSIONS).map("".join)


def _bodies(statement):
    return st.tuples(
        st.lists(st.tuples(BREAKS, statement, ENDS).map("".join), max_size=4), BREAKS
    ).map(lambda parts: "".join(parts[0]) + parts[1])


def _blocks(statement):
    head = st.sampled_from(["a", "a.b", 'a.b "c"', 'long "d"'])
    return st.tuples(head, BLANKS, st.just("{"), _bodies(statement), st.just("}")).map("".join)


FILES = _bodies(
    st.recursive(ATTRIBUTES, lambda inner: st.one_of(inner, _blocks(inner)), max_leaves=5)
)


def test_meaning_and_comments_stay():
    read = []

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(FILES)
    def holds(text):
        try:
            file = parse_file(Source("f", text))
        except RiverError:
            return  # such as a newline where it ends a statement
        read.append(text)
        found = formatted(Source("f", text))
        again = parse_file(Source("f", found))
        assert meaning(again.body) == meaning(file.body)
        assert comments(again) == comments(file)
        assert formatted(Source("f", found)) == found

    holds()
    assert len(set(read)) > 50, "too little of what is tried is River"


def test_a_lost_comment_would_be_found():
    file = parse_file(Source("f", "a = 1 // c\n/* d */"))
    assert comments(file) == ["// c", "/* d */"]
    assert meaning(file.body) == [["Attribute", "a", ["Literal", "NUMBER", "1"]]]
    assert meaning(file.body) != meaning(parse_file(Source("f", "a = 2")).body)
