# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan of requests with curl and keeps a record.

Usage: ``curl.py PLAN LOG PORT``, with PLAN and LOG in JSON lines as for raw.py. A curl gets several
requests and sends them on one connection where it can; a ``new`` one has a curl of its own. Any
transfer that curl complains of ends the client with an error.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

WORKERS = 4
SCHEME = "https" if "CLIENT_TLS" in os.environ else "http"
TOGETHER = 16  # requests of one curl
# Config file of each request; "fail-early" ends curl at the first that fails.
COMMON = """\
silent
show-error
fail-early
insecure
include
max-time = 30
expect100-timeout = 10
write-out = "%{json}\\n"
user-agent = "curl-client"
"""
Planned = dict[str, Any]
Record = dict[str, Any]


def options(planned: Planned, port: str, directory: Path) -> str:
    """The part of a config file (curl(1), ``--config``) that makes curl send ``planned``."""
    ident = planned["id"]
    lines = [
        f'url = "{SCHEME}://127.0.0.1:{port}{planned["path"]}"',
        f'output = "{directory / ident}"',
        f'header = "X-Request-Id: {ident}"',
        'header = "Expect: 100-continue"' if planned["style"] == "expect" else 'header = "Expect:"',
    ]
    if planned["method"] == "HEAD":
        lines.append("head")
    else:
        lines.append(f"request = {planned['method']}")
    if planned["framing"] != "none":
        text, size = f"{ident}.".encode(), planned["body"]
        body = directory / f"{ident}.body"
        body.write_bytes((text * (size // len(text) + 1))[:size])
        lines += [f'data-binary = "@{body}"', 'header = "Content-Type: application/octet-stream"']
    if planned["framing"] == "chunked":
        lines.append('header = "Transfer-Encoding: chunked"')
    if planned["connection"] == "close":
        lines.append('header = "Connection: close"')
    return COMMON + "\n".join(lines) + "\n"


def read_answer(data: bytes) -> tuple[str, int]:
    """Framing and bytes of the body of what ``--include`` wrote; interim heads come before."""
    while True:
        head, _, data = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 100"):
            break
    lines = head.decode("latin-1").lower().split("\r\n")[1:]
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        return "chunked", len(data)
    return ("length" if "content-length" in headers else "close"), len(data)


def record_of(planned: Planned, told: dict[str, Any], answer: bytes) -> Record:
    framing, count = read_answer(answer)
    if count != told["size_download"]:
        raise ValueError(f"{planned['id']}: {count} bytes, curl says {told['size_download']}")
    bodiless = planned["method"] == "HEAD" or told["http_code"] in (204, 304)
    return {
        "id": planned["id"],
        "method": planned["method"],
        "path": planned["path"],
        "style": planned["style"],
        "status": told["http_code"],
        "request_bytes": planned["body"],
        "request_framing": planned["framing"],
        "response_bytes": count,
        "response_framing": "none" if bodiless else framing,
        "reused": told["num_connects"] == 0,
        "local_port": told["local_port"],
    }


def perform(together: Sequence[Planned], port: str) -> list[Record]:
    """One curl for all of ``together``."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = "next\n".join(options(planned, port, directory) for planned in together)
        done = subprocess.run(
            ["curl", "--disable", "--config", "-"],
            input=config.encode(),
            stdout=subprocess.PIPE,
            check=True,
        )
        told = [json.loads(line) for line in done.stdout.splitlines()]
        return [
            record_of(planned, one, (directory / planned["id"]).read_bytes())
            for planned, one in zip(together, told, strict=True)
        ]


def calls(plan: Sequence[Planned]) -> Iterator[Sequence[Planned]]:
    """Which requests go into one curl."""
    for alone, group in itertools.groupby(plan, lambda planned: planned["connection"] == "new"):
        requests, size = list(group), 1 if alone else TOGETHER
        for at in range(0, len(requests), size):
            yield requests[at : at + size]


def main(plan: str, log: str, port: str) -> None:
    planned = [json.loads(line) for line in Path(plan).read_text().splitlines()]
    with ThreadPoolExecutor(WORKERS) as pool:
        done = list(pool.map(lambda together: perform(together, port), calls(planned)))
    records = itertools.chain.from_iterable(done)
    Path(log).write_text("".join(json.dumps(record) + "\n" for record in records))


if __name__ == "__main__":
    main(*sys.argv[1:])
