# SPDX-License-Identifier: Apache-2.0
"""grpcio as a client. Usage: PORT COUNT CALLS-AT-ONCE LOG GO-FILE

It begins when GO-FILE says "go".

All kinds of call, all status codes, deadlines that pass, calls that are given up. One JSON line a
call: id, wish, kind, how it ended for the client (``ended``: "code", "deadline" or "cancelled").
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

KINDS = ("unary", "up", "down", "both")


def plan(number: int) -> dict[str, Any]:
    rng = random.Random(number)
    kind = KINDS[number % 4]
    code = number // 4 % 17 if number % 3 == 0 else 0
    answers = 1 if kind in ("unary", "up") else rng.choice((1, 3, 10))
    if code and kind in ("unary", "up"):
        answers = 0
    messages = 1 if kind in ("unary", "down") else rng.choice((1, 2, 9))
    ended = "deadline" if number % 50 == 49 else "cancelled" if number % 50 == 48 else "code"
    wait = 0 if ended == "code" else 600
    size = rng.choice((0, 1, 100, 3000, 17000 if answers == 1 else 300))
    return {"id": f"Call{number:04d}", "kind": kind, "messages": messages, "ended": ended,
            "wish": {"answers": answers, "size": size, "code": code, "wait": wait}}  # fmt: skip


def call(channel: grpc.Channel, planned: dict[str, Any]) -> dict[str, Any]:
    wish = json.dumps(planned["wish"]).encode()
    messages = [wish, *(b"x" * (100 * n) for n in range(planned["messages"] - 1))]
    method = f"/shop.v1.Orders/{planned['id']}"
    kind, ended = planned["kind"], planned["ended"]
    timeout = 0.2 if ended == "deadline" else 60.0
    response: Any
    if kind == "unary":
        response = channel.unary_unary(method).future(wish, timeout=timeout)
    elif kind == "up":
        response = channel.stream_unary(method).future(iter(messages), timeout=timeout)
    elif kind == "down":
        response = channel.unary_stream(method)(wish, timeout=timeout)
    else:
        response = channel.stream_stream(method)(iter(messages), timeout=timeout)
    if ended == "cancelled":
        threading.Timer(0.2, response.cancel).start()
    try:
        answers = list(_all(response, kind))
    except (grpc.RpcError, grpc.FutureCancelledError):
        answers = []
    code = response.code().value[0]
    expected = {"code": planned["wish"]["code"], "deadline": 4, "cancelled": 1}[ended]
    assert code == expected, (planned, code)
    return {**planned, "code": code, "answers": len(answers)}


def _all(response: Any, kind: str) -> Iterator[bytes]:
    if kind in ("unary", "up"):
        yield response.result()
    else:
        yield from response


def main() -> None:
    port, count, at_once, log, go = sys.argv[1:]
    deadline = time.monotonic() + 120
    Path(go).write_text("ready")
    while Path(go).read_text() != "go":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(60)
        with ThreadPoolExecutor(int(at_once)) as pool:
            done = list(pool.map(lambda n: call(channel, plan(n)), range(int(count))))
    Path(log).write_text("".join(json.dumps(line) + "\n" for line in done))


if __name__ == "__main__":
    main()
