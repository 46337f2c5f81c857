# SPDX-License-Identifier: Apache-2.0
"""OTLP over gRPC, by grpcio: the channel is the library's, what an answer means is decided here.

Codes: the OTLP specification, "OTLP/gRPC Response" and "OTLP/gRPC Throttling". RetryInfo comes in
the trailer ``grpc-status-details-bin``, a google.rpc.Status.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping

# Its own log lines are not ours, and not limited; what it has to say of a call comes back from it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from otelauto.errors import ConfigError, OtelautoError
from otelauto.export.own_traffic import OwnTraffic
from otelauto.export.proxy import Proxy
from otelauto.export.tls import NOT_TRUSTED, Tls
from otelauto.export.transport import (
    DEFAULT_TIMEOUT_MS,
    MAX_ANSWER,
    NO_ANSWER,
    NO_TIME,
    STOPPED,
    Answer,
    Body,
    Compression,
    Verdict,
    accepted,
    pieces_of,
    rpc_status,
    shortened,
    shown,
    too_large,
)

Code = grpc.StatusCode
METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
RETRYABLE = frozenset(
    {
        Code.CANCELLED,
        Code.DEADLINE_EXCEEDED,
        Code.ABORTED,
        Code.OUT_OF_RANGE,
        Code.UNAVAILABLE,
        Code.DATA_LOSS,
    }
)
UNAUTHORIZED = frozenset({Code.UNAUTHENTICATED, Code.PERMISSION_DENIED})
DETAILS = "grpc-status-details-bin"
FIRST_RECONNECT_MS = 100  # the pauses between tries are ours; these only keep it from spinning
LONGEST_RECONNECT_MS = 2_000
_NAME = re.compile(r"[0-9a-z_.-]+\Z")  # gRPC over HTTP2, "Custom-Metadata"
_VALUE = re.compile(r"[ -~]*\Z")

COMPRESSIONS = {
    Compression.NONE: grpc.Compression.NoCompression,
    Compression.GZIP: grpc.Compression.Gzip,
    Compression.DEFLATE: grpc.Compression.Deflate,
    Compression.ZLIB: grpc.Compression.Deflate,
}


class OtlpGrpc:
    """A channel to one OTLP/gRPC endpoint, for ``signal`` (traces or metrics).

    ``scheme`` https is TLS. ``headers`` is asked for each request (an ``OtelautoError`` of it is a
    reason to try again), the files of ``tls`` when they were changed; the server's certificate is
    always checked. ``timeout_ms`` 0 means no limit. ``compression`` is one of ``COMPRESSIONS``.
    ``authority`` is what the requests are for, if it is not host and port.

    Raises:
        ConfigError: a TLS file cannot be used, or a header cannot be gRPC metadata.
    """

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int,
        signal: str,
        *,
        version: str,
        headers: Callable[[], Mapping[str, str]] = dict,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        compression: Compression = Compression.NONE,
        tls: Tls | None = None,
        proxy: Proxy | None = None,
        own_traffic: OwnTraffic | None = None,
        authority: str = "",
    ) -> None:
        self._at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.url = f"{scheme}://{self._at}"
        self._method = METHODS[signal]
        self._timeout_s = timeout_ms / 1000 if timeout_ms else None
        self._compression = COMPRESSIONS[compression]
        self._tls = (tls or Tls()) if scheme == "https" else None
        if self._tls is not None:
            self._tls.context()  # says what is wrong with the files
        self._tls_version = self._tls.version() if self._tls is not None else ()
        self._own_traffic = own_traffic or OwnTraffic()
        self._given_headers = headers
        self._metadata()
        self._options = [
            ("grpc.primary_user_agent", f"OTel-OTLP-Exporter-otelauto/{version}"),
            ("grpc.max_receive_message_length", MAX_ANSWER),
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", LONGEST_RECONNECT_MS),
            ("grpc.enable_http_proxy", int(proxy is not None)),
            *([("grpc.http_proxy", proxy.url)] if proxy is not None else []),
            *(
                [("grpc.ssl_target_name_override", tls.server_name)]
                if tls and tls.server_name
                else []
            ),
            *([("grpc.default_authority", authority)] if authority else []),
        ]
        self._channel: grpc.Channel | None = None
        self._lock = threading.Lock()
        self._call: grpc.Future[bytes] | None = None
        self._aborted = False

    def post(self, body: Body, seconds_left: float | None = None) -> Answer:
        """Send one message. ``seconds_left`` shortens the timeout (a deadline of the caller's)."""
        message = b"".join(pieces_of(body))
        if (refusal := too_large(len(message))) is not None:
            return refusal
        timeout = shortened(self._timeout_s, seconds_left)
        if timeout is not None and timeout <= 0:
            return Answer(Verdict.RETRY, NO_TIME)
        try:
            metadata, channel = self._metadata(), self._connected()
        except OtelautoError as error:
            return Answer(Verdict.RETRY, error.message)
        export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self._method)
        with self._lock:
            if self._aborted:
                return Answer(Verdict.RETRY, STOPPED)
            self._call = call = export.future(
                message, timeout=timeout, metadata=metadata, compression=self._compression
            )
        try:
            return accepted(call.result())
        except grpc.FutureCancelledError:
            return Answer(Verdict.RETRY, STOPPED)
        except grpc.RpcError:
            return self._judge(call)
        finally:
            self._call = None
            self._own_traffic.observe()

    def rest(self) -> None:
        """Close the channel: the library's threads wake several times a second while it is open."""
        self.close()

    def abort(self) -> None:
        """From another thread: make a ``post`` in progress fail now."""
        with self._lock:
            self._aborted = True
            call = self._call
        if call is not None:
            call.cancel()

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._own_traffic.observe()

    def _connected(self) -> grpc.Channel:
        """The channel; a new one if there is none, or the TLS files were changed.

        Raises:
            ConfigError: they cannot be used as they are now; the next request tries again.
        """
        tls, target = self._tls, f"dns:///{self._at}"
        if tls is None:
            if self._channel is None:
                self._channel = grpc.insecure_channel(target, self._options)
            return self._channel
        version = tls.version()
        if self._channel is None or version != self._tls_version:
            tls.context()
            try:
                credentials = grpc.ssl_channel_credentials(tls.authorities(), *tls.identity())
            except OSError as error:
                raise ConfigError(f"a TLS file cannot be read: {error}") from error
            self.close()
            self._tls_version = version
            self._channel = grpc.secure_channel(target, credentials, self._options)
        return self._channel

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers, checked.

        Raises:
            ConfigError: gRPC could not send one. The message does not hold its value.
        """
        headers = self._given_headers()
        for name, value in headers.items():
            if (
                not _NAME.match(name)
                or not _VALUE.match(value)
                or name.startswith("grpc-")
                or name.endswith("-bin")
            ):
                raise ConfigError(
                    f"the header {name!r} cannot be sent over gRPC",
                    "give it a name of letters, digits, - _ and . that neither begins with grpc-"
                    " nor ends with -bin, and a value of ASCII, or use http/protobuf",
                )
        return tuple(headers.items())

    def _judge(self, call: grpc.Call) -> Answer:
        code, said = call.code(), shown((call.details() or "").encode())
        if code is Code.DEADLINE_EXCEEDED:
            # A connection whose other end is gone would keep its place until TCP gives up.
            self.close()
        message, delay = rpc_status(_details(call))
        error = NO_ANSWER if code is Code.DEADLINE_EXCEEDED else _explain(code, message or said)
        if code in RETRYABLE or (code is Code.RESOURCE_EXHAUSTED and delay is not None):
            return Answer(Verdict.RETRY, error, retry_after_s=delay)
        return Answer(Verdict.REFUSED, error, unauthorized=code in UNAUTHORIZED)


def _details(call: grpc.Call) -> bytes:
    for name, value in call.trailing_metadata() or ():
        if name == DETAILS and isinstance(value, bytes):
            return value
    return b""


def _explain(code: grpc.StatusCode, said: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in said:
        reason = said.partition("CERTIFICATE_VERIFY_FAILED")[2].strip(": ").removesuffix(": OK")
        return f"{NOT_TRUSTED}: {reason}"
    if "Hostname Verification Check failed" in said:
        return f"{NOT_TRUSTED}: it is not for that host name"
    if "TSI_DATA_CORRUPTED" in said:  # how the library shows an alert behind its handshake
        return "the server has broken TLS off: it may not accept the client's certificate"
    return f"gRPC {code.name}{': ' if said else ''}{said}"
