# SPDX-License-Identifier: Apache-2.0
"""What the agent of the demo sends to: a Prometheus and a trace receiver, behind nginx with TLS."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from fleet import base_environment
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from processes import Child, DemoError, free_ports, listens, wait_until

START_S = 20.0
PACKAGES = {"prometheus": "prometheus", "nginx": "nginx-light", "openssl": "openssl"}
NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}; proxy_temp_path {directory};
    fastcgi_temp_path {directory}; scgi_temp_path {directory}; uwsgi_temp_path {directory};
    client_max_body_size 64m;
    ssl_certificate {directory}/store.pem; ssl_certificate_key {directory}/store.key;
    auth_basic "stores"; auth_basic_user_file {directory}/users;
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


class Traces(services.TraceServiceServicer):
    """Keeps the spans that come: (service, span)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        services.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            name = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(name.get("service.name", "?"), span) for span in scope.spans]
        return messages.ExportTraceServiceResponse()

    def stop(self) -> None:
        self._server.stop(None).wait(10)


class Stores:
    """Both stores; ``environment`` is what the agent needs to reach them."""

    def __init__(self, directory: Path) -> None:
        missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
        if missing:
            raise DemoError(f"this demo needs more packages: {', '.join(missing)}")
        self._directory = directory
        self._children: list[Child] = []
        self.traces = Traces()
        self._prometheus, self._mimir, self._tempo = free_ports(3)
        self._key = secrets.token_urlsafe(18)
        self.environment = {
            "MIMIR_USER": "metrics",
            "MIMIR_ENDPOINT": f"localhost:{self._mimir}",
            "TEMPO_USER": "traces",
            "TEMPO_ENDPOINT": f"localhost:{self._tempo}",
            "GRAFANA_API_KEY": self._key,
            "SSL_CERT_FILE": str(directory / "store.pem"),
        }

    def start(self, stopping: threading.Event) -> None:
        """Start them; returns when they listen."""
        where = self._directory
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost", "-keyout", where / "store.key",
             "-out", where / "store.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
        lines = (f"{user}:{{PLAIN}}{self._key}\n" for user in ("metrics", "traces"))
        (where / "users").write_text("".join(lines))
        (where / "users").chmod(0o644)  # nginx's worker may be another user
        (where / "prometheus.yml").write_text("scrape_configs: []\n")
        (where / "nginx.conf").write_text(
            NGINX.format(
                directory=where, mimir=self._mimir, tempo=self._tempo,
                prometheus=self._prometheus, traces=self.traces.port,
            )
        )  # fmt: skip
        self._start("prometheus", f"--config.file={where / 'prometheus.yml'}",
                    f"--storage.tsdb.path={where / 'tsdb'}", "--web.enable-remote-write-receiver",
                    f"--web.listen-address=127.0.0.1:{self._prometheus}")  # fmt: skip
        self._start("nginx", "-p", str(where), "-c", str(where / "nginx.conf"))
        for port in (self._prometheus, self._mimir, self._tempo):
            wait_until(lambda port=port: listens(port), "the stores listen", START_S, stopping)

    def query(self, text: str) -> list[dict[str, Any]]:
        """What Prometheus answers to a query now."""
        url = f"http://127.0.0.1:{self._prometheus}/api/v1/query?"
        with urllib.request.urlopen(url + urllib.parse.urlencode({"query": text})) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def stop(self) -> None:
        """End them."""
        for child in self._children:
            child.stop()
        self.traces.stop()

    def _start(self, *words: str) -> None:
        errors = self._directory / f"{words[0]}.err"
        self._children.append(Child(words, errors, base_environment()))
