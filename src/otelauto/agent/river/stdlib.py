# SPDX-License-Identifier: Apache-2.0
"""The standard library, under the names of River 0.3 and under those of Alloy."""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import os
import platform
import posixpath
import re
import socket
import urllib.parse
from collections.abc import Mapping
from typing import Any

import yaml

from otelauto.agent.river import jsonpath
from otelauto.agent.river.operators import equal
from otelauto.agent.river.sprintf import sprintf
from otelauto.agent.river.values import UINT_MAX, Function, Secret, Value, ValueFault, plain

_DECODED_MAX = 1_000_000  # values of one decoded document: YAML's aliases multiply
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _concat(*arrays: list[Value]) -> list[Value]:
    return [each for array in arrays for each in array]


def _combine_maps(
    left: list[Value], right: list[Value], conditions: list[Value], *rest: Value
) -> list[Value]:
    """Each pair of maps that agree on the keys ``conditions``, joined; the right one's fields win.
    With a fourth argument true the left maps without a partner stay.
    """
    if not conditions:
        raise ValueFault("should name at least one key", argument=2)
    for number, array in enumerate((left, right)):
        for index, each in enumerate(array):
            if not isinstance(each, dict):
                raise ValueFault("should be object", (index,), argument=number)
    found = []
    for one in left:
        partners = [other for other in right if _agree(one, other, conditions)]
        found += [{**one, **other} for other in partners]
        if not partners and rest and rest[0]:
            found.append(one)
    return found


def _agree(one: dict[str, Value], other: dict[str, Value], keys: list[Value]) -> bool:
    return all(key in one and key in other and equal(one[key], other[key]) for key in keys)


def _group_by(items: list[Value], key: str, drop: bool) -> list[Value]:
    """One object for each value of ``key``, in the order of appearance; without it: ``""``."""
    groups: dict[str, list[Value]] = {}
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueFault("should be object", (index,), argument=0)
        if key in item or not drop:
            name = item.get(key, "")
            if not isinstance(name, str):
                raise ValueFault("should be string", (index, key), argument=0)
            groups.setdefault(name, []).append(item)
    return [{key: name, "items": found} for name, found in groups.items()]


def _coalesce(*values: Value) -> Value:
    """The first that is not null, zero, false or empty; else the last."""
    for value in values:
        if isinstance(value, Secret) or plain(value):
            return value
    return values[-1] if values else None


def _from_json(text: str) -> Value:
    try:
        # As in Go every number is a float.
        return json.loads(text, parse_int=float, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueFault(f"this is no JSON: {_said(error)}") from None


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no value")


def _said(error: Exception) -> str:
    """What went wrong, without the text it went wrong in: it may be a secret."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    if isinstance(error, RecursionError):
        return "too many levels"
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is not None:
        return f"{problem} at line {mark.line + 1} column {mark.column + 1}"
    return str(error) if isinstance(error, ValueFault) else type(error).__name__


def _from_yaml(text: str) -> Value:
    try:
        return _plain_yaml(yaml.safe_load(text), [0])
    except (yaml.YAMLError, ValueError, RecursionError, ValueFault) as error:
        raise ValueFault(f"this is no YAML that is understood here: {_said(error)}") from None


def _plain_yaml(value: Any, count: list[int]) -> Value:
    count[0] += 1
    if count[0] > _DECODED_MAX:
        raise ValueFault(f"more than {_DECODED_MAX} values")
    match value:
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise ValueFault("keys must be strings")
            return {key: _plain_yaml(each, count) for key, each in value.items()}
        case list():
            return [_plain_yaml(each, count) for each in value]
        case None | bool() | float() | str():
            return value
        case int():
            return value if abs(value) <= UINT_MAX >> 1 else float(value)
        case datetime.date():  # a datetime is one too
            return value.isoformat()
        case bytes():
            return value.decode("utf-8", "surrogateescape")
    raise ValueFault("tags are not understood")


def _json_path(text: str, path: str) -> Value:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueFault(f"this is no JSON: {_said(error)}") from None
    return jsonpath.find(document, path)


def _to_json(value: Value) -> str:
    """Without blanks and sorted by key, as Go's ``json.Marshal``."""
    try:
        return json.dumps(
            value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
        )
    except (TypeError, ValueError, RecursionError):
        raise ValueFault("holds what JSON cannot hold", argument=0) from None


def _from_base64(text: str, altchars: bytes | None = None) -> str:
    try:
        found = base64.b64decode(text.encode(), altchars, validate=True)
    except (binascii.Error, ValueError):
        raise ValueFault("is no base64", argument=0) from None
    return found.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _url_decode(text: str) -> str:
    if _BAD_PERCENT.search(text):
        raise ValueFault("is not percent-encoded", argument=0)
    return urllib.parse.unquote_plus(text, errors="surrogateescape")


def _split(text: str, separator: str) -> list[Value]:
    return list(text) if not separator else list(text.split(separator))


def _path_join(*parts: str) -> str:
    joined = "/".join(part for part in parts if part)
    return re.sub("^//", "/", posixpath.normpath(joined)) if joined else ""


def _strip_chars(text: str, chars: str) -> str:
    return text.strip(chars) if chars else text


def _function(name: str, parameters: str, call: Any, variadic: str = "") -> Function:
    return Function(name, tuple(parameters.split()), call, variadic)


def _functions(environ: Mapping[str, str]) -> list[tuple[str, str, Function]]:
    """(name in River, empty if there is none; name in Alloy; function)."""
    string = "string string"
    rows = [
        ("env", "sys.env", "string", lambda name: environ.get(name, "")),
        ("nonsensitive", "convert.nonsensitive", "secret", lambda secret: secret.text),
        ("", "array.group_by", "array string bool", _group_by),
        ("json_decode", "encoding.from_json", "string", _from_json),
        ("yaml_decode", "encoding.from_yaml", "string", _from_yaml),
        ("base64_decode", "encoding.from_base64", "string", _from_base64),
        ("", "encoding.from_URLbase64", "string", lambda text: _from_base64(text, b"-_")),
        ("", "encoding.to_base64", "string", lambda text: base64.b64encode(_bytes(text)).decode()),
        ("", "encoding.to_URLbase64", "string",
         lambda text: base64.urlsafe_b64encode(_bytes(text)).decode()),
        ("", "encoding.to_json", "plain", _to_json),
        ("", "encoding.url_encode", "string",
         lambda text: urllib.parse.quote_plus(text, errors="surrogateescape")),
        ("", "encoding.url_decode", "string", _url_decode),
        ("join", "string.join", "strings string", lambda items, between: between.join(items)),
        ("replace", "string.replace", "string string string", str.replace),
        ("split", "string.split", string, _split),
        ("to_lower", "string.to_lower", "string", str.lower),
        ("to_upper", "string.to_upper", "string", str.upper),
        ("trim", "string.trim", string, _strip_chars),
        ("trim_prefix", "string.trim_prefix", string, str.removeprefix),
        ("trim_suffix", "string.trim_suffix", string, str.removesuffix),
        ("trim_space", "string.trim_space", "string", str.strip),
        ("json_path", "json_path", "string string", _json_path),
    ]  # fmt: skip
    variadic = [
        ("concat", "array.concat", "", _concat, "array"),
        ("", "array.combine_maps", "array array strings", _combine_maps, "bool"),
        ("format", "string.format", "string", sprintf, "plain"),
        ("", "file.path_join", "", _path_join, "string"),
        ("coalesce", "coalesce", "", _coalesce, "any"),
    ]
    every = [(old, new, types, call, "") for old, new, types, call in rows] + variadic
    return [
        (old, new, _function(old or new, types, call, more))
        for old, new, types, call, more in every
    ]


def library(environ: Mapping[str, str] = os.environ) -> dict[str, Value]:
    """The names that every expression can use; ``environ`` is what ``env`` reads."""
    machine = platform.machine()
    found: dict[str, Value] = {
        "constants": {
            "hostname": socket.gethostname(),
            "os": "linux",
            "arch": _ARCHITECTURES.get(machine, machine),
        }
    }
    for old, new, function in _functions(environ):
        if old:
            found[old] = function
        namespace, _, name = new.partition(".")
        if name:
            found.setdefault(namespace, {})[name] = function
    return found
