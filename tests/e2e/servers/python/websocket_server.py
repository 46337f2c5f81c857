# SPDX-License-Identifier: Apache-2.0
"""Echoes each message of a WebSocket (the websockets library). Usage: PORT"""

from __future__ import annotations

import sys

from websockets.sync.server import ServerConnection, serve


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def main() -> None:
    with serve(echo, "127.0.0.1", int(sys.argv[1]), compression=None) as server:
        server.serve_forever()


main()
