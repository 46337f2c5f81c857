# SPDX-License-Identifier: Apache-2.0
"""WebSockets inside TLS, on asyncio. Usage: PORT FIRST COUNT AT-ONCE

Begins when a line comes on its standard input. One JSON line a WebSocket: what was said, and
between which times it must have lasted, as of ``chat`` in tests/e2e/test_long_exchanges.py.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from typing import Any

from websockets.asyncio.client import connect

SIZES = (0, 1, 100, 125, 126, 1000, 16384, 65536)
DECOY = "GET /inside HTTP/1.1\r\nHost: x\r\n\r\n"
DEADLINE_S = 120


async def chat(port: int, number: int, context: ssl.SSLContext) -> dict[str, Any]:
    choice = random.Random(number)
    path, messages, size = f"/chat/{number}", choice.randint(0, 12), 0
    begin = time.monotonic_ns()
    connection = await connect(
        f"wss://127.0.0.1:{port}{path}", ssl=context, compression=None, max_size=None,
        origin="https://127.0.0.1", open_timeout=DEADLINE_S, close_timeout=DEADLINE_S,  # type: ignore[arg-type]
    )  # fmt: skip
    is_open = time.monotonic_ns()
    for _ in range(messages):
        said = choice.choice([DECOY, "x" * choice.choice(SIZES)])
        await connection.send(said)
        assert await asyncio.wait_for(connection.recv(), DEADLINE_S) == said
        size += len(said)
    code = choice.choice((1000, 1001, 4000))
    closing = time.monotonic_ns()
    await connection.close(code)
    return {"path": path, "messages": messages, "size": size, "code": code,
            "least": closing - is_open, "most": time.monotonic_ns() - begin}  # fmt: skip


async def main() -> None:
    port, first, count, at_once = map(int, sys.argv[1:])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sys.stdin.readline()
    room = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with room:
            print(json.dumps(await chat(port, number, context)), flush=True)

    await asyncio.gather(*(one(number) for number in range(first, first + count)))


asyncio.run(main())
