# SPDX-License-Identifier: Apache-2.0
"""The front of the demo's shop: what customers call."""

from __future__ import annotations

from service import Answer, call, serve


def handle(method: str, path: list[str]) -> Answer:
    match method, path:
        case "GET", []:
            return call("catalog", "GET", "/products")
        case "GET", ["products", product]:
            return call("catalog", "GET", f"/products/{product}")
        case "GET", ["carts", user]:
            return call("cart", "GET", f"/carts/{user}")
        case "POST", ["carts", user, "items"]:
            return call("cart", "POST", f"/carts/{user}/items", {"product": 1})
        case "POST", ["checkout", user]:
            return checkout(user)
    return 404, {"error": "no such page"}


def checkout(user: str) -> Answer:
    """Users whose number ends in 7 have a card that our payment code cannot read."""
    status, _ = call("cart", "GET", f"/carts/{user}")
    if user.endswith("7"):
        return 500, {"error": "payment failed"}
    status, _ = call("cart", "DELETE", f"/carts/{user}")
    return status, {"order": user}


serve("shop", handle)
