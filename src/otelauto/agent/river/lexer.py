# SPDX-License-Identifier: Apache-2.0
"""Text to tokens.

A newline ends a statement if the last token could end one (a name, a literal, a closing bracket);
that is a TERMINATOR token. Everything else about newlines is white space. Behaviour as that of the
scanner of River 0.3 and of Alloy's syntax package, which are the same.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass

from otelauto.agent.river.diagnostics import Diagnostic, Position, Source


class Kind(enum.StrEnum):
    """What a token is; the value is its name in messages."""

    IDENT = "IDENT"
    NUMBER = "NUMBER"
    FLOAT = "FLOAT"
    STRING = "STRING"
    BOOL = "BOOL"
    NULL = "NULL"
    COMMENT = "COMMENT"
    TERMINATOR = "TERMINATOR"
    ILLEGAL = "ILLEGAL"
    EOF = "EOF"
    OR = "||"
    AND = "&&"
    NOT = "!"
    NEQ = "!="
    ASSIGN = "="
    EQ = "=="
    LT = "<"
    LTE = "<="
    GT = ">"
    GTE = ">="
    ADD = "+"
    SUB = "-"
    MUL = "*"
    DIV = "/"
    MOD = "%"
    POW = "^"
    LCURLY = "{"
    RCURLY = "}"
    LPAREN = "("
    RPAREN = ")"
    LBRACK = "["
    RBRACK = "]"
    COMMA = ","
    DOT = "."


KEYWORDS = {"true": Kind.BOOL, "false": Kind.BOOL, "null": Kind.NULL}
LITERALS = frozenset({Kind.STRING, Kind.NUMBER, Kind.FLOAT, Kind.BOOL, Kind.NULL})
# Tokens after which a newline ends the statement.
ENDING = LITERALS | {Kind.IDENT, Kind.RPAREN, Kind.RBRACK, Kind.RCURLY, Kind.ILLEGAL}

_OPERATORS = {kind.value: kind for kind in Kind if not kind.value.isalpha()}
_OPERATOR = re.compile("|".join(map(re.escape, sorted(_OPERATORS, key=len, reverse=True))))
_NAME = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(
    r"(?:\d+(?P<point>\.\d*)?|(?P<leading>\.\d+))(?P<exponent>e[+-]?\d*)?", re.IGNORECASE | re.ASCII
)
_BLANK = re.compile(r"[ \t\r]+")
_LINE_COMMENT = re.compile(r"//[^\n]*")
_HALVES = {"|": ("||", Kind.OR), "&": ("&&", Kind.AND)}
_SIMPLE_ESCAPES = dict(zip('abfnrtv\\"', '\a\b\f\n\r\t\v\\"', strict=True))
_BASED_ESCAPES = {"x": (2, 16), "u": (4, 16), "U": (8, 16), **dict.fromkeys("01234567", (3, 8))}
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Token:
    """``text`` is as it stands in the file; ``end`` is the offset after it."""

    kind: Kind
    text: str
    position: Position

    @property
    def end(self) -> int:
        return self.position.offset + len(self.text)


def is_identifier(text: str) -> bool:
    """Whether ``text`` can be a name. Keywords count: it is the grammar that refuses them."""
    return bool(text) and not text[0].isdecimal() and all(map(_of_names, text))


def _of_names(char: str) -> bool:
    """Letters, decimal digits and the underscore; ``\\w`` holds other numbers and marks too."""
    return char == "_" or char.isalpha() or char.isdecimal()


class Lexer:
    """Reads one source. ``errors`` fills while :meth:`tokens` reads."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.errors: list[Diagnostic] = []
        self._text = source.text
        self._at = 0
        self._line = 1
        self._line_start = 0
        self._tokens: list[Token] = []
        self._may_end = False  # whether a newline here ends a statement

    def tokens(self) -> list[Token]:
        """All tokens with comments, the last is EOF. Call once."""
        text = self._text
        if text.startswith(_BOM):
            self._at = 1
        while self._at < len(text):
            self._next(text[self._at])
        if self._may_end:
            self._add(Kind.TERMINATOR, 0)
        self._add(Kind.EOF, 0)
        return self._tokens

    def _next(self, char: str) -> None:
        if char == "\n":
            self._newline()
        elif blank := _BLANK.match(self._text, self._at):
            self._at = blank.end()
        elif char == "/" and self._text[self._at + 1 : self._at + 2] in ("/", "*"):
            self._comment()
        elif char in "\"'`":
            self._string(char)
        elif name := _NAME.match(self._text, self._at):
            self._name(name[0])
        elif number := _NUMBER.match(self._text, self._at):
            self._number(number)
        elif operator := _OPERATOR.match(self._text, self._at):
            self._add(_OPERATORS[operator[0]], len(operator[0]))
        elif char in _HALVES:
            whole, kind = _HALVES[char]
            self._error(self._at + 1, f"missing second {char} in {whole}")
            self._add(kind, 1)
        else:
            self._illegal(char)

    def _position(self, offset: int) -> Position:
        return Position(offset, self._line, offset - self._line_start + 1)

    def _error(self, offset: int, message: str) -> None:
        self.errors.append(Diagnostic(self.source, self._position(offset), message))

    def _add(self, kind: Kind, length: int) -> None:
        """A token of the next ``length`` characters; it may hold newlines."""
        text = self._text[self._at : self._at + length]
        self._tokens.append(Token(kind, text, self._position(self._at)))
        self._at += length
        lines = text.count("\n")
        if lines:
            self._line += lines
            self._line_start = self._at - len(text) + text.rindex("\n") + 1
        self._may_end = kind in ENDING

    def _newline(self) -> None:
        if self._may_end:
            self._add(Kind.TERMINATOR, 0)
        self._at += 1
        self._line += 1
        self._line_start = self._at

    def _illegal(self, char: str) -> None:
        may_end = self._may_end
        if "\udc80" <= char <= "\udcff":
            self._error(self._at, "illegal UTF-8 encoding")
        elif char == "\0":
            self._error(self._at, "illegal character NUL")
        elif char == _BOM:
            self._error(self._at, "illegal byte order mark")
        else:
            shown = f" '{char}'" if char.isprintable() else ""
            self._error(self._at, f"illegal character U+{ord(char):04X}{shown}")
        self._add(Kind.ILLEGAL, 1)
        self._may_end = may_end

    def _name(self, text: str) -> None:
        length = len(text)
        if not text.isascii():
            if not _of_names(text[0]):
                self._illegal(text[0])
                return
            length = next((i for i, char in enumerate(text) if not _of_names(char)), length)
        self._add(KEYWORDS.get(text[:length], Kind.IDENT), length)

    def _number(self, match: re.Match[str]) -> None:
        exponent = match["exponent"]
        if exponent and not exponent[-1].isdigit():
            self._error(self._at, "exponent has no digits")
        real = match["point"] or match["leading"] or exponent
        self._add(Kind.FLOAT if real else Kind.NUMBER, len(match[0]))

    def _comment(self) -> None:
        text, start = self._text, self._at
        if text.startswith("//", start):
            line = _LINE_COMMENT.match(text, start)
            end = line.end() if line else start
        else:
            closed = text.find("*/", start + 2)
            end = closed + 2 if closed >= 0 else len(text)
            if closed < 0:
                self._error(start, "block comment not terminated")
        self._check_characters(start, end)
        if self._may_end and self._ends_line(start):
            self._add(Kind.TERMINATOR, 0)
        self._add(Kind.COMMENT, end - start)

    def _ends_line(self, at: int) -> bool:
        """Whether nothing but comments and white space follows on the line, or one of the comments
        holds a newline.
        """
        text = self._text
        while at < len(text) and text[at] != "\n":
            if text.startswith("//", at):
                return True
            if text.startswith("/*", at):
                end = text.find("*/", at + 2)
                if end < 0 or "\n" in text[at:end]:
                    return True
                at = end + 2
            elif text[at] in " \t\r":
                at += 1
            else:
                return False
        return True

    def _check_characters(self, start: int, end: int) -> None:
        """Report what may not even stand in a comment or a string."""
        for match in re.finditer("[\0\ufeff\ud800-\udfff]", self._text[start:end]):
            message = {"\0": "illegal character NUL", _BOM: "illegal byte order mark"}
            said = message.get(match[0], "illegal UTF-8 encoding")
            self.errors.append(
                Diagnostic(self.source, self._inside(start, start + match.start()), said)
            )

    def _inside(self, start: int, offset: int) -> Position:
        """The position of ``offset`` in a token that begins at ``start`` on the current line."""
        lines = self._text.count("\n", start, offset)
        line_start = self._text.rfind("\n", start, offset) + 1 if lines else self._line_start
        return Position(offset, self._line + lines, offset - line_start + 1)

    def _string(self, quote: str) -> None:
        start = self._at
        if quote == "'":
            self._error(start, "illegal single-quoted string; use double quotes")
        if quote == "`":
            closed = self._text.find("`", start + 1)
            end = closed + 1 if closed >= 0 else len(self._text)
            if closed < 0:
                self._error(start, "string literal not terminated")
        else:
            end = self._quoted(quote, start)
        self._check_characters(start, end)
        self._add(Kind.ILLEGAL if quote == "'" else Kind.STRING, end - start)

    def _quoted(self, quote: str, start: int) -> int:
        """The end of a string of one line; reports what is wrong in it."""
        text, at = self._text, start + 1
        while at < len(text) and text[at] != "\n":
            if text[at] == quote:
                return at + 1
            at += 1
            if text[at - 1] == "\\":
                at = _escape(text, at, self._error)[1]
        self._error(start, "string literal not terminated")
        return at


def _escape(text: str, at: int, report: Callable[[int, str], None]) -> tuple[bytes, int]:
    """What the escape sequence whose backslash is before ``at`` stands for, and where it ends.

    Octal and ``\\x`` sequences stand for bytes, ``\\u`` and ``\\U`` for characters (Go
    specification, "Rune literals").
    """
    char = text[at : at + 1]
    if char in _SIMPLE_ESCAPES:
        return _SIMPLE_ESCAPES[char].encode(), at + 1
    if char not in _BASED_ESCAPES:
        ended = char in ("", "\n")
        report(at, "escape sequence not terminated" if ended else "unknown escape sequence")
        return b"", at
    digits, base = _BASED_ESCAPES[char]
    begin = at if base == 8 else at + 1
    for offset in range(begin, begin + digits):
        digit = text[offset : offset + 1]
        if not digit or digit not in "0123456789abcdefABCDEF" or int(digit, 16) >= base:
            said = f"illegal character U+{ord(digit):04X} in escape sequence" if digit else (
                "escape sequence not terminated"
            )  # fmt: skip
            report(at, said)
            return b"", offset
    end = begin + digits
    value = int(text[begin:end], base)
    limit = 0x10FFFF if char in "uU" else 255
    if value > limit or 0xD800 <= value < 0xE000:
        report(at, "escape sequence is invalid Unicode code point")
        return b"", end
    return (chr(value).encode() if char in "uU" else bytes([value])), end


def unquote(text: str) -> str:
    """What a STRING token stands for. Bytes that are no UTF-8 become surrogates."""
    if text.startswith("`"):
        return text[1:-1].replace("\r", "")
    if "\\" not in text:
        return text[1:-1]
    found, at = bytearray(), 1
    while at < len(text) - 1:
        if text[at] == "\\":
            value, at = _escape(text, at + 1, lambda *_: None)
            found += value
        else:
            end = text.find("\\", at)
            end = end if 0 <= end < len(text) - 1 else len(text) - 1
            found += text[at:end].encode("utf-8", "surrogateescape")
            at = end
    return found.decode("utf-8", "surrogateescape")


def quote(text: str) -> str:
    """``text`` as a STRING token with double quotes."""
    names = {value: key for key, value in _SIMPLE_ESCAPES.items()}
    found = []
    for char in text:
        if char in names:
            found.append("\\" + names[char])
        elif char.isprintable():
            found.append(char)
        elif "\udc80" <= char <= "\udcff":
            found.append(f"\\x{ord(char) - 0xDC00:02x}")
        else:
            found.append(f"\\U{ord(char):08x}" if ord(char) > 0xFFFF else f"\\u{ord(char):04x}")
    return '"' + "".join(found) + '"'
