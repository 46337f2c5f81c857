# SPDX-License-Identifier: Apache-2.0
"""What the bodies of HTTP requests ask for: operations of GraphQL, methods of JSON-RPC.

Read only where the user asks for it (``http.operations``). Of a body only the names are used:
no variable, no argument and no literal leaves this file.

Sources: GraphQL (October 2021, section 2) and GraphQL over HTTP; JSON-RPC 2.0; the semantic
conventions of both, version 1.44.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from otelauto.flows.vocabulary import Attributes, Description, Side
from otelauto.protocols import grpc
from otelauto.protocols.json_body import Body, members

GRAPHQL, JSONRPC = "graphql", "jsonrpc"
KINDS = (GRAPHQL, JSONRPC)
_TYPES = ("query", "mutation", "subscription")
_NAME_MAX = 128  # characters
_NO_SUCH_METHOD = -32601
_OTHER = "_OTHER"
_NAME, _METHOD = "graphql.operation.name", "rpc.method"

_LEXEME = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"""|"(?:[^"\\\n]|\\.)*"|\#[^\n]*|[{}()\[\]]|@?[_A-Za-z][_0-9A-Za-z]*',
    re.DOTALL,
)
_MEDIA = (b"application/json", b"application/json-rpc", b"application/graphql+json")


@dataclass(slots=True)
class Asked:
    """The bodies of one exchange."""

    request: Body
    response: Body | None = None


def may_ask(method: bytes, content_type: bytes | None) -> bool:
    """Whether the body of a request may name an operation."""
    media = (content_type or b"").partition(b";")[0].strip().lower()
    return method == b"POST" and media in _MEDIA


def describe(said: Description, side: Side, asked: Asked, kinds: Collection[str]) -> Description:
    """Add to ``said`` what ``asked`` names, of the ``kinds`` that are wanted."""
    found = members(
        asked.request.text(), ("jsonrpc", "method", "query", "operationName", "extensions")
    )
    if JSONRPC in kinds and found.get("jsonrpc") == "2.0":
        return _describe_jsonrpc(said, side, found, asked.response)
    if GRAPHQL in kinds:
        _add_graphql(said, found)
    return said


def _describe_jsonrpc(
    said: Description, side: Side, found: dict[str, Any], response: Body | None
) -> Description:
    method = found.get("method")
    if not isinstance(method, str):
        return said
    code = _error_code(response)
    attributes = said.attributes
    attributes["rpc.system.name"] = JSONRPC
    attributes["jsonrpc.protocol.version"] = "2.0"
    attributes[_METHOD] = _plain(method)
    if code == _NO_SUCH_METHOD and side is Side.SERVER:
        # No label is made of what strangers choose.
        attributes[_METHOD], attributes["rpc.method_original"] = _OTHER, _plain(method)
    if code is not None:
        attributes["rpc.response.status_code"] = attributes["error.type"] = str(code)
    return replace(
        said,
        error=said.error or code is not None,
        instruments=said.instruments + grpc.INSTRUMENTS[side],
        bounded=(*said.bounded, _METHOD),
    )


def _error_code(response: Body | None) -> int | None:
    """The code of the error that ``response`` is (JSON-RPC 2.0, section 5.1)."""
    if response is None:
        return None
    error = members(response.text(), ("error",)).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _add_graphql(said: Description, found: dict[str, Any]) -> None:
    document, name = found.get("query"), found.get("operationName")
    asked = name if isinstance(name, str) and name else None
    attributes: Attributes = {}
    if isinstance(document, str):
        operations = definitions(document)
        if asked is not None:
            operations = [each for each in operations if each[1] == asked]
        if len(operations) != 1:
            return
        attributes["graphql.operation.type"], asked = operations[0]
    elif asked is None or not isinstance(found.get("extensions"), dict):
        return  # without a document it is one that the server knows by its hash
    if asked:
        attributes[_NAME] = _plain(asked)
        said.bounded = (*said.bounded, _NAME)
    said.attributes.update(attributes)


def definitions(document: str) -> list[tuple[str, str]]:
    """(type, name) of the operations in a GraphQL document; the name may be empty."""
    found: list[tuple[str, str]] = []
    depth, words = 0, list[str]()
    for lexeme in _LEXEME.findall(document):
        if lexeme[0] in '"#@':
            continue
        if lexeme in "{([":
            if lexeme == "{" and depth == 0:
                if not words:
                    found.append(("query", ""))  # the short form
                elif words[0] in _TYPES and len(words) == 1:
                    found.append((words[0], ""))
                words = []
            depth += 1
        elif lexeme in "})]":
            depth -= 1
        elif depth == 0:
            words.append(lexeme)
            if len(words) == 2 and words[0] in _TYPES:
                found.append((words[0], words[1]))
    return found


def _plain(name: str) -> str:
    """A name without what could do harm in a terminal."""
    return "".join(c if c.isprintable() else "?" for c in name[:_NAME_MAX])
