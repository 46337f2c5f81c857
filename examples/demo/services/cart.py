# SPDX-License-Identifier: Apache-2.0
"""The demo's carts, in memory."""

from __future__ import annotations

import threading

from service import Answer, call, serve

_carts: dict[str, int] = {}
_lock = threading.Lock()


def handle(method: str, path: list[str]) -> Answer:
    match method, path:
        case "GET", ["carts", user]:
            _, price = call("pricing", "GET", "/prices/1")
            with _lock:
                return 200, {"user": user, "items": _carts.get(user, 0), "price": price}
        case "POST", ["carts", user, "items"]:
            with _lock:
                _carts[user] = _carts.get(user, 0) + 1
            return 201, {"user": user}
        case "DELETE", ["carts", user]:
            with _lock:
                _carts.pop(user, None)
            return 200, {"user": user}
    return 404, {"error": "no such cart"}


serve("cart", handle)
