# SPDX-License-Identifier: Apache-2.0
"""Clients of an agent's ``otelcol.receiver.otlp "in"``."""

from __future__ import annotations

import http.client
import socket
from typing import Any

import grpc
from tests.unit.agent_parts import Agent, message, spans

from otelauto.export.otlp_grpc import METHODS, OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.otlp_json import Json

RECEIVER = "otelcol.receiver.otlp.in"
LIMIT = 256 * 1024
BODY = message(spans(3)).SerializeToString()


def forget(made: Agent) -> None:
    """What an earlier test sent, and what it wanted to be refused."""
    made.sink.payloads.clear()
    made.sink.refusals.clear()
    made.sink.always = None


def text(grpc_more: str = "", http_more: str = "", output: str = "") -> str:
    to = "[otelcol.exporter.debug.sink.input]"
    output = output or f"traces = {to}\n metrics = {to}"
    return f"""
otelcol.receiver.otlp "in" {{
  grpc {{
    endpoint = "127.0.0.1:0"
    max_recv_msg_size = "{LIMIT}"
    {grpc_more}
  }}
  http {{
    endpoint = "127.0.0.1:0"
    max_request_body_size = "{LIMIT}"
    {http_more}
  }}
  output {{
    {output}
  }}
}}
"""


def ask(
    made: Agent, body: bytes = BODY, path: str = "/v1/traces", method: str = "POST", **fields: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body of an answer; ``_`` in names of fields stands for ``-``."""
    headers = {"content-type": "application/x-protobuf"}
    headers |= {name.replace("_", "-"): value for name, value in fields.items()}
    client = http.client.HTTPConnection("127.0.0.1", made[RECEIVER].ports["http"], timeout=30)
    try:
        client.request(method, path, body, headers)
        answer = client.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        client.close()


def call(
    made: Agent, body: bytes = BODY, method: str = METHODS["traces"], **more: Any
) -> tuple[grpc.StatusCode, str, bytes]:
    """Code, details and response of a call."""
    with grpc.insecure_channel(f"127.0.0.1:{made[RECEIVER].ports['grpc']}") as channel:
        try:
            return grpc.StatusCode.OK, "", channel.unary_unary(method)(body, timeout=30, **more)
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
            return error.code(), error.details(), details


def transport(made: Agent, kind: str, signal: str = "traces", **more: Any) -> Any:
    """One of the instrumenter's own."""
    if kind == "grpc":
        return OtlpGrpc(
            "http", "127.0.0.1", made[RECEIVER].ports["grpc"], signal, version="1", **more
        )
    as_json = Json(signal) if kind == "json" else None
    url = f"http://127.0.0.1:{made[RECEIVER].ports['http']}/v1/{signal}"
    return OtlpHttp(url, json=as_json, version="1", **more)


def raw(made: Agent, data: bytes) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", made[RECEIVER].ports["http"]), timeout=30)
    found.sendall(data)
    return found


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    connection.close()
    return b"".join(parts)
