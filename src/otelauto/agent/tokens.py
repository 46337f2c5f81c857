# SPDX-License-Identifier: Apache-2.0
"""Access tokens of OAuth 2.0 by client credentials (RFC 6749, section 4.4), kept while they last.

The client says who it is by basic authentication, as every server understands (section 2.3.1); to
one that refuses it so, in the request's body.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from typing import Any, Final, Protocol
from urllib.parse import quote_plus, urlencode

from otelauto.errors import OtelautoError
from otelauto.export.transport import shown

EARLY_S: Final = 10.0  # a token is not used any more so long before its end
AGAIN_S: Final = 1.0  # after a failure nobody asks the server for so long
TIMEOUT_S: Final = 10.0  # of a request for a token
_FORM: Final = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
_REFUSALS: Final = (400, 401)  # RFC 6749, section 5.2


class Reply(Protocol):
    """What a client gives back."""

    @property
    def status(self) -> int: ...

    @property
    def body(self) -> bytes: ...


Post = Callable[[Mapping[str, str], bytes], Reply]  # headers and body to the token's URL


class Tokens:
    """The token of one client. ``credentials`` gives its id and secret for each request.

    Any thread may ask; one at a time is with the server, and the others wait for it.
    """

    def __init__(
        self,
        post: Post,
        credentials: Callable[[], tuple[str, str]],
        scopes: Sequence[str],
        parameters: Sequence[tuple[str, str]],
        explained: Callable[[Exception], str],
    ) -> None:
        self._post = post
        self._credentials = credentials
        self._form = [("grant_type", "client_credentials")]
        if scopes:
            self._form.append(("scope", " ".join(scopes)))
        self._form += parameters
        self._explained = explained
        self._lock = threading.Lock()
        self._in_body = False  # where the server wants the credentials
        self._header = ""
        self._until = 0.0  # monotonic; of the header, or of the error
        self._error = ""

    def header(self) -> str:
        """A value for ``authorization``.

        Raises:
            OtelautoError: the server gives no token now.
        """
        with self._lock:
            if time.monotonic() >= self._until:
                self._renew()
            if self._error:
                raise OtelautoError(self._error)
            return self._header

    def _renew(self) -> None:
        try:
            self._header, lifetime_s = _token(self._asked())
        except (OSError, HTTPException, OtelautoError) as error:
            why = error.message if isinstance(error, OtelautoError) else self._explained(error)
            self._error = f"there is no access token: {why}"
            self._until = time.monotonic() + AGAIN_S
        else:
            self._error = ""
            self._until = time.monotonic() + max(lifetime_s - EARLY_S, lifetime_s / 2)

    def _asked(self) -> Reply:
        reply = self._ask()
        if reply.status in _REFUSALS and not self._in_body:
            self._in_body = True
            second = self._ask()
            if second.status in _REFUSALS:
                self._in_body = False  # it is not the way that is wrong
            else:
                reply = second
        return reply

    def _ask(self) -> Reply:
        name, secret = self._credentials()
        headers, form = dict(_FORM), list(self._form)
        if self._in_body:
            form += [("client_id", name), *([("client_secret", secret)] if secret else [])]
        else:
            pair = f"{quote_plus(name)}:{quote_plus(secret)}".encode()
            headers["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return self._post(headers, urlencode(form).encode())


def _token(reply: Reply) -> tuple[str, float]:
    """The header and for how many seconds it is good; raises :class:`OtelautoError`."""
    try:
        found: Any = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    fields = found if isinstance(found, dict) else {}
    if not 200 <= reply.status < 300:
        parts = [str(fields[name]) for name in ("error", "error_description") if name in fields]
        said = shown(": ".join(parts).encode("utf-8", "replace"))
        raise OtelautoError(f"HTTP {reply.status}{': ' if said else ''}{said}")
    token, kind = fields.get("access_token"), fields.get("token_type") or "Bearer"
    if not isinstance(token, str) or not token or not isinstance(kind, str):
        raise OtelautoError("the answer holds none")
    if not token.isascii() or not token.isprintable() or not kind.isalnum():
        raise OtelautoError("the answer holds one that cannot be sent")
    try:
        lifetime_s = float(fields.get("expires_in") or "inf")
    except (TypeError, ValueError):
        lifetime_s = float("inf")
    # Section 7.1: the type is named without regard to case, and servers do.
    kind = "Bearer" if kind.lower() == "bearer" else kind
    return f"{kind} {token}", lifetime_s
