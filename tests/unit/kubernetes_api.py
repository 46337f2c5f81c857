# SPDX-License-Identifier: Apache-2.0
"""A server that speaks the list and watch of the API of Kubernetes, with what a test puts into it.

It pages, gives bookmarks, forgets old versions and asks for a token, as the real one does.
"""

from __future__ import annotations

import copy
import json
import ssl
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.e2e.harness.process import free_port

RECORDED = Path(__file__).parent / "kubernetes_pods.json"
Item = dict[str, Any]


def recorded(name: str, /, **metadata: Any) -> Item:
    """A v1 Pod in all that the API gives of one, with other metadata."""
    item: Item = copy.deepcopy(_every()[name])
    item["metadata"] |= metadata
    return item


@cache
def _every() -> dict[str, Item]:
    found: dict[str, Item] = json.loads(RECORDED.read_text())
    return found


class FakeApi:
    """``pods`` by uid. Everything that was asked for is in ``requests``, as path and query.

    ``failures`` are status codes to answer the next requests with. ``token`` is what is accepted.
    """

    def __init__(self, tls: tuple[str, str] | None = None) -> None:
        self.port = free_port()
        self.token = "first"
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.failures: list[int] = []
        self.watch_seconds = 60.0
        self._lock = threading.Condition()
        self._pods: dict[str, Item] = {}
        self._log: list[tuple[int, str, Item]] = []
        self._version = 1000
        self._oldest = 0
        self._cut = 0
        self._ended = False
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> FakeApi:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended = True
            self._lock.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, item: Item) -> None:
        """Create or change a pod."""
        with self._lock:
            uid = item["metadata"]["uid"]
            self._tell("MODIFIED" if uid in self._pods else "ADDED", item)
            self._pods[uid] = item

    def remove(self, uid: str) -> None:
        """Delete a pod."""
        with self._lock:
            self._tell("DELETED", self._pods.pop(uid))

    def bookmark(self) -> int:
        """Move on to a version at which no pod changed; which."""
        with self._lock:
            self._tell("BOOKMARK", {"kind": "Pod", "apiVersion": "v1", "metadata": {}})
            return self._version

    def forget(self) -> None:
        """What happened until now cannot be watched any more (etcd was compacted)."""
        with self._lock:
            self._version += 1
            self._oldest = self._version

    def cut(self) -> None:
        """End every watch."""
        with self._lock:
            self._cut += 1
            self._lock.notify_all()

    def _tell(self, kind: str, item: Item) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self._log.append((self._version, kind, item))
        self._lock.notify_all()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self._lock:
            self.requests.append((parts.path, query))
            failure = self.failures.pop(0) if self.failures else 0
        if handler.headers.get("Authorization") != f"Bearer {self.token}":
            failure = 401
        if failure:
            _send(handler, failure, {"kind": "Status", "code": failure, "message": "no"})
        elif query.get("watch"):
            self._stream(handler, query)
        else:
            self._list(handler, query)

    def _wanted(self, item: Item, query: dict[str, str]) -> bool:
        node = query.get("fieldSelector", "").removeprefix("spec.nodeName=")
        return not node or item.get("spec", {}).get("nodeName") in (node, None)

    def _list(self, handler: BaseHTTPRequestHandler, query: dict[str, str]) -> None:
        with self._lock:
            items = [item for item in self._pods.values() if self._wanted(item, query)]
            first = int(query.get("continue", "0"))
            last = first + int(query.get("limit", len(items) + 1))
            metadata = {"resourceVersion": str(self._version)}
            if last < len(items):
                metadata |= {"continue": str(last), "remainingItemCount": str(len(items) - last)}
            found = {"kind": "PodList", "metadata": metadata, "items": items[first:last]}
        _send(handler, 200, found)

    def _stream(self, handler: BaseHTTPRequestHandler, query: dict[str, str]) -> None:
        seen = int(query["resourceVersion"])
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
        until = time.monotonic() + self.watch_seconds
        with self._lock:
            cut = self._cut
        while True:
            with self._lock:
                if seen < self._oldest:
                    events, over = [gone], True
                else:
                    news = [row for row in self._log if row[0] > seen]
                    events = [
                        {"type": kind, "object": item}
                        for _, kind, item in news
                        if self._wanted(item, query)
                    ]
                    seen = max([seen, *(version for version, _, _ in news)])
                    over = self._ended or self._cut > cut or time.monotonic() > until
                    if not events and not over:
                        self._lock.wait(0.2)
            try:
                for event in events:
                    line = json.dumps(event).encode() + b"\n"
                    handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                if over:
                    handler.wfile.write(b"0\r\n\r\n")
                handler.wfile.flush()
            except OSError:
                return
            if over:
                return


def _send(handler: BaseHTTPRequestHandler, status: int, body: Item) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
