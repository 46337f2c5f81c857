# SPDX-License-Identifier: Apache-2.0
"""grpcio: answers any call as its first message wishes (see servers/go/grpc). Usage: PORT"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Any(grpc.GenericRpcHandler):
    def __init__(self, log: Path) -> None:
        self._log = log.open("a")
        self._lock = threading.Lock()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            return self._answer(details.method, messages, context)

        return grpc.stream_stream_rpc_method_handler(answer)

    def _answer(
        self, method: str, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        line = {"id": method.rpartition("/")[2], "method": method, "code": 1,
                "received": 0, "received_bytes": 0, "sent": 0, "sent_bytes": 0}  # fmt: skip
        wish: dict[str, int] = {}
        try:
            for message in messages:
                wish = wish or json.loads(message)
                line["received"] += 1
                line["received_bytes"] += len(message)
            time.sleep(wish["wait"] / 1000)
            for _ in range(wish["answers"]):
                line["sent"] += 1
                line["sent_bytes"] += wish["size"]
                yield b"a" * wish["size"]
            line["code"] = wish["code"] if context.is_active() else 1
        finally:
            with self._lock:
                self._log.write(json.dumps(line) + "\n")
                self._log.flush()
        if wish["code"]:
            context.abort(CODES[wish["code"]], f"wished for {wish['code']}")


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(110))
    server.add_generic_rpc_handlers((Any(Path(os.environ["ACCESS_LOG"])),))
    assert server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    signal.sigwait({signal.SIGTERM})
    server.stop(None)


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
main()
