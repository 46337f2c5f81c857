# SPDX-License-Identifier: Apache-2.0
"""The agent's page: the graph, health, secrets, metrics, reloading; who may ask."""

from __future__ import annotations

import http.client
import json
import logging
import threading
import xml.etree.ElementTree as ET

import pytest
from tests.unit.agent_parts import numbered, wait_for
from tests.unit.test_otlp_http import Receiver

from otelauto import logs
from otelauto.agent.page import Page
from otelauto.agent.page_graph import columns, edges
from otelauto.agent.page_metrics import Rates
from otelauto.agent.run import Agent
from otelauto.agent.running.sending import SENT
from otelauto.counters import Counters, Meaning
from otelauto.errors import ConfigError, OtelautoError

TEXT = """
otelcol.exporter.otlp "tempo" {
  client {
    endpoint = "127.0.0.1:9"
    auth     = otelcol.auth.basic.creds.handler
    headers  = { "X-Key" = "also-hidden" }
  }
}
otelcol.auth.basic "creds" {
  username = "<joe>"
  password = "hunter2hunter2"
}
otelcol.exporter.debug "d" { }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.river"
    path.write_text(TEXT)
    return path


@pytest.fixture
def agent(file, tmp_path):
    made = Agent(str(file), tmp_path / "data", {})
    made.start()
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.stop_soon()
    thread.join(30)
    made.stop()
    logs.hide([])


@pytest.fixture
def page(agent):
    made = Page(agent, "127.0.0.1:0")
    made.start()
    made.ready = True
    yield made
    made.stop()


@pytest.fixture
def ask(page):
    def request(path, method="GET", **headers):
        connection = http.client.HTTPConnection(page.address, timeout=30)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body, answer.headers

    return request


def test_the_page_shows_components_and_hides_secrets(ask):
    status, body, headers = ask("/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    for name in ("otelcol.exporter.otlp.tempo", "otelcol.auth.basic.creds"):
        assert f'<section id="{name}">' in body
        assert f'<a href="#{name}">' in body
    assert "hunter2" not in body
    assert "also-hidden" not in body
    assert "&lt;joe&gt;" in body
    assert "<joe>" not in body
    assert "<script" not in body
    svg = ET.fromstring(body[body.index("<svg") : body.index("</svg>") + 6])
    assert len(svg.findall("path")) == 1  # from the credentials to the exporter
    assert len(svg.findall("a")) == 3


def test_metrics_have_the_component_they_are_of(ask, agent):
    consumer = agent.graph.cells()["otelcol.exporter.debug.d"].running
    agent.graph._relay("otelcol.exporter.debug.d", "input", "otelcol.Consumer").traces(
        numbered(1, 2)
    )
    assert consumer.health()[1] == ""
    _, body, headers = ask("/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = body.splitlines()
    taken = 'otelauto_agent_items_taken_total{component_id="otelcol.exporter.debug.d",kind="spans"}'
    assert f"{taken} 2" in lines
    health = 'otelauto_agent_component_health{component_id="otelcol.exporter.otlp.tempo",health='
    assert f'{health}"healthy"}} 1' in lines
    assert f'{health}"unhealthy"}} 0' in lines
    assert ask("/metrics", Accept="application/openmetrics-text")[1].endswith("# EOF\n")


def test_reloading(ask, file, agent):
    assert ask("/-/reload", "POST")[:2] == (200, "config reloaded\n")
    file.write_text(TEXT.replace("username", "usernam"))
    status, body, _ = ask("/-/reload", "POST")
    assert status == 400
    assert "unrecognized attribute" in body
    assert 'Did you mean "username"?' in body
    assert "hunter2" not in body
    assert "is not used" in ask("/")[1]
    lines = ask("/metrics")[1].splitlines()
    assert "otelauto_agent_config_last_load_successful 0" in lines
    assert 'otelauto_agent_reloads_total{result="failed"} 1' in lines
    assert len(agent.graph.cells()) == 3
    file.write_text('otelcol.exporter.debug "d" { }')
    status, _, headers = ask("/-/reload", "POST", Accept="text/html")
    assert (status, headers["Location"]) == (303, "/")
    assert list(agent.graph.cells()) == ["otelcol.exporter.debug.d"]
    assert "is not used" not in ask("/")[1]
    file.unlink()
    assert "No such file" in ask("/-/reload", "POST")[1]


def test_health_and_readiness(ask, page, agent):
    assert ask("/-/ready")[0] == 200
    assert ask("/-/healthy")[0] == 200
    agent.graph.cells()["otelcol.exporter.otlp.tempo"].running.last_error = "HTTP <401>"
    status, body, _ = ask("/-/healthy")
    assert (status, "otelcol.exporter.otlp.tempo: HTTP <401>" in body) == (500, True)
    shown = ask("/")[1]
    assert "HTTP &lt;401&gt;" in shown
    assert "unhealthy" in shown
    page.ready = False
    assert ask("/-/ready")[0] == 503


def test_who_may_ask_for_what(ask):
    for path, method, headers, status in (
        ("/nothing", "GET", {}, 404),
        ("/-/reload", "GET", {}, 405),
        ("/", "POST", {}, 405),
        ("/nothing", "POST", {}, 404),
        ("/", "GET", {"Host": "evil.example"}, 403),
        ("/-/reload", "POST", {"Origin": "http://evil.example"}, 403),
        ("/", "GET", {"Host": "localhost:12345"}, 200),
        ("/", "HEAD", {}, 200),
    ):
        assert ask(path, method, **headers)[0] == status, (path, method, headers)


def test_an_address_that_is_taken(page, agent):
    with pytest.raises(OtelautoError, match="Address already in use"):
        Page(agent, page.address).start()
    for wrong in ("nonsense", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:1/x"):
        with pytest.raises(ConfigError, match="no address to listen on"):
            Page(agent, wrong)


def test_boxes_stand_in_the_order_of_the_data(agent):
    links = edges(agent.graph.cells())
    assert [(link.source, link.target, link.data) for link in links] == [
        ("otelcol.auth.basic.creds", "otelcol.exporter.otlp.tempo", False)
    ]
    assert columns(list(agent.graph.cells()), links) == [
        ["otelcol.auth.basic.creds", "otelcol.exporter.debug.d"],
        ["otelcol.exporter.otlp.tempo"],
    ]


def test_rates_are_of_the_last_seconds():
    meaning = Meaning("x", "X.", "kind")
    counters, now = Counters(), [0.0]
    rates = Rates(lambda: {"c": counters}, lambda: now[0])
    rates.look()
    assert rates.rates() == {}
    for second in range(1, 40):
        counters.add(meaning, 5 if second > 20 else 1, "spans")
        now[0] = float(second)
        rates.look()
    assert rates.rates() == {("c", "x", "spans"): 5.0}


def test_the_logging_block(ask, file, capsys):
    file.write_text(TEXT + 'logging {\n  level = "debug"\n  format = "json"\n}\n')
    assert ask("/-/reload", "POST")[0] == 200
    logging.getLogger("otelauto.x").debug('a "line" with %s', "hunter2hunter2")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line[0] == "{"]
    (found,) = [line for line in lines if line["msg"].startswith("a ")]
    assert found["msg"] == 'a "line" with ****'
    assert (found["level"], list(found)) == ("DEBUG", ["time", "level", "msg"])


KEPT_IN_A_FILE = """
local.file "key" {{
  filename       = "{key}"
  detector       = "poll"
  poll_frequency = "10ms"
  is_secret      = true
}}
otelcol.auth.bearer "b" {{
  token = local.file.key.content
}}
otelcol.exporter.otlphttp "out" {{
  client {{
    endpoint = "http://127.0.0.1:{port}"
    auth     = otelcol.auth.bearer.b.handler
  }}
  retry_on_failure {{
    initial_interval = "10ms"
    max_interval     = "20ms"
  }}
}}
"""


def test_a_key_that_is_corrected_in_its_file_loses_nothing(file, tmp_path, agent, ask):
    receiver = Receiver()
    receiver.default = (401, {}, b"")
    key = tmp_path / "key"
    key.write_text("wrong-key")
    file.write_text(KEPT_IN_A_FILE.format(key=key, port=receiver.port))
    assert ask("/-/reload", "POST")[0] == 200
    exporter = agent.graph.cells()["otelcol.exporter.otlphttp.out"].running
    try:
        for number in range(10):
            exporter.traces(numbered(number))
        wait_for(lambda: "HTTP 401" in ask("/-/healthy")[1])
        key.write_text("right-key")
        wait_for(lambda: receiver.requests[-1][1]["authorization"] == "Bearer right-key")
        assert agent.graph.cells()["otelcol.exporter.otlphttp.out"].running is exporter
        receiver.default = (200, {}, b"")
        wait_for(lambda: ask("/-/healthy")[0] == 200)
        wait_for(lambda: exporter.context.counters.get(SENT, "spans") == 10)
    finally:
        receiver.close()
