# SPDX-License-Identifier: Apache-2.0
"""A call of gRPC as its bytes are on the wire: with a compression that no client here has."""

from __future__ import annotations

import socket
import struct

import h2.connection
import h2.events

from otelauto.export.otlp_grpc import METHODS


def compressed_call(port: int, body: bytes, encoding: str, method: str = METHODS["traces"]) -> str:
    """The grpc-status of a call whose message is compressed (gRPC over HTTP2)."""
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    connection.send_headers(
        1,
        [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"),
         ("te", "trailers"), ("content-type", "application/grpc"), ("grpc-encoding", encoding)],
    )  # fmt: skip
    data = b"\x01" + struct.pack(">I", len(body)) + body
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        while True:
            room = min(connection.local_flow_control_window(1), connection.max_outbound_frame_size)
            if data and room:
                part, data = data[:room], data[room:]
                connection.send_data(1, part, end_stream=not data)
            sock.sendall(connection.data_to_send())
            if data and connection.local_flow_control_window(1):
                continue
            received = sock.recv(65536)
            if not received:
                return "closed"
            for event in connection.receive_data(received):
                if isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                    fields = {bytes(k): bytes(v) for k, v in event.headers}
                    if b"grpc-status" in fields:
                        return fields[b"grpc-status"].decode()
                if isinstance(event, h2.events.StreamReset):
                    return f"reset {event.error_code}"
