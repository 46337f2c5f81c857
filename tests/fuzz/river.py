# SPDX-License-Identifier: Apache-2.0
"""Configurations of the agent: whatever the bytes, they are refused in sentences or understood."""

from __future__ import annotations

from pathlib import Path

from otelauto.agent.check import check
from otelauto.agent.river import ast
from otelauto.agent.river.covering import covered, shown
from otelauto.agent.river.diagnostics import RiverError, Source
from otelauto.agent.river.evaluate import Evaluator
from otelauto.agent.river.lexer import Kind, quote, unquote
from otelauto.agent.river.parser import Parser, parse_expression, parse_file
from otelauto.agent.river.printer import formatted
from otelauto.agent.river.stdlib import library
from otelauto.agent.river.values import OptionalSecret, Secret

GOLDEN = Path(__file__).resolve().parent.parent / "unit" / "river_golden.txt"
SCOPE = {
    **library({"HOME": "/root"}),
    "sec": Secret("shh"),
    "osec": OptionalSecret("pub", False),
    "obj": {"a": 1, "b": [1, 2]},
}

FILES = (
    (
        b'otelcol.receiver.otlp "default" {\n  grpc {}\n  http {}\n  output {\n'
        b"    traces = [otelcol.processor.batch.default.input]\n  }\n}\n"
        b'otelcol.processor.batch "default" {\n  timeout = "1s" // soon\n  output { }\n}\n'
    ),
    b'otelcol.auth.basic "creds" {\n  username = env("USER")\n  password = "shh"\n}\n',
    b'prometheus.remote_write "m" {\n  endpoint {\n    url = "https://u:k/y@h/push"\n  }\n}\n',
    (
        b'local.file "a" { filename = local.file.b.content }\n'
        b'local.file "b" {\n\tfilename = local.file.a.content\n\tis_secret = true\n}\n'
    ),
    b"a /* x\n */ = `raw\r\n` /* y */ + [1, 2,\n // z\n][0] . b (1)[{ a = 1, }]\n",
    b"\xef\xbb\xbfx = -!-1 ^ 2 ^ 3 || a.b . c\ny = '\\'\nz = \"\\u00e9\\777\xff\"\n",
    b'logging {\n\tlevel = format("%[2]*.[1]*f %v", 1, 2, {})\n}\n',
)


def river(data: bytes) -> None:
    """A whole file: tokens are in their order, the standard form is one and keeps the comments."""
    source = Source.decode("f", data)
    parser = Parser(source)
    body = parser.file()
    tokens = parser.all_tokens
    assert tokens[-1].kind is Kind.EOF
    at = 0
    for token in tokens:
        assert token.position.offset >= at
        assert source.text[token.position.offset : token.end] == token.text
        at = token.end
    if parser.errors:
        assert len(covered(source)) == len(source.text)
        told(RiverError(parser.errors))
        return
    text = formatted(source)
    again = Source("f", text)
    assert formatted(again) == text
    file = ast.File(source, body, tuple(tokens))
    assert comments(parse_file(again)) == comments(file)


def agent_configuration(data: bytes) -> None:
    """A whole file, checked against what components take."""
    try:
        check([Source.decode("f", data)], {})
    except RiverError as refused:
        told(refused)


def expression(data: bytes) -> None:
    """One expression."""
    source = Source.decode("e", data)
    try:
        value = Evaluator(source, SCOPE)(parse_expression(source))
    except RiverError as refused:
        told(refused)
    else:
        assert "shh" not in repr(value) or "nonsensitive" in source.text or "shh" in source.text
        if isinstance(value, str):
            assert unquote(quote(value)) == value


def told(refused: RiverError) -> None:
    """What holds of every refusal."""
    assert refused.diagnostics
    for one in refused.diagnostics:
        lines = one.source.text.split("\n")
        assert one.message
        assert 1 <= one.position.line <= len(lines)
        assert 1 <= one.position.column <= len(lines[one.position.line - 1]) + 1
    assert shown(refused.diagnostics).encode()


def comments(file: ast.File) -> list[str]:
    """The comments of a file, without what blanks there are at their ends."""
    return [t.text.rstrip(" \t\r") for t in file.tokens if t.kind is Kind.COMMENT]


TARGETS = {
    "river": river,
    "expression": expression,
    "agent_configuration": agent_configuration,
}


def seeds(target: str) -> list[bytes]:
    """Inputs to start from."""
    if target != "expression":
        return list(FILES)
    return [line[:60].rstrip().encode() for line in GOLDEN.read_text().splitlines()]
