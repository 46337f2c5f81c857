# SPDX-License-Identifier: Apache-2.0
"""The OTLP services over gRPC, by grpcio in an event loop.

The library reads connections and cuts out messages. It would decompress them without a limit, so
that is done here; and a call waits for its message here, with a deadline, and not in a thread.
Source: opentelemetry-proto, docs/specification.md, "OTLP/gRPC"; gRPC over HTTP2, "Compression".
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log lines are not ours, and not limited

import grpc
import grpc.aio

from otelauto.agent.pipeline import NO_FIELDS, Fields, Refused
from otelauto.agent.running.otlp_http_door import NO_SUCH_SIGNAL, Admits, joined
from otelauto.agent.running.otlp_intake import OVERLOADED_RETRY_S, Intake
from otelauto.agent.running.unpacking import TooLargeError, UnusableError, encoding_of
from otelauto.errors import OtelautoError
from otelauto.export import protobuf

Code = grpc.StatusCode
METHODS = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "traces",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "logs",
}
MAX_CALLS = 64  # whose messages are held at a time
MAX_STREAMS = 100  # of a connection, unless the configuration says otherwise
RECEIVE_S = 20.0  # from a call's turn to the last byte of its message
TURN_S = 5.0  # that a call waits for its turn
DETAILS = "grpc-status-details-bin"
_RETRY_INFO = b"type.googleapis.com/google.rpc.RetryInfo"


class GrpcServer:
    """Serves ``intake`` at one address. Made, opened and closed in the loop."""

    def __init__(
        self,
        intake: Intake,
        limit: int,
        workers: Executor,
        log: logging.Logger,
        options: Mapping[str, int],
        admits: Admits | None = None,
        keeps_fields: bool = False,
    ) -> None:
        self._intake = intake
        self._limit = limit
        self._workers = workers
        self._log = log
        self._admits = admits
        self._keeps_fields = keeps_fields
        self._turns = asyncio.Semaphore(MAX_CALLS)
        # Decompression stays with us; a port in use is an error, not shared.
        given = {"grpc.per_message_decompression": 0, "grpc.so_reuseport": 0,
                 "grpc.max_concurrent_streams": MAX_STREAMS,
                 "grpc.max_receive_message_length": limit, **options}  # fmt: skip
        self._server = grpc.aio.server(
            handlers=(_Services(self._handler),), options=list(given.items())
        )

    async def open(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Serve at ``address`` (``host:port`` or ``unix:path``) and give the port.

        Raises:
            OtelautoError: it cannot be had.
        """
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OtelautoError(
                f"nothing can listen for gRPC on {address}: {error}",
                "Is it in use by another program? Give another endpoint.",
            ) from error
        await self._server.start()
        return int(port)

    async def close(self, deadline_s: float) -> None:
        """Take no call any more; those that are there are answered, within the deadline."""
        await self._server.stop(deadline_s)

    def _handler(self, method: str) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        signal = METHODS.get(method)
        if signal is None:
            return None

        async def export(messages: AsyncIterator[bytes], call: Any) -> bytes:
            return await self._export(signal, messages, call)

        # On the wire one message is a stream of one; only so its coming can be waited for.
        return grpc.stream_unary_rpc_method_handler(export)

    async def _export(self, signal: str, messages: AsyncIterator[bytes], call: Any) -> bytes:
        fields = joined((k, v) for k, v in call.invocation_metadata() if isinstance(v, str))
        if self._admits is not None and not self._admits(fields):
            self._intake.rejected("401")
            await call.abort(Code.UNAUTHENTICATED, "the credentials are missing or wrong")
        if not self._intake.outputs.takes(signal):
            self._intake.rejected("404")
            await call.abort(Code.UNIMPLEMENTED, NO_SUCH_SIGNAL.format(signal=signal))
        try:
            async with asyncio.timeout(TURN_S):
                await self._turns.acquire()
        except TimeoutError:
            self._intake.rejected("no_room")
            await _abort_for_now(call, "too many requests at a time", None)
        try:
            return await self._serve(signal, messages, call, fields)
        finally:
            self._turns.release()

    async def _serve(
        self, signal: str, messages: AsyncIterator[bytes], call: Any, fields: Fields
    ) -> bytes:
        try:
            async with asyncio.timeout(RECEIVE_S):
                body = await anext(messages, b"")
        except TimeoutError:
            self._intake.rejected("slow")
            await call.abort(Code.DEADLINE_EXCEEDED, "the request took too long")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._workers, self._take, signal, body, fields)
        except TooLargeError as error:
            await call.abort(Code.RESOURCE_EXHAUSTED, str(error))
        except UnusableError as error:
            await call.abort(Code.INVALID_ARGUMENT, str(error))
        except Refused as refused:
            if refused.permanent:
                await call.abort(Code.INVALID_ARGUMENT, str(refused))
            await _abort_for_now(call, str(refused), refused.retry_after_s)
        except Exception:
            self._log.exception("a call failed")
            await call.abort(Code.INTERNAL, "an internal error; it is in the log")
        raise AssertionError("an aborted call goes on")

    def _take(self, signal: str, body: bytes, fields: Fields) -> bytes:
        kept = fields if self._keeps_fields else NO_FIELDS
        encoding = encoding_of(body)
        return self._intake.take(signal, body, self._limit, encoding, fields=kept).encoded()


def retry_info(message: str, code: int, after_s: float) -> bytes:
    """A google.rpc.Status with a RetryInfo (googleapis, google/rpc/error_details.proto)."""
    whole, rest = divmod(round(after_s * 1e9), 10**9)
    duration = protobuf.integer(1, whole) + protobuf.integer(2, rest)
    detail = protobuf.sized(1, _RETRY_INFO) + protobuf.sized(2, protobuf.sized(1, duration))
    return protobuf.integer(1, code) + protobuf.text(2, message) + protobuf.sized(3, detail)


async def _abort_for_now(call: Any, message: str, after_s: float | None) -> None:
    """RESOURCE_EXHAUSTED if it is known when to come again, else UNAVAILABLE."""
    code = Code.UNAVAILABLE if after_s is None else Code.RESOURCE_EXHAUSTED
    wait = OVERLOADED_RETRY_S if after_s is None else after_s
    details = retry_info(message, code.value[0], wait)
    await call.abort(code, message, trailing_metadata=((DETAILS, details),))


class _Services(grpc.GenericRpcHandler):
    def __init__(
        self, handler: Callable[[str], grpc.RpcMethodHandler[bytes, bytes] | None]
    ) -> None:
        self._handler = handler

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handler(handler_call_details.method)
