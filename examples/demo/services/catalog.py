# SPDX-License-Identifier: Apache-2.0
"""The demo's catalog: products, with what stock and reviews say of them."""

from __future__ import annotations

import time

from service import Answer, call, serve

PRODUCTS = 500


def handle(method: str, path: list[str]) -> Answer:
    match method, path:
        case "GET", ["products"]:
            return 200, [{"id": number} for number in range(20)]
        case "GET", ["products", product] if product.isdigit() and int(product) < PRODUCTS:
            time.sleep(int(product) % 5 / 1000)  # a database that takes up to 4 ms
            _, stock = call("stock", "GET", f"/stock/{product}")
            _, reviews = call("reviews", "GET", f"/products/{product}/reviews")
            return 200, {"id": int(product), "stock": stock, "reviews": reviews}
    return 404, {"error": "no such product"}


serve("catalog", handle)
