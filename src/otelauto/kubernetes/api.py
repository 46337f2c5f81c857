# SPDX-License-Identifier: Apache-2.0
"""One connection to the API server: what is asked, and which answers mean what.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlencode

from otelauto import __version__
from otelauto.kubernetes.access import Access

TIMEOUT_S: Final = 15.0  # to connect, and for the next bytes of a list
WATCH_S: Final = 300  # how long the server keeps a watch
KEEPALIVE_S: Final = 10  # a peer that is gone without a word is found within 30 s
PAGE_LIMIT: Final = 64 << 20  # bytes of one page of a list
EVENT_LIMIT: Final = 8 << 20  # an object is at most 3 MiB
_GONE, _TOO_MANY = 410, 429


class ApiError(Exception):
    """A request failed. ``reason`` is for people and counters, ``retry_s`` what the server asks."""

    def __init__(self, reason: str, detail: str, retry_s: float = 0.0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.retry_s = retry_s


class GoneError(ApiError):
    """What was asked for is too old (410), or an event cannot be read: only a new list helps."""


class Api:
    """A connection for one request after the other. Not thread-safe but for :meth:`interrupt`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None

    def page(self, path: str, query: dict[str, str | int]) -> dict[str, Any]:
        """One page of a list, as the server's JSON.

        Raises:
            ApiError: whatever went wrong.
        """
        try:
            with self._get(path, query) as answer:
                data = answer.read(PAGE_LIMIT)
            found = json.loads(data)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error
        except (ValueError, RecursionError) as error:
            raise ApiError("malformed", f"a list that cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise ApiError("malformed", "a list that is no object")
        return found

    def events(
        self, path: str, query: dict[str, str | int], on_open: Callable[[], None]
    ) -> Iterator[dict[str, Any]]:
        """The events of a watch until the server ends it. ``on_open``: it has begun.

        Raises:
            ApiError: whatever went wrong, also in the middle.
        """
        asked = {**query, "watch": "true", "timeoutSeconds": WATCH_S}
        try:
            with self._get(path, asked) as answer:
                if self._socket is not None:
                    self._socket.settimeout(WATCH_S + TIMEOUT_S)
                on_open()
                while line := answer.readline(EVENT_LIMIT):
                    if len(line) == EVENT_LIMIT:
                        raise GoneError("malformed", "an event too long to be read")
                    if not line.endswith(b"\n"):
                        raise ApiError("unreachable", "a watch that ended within an event")
                    yield _event(line)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._broken(error) from error

    def interrupt(self) -> None:
        """End the request in progress, from another thread."""
        if self._socket is not None:
            with suppress(OSError):  # the plain method: TLS has state of the other thread
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next request makes another."""
        connection, self._connection, self._socket = self._connection, None, None
        if connection is not None:
            connection.close()

    def _get(self, path: str, query: dict[str, str | int]) -> http.client.HTTPResponse:
        connection = self._connection
        if connection is None or connection.sock is None:  # the server closed it after its answer
            connection = self._connection = self._connect()
        if self._socket is not None:
            self._socket.settimeout(TIMEOUT_S)
        headers = {"Accept": "application/json", "User-Agent": f"otelauto/{__version__}"}
        if authorization := self._access.authorization():
            headers["Authorization"] = authorization
        connection.request(
            "GET", f"{self._access.prefix}{path}?{urlencode(query)}", headers=headers
        )
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise _refusal(answer)
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        access = self._access
        context = access.context()
        plain = socket.create_connection((access.host, access.port), TIMEOUT_S)
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
            name = access.server_name or access.host
            self._socket = context.wrap_socket(plain, server_hostname=name) if context else plain
        except BaseException:
            plain.close()
            raise
        connection = http.client.HTTPConnection(access.host, access.port, timeout=TIMEOUT_S)
        connection.auto_open = 0  # it would do so without TLS
        connection.sock = self._socket
        return connection

    def _broken(self, error: Exception) -> ApiError:
        self.close()
        # An end without a farewell is a server that went away.
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return ApiError("tls", f"TLS with the API server failed: {error.reason or error}")
        return ApiError("unreachable", f"{type(error).__name__}: {error}")


def _event(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GoneError("malformed", f"an event that cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise GoneError("malformed", "an event that is no object")
    if found.get("type") == "ERROR":
        status = found.get("object")
        code = status.get("code") if isinstance(status, dict) else None
        message = str(status.get("message", "") if isinstance(status, dict) else status)[:200]
        if code == _GONE:
            raise GoneError("gone", message)
        raise ApiError("error_event", f"{code} {message}")
    return found


def _refusal(answer: http.client.HTTPResponse) -> ApiError:
    """What an answer other than 200 means. Its body is read, so that the connection stays good."""
    status = answer.status
    with suppress(OSError, http.client.HTTPException):
        answer.read(PAGE_LIMIT)
    detail = f"the API server answers {status} {answer.reason}"
    if status == _GONE:
        return GoneError("gone", detail)
    if status in (401, 403):
        return ApiError("denied", detail)
    after = answer.getheader("Retry-After") or ""
    reason = "too_many" if status == _TOO_MANY else "refused"
    return ApiError(reason, detail, float(after) if after.isdecimal() and len(after) < 6 else 0.0)
