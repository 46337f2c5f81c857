# SPDX-License-Identifier: Apache-2.0
"""Debian's Prometheus, and nginx with TLS and basic auth before it and before a trace receiver."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.certificates import self_signed
from tests.e2e.harness.process import Process, accepts, free_port
from tests.scale import PATIENCE

NGINX = """
daemon off; master_process off; user root; pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log {directory}/nginx.log;
    client_body_temp_path {directory}; proxy_temp_path {directory};
    fastcgi_temp_path {directory}; scgi_temp_path {directory}; uwsgi_temp_path {directory};
    client_max_body_size 64m;
    ssl_certificate {cert}; ssl_certificate_key {key};
    auth_basic "metrics and traces"; auth_basic_user_file {directory}/users;
    server {{
        listen 127.0.0.1:{mimir} ssl;
        location /api/prom/push {{ proxy_pass http://127.0.0.1:{prometheus}/api/v1/write; }}
    }}
    server {{
        listen 127.0.0.1:{tempo} ssl http2;
        location / {{ grpc_pass grpc://127.0.0.1:{traces}; }}
    }}
}}
"""


class Prometheus:
    """A Prometheus that takes remote write and scrapes nothing; ends with the ``with`` block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port = free_port()

    def __enter__(self) -> Prometheus:
        file = self._directory / "prometheus.yml"
        file.write_text("scrape_configs: []\n")
        words = [
            "prometheus", f"--config.file={file}", "--web.enable-remote-write-receiver",
            f"--storage.tsdb.path={self._directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip
        self._process = Process(words, self._directory / "prometheus.err")
        self._process.wait_for(lambda: accepts(self.port), "Prometheus listens")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.__exit__(None, None, None)

    def query(self, text: str) -> list[dict[str, Any]]:
        """The instant vector of a query; nothing while Prometheus begins."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
        try:
            with urllib.request.urlopen(url, timeout=10 * PATIENCE) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError:
            return []
        return found

    def total(self, text: str) -> float:
        """The sum of a query's values."""
        return sum(float(row["value"][1]) for row in self.query(text))


class Gate:
    """nginx: ``mimir`` and ``tempo`` are its ports, ``certificate`` what it is to be trusted by."""

    def __init__(self, directory: Path, prometheus: int, traces: int) -> None:
        self.mimir, self.tempo = free_port(), free_port()
        self._directory = directory
        self.certificate, key = self_signed(directory, "gate")
        text = NGINX.format(
            directory=directory, cert=self.certificate, key=key, mimir=self.mimir, tempo=self.tempo,
            prometheus=prometheus, traces=traces,
        )  # fmt: skip
        (directory / "gate.conf").write_text(text)
        self.admit({})

    def admit(self, users: dict[str, str]) -> None:
        """From now on these users with these passwords; nginx reads the file for each request."""
        file = self._directory / "users.new"
        file.write_text("".join(f"{user}:{{PLAIN}}{key}\n" for user, key in users.items()))
        file.rename(self._directory / "users")

    @contextlib.contextmanager
    def open(self) -> Iterator[Gate]:
        """nginx runs."""
        words = ["nginx", "-p", self._directory, "-c", self._directory / "gate.conf"]
        with Process(words, self._directory / "gate.err") as process:
            process.wait_for(lambda: accepts(self.mimir) and accepts(self.tempo), "nginx listens")
            yield self

    def statuses(self) -> list[str]:
        """The statuses of all answers so far."""
        lines = (self._directory / "nginx.log").read_text().splitlines()
        return [line.split('" ')[1].split()[0] for line in lines]
