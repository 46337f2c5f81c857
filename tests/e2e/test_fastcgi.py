# SPDX-License-Identifier: Apache-2.0
"""nginx before a FastCGI server (fcgiwrap), over TCP and over a unix socket."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.harness.otelauto import Otelauto, configuration
from tests.e2e.harness.process import Process, accepts, free_port
from tests.scale import PATIENCE, SCALE

pytestmark = pytest.mark.e2e
REQUESTS = 97 * SCALE  # a process each
STATUSES = (200, 201, 404, 500)
SCRIPT = """#!/bin/sh
code=${PATH_INFO%%-*}
body=$(cat)
printf 'Status: %s Said\\r\\nContent-Type: text/plain\\r\\n\\r\\n' "${code#/}"
printf '%s %s' "$REQUEST_METHOD" "${#body}"
printf '%s %s\\n' "$REQUEST_METHOD" "$PATH_INFO" >> "$LOG"
"""
NGINX = """
daemon off; user root; pid {directory}/nginx.pid; error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {directory}/1; proxy_temp_path {directory}/2;
  fastcgi_temp_path {directory}/3; uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      fastcgi_pass {upstream};
      fastcgi_param SCRIPT_FILENAME {directory}/script;
      fastcgi_param PATH_INFO $uri;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param REQUEST_URI $request_uri;
      fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param LOG {directory}/log;
    }}
  }}
}}
"""


@pytest.fixture(params=["unix", "tcp"])
def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Process]]:
    """The address as nginx writes it, and the server."""
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    port, socket = free_port(), tmp_path / "fastcgi.sock"
    unix = request.param == "unix"
    bound = f"unix:{socket}" if unix else f"tcp:127.0.0.1:{port}"
    with Process(["fcgiwrap", "-c", "3", "-s", bound], tmp_path / "fcgiwrap.err") as server:
        server.wait_for(lambda: accepts(socket if unix else port), "fcgiwrap listens")
        yield (f"unix:{socket}" if unix else f"127.0.0.1:{port}"), server


def ask(port: int, number: int) -> tuple[str, str, int]:
    status = STATUSES[number % len(STATUSES)]
    method = "POST" if number % 3 else "GET"
    path = f"/{status}-{number}"
    body = b"b" * number if method == "POST" else None
    wanted = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, method=method)
    try:
        with urllib.request.urlopen(wanted, timeout=30 * PATIENCE) as answer:
            got = answer.status
    except urllib.error.HTTPError as error:
        got = error.code
        error.close()
    assert got == status
    return method, path, status


def test_both_ends_of_every_exchange(upstream: tuple[str, Process], tmp_path: Path) -> None:
    address, server = upstream
    port, configured = free_port(), tmp_path / "nginx.conf"
    configured.write_text(NGINX.format(directory=tmp_path, port=port, upstream=address))
    with Process(["nginx", "-p", tmp_path, "-c", configured], tmp_path / "nginx.err") as nginx:
        nginx.wait_for(lambda: accepts(port), "nginx listens")
        yaml = configuration(ports=[port], pids=server.pids())
        with Otelauto(tmp_path, yaml) as otelauto:
            with ThreadPoolExecutor(3) as pool:
                asked = list(pool.map(lambda n: ask(port, n), range(REQUESTS)))
            otelauto.wait_for_spans(3 * REQUESTS)
    served = sorted(line.split() for line in (tmp_path / "log").read_text().splitlines())
    assert served == sorted([method, path] for method, path, _ in asked)
    for kind, service in (("server", "nginx"), ("client", "nginx"), ("server", "fcgiwrap")):
        found = [
            span["attributes"]
            for span in otelauto.spans
            if (span["kind"], span["service"]["name"]) == (kind, service)
        ]
        said = [
            (a["http.request.method"], a["url.path"], a["http.response.status_code"]) for a in found
        ]
        assert sorted(said) == sorted(asked), json.dumps(said)
        if (kind, service) != ("server", "nginx"):
            sizes = {a["url.path"]: a.get("http.request.body.size") for a in found}
            assert all(
                sizes[path] == (int(path.rpartition("-")[2]) or None)
                for method, path, _ in asked
                if method == "POST"
            )
