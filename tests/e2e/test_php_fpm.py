# SPDX-License-Identifier: Apache-2.0
"""nginx before php-fpm, over TCP and over a unix socket, with and without kept connections."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness.otelauto import Otelauto, configuration
from tests.e2e.harness.process import Process, accepts, free_port, wait_until
from tests.e2e.harness.servers import php_fpm
from tests.e2e.harness.traffic import read_lines
from tests.scale import PATIENCE

Planned = tuple[str, int, int, int]  # method, status, sizes of the bodies
pytestmark = pytest.mark.e2e
REQUESTS = {"unix": 997, "tcp": 199, "tcp-kept": 397}
ROUND = 100  # requests before otelauto may catch up: a ring full of bodies is another test
STATUSES = (200, 201, 302, 404, 500, 503)
SIZES = (0, 1, 300, 3000, 20000)
SCRIPT = """<?php
[, $status, $size] = explode('/', $_SERVER['DOCUMENT_URI']);
http_response_code((int) $status);
header('X-Body: ' . strlen(file_get_contents('php://input')));
header('Content-Type: text/plain');
echo str_repeat('p', (int) $size);
"""
FPM = """
[global]
daemonize = no
error_log = {directory}/fpm.log
[www]
user = root
listen = {listen}
pm = static
pm.max_children = 4
access.log = {directory}/access.log
access.format = '{{"method": "%m", "path": "%{{DOCUMENT_URI}}e", "status": %s}}'
"""
NGINX = """
daemon off; user root; pid {directory}/nginx.pid; error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {directory}/1; proxy_temp_path {directory}/2;
  fastcgi_temp_path {directory}/3; uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
  upstream php {{ server {upstream}; {keepalive} }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 10000;
    location / {{
      fastcgi_pass php;
      {keep_conn}
      fastcgi_param SCRIPT_FILENAME {directory}/index.php;
      include /etc/nginx/fastcgi_params;
    }}
  }}
}}
"""


@pytest.fixture(params=["unix", "tcp", "tcp-kept"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int, Process]]:
    """How nginx reaches php-fpm, the port of nginx, and php-fpm."""
    (tmp_path / "index.php").write_text(SCRIPT)
    port, inner, socket = free_port(), free_port(), tmp_path / "php.sock"
    unix, kept = request.param == "unix", request.param == "tcp-kept"
    listen = str(socket) if unix else f"127.0.0.1:{inner}"
    (tmp_path / "fpm.conf").write_text(FPM.format(directory=tmp_path, listen=listen))
    (tmp_path / "nginx.conf").write_text(
        NGINX.format(
            directory=tmp_path,
            port=port,
            upstream=f"unix:{socket}" if unix else listen,
            keepalive="keepalive 3;" if kept else "",
            keep_conn="fastcgi_keep_conn on;" if kept else "",
        )
    )
    fpm = [php_fpm(), "--nodaemonize", "--allow-to-run-as-root", "-y", tmp_path / "fpm.conf"]
    nginx = ["nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf"]
    with Process(fpm, tmp_path / "fpm.err") as php, Process(nginx, tmp_path / "nginx.err") as web:
        php.wait_for(lambda: accepts(socket if unix else inner), "php-fpm listens")
        web.wait_for(lambda: accepts(port), "nginx listens")
        yield request.param, port, php


def plan(number: int) -> tuple[str, str, int, int, int]:
    """Method, path, status, and the sizes of the bodies."""
    status = STATUSES[number % len(STATUSES)]
    method = ("GET", "POST", "PUT", "DELETE")[number % 4]
    size = SIZES[number % len(SIZES)]
    body = SIZES[number // 4 % len(SIZES)] if method in ("POST", "PUT") else 0
    return method, f"/{status}/{size}/r{number}", status, body, size


def ask(client: http.client.HTTPConnection, number: int) -> None:
    method, path, status, body, size = plan(number)
    client.request(method, path + "?secret=1", b"b" * body if body else None)
    with client.getresponse() as answer:
        assert (answer.status, len(answer.read())) == (status, size)
        assert answer.headers["X-Body"] == str(body)


def test_both_ends_of_every_exchange(stack: tuple[str, int, Process], tmp_path: Path) -> None:
    kind, port, php = stack
    count = REQUESTS[kind]
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60 * PATIENCE)
    with Otelauto(tmp_path, configuration(ports=[port], pids=php.pids())) as otelauto:
        for number in range(count):
            ask(client, number)
            if number % ROUND == ROUND - 1:
                otelauto.wait_for_spans(3 * number + 3)
        otelauto.wait_for_spans(3 * count)
    client.close()
    log = tmp_path / "access.log"
    wait_until(lambda: len(read_lines(log)) >= count, "php-fpm has written its log")
    planned = {path: (method, status, body, size)
               for method, path, status, body, size in map(plan, range(count))}  # fmt: skip
    served = {line["path"]: (line["method"], line["status"]) for line in read_lines(log)}
    assert served == {path: (method, status) for path, (method, status, *_) in planned.items()}
    kinds = {"nginx, server": [], "nginx, client": [], "php, server": []}  # type: ignore[var-annotated]
    for span in otelauto.spans:
        service = "nginx" if span["service"]["name"] == "nginx" else "php"
        kinds[f"{service}, {span['kind']}"].append(span)
    for kind, spans in kinds.items():
        problems = [each for span in spans if (each := problem(span, planned, kind))]
        assert not problems, f"{kind}: {len(problems)}: {problems[:5]}"
        assert len({span["attributes"]["url.path"] for span in spans}) == len(spans) == count


def problem(
    span: dict[str, object], planned: dict[str, tuple[str, int, int, int]], kind: str
) -> str:
    """What is wrong with ``span``, if anything is."""
    attributes = span["attributes"]
    assert isinstance(attributes, dict)
    get = attributes.get
    method, status, body, size = planned[get("url.path")]
    sizes = get("http.request.body.size") or 0, get("http.response.body.size") or 0
    # PHP says no length: nginx chunks, and such bodies are not followed where less is copied.
    if kind == "nginx, server" and "otelauto.http.response.wire_size" in attributes:
        sizes = sizes[0], size
    said = (get("http.request.method"), get("http.response.status_code"), sizes)
    failed = status >= (400 if kind.endswith("client") else 500)
    if (*said, span["error"], span["incomplete"]) == (method, status, (body, size), failed, None):
        return ""
    return f"{attributes['url.path']}: {said}, {span['error']}, {span['incomplete']}"


def test_the_comparison_finds_lies() -> None:
    planned = {"/a": ("GET", 500, 0, 5)}
    attributes = {"url.path": "/a", "http.request.method": "GET", "http.response.status_code": 500,
                  "http.response.body.size": 5}  # fmt: skip
    span = {"attributes": attributes, "error": True, "incomplete": None}
    assert not problem(span, planned, "php, server")
    for name in ("http.request.method", "http.response.status_code", "http.response.body.size"):
        assert problem({**span, "attributes": {**attributes, name: 1}}, planned, "php, server")
    assert problem({**span, "incomplete": "lost"}, planned, "php, server")
    assert problem({**span, "error": False}, planned, "php, server")
