# SPDX-License-Identifier: Apache-2.0
"""``otelcol.exporter.otlp`` (gRPC) and ``otelcol.exporter.otlphttp``."""

from __future__ import annotations

import contextlib
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

from otelauto import __version__
from otelauto.agent.pipeline import Context, Metrics, Running, Traces
from otelauto.agent.river.values import Value
from otelauto.agent.running.client import (
    client_tls,
    grpc_endpoint,
    request_headers,
    way,
)
from otelauto.agent.running.outputs import as_input
from otelauto.agent.running.sending import SendingQueue
from otelauto.agent.schema import Decoded
from otelauto.errors import ConfigError
from otelauto.export.otlp_grpc import COMPRESSIONS, OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.otlp_json import Json
from otelauto.export.transport import Compression, Transport

NS_PER_MS: Final = 1_000_000
GRPC_VERSIONS: Final = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class _Exporter(Running, ABC):
    """A consumer before a sending queue."""

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        self._client = content.section("client")
        self._tls = client_tls(self._client.section("tls"))
        self._headers = request_headers(self._client, known=True)
        self._compression = Compression(self._client["compression"] or "none")
        for signal in ("traces", "metrics"):
            self._connect(signal).close()  # says what is wrong
        self._headers = request_headers(self._client)
        self._queue = SendingQueue(
            context,
            self._connect,
            content.section("sending_queue"),
            content.section("retry_on_failure"),
            self._failed,
        )

    @property
    def exports(self) -> Mapping[str, Value]:
        return as_input(self)

    @abstractmethod
    def _connect(self, signal: str) -> Transport:
        """A new connection for traces or metrics.

        Raises:
            ConfigError: there can be none, with what the configuration says.
        """

    def start(self) -> None:
        """Begin to deliver; the endpoint need not be there yet."""
        self._queue.start()

    def stop(self, deadline_s: float) -> None:
        """Deliver what is queued; what cannot go in time waits in a spool for the next run."""
        self._queue.stop(deadline_s)

    def traces(self, payload: Traces) -> None:
        """Queue spans; raises :class:`otelauto.agent.pipeline.Refused` if there is no room."""
        self._queue.put("traces", payload)

    def metrics(self, payload: Metrics) -> None:
        """Queue data points; raises as :meth:`traces`."""
        self._queue.put("metrics", payload)

    def status(self) -> Mapping[str, str | int | float]:
        """Lengths of the queue and the spool."""
        requests, stored = self._queue.queued()
        return {"requests queued": requests, "items in the spool": stored}

    def _failed(self, error: str) -> None:
        self.last_error = error


class Otlp(_Exporter):
    """OTLP over gRPC. Credentials are not sent without TLS (grpc-go refuses that, too)."""

    def _connect(self, signal: str) -> Transport:
        client = self._client
        scheme, host, port = grpc_endpoint(client["endpoint"])
        insecure = scheme == "http" or (not scheme and client.section("tls")["insecure"])
        if insecure and client["auth"] is not None:
            raise ConfigError(
                '"auth" needs TLS: the credentials would be sent in plaintext',
                "Leave tls { insecure = true } out, or the auth.",
            )
        if not insecure and self._tls.tls.insecure_skip_verify:
            raise ConfigError(
                "insecure_skip_verify is not supported with gRPC",
                "Give the server's certificate, or its authority's, as ca_file.",
            )
        if not insecure and self._tls.tls.versions != GRPC_VERSIONS:
            raise ConfigError(
                "min_version and max_version are TLS 1.2 and TLS 1.3 with gRPC, and nothing else",
                "Leave them out.",
            )
        if self._compression not in COMPRESSIONS:
            raise ConfigError(
                f'the compression "{self._compression}" is not supported with gRPC',
                'Use "gzip", "deflate" or "none", or otelcol.exporter.otlphttp.',
            )
        scheme = "http" if insecure else "https"
        return OtlpGrpc(
            scheme,
            host,
            port,
            signal,
            version=__version__,
            headers=self._headers,
            timeout_ms=self.content["timeout"] // NS_PER_MS,
            compression=self._compression,
            tls=self._tls.tls,
            proxy=way(scheme, host, port),
            authority=client["authority"] or "",
        )


class OtlpOverHttp(_Exporter):
    """OTLP over HTTP, as protobuf or JSON."""

    def _connect(self, signal: str) -> Transport:
        client = self._client
        base = client["endpoint"].rstrip("/")
        url = self.content[f"{signal}_endpoint"] or f"{base}/v1/{signal}"
        scheme, host, port = "", "", 0
        with contextlib.suppress(ConfigError):  # OtlpHttp says it better
            scheme, host, port = grpc_endpoint("/".join(url.split("/")[:3]))
        return OtlpHttp(
            url,
            version=__version__,
            headers=self._headers,
            timeout_ms=client["timeout"] // NS_PER_MS,
            compression=self._compression,
            tls=self._tls.tls,
            proxy=way(scheme, host, port, client["proxy_url"] or "") if host else None,
            json=Json(signal) if self.content["encoding"] == "json" else None,
        )
