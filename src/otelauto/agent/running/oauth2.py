# SPDX-License-Identifier: Apache-2.0
"""``otelcol.auth.oauth2``: a client gets its access tokens by its credentials."""

from __future__ import annotations

from collections.abc import Mapping

from otelauto.agent.components.common import OAUTH2, TLS_CONFIG
from otelauto.agent.pipeline import Context, Running
from otelauto.agent.prometheus.http_client import (
    HttpClient,
    explained,
    given_or_read,
    token_post,
)
from otelauto.agent.river.values import Capsule, Value
from otelauto.agent.running.client import check_tls
from otelauto.agent.running.outputs import seconds
from otelauto.agent.schema import HANDLER, Decoded
from otelauto.agent.tokens import TIMEOUT_S, Tokens
from otelauto.errors import ConfigError, OtelautoError

_SAME = ("ca_file", "ca_pem", "cert_file", "cert_pem", "key_file", "key_pem",
         "insecure_skip_verify", "server_name")  # fmt: skip


class OAuth2(Running):
    """Raises :class:`ConfigError` for a URL, a certificate or a key that cannot be used."""

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        timeout_s = seconds(content["timeout"]) or TIMEOUT_S
        self._client = HttpClient(content["token_url"], _http(content))
        self._tokens = Tokens(
            token_post(self._client, timeout_s),
            lambda: (
                given_or_read(content, "client_id", "client_id_file"),
                given_or_read(content, "client_secret", "client_secret_file"),
            ),
            content["scopes"],
            [
                (name, value)
                for name, values in (content["endpoint_params"] or {}).items()
                for value in values
            ],
            explained,
        )

    @property
    def exports(self) -> Mapping[str, Value]:
        return {"handler": Capsule(HANDLER, self)}

    def stop(self, deadline_s: float) -> None:
        """Whoever waits for a token waits no longer."""
        self._client.abort()

    def headers(self, known: bool = False) -> Mapping[str, str]:
        """The token (:class:`otelauto.agent.pipeline.Handler`); nothing is known without asking."""
        if known:
            return {}
        try:
            header = self._tokens.header()
        except OtelautoError as error:
            self.last_error = error.message
            raise
        self.last_error = ""
        return {"authorization": header}

    def checks(self) -> bool:
        """Only the server that gave a token knows whether it is right."""
        return False

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Nobody."""
        return False


def _http(content: Decoded) -> Decoded:
    """What the HTTP client of Prometheus's components is told, whose TLS block has other words."""
    tls = content.section("tls")
    check_tls(tls)
    if tls["max_version"] != "TLS 1.3":
        raise ConfigError('"max_version" of tls is not supported here', "Leave it out.")
    found = Decoded(TLS_CONFIG, {name: tls.arguments[name] for name in _SAME if tls[name]})
    found.arguments["min_version"] = tls["min_version"].replace("TLS 1.", "TLS1")
    return Decoded(OAUTH2, {"proxy_from_environment": True}, {"tls_config": [found]})
