# SPDX-License-Identifier: Apache-2.0
"""``otelcol.receiver.otlp``: OTLP over gRPC and HTTP, protobuf and JSON."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from otelauto.agent.pipeline import Context, Running
from otelauto.agent.river.values import Capsule
from otelauto.agent.running.http_server import HttpServer
from otelauto.agent.running.loop import SERVERS, wait_for
from otelauto.agent.running.otlp_grpc_door import GrpcServer
from otelauto.agent.running.otlp_http_door import Admits, Cors, HttpDoor
from otelauto.agent.running.otlp_intake import ITEMS_ACCEPTED, ITEMS_REFUSED, Intake, Room
from otelauto.agent.running.outputs import Outputs, only
from otelauto.agent.running.server_tls import ServerTls
from otelauto.agent.running.unpacking import ENCODINGS
from otelauto.agent.schema import Decoded
from otelauto.errors import ConfigError, OtelautoError

WORKERS = 4
ROOM = 64 * 1024 * 1024  # bytes of requests that may be held, if the largest is no more
OPEN_S = 30.0
_MS = 1_000_000  # nanoseconds
# Arguments of a keepalive block, and gRPC's names of them.
_PARAMETERS = {
    "max_connection_idle": "grpc.max_connection_idle_ms",
    "max_connection_age": "grpc.max_connection_age_ms",
    "max_connection_age_grace": "grpc.max_connection_age_grace_ms",
    "time": "grpc.keepalive_time_ms",
    "timeout": "grpc.keepalive_timeout_ms",
}


class ReceiverOtlp(Running):
    """Listens where its ``grpc`` and ``http`` blocks say; a block that is absent is a closed door.

    Raises:
        ConfigError: a setting that cannot be honoured, or a TLS file that cannot be used.
    """

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        self._intake = Intake(Outputs(content, context.counters), context.counters)
        self._grpc_block, self._http_block = only(content, "grpc"), only(content, "http")
        self._grpc_tls = ServerTls.of(self._grpc_block)
        self._http_tls = ServerTls.of(self._http_block)
        if self._grpc_tls is not None:
            self._grpc_tls.check_for_grpc()
        self._workers: ThreadPoolExecutor | None = None
        self._http: HttpServer | None = None
        self._grpc: GrpcServer | None = None
        self.ports: dict[str, int] = {}  # that were bound, by protocol
        limit = int(self._http_block["max_request_body_size"]) if self._http_block else 0
        self.room = max(ROOM, 3 * limit)  # bytes of HTTP requests that may be held
        self._room = Room(self.room)
        for block in (self._grpc_block, self._http_block):
            if block is not None:
                _admits(block)
        if self._http_block is not None:
            _encodings(self._http_block)

    @property
    def room_left(self) -> int:
        """Bytes of it that are free."""
        return self._room.left

    @property
    def serving(self) -> int:
        """Requests that are with whoever is behind it."""
        return self._intake.serving

    def start(self) -> None:
        _allow_connections()
        loop = SERVERS.enter()
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix=self.context.id)
        try:
            wait_for(loop, self._open(), OPEN_S)
        except BaseException:
            self.stop(0.0)
            raise

    def stop(self, deadline_s: float) -> None:
        if self._workers is None:
            return
        loop = SERVERS.enter()
        with contextlib.suppress(TimeoutError):
            wait_for(loop, self._close(deadline_s), deadline_s + OPEN_S)
        self._workers.shutdown(wait=False)
        self._workers = None
        SERVERS.leave()
        SERVERS.leave()

    def status(self) -> Mapping[str, str | int | float]:
        figures: dict[str, str | int | float] = {
            f"{signal} {what}": self.context.counters.get(meaning, signal)
            for signal in ("traces", "metrics")
            for what, meaning in (("accepted", ITEMS_ACCEPTED), ("refused", ITEMS_REFUSED))
        }
        if self._http is not None:
            figures["HTTP connections"] = len(self._http.connections)
        return figures

    async def _open(self) -> None:
        if self._http_block is not None:
            await self._open_http(self._http_block)
        if self._grpc_block is not None:
            await self._open_grpc(self._grpc_block)

    async def _close(self, deadline_s: float) -> None:
        if self._grpc is not None:
            await self._grpc.close(deadline_s)
        if self._http is not None:
            await self._http.close(deadline_s)
        self._grpc = self._http = None
        if self._http_tls is not None:
            self._http_tls.stop()

    async def _open_http(self, block: Decoded) -> None:
        limit = int(block["max_request_body_size"])
        paths = {block[f"{each}_url_path"]: each for each in ("traces", "metrics", "logs")}
        door = HttpDoor(
            self._intake,
            paths,
            limit,
            _encodings(block),
            _cors(block),
            _admits(block),
            bool(block["include_metadata"]),
        )
        self._http = HttpServer(door, self._room, self._pool(), self.context.log)
        listening = _bound(block["endpoint"])
        self.ports["http"] = listening.getsockname()[1]
        tls = self._http_tls.context() if self._http_tls is not None else None
        await self._http.open(listening, tls)
        if self._http_tls is not None:
            self._http_tls.watch(self.context.log)

    async def _open_grpc(self, block: Decoded) -> None:
        self._grpc = GrpcServer(
            self._intake,
            int(block["max_recv_msg_size"]),
            self._pool(),
            self.context.log,
            _options(block),
            _admits(block),
            bool(block["include_metadata"]),
        )
        address = block["endpoint"]
        if block["transport"] == "unix":
            address = f"unix:{address}"
        credentials = self._grpc_tls.credentials() if self._grpc_tls is not None else None
        self.ports["grpc"] = await self._grpc.open(address, credentials)

    def _pool(self) -> ThreadPoolExecutor:
        if self._workers is None:
            raise OtelautoError("the receiver is stopped")
        return self._workers


def _options(block: Decoded) -> dict[str, int]:
    """gRPC's settings. Buffers are sized by the library."""
    options = {}
    if block["max_concurrent_streams"]:
        options["grpc.max_concurrent_streams"] = int(block["max_concurrent_streams"])
    keepalive = only(block, "keepalive")
    if keepalive is None:
        return options
    parameters = only(keepalive, "server_parameters")
    if parameters is not None:
        for name, option in _PARAMETERS.items():
            if parameters[name]:
                options[option] = max(1, parameters[name] // _MS)
    policy = only(keepalive, "enforcement_policy")
    if policy is not None:
        options["grpc.http2.min_ping_interval_without_data_ms"] = policy["min_time"] // _MS
        options["grpc.keepalive_permit_without_calls"] = int(policy["permit_without_stream"])
    return options


def _cors(block: Decoded) -> Cors:
    found = only(block, "cors")
    if found is None:
        return Cors()
    age = found["max_age"]
    return Cors(
        found["allowed_origins"], found["allowed_headers"], None if age is None else int(age)
    )


def _encodings(block: Decoded) -> Sequence[str]:
    """The compressions that a receiver takes; raises :class:`ConfigError`."""
    given = block["compression_algorithms"]
    if given is None:
        return ENCODINGS
    unknown = [each for each in given if each and each not in ENCODINGS]
    if unknown:
        raise ConfigError(
            f"otelcol.receiver.otlp cannot decompress {', '.join(unknown)}.",
            f"Known are {', '.join(ENCODINGS)}.",
        )
    return [each for each in given if each]


def _admits(block: Decoded) -> Admits | None:
    """What the handler of ``auth`` says of a request's fields; raises :class:`ConfigError`."""
    handler = block["auth"]
    if not isinstance(handler, Capsule) or handler.inner is None:
        return None
    if not handler.inner.checks():
        raise ConfigError(
            "this otelcol.auth component cannot check requests of others.",
            "Use otelcol.auth.basic or otelcol.auth.bearer.",
        )
    return handler.inner.admits  # type: ignore[no-any-return]


def _bound(endpoint: str) -> socket.socket:
    """A socket at ``host:port``; raises :class:`OtelautoError`."""
    host, _, port = endpoint.rpartition(":")
    host = host.strip("[]")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f'"{endpoint}" is no address to listen on.', "Give 127.0.0.1:4318.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise OtelautoError(
            f"nothing can listen for HTTP on {endpoint}: {error.strerror}.",
            "Is it in use by another program? Give another endpoint.",
        ) from error
    return found


def _allow_connections() -> None:
    """Each connection is a descriptor; the soft limit is there for programs that use select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
