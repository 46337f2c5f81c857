# SPDX-License-Identifier: Apache-2.0
"""The Prometheus pages of a running otelauto: passwords, addresses, ports, formats, its state."""

from __future__ import annotations

import base64
import http.client
import json
import re
import subprocess
from pathlib import Path

import bcrypt
import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.otelauto import Otelauto
from tests.e2e.harness.process import free_port, wait_until
from tests.e2e.harness.receiver import Receiver
from tests.e2e.test_attach import BY_NAME
from tests.e2e.test_otlp import REQUESTS, ask

from otelauto.gauges import OWN

pytestmark = pytest.mark.e2e
HOSTS = ("127.0.0.1", "127.0.0.2")
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)
COUNT = "http_server_request_duration_seconds_count"


def fetch(
    port: int, path: str, accept: str = "text/plain", password: str = "", host: str = HOSTS[0]
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=20)
    user = base64.b64encode(f"scraper:{password}".encode()).decode()
    headers = {"Accept": accept, **({"Authorization": f"Basic {user}"} if password else {})}
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    try:
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()


def total(page: str, name: str) -> float:
    return sum(
        float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)", page, re.MULTILINE)
    )


def ids_of(receiver: Receiver) -> set[tuple[str, str]]:
    return {(span.trace_id.hex(), span.span_id.hex()) for _, span in receiver.spans()}


def test_the_pages_of_a_running_otelauto(tmp_path: Path) -> None:
    main, own = free_port(), free_port()
    users = tmp_path / "web.yml"
    hashed = bcrypt.hashpw(b"pass", bcrypt.gensalt(4)).decode()
    users.write_text(json.dumps({"basic_auth_users": {"scraper": hashed}}))
    with servers.running(BY_NAME["c-epoll"], tmp_path) as running, Receiver() as receiver:
        yaml = {
            "ebpf": {"open_port": running.port},
            "control_socket": str(tmp_path / "control"),
            "otel_traces_export": {"endpoint": f"http://127.0.0.1:{receiver.port}"},
            "prometheus_export": {
                "port": main, "path": "/red", "web_config_file": str(users), "host": HOSTS,
                "native_histograms": True,
            },
            "internal_metrics": {"prometheus": {"port": own}},
        }  # fmt: skip
        with Otelauto(tmp_path, json.dumps(yaml)) as otelauto:
            ask(running.port, REQUESTS)

            def page() -> str:
                status, text = fetch(main, "/red", password="pass")
                assert status == 200
                return text

            wait_until(lambda: total(page(), COUNT) == REQUESTS + 1, "all are counted")
            wait_until(lambda: total(page(), "otelauto_targets") == 1, "its state was taken")
            assert fetch(main, "/red")[0] == fetch(main, "/red", password="wrong")[0] == 401
            openmetrics = fetch(main, "/red", "application/openmetrics-text", "pass")[1]
            assert openmetrics.endswith("# EOF\n")
            exemplars = re.findall(r'# \{trace_id="(\w{32})",span_id="(\w{16})"\}', openmetrics)
            assert exemplars
            wait_until(lambda: set(exemplars) <= ids_of(receiver), "they name exported spans")
            for host in HOSTS:
                assert fetch(main, "/red", host=host)[0] == 401
                status, text = fetch(main, "/red", password="pass", host=host)
                assert (status, total(text, COUNT)) == (200, REQUESTS + 1)
                status, text = fetch(main, "/red", PROTOBUF, "pass", host)
                assert status == 200
                assert "\n$http_server_request_duration_seconds\x12" in text  # a name, a help
            status, internal = fetch(own, "/internal/metrics", password="pass")
            assert status == 200
            assert COUNT not in internal
            always = {name for name in OWN if not name.startswith("program_run")}
            for name in always:
                assert re.search(rf"^otelauto_{name}(_total)?[ {{]", internal, re.MULTILINE), name
            assert 'otelauto_targets{state="watched"} 1' in internal
            for text in (internal, page()):
                check = ["promtool", "check", "metrics"]
                done = subprocess.run(
                    check, input=text, capture_output=True, text=True, check=False
                )
                said = [x for x in done.stderr.splitlines() if not x.startswith("target_info ")]
                assert said == []
            otelauto.stop()
