# SPDX-License-Identifier: Apache-2.0
"""The Flask application that is measured: one route with a parameter."""

from __future__ import annotations

from flask import Flask

application = Flask(__name__)


@application.get("/items/<ident>")
def item(ident: str) -> str:
    return f"item {ident}\n"
