# SPDX-License-Identifier: Apache-2.0
"""A Flask server for opentelemetry-instrument. Usage: app.py PORT BACKEND_PORT

``/call/...`` asks the backend twice: with a client that the SDK instruments, and with another.
"""

from __future__ import annotations

import http.client
import sys
import urllib.request

from flask import Flask

PORT, BACKEND = map(int, sys.argv[1:3])
app = Flask(__name__)


@app.get("/items/<ident>")
def item(ident: str) -> str:
    return f"item {ident}\n"


@app.get("/call/<ident>")
def call(ident: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{BACKEND}/traced/{ident}") as answer:
        answer.read()
    connection = http.client.HTTPConnection("127.0.0.1", BACKEND)
    connection.request("GET", f"/plain/{ident}")
    connection.getresponse().read()
    connection.close()
    return "called\n"


app.run("127.0.0.1", PORT, threaded=True)
