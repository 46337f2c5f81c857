# SPDX-License-Identifier: Apache-2.0
"""Tokens to a syntax tree, by recursive descent over an LL(1) grammar::

    Body      = [ Statement { TERMINATOR Statement } ]
    Statement = IDENT "=" Expr | IDENT { "." IDENT } [ STRING ] "{" Body "}"
    Expr      = operators by precedence: ||, &&, comparisons, + -, * / %, ^ (to the right), ! and -
    Operand   = Primary { "." IDENT | "[" Expr "]" | "(" [ List ] ")" }
    Primary   = IDENT | literal | "(" Expr ")" | "[" [ List ] "]" | "{" [ Fields ] "}"

Several errors are found in one run, one for each line. Messages are those of River 0.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from otelauto.agent.river import ast
from otelauto.agent.river.diagnostics import Diagnostic, Position, RiverError, Source
from otelauto.agent.river.lexer import LITERALS, Kind, Lexer, Token, is_identifier, unquote

T = TypeVar("T")

MAX_DEPTH = 50  # of brackets, blocks and unary operators in one another

PRECEDENCE = {
    Kind.OR: 1,
    Kind.AND: 2,
    **dict.fromkeys((Kind.EQ, Kind.NEQ, Kind.LT, Kind.LTE, Kind.GT, Kind.GTE), 3),
    **dict.fromkeys((Kind.ADD, Kind.SUB), 4),
    **dict.fromkeys((Kind.MUL, Kind.DIV, Kind.MOD), 5),
}
_OPENING = {Kind.LCURLY, Kind.LPAREN, Kind.LBRACK}
_CLOSING = {Kind.RCURLY, Kind.RPAREN, Kind.RBRACK}
_END_OF_OPERAND = _CLOSING | {Kind.TERMINATOR, Kind.COMMA, Kind.EOF}
_BLOCK_AS_VALUE = "cannot use a block as an expression"


class _TooDeepError(Exception):
    """Reported already; nothing more can be read."""


class Parser:
    """Reads one source. ``errors`` holds what the lexer and the parser found."""

    def __init__(self, source: Source) -> None:
        lexer = Lexer(source)
        self.source = source
        self.all_tokens = lexer.tokens()
        self.errors = lexer.errors
        self._tokens = [token for token in self.all_tokens if token.kind is not Kind.COMMENT]
        self._at = 0
        self._depth = 0
        self._error_line = 0

    @property
    def _token(self) -> Token:
        return self._tokens[self._at]

    def _kind(self) -> Kind:
        return self._tokens[self._at].kind

    def _advance(self) -> Token:
        token = self._tokens[self._at]
        if token.kind is not Kind.EOF:
            self._at += 1
        return token

    def _error(self, message: str, position: Position | None = None) -> None:
        """Report ``message``; what comes second on a line is mostly a consequence of the first."""
        where = position or self._token.position
        if where.line != self._error_line:
            self._error_line = where.line
            self.errors.append(Diagnostic(self.source, where, message))

    def _expect(self, kind: Kind) -> bool:
        """Go past the next token; report it if it is not of ``kind``."""
        right = self._kind() is kind
        if not right:
            self._error(f"expected {kind}, got {self._kind()}")
        self._advance()
        return right

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._error_line = 0
            self._error(f"more than {MAX_DEPTH} levels in one another")
            raise _TooDeepError
        yield
        self._depth -= 1

    def file(self) -> tuple[ast.Statement, ...]:
        """The statements of a whole file."""
        return self._whole(lambda: tuple(self._body(Kind.EOF)), ())

    def expression(self) -> ast.Expr:
        """The only expression of the source."""
        null: ast.Expr = ast.Literal(Kind.NULL, "null", self._token.position)

        def read() -> ast.Expr:
            found = self._expr()
            if self._kind() is not Kind.EOF:
                self._expect(Kind.TERMINATOR)
            return found

        return self._whole(read, null)

    def _whole(self, read: Callable[[], T], nothing: T) -> T:
        try:
            return read()
        except _TooDeepError:
            return nothing

    def _body(self, until: Kind) -> list[ast.Statement]:
        found: list[ast.Statement] = []
        while self._kind() not in (until, Kind.EOF):
            statement = self._statement()
            if statement is not None:
                found.append(statement)
            if self._kind() in (until, Kind.EOF):
                break
            if self._kind() is not Kind.TERMINATOR:
                self._error(f"expected {Kind.TERMINATOR}, got {self._kind()}")
                self._skip_statement(until)
            if self._kind() is Kind.TERMINATOR:
                self._advance()
        return found

    def _skip_statement(self, until: Kind) -> None:
        """Go to the end of the line on which all brackets opened since are closed again, or to the
        end of the block.
        """
        depth = 0
        while self._kind() is not Kind.EOF:
            if self._kind() in _OPENING:
                depth += 1
            elif self._kind() in _CLOSING:
                if depth <= 0 and self._kind() is until:
                    return
                depth -= 1
            elif self._kind() is Kind.TERMINATOR and depth <= 0:
                return
            self._advance()

    def _statement(self) -> ast.Statement | None:
        start = self._token.position
        if self._kind() is not Kind.IDENT:
            self._error(f"expected identifier, got {self._kind()}")
            self._advance()
            return None
        names = self._names()
        label = self._label()
        if self._kind() is Kind.ASSIGN:
            self._advance()
            if len(names) > 1:
                dotted = 'attribute names may only consist of a single identifier with no "."'
                self._error(dotted, start)
            elif label is not None:
                self._error("attribute names may not have labels", label.position)
            return ast.Attribute(ast.Name(names[0], start), self._expr())
        if self._kind() is Kind.LCURLY:
            with self._deeper():
                self._advance()
                body = self._body(Kind.RCURLY)
                self._expect(Kind.RCURLY)
            return ast.Block(".".join(names), label.text if label else "", tuple(body), start)
        wanted = "block body" if label or len(names) > 1 else "attribute assignment or block body"
        self._error(f"expected {wanted}, got {self._kind()}")
        return None

    def _names(self) -> list[str]:
        names = [self._advance().text]
        while self._kind() is Kind.DOT:
            self._advance()
            if self._kind() is not Kind.IDENT:
                self._error(f"expected identifier, got {self._kind()}")
                break
            names.append(self._advance().text)
        return names

    def _label(self) -> ast.Name | None:
        """The label without quotes; empty is the same as none."""
        if self._kind() is not Kind.STRING:
            return None
        token = self._advance()
        text = token.text[1:-1]
        if token.text[0] != '"':
            message = f"expected block label to be a double quoted string, but got {token.text}"
            self._error(message, token.position)
        elif text and not is_identifier(text):
            message = f'expected block label to be a valid identifier, but got "{text}"'
            self._error(message, token.position)
        return ast.Name(text, token.position)

    def _expr(self, lowest: int = 1) -> ast.Expr:
        left = self._power()
        while (precedence := PRECEDENCE.get(self._kind(), 0)) >= lowest:
            run: list[tuple[Kind, ast.Expr]] = []
            while PRECEDENCE.get(self._kind()) == precedence:
                operator = self._advance().kind
                run.append((operator, self._expr(precedence + 1)))
            left = ast.Binary(left, tuple(run), left.position)
        return left

    def _power(self) -> ast.Expr:
        left = self._unary()
        if self._kind() is not Kind.POW:
            return left
        self._advance()
        with self._deeper():
            right = self._power()
        return ast.Binary(left, ((Kind.POW, right),), left.position)

    def _unary(self) -> ast.Expr:
        if self._kind() not in (Kind.NOT, Kind.SUB):
            return self._operand()
        token = self._advance()
        with self._deeper():
            value = self._unary()
        return ast.Unary(token.kind, value, token.position)

    def _operand(self) -> ast.Expr:
        found = self._primary()
        depth = self._depth
        while True:
            start = found.position
            with self._deeper():
                match self._kind():
                    case Kind.DOT:
                        self._advance()
                        name = ast.Name(self._token.text, self._token.position)
                        self._expect(Kind.IDENT)
                        found = ast.Access(found, name, start)
                    case Kind.LBRACK:
                        self._advance()
                        found = ast.Index(found, self._expr(), start)
                        self._expect(Kind.RBRACK)
                    case Kind.LPAREN:
                        found = ast.Call(found, self._list(Kind.RPAREN), start)
                    case Kind.STRING | Kind.LCURLY:
                        if not self._block_as_value(start):
                            break
                    case _:
                        break
            self._depth += 1  # a chain is a tree as deep as it is long
        self._depth = depth
        return found

    def _block_as_value(self, start: Position) -> bool:
        """Read what looks like a block where a value ends, and report it; False: it is no block."""
        if self._kind() is Kind.STRING:
            self._advance()
        if self._kind() is not Kind.LCURLY:
            self._error(f"expected {Kind.LCURLY}, got {self._kind()}")
            return False
        self._error(_BLOCK_AS_VALUE, start)
        self._advance()
        self._body(Kind.RCURLY)
        return self._expect(Kind.RCURLY)

    def _primary(self) -> ast.Expr:
        token = self._token
        if token.kind is Kind.IDENT:
            self._advance()
            return ast.Identifier(token.text, token.position)
        if token.kind in LITERALS:
            self._advance()
            return ast.Literal(token.kind, token.text, token.position)
        with self._deeper():
            match token.kind:
                case Kind.LPAREN:
                    self._advance()
                    inner = self._expr()
                    self._expect(Kind.RPAREN)
                    return ast.Paren(inner, token.position)
                case Kind.LBRACK:
                    return ast.Array(self._list(Kind.RBRACK), token.position)
                case Kind.LCURLY:
                    return ast.Object(self._fields(), token.position)
        self._error(f"expected expression, got {token.kind}")
        while self._kind() not in _END_OF_OPERAND:
            self._advance()
        return ast.Literal(Kind.NULL, "null", token.position)

    def _list(self, closer: Kind) -> tuple[ast.Expr, ...]:
        found = []
        self._advance()  # the opening bracket
        while self._kind() not in (closer, Kind.EOF):
            found.append(self._expr())
            if self._kind() is closer:
                break
            if self._kind() is not Kind.COMMA:
                self._error("missing ',' in expression list")
            self._advance()
        self._expect(closer)
        return tuple(found)

    def _fields(self) -> tuple[tuple[ast.Name, ast.Expr], ...]:
        found = []
        self._advance()  # {
        while self._kind() not in (Kind.RCURLY, Kind.EOF):
            found.append(self._field())
            if self._kind() is Kind.RCURLY:
                break
            if self._kind() is not Kind.COMMA:
                self._error("missing ',' in field list")
            self._advance()
        self._expect(Kind.RCURLY)
        return tuple(found)

    def _field(self) -> tuple[ast.Name, ast.Expr]:
        token = self._token
        if token.kind in (Kind.STRING, Kind.IDENT):
            self._advance()
        else:
            self._error(f"expected field name (string or identifier), got {token.kind}")
            while self._kind() not in (Kind.ASSIGN, *_END_OF_OPERAND):
                self._advance()
        self._expect(Kind.ASSIGN)
        text = unquote(token.text) if token.kind is Kind.STRING else token.text
        return ast.Name(text, token.position), self._expr()


def parse_file(source: Source) -> ast.File:
    """The syntax tree of a file; raises :class:`RiverError` with all that is wrong in it."""
    parser = Parser(source)
    body = parser.file()
    if parser.errors:
        raise RiverError(parser.errors)
    return ast.File(source, body, tuple(parser.all_tokens))


def parse_expression(source: Source) -> ast.Expr:
    """The syntax tree of a single expression; raises :class:`RiverError`."""
    parser = Parser(source)
    found = parser.expression()
    if parser.errors:
        raise RiverError(parser.errors)
    return found
