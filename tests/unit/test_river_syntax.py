# SPDX-License-Identifier: Apache-2.0
"""River's lexer and parser: what is a statement, and what is said about what is none."""

from __future__ import annotations

import pytest

from otelauto.agent.check import check
from otelauto.agent.river import ast
from otelauto.agent.river.covering import shown
from otelauto.agent.river.diagnostics import RiverError, Source
from otelauto.agent.river.lexer import Kind, Lexer, is_identifier, quote, unquote
from otelauto.agent.river.parser import MAX_DEPTH, parse_expression, parse_file
from otelauto.agent.river.printer import expression_text, formatted


def outline(body):
    """The statements as text: ``a=1``, ``b.c "l"{a=1;d{}}``."""
    found = []
    for statement in body:
        if isinstance(statement, ast.Block):
            label = f' "{statement.label}"' if statement.label else ""
            found.append(f"{statement.name}{label}{{{outline(statement.body)}}}")
        else:
            found.append(f"{statement.name.text}={expression_text(statement.value)}")
    return ";".join(found)


def errors(text):
    with pytest.raises(RiverError) as caught:
        parse_file(Source("f", text))
    return [str(one).removeprefix("f:") for one in caught.value.diagnostics]


VALID = [
    ("", ""),
    ("\n\n// only\n/* comments */\n", ""),
    ("\ufeffa = 1", "a=1"),
    ("a = 1\r\nb = 2\r\n", "a=1;b=2"),
    ("a = 1\n\n\nb = 2", "a=1;b=2"),
    ("a = 1 +\n 2", "a=1 + 2"),
    ("a = 1 /* x */ + 2", "a=1 + 2"),
    ("a = 1 // b = 2\nc = 3", "a=1;c=3"),
    ("a = 1 /* x\n */ b = 2", "a=1;b=2"),
    ("a = 1 /* x */ /* y\n */ b = 2", "a=1;b=2"),
    ("a = [\n1,\n2,\n]", "a=[1, 2]"),
    ("a = [1, 2,]", "a=[1, 2]"),
    ("a = []\nb = {}\nc = f()", "a=[];b={};c=f()"),
    ('a = { b = 1, "c d" = 2 }', "a={ b = 1, c d = 2 }"),
    ("a = {\n\tb = 1,\n\tc = [\n\t],\n}", "a={ b = 1, c = [] }"),
    ("a = f(\n\t1,\n\t2,\n)", "a=f(1, 2)"),
    ("a = f(1,)", "a=f(1)"),
    ("grpc {}", "grpc{}"),
    ("grpc { }\nhttp {\n}", "grpc{};http{}"),
    ("a { b = 1 }", "a{b=1}"),
    ("a { b { c = 1 } }", "a{b{c=1}}"),
    ('a.b.c "label" { d = 1 }', 'a.b.c "label"{d=1}'),
    ('a "" { }', "a{}"),
    ('a "_x1" { }', 'a "_x1"{}'),
    ("é = 1", "é=1"),
    ('a = b.c.d[0].e(1)["x"]', 'a=b.c.d[0].e(1)["x"]'),
    ("a = 1 . b", "a=1.b"),
    ("a = -1 ^ -2", "a=-1 ^ -2"),
    ("a = !!true && !false", "a=!!true && !false"),
    ("a = `x\ny`", "a=`x\ny`"),
    ("a = null\nb = true\nc = false", "a=null;b=true;c=false"),
    ("a = 1.\nb = .5\nc = 1e+3\nd = 1.5E-3", "a=1.;b=.5;c=1e+3;d=1.5E-3"),
    ("a = ((1))", "a=((1))"),
    ('a = ""', 'a=""'),
    ("nulls = 1\ntruex = 2", "nulls=1;truex=2"),
]


@pytest.mark.parametrize(("text", "expected"), VALID)
def test_what_is_right_is_read(text, expected):
    assert outline(parse_file(Source("f", text)).body) == expected


BROKEN = [
    ("a", ["1:2: expected attribute assignment or block body, got TERMINATOR"]),
    ("a =", ["1:4: expected expression, got EOF"]),
    ("a = \n", ["2:1: expected expression, got EOF"]),
    ("= 1", ["1:1: expected identifier, got ="]),
    ("true = 1", ["1:1: expected identifier, got BOOL"]),
    ("null = 1", ["1:1: expected identifier, got NULL"]),
    ("1 = 1", ["1:1: expected identifier, got NUMBER"]),
    ("a = 1 b = 2", ["1:7: expected TERMINATOR, got IDENT"]),
    ("a = 1\n+ 2", ["2:1: expected identifier, got +"]),
    ("a = 1, b = 2", ["1:6: expected TERMINATOR, got ,"]),
    ("a { b = 1, c = 2 }", ["1:10: expected TERMINATOR, got ,"]),
    ("a { b = 1 c = 2 }", ["1:11: expected TERMINATOR, got IDENT"]),
    ("a = [1\n2]", ["1:7: missing ',' in expression list"]),
    ("a = [1\n]", ["1:7: missing ',' in expression list"]),
    ("a = [1 2]", ["1:8: missing ',' in expression list"]),
    ("a = [1, 2", ["1:10: missing ',' in expression list"]),
    ("a = f(1\n)", ["1:8: missing ',' in expression list"]),
    ("a = { b = 1\n}", ["1:12: missing ',' in field list"]),
    ("a = { b = 1 c = 2 }", ["1:13: missing ',' in field list"]),
    ("a = { 1 = 2 }", ["1:7: expected field name (string or identifier), got NUMBER"]),
    ("a = { b }", ["1:9: expected =, got }"]),
    ("a = { b = 1", ["1:12: missing ',' in field list"]),
    ("a = (1 + 2", ["1:11: expected ), got TERMINATOR"]),
    ("a = 1 +", ["1:8: expected expression, got EOF"]),
    ("a = * 2", ["1:5: expected expression, got *"]),
    ("a = b.", ["1:7: expected IDENT, got EOF"]),
    ("a = b.1", ["1:6: expected TERMINATOR, got FLOAT"]),
    ("a = b[", ["1:7: expected expression, got EOF"]),
    ("a = b[0", ["1:8: expected ], got TERMINATOR"]),
    ("a.b = 1", ['1:1: attribute names may only consist of a single identifier with no "."']),
    ('a "b" = 1', ["1:3: attribute names may not have labels"]),
    ('a "x y" { }', ['1:3: expected block label to be a valid identifier, but got "x y"']),
    ('a "1x" { }', ['1:3: expected block label to be a valid identifier, but got "1x"']),
    ("a `b` { }", ["1:3: expected block label to be a double quoted string, but got `b`"]),
    ("a. { }", ["1:4: expected identifier, got {"]),
    ('a.b "c"', ["1:8: expected block body, got TERMINATOR"]),
    ("a {", ["1:4: expected }, got EOF"]),
    ("a { b = 1", ["1:10: expected }, got EOF"]),
    ("}", ["1:1: expected identifier, got }"]),
    ("a = b { c = 1 }", ["1:5: cannot use a block as an expression"]),
    ('a = b "l" { c = 1 }', ["1:5: cannot use a block as an expression"]),
    ('a = "x', ["1:5: string literal not terminated"]),
    ('a = "x\ny"', ["1:5: string literal not terminated", "2:2: string literal not terminated",
                    "2:3: expected block body, got TERMINATOR"]),
    ("a = `x", ["1:5: string literal not terminated"]),
    ('a = "\\q"', ["1:7: unknown escape sequence"]),
    ("a = \"\\'\"", ["1:7: unknown escape sequence"]),
    ('a = "\\400"', ["1:7: escape sequence is invalid Unicode code point"]),
    ('a = "\\ud800"', ["1:7: escape sequence is invalid Unicode code point"]),
    ('a = "\\xzz"', ["1:7: illegal character U+007A in escape sequence"]),
    ('a = "\\', ["1:5: string literal not terminated", "1:7: escape sequence not terminated"]),
    ("a = 'x'", ["1:5: illegal single-quoted string; use double quotes",
                 "1:5: expected expression, got ILLEGAL"]),
    ("# x", ["1:1: illegal character U+0023 '#'", "1:1: expected identifier, got ILLEGAL"]),
    ("a = 1; b = 2", ["1:6: illegal character U+003B ';'",
                      "1:6: expected TERMINATOR, got ILLEGAL"]),
    ("a = b ? 1 : 2", ["1:7: illegal character U+003F '?'",
                       "1:7: expected TERMINATOR, got ILLEGAL",
                       "1:11: illegal character U+003A ':'"]),
    ("a = b | c", ["1:8: missing second | in ||"]),
    ("a = b & c", ["1:8: missing second & in &&"]),
    ("a = 1e", ["1:5: exponent has no digits"]),
    ("a = 0x10", ["1:6: expected TERMINATOR, got IDENT"]),
    ("/* x", ["1:1: block comment not terminated"]),
    ("a = 1 // \0", ["1:10: illegal character NUL"]),
    ("a = \0", ["1:5: illegal character NUL", "1:5: expected expression, got ILLEGAL"]),
    ("a = \ufeff1", ["1:5: illegal byte order mark", "1:5: expected expression, got ILLEGAL"]),
    ("a = 1\nb = \nc = 2\nd 3\ne = 4\nf = )", [
        "3:3: expected TERMINATOR, got =",
        "4:3: expected attribute assignment or block body, got NUMBER",
        "6:5: expected expression, got )"]),
    ("a {\n  b = [1 2]\n  c = 1 1\n}\nd = =", [
        "2:10: missing ',' in expression list", "3:9: expected TERMINATOR, got NUMBER",
        "5:5: expected expression, got ="]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BROKEN)
def test_what_is_wrong_is_told(text, expected):
    assert errors(text) == expected


def test_bytes_that_are_no_utf8_are_told():
    with pytest.raises(RiverError) as caught:
        parse_file(Source.decode("f", b'a = "\xff"\nb = \xc3\n'))
    assert [str(one) for one in caught.value.diagnostics] == [
        "f:1:6: illegal UTF-8 encoding",
        "f:2:5: illegal UTF-8 encoding",
        "f:2:5: expected expression, got ILLEGAL",
    ]


@pytest.mark.parametrize("opening", ["[", "(", "{a=", "-", "!", "f(", "f[", "1^", "a{", "a.a{"])
def test_no_depth_exhausts_the_stack(opening):
    for text in (opening * (MAX_DEPTH + 5), f"x = {opening * 10_000}"):
        assert errors(text)


LEVEL = "[1 || 1 && 1 == 1 + 1 * "  # operators of every precedence: most calls for one level


def test_the_greatest_depth_fits_the_stack():
    depth = MAX_DEPTH - 5
    deep = LEVEL * depth + "1" + "]" * depth
    found = []
    for text in (f"a {{\n x = {deep}\n}}", f"logging {{\n level = -({deep})\n}}"):
        parse_file(Source("f", text))
        formatted(Source("f", text))
        with pytest.raises(RiverError) as caught:
            check([Source("f", text)], {})
        found.append(str(caught.value.diagnostics[0]))
    assert found[0].startswith("f:1:1: cannot find")
    assert "should be" in found[1]
    assert expression_text(parse_expression(Source("f", "-" * 9 + "1"))) == "-" * 8 + "..."


@pytest.mark.parametrize("step", [".a", "[0]", "()"])
def test_a_long_chain_is_refused(step):
    parse_file(Source("f", "x = a" + step * (MAX_DEPTH - 5)))
    assert "levels in one another" in errors("x = a" + step * 5000)[0]


def test_a_long_sum_is_no_deep_tree():
    text = " + ".join(['"a"'] * 5000)
    expr = parse_expression(Source("f", text))
    assert len(expr.rest) == 4999


def test_positions_count_characters():
    assert errors('é = "ü" ü')[0].startswith("1:9:")


def test_a_keyword_is_an_identifier_of_the_lexer():
    assert [is_identifier(text) for text in ("a", "_1", "é", "1a", "", "a-b", "a.b", "²")] == [
        True, True, True, False, False, False, False, False,
    ]  # fmt: skip


def test_the_terminator_of_the_end_of_the_file():
    kinds = [token.kind for token in Lexer(Source("f", "a")).tokens()]
    assert kinds == [Kind.IDENT, Kind.TERMINATOR, Kind.EOF]
    assert [token.kind for token in Lexer(Source("f", "+")).tokens()] == [Kind.ADD, Kind.EOF]


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        (r'"\a\b\f\n\r\t\v\\\""', '\a\b\f\n\r\t\v\\"'),
        (r'"\xc3\xa9"', "é"),
        (r'"\303\251"', "é"),
        (r'"\U0001F600"', "😀"),
        (r'"\xff"', "\udcff"),
        ("`a\r\nb\\n`", "a\nb\\n"),
    ],
)
def test_strings_stand_for_their_bytes(literal, value):
    assert unquote(literal) == value
    assert unquote(quote(value)) == value


def test_an_error_is_shown_with_its_line_and_a_mark():
    with pytest.raises(RiverError) as caught:
        parse_file(Source("dir/f.river", "a = 1\n\tb = [1 2] // x\n"))
    assert shown(caught.value.diagnostics).splitlines() == [
        "dir/f.river:2:9: missing ',' in expression list",
        "     b = [1 2] // x",
        "            ^",
    ]


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ('password = "hunter2" 1', "hunter2"),
        ('client_secret = "a" + `hunter2` 1', "hunter2"),
        ("bearer_token = (12345678 1", "12345678"),
        ('password =\n "hunter2" 1', "hunter2"),
        ('headers = { "X-API-Key" = "hunter2", b = "seen" } 1', "hunter2"),
        ('headers = { authorization = f(["hunter2"]) } 1', "hunter2"),
        ('url = "https://user:hunter2@host/path" 1', "hunter2"),
    ],
)
def test_an_error_shows_no_secret(line, hidden):
    with pytest.raises(RiverError) as caught:
        parse_file(Source("f", line))
    text = shown(caught.value.diagnostics)
    assert hidden not in text
    assert "*" in text
    assert ("seen" in line) == ("seen" in text)


def test_the_name_of_a_variable_is_no_secret():
    with pytest.raises(RiverError) as caught:
        parse_file(Source("f", 'password = env("GRAFANA_API_KEY") 1'))
    assert 'env("GRAFANA_API_KEY")' in shown(caught.value.diagnostics)
