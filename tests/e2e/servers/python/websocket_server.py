# SPDX-License-Identifier: Apache-2.0
"""Echoes each message of a WebSocket (the websockets library). Usage: PORT

Over TLS if TLS_CERT and TLS_KEY are set.
"""

from __future__ import annotations

import os
import ssl
import sys

from websockets.sync.server import ServerConnection, serve


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def main() -> None:
    context = None
    if cert := os.environ.get("TLS_CERT"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, os.environ["TLS_KEY"])
    with serve(echo, "127.0.0.1", int(sys.argv[1]), ssl=context, compression=None) as server:
        server.serve_forever()


main()
