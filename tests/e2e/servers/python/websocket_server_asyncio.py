# SPDX-License-Identifier: Apache-2.0
"""Echoes each message of a WebSocket inside TLS (websockets, on asyncio). Usage: PORT"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys

from websockets.asyncio.server import ServerConnection, serve


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["TLS_CERT"], os.environ["TLS_KEY"])
    port = int(sys.argv[1])
    async with serve(echo, "127.0.0.1", port, ssl=context, compression=None) as server:
        await server.serve_forever()


asyncio.run(main())
