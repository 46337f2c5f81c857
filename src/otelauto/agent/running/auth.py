# SPDX-License-Identifier: Apache-2.0
"""``otelcol.auth.basic``, ``bearer`` and ``headers``: what proves to a server who a client is."""

from __future__ import annotations

import base64
import hmac
from abc import ABC, abstractmethod
from collections.abc import Mapping

from otelauto.agent.pipeline import Context, Running
from otelauto.agent.river.values import Capsule, Secret, Value
from otelauto.agent.schema import HANDLER, Decoded
from otelauto.errors import ConfigError


class _Auth(Running, ABC):
    """Fields that are the same in every request; exported as a handler."""

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        self._fields = {name.lower(): value for name, value in self._proof().items()}
        for name, value in self._fields.items():
            if not name or not value.isprintable():
                raise ConfigError(
                    f"what is to be sent as {name!r} holds a line break or another character that "
                    "no header may have",
                    "Does the file that it comes from end with a line break? Use trim_space(...).",
                )

    @property
    def exports(self) -> Mapping[str, Value]:
        return {"handler": Capsule(HANDLER, self)}

    @abstractmethod
    def _proof(self) -> Mapping[str, str]:
        """The fields by their names."""

    def headers(self, known: bool = False) -> Mapping[str, str]:
        """The fields to send (:class:`otelauto.agent.pipeline.Handler`)."""
        return self._fields

    def checks(self) -> bool:
        """A server can compare what it is sent."""
        return True

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Whether a request has the same fields; takes as long for wrong ones as for right ones."""
        right = True
        for name, value in self._fields.items():
            given = headers.get(name, "").encode("utf-8", "surrogateescape")
            right &= hmac.compare_digest(given, value.encode("utf-8", "surrogateescape"))
        return right and bool(self._fields)


class Basic(_Auth):
    """RFC 7617: ``Basic``, and user name and password in base64."""

    def _proof(self) -> Mapping[str, str]:
        pair = f"{self.content['username']}:{_text(self.content['password'])}"
        encoded = base64.b64encode(pair.encode("utf-8", "surrogateescape")).decode()
        return {"authorization": f"Basic {encoded}"}


class Bearer(_Auth):
    """RFC 6750: ``Bearer`` (or another scheme) and a token."""

    def _proof(self) -> Mapping[str, str]:
        scheme, token = self.content["scheme"], _text(self.content["token"])
        return {self.content["header"]: f"{scheme} {token}" if scheme else token}


class Headers(_Auth):
    """Any fields. Those of the client itself with the same names give way."""

    def _proof(self) -> Mapping[str, str]:
        found = {}
        for header in self.content.blocks.get("header", []):
            if header["from_context"] is not None:
                raise ConfigError(
                    'a header "from_context" is not supported: what is sent may come from many'
                    " requests",
                    "Give its value.",
                )
            if header["action"] not in ("insert", "upsert"):
                raise ConfigError(
                    f'the action "{header["action"]}" on a header is not supported',
                    'Use "upsert", or change the headers of the exporter.',
                )
            found[header["key"]] = _text(header["value"])
        return found


def _text(secret: Value) -> str:
    return secret.text if isinstance(secret, Secret) else str(secret or "")
