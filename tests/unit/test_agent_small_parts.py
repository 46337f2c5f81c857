# SPDX-License-Identifier: Apache-2.0
"""The small components of an agent: credentials, files, what is shown of telemetry."""

from __future__ import annotations

import logging

import pytest
from tests.unit.agent_parts import gauge, numbered, running, wait_for

from otelauto.agent.check import check, evaluated
from otelauto.agent.graph import Graph
from otelauto.agent.pipeline import Health
from otelauto.agent.river.diagnostics import Source
from otelauto.agent.secrets import harmless, secrets
from otelauto.errors import ConfigError


@pytest.fixture
def run(tmp_path):
    made = []

    def start(text, environ=None):
        graph = running(text, tmp_path, environ)
        made.append(graph)
        return {name: cell.running for name, cell in graph.cells().items()}

    yield start
    for graph in made:
        graph.stop(1)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('basic "a" {\nusername = "u"\npassword = "p:w"\n}', {"authorization": "Basic dTpwOnc="}),
        ('bearer "a" {\ntoken = "t"\n}', {"authorization": "Bearer t"}),
        ('bearer "a" {\ntoken = "t"\nscheme = ""\nheader = "X-Key"\n}', {"x-key": "t"}),
        (
            'headers "a" {\nheader {\nkey = "X-A"\nvalue = "7"\n}\nheader {\nkey = "X-B"\n}\n}',
            {"x-a": "7", "x-b": ""},
        ),
    ],
)
def test_credentials(run, text, sent):
    (auth,) = run(f"otelcol.auth.{text}").values()
    handler = auth.exports["handler"].inner
    assert handler.headers() == sent
    assert handler.admits({**sent, "other": "field"})
    name = next(iter(sent))
    assert not handler.admits({**sent, name: sent[name] + "x"})
    assert not handler.admits({})
    assert auth.health()[0] is Health.HEALTHY


@pytest.mark.parametrize(
    "text",
    [
        'bearer "a" {\ntoken = "t\\n"\n}',
        'headers "a" {\nheader {\nkey = "X"\nfrom_context = "y"\n}\n}',
        'headers "a" {\nheader {\nkey = "X"\naction = "delete"\n}\n}',
    ],
)
def test_credentials_that_cannot_be_sent(run, text):
    with pytest.raises(ConfigError):
        run(f"otelcol.auth.{text}")


QUICKLY = 'detector = "poll"\npoll_frequency = "10ms"'


def test_a_file_is_read_again_when_it_changed(tmp_path):
    file = tmp_path / "key"
    file.write_text("one")
    changes = []
    text = f'local.file "f" {{\nfilename = "{file}"\nis_secret = true\n{QUICKLY}\n}}'
    graph = Graph(tmp_path, changes.append, {})
    graph.load(check([Source("t", text)], {}))
    try:
        part = graph.cells()["local.file.f"].running
        assert part.exports["content"].text == "one"
        assert "one" not in repr(part.exports)
        file.write_text("second")
        wait_for(lambda: changes == ["local.file.f"])
        assert part.exports["content"].text == "second"
        file.unlink()
        wait_for(lambda: part.health()[0] is Health.UNHEALTHY)
        assert part.exports["content"].text == "second"
        file.write_text("third")
        wait_for(lambda: part.health()[0] is Health.HEALTHY and len(changes) == 2)
        assert part.exports["content"].text == "third"
    finally:
        graph.stop(5)


def test_a_file_that_is_not_there(run, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        run(f'local.file "f" {{\nfilename = "{tmp_path}/none"\n}}')


@pytest.mark.parametrize(
    ("verbosity", "said"),
    [
        ("basic", ["2 spans", "1 data points"]),
        ("normal", ["2 spans", "s  0000000000000001 n=1", "s  0000000000000002 n=2",
                    "1 data points", "g "]),
    ],
)  # fmt: skip
def test_debug_shows_what_arrives(run, caplog, verbosity, said):
    (part,) = run(f'otelcol.exporter.debug "d" {{\nverbosity = "{verbosity}"\n}}').values()
    with caplog.at_level(logging.INFO):
        part.traces(numbered(1, 2))
        part.metrics(gauge(1.5))
    assert [record.getMessage() for record in caplog.records] == said


def test_debug_on_standard_output_in_detail(run, capsys):
    text = 'otelcol.exporter.debug "d" {\nverbosity = "detailed"\nuse_internal_logger = false\n}'
    (part,) = run(text).values()
    part.traces(numbered(1))
    out = capsys.readouterr().out
    assert "otelcol.exporter.debug.d: 1 spans" in out
    assert 'name: "s"' in out


def test_debug_shows_the_first_of_each_second_and_a_sample(run, caplog, monkeypatch):
    monkeypatch.setattr("otelauto.agent.running.debug.time.monotonic", lambda: 5.0)
    text = 'otelcol.exporter.debug "d" {\nsampling_initial = 2\nsampling_thereafter = 3\n}'
    (part,) = run(text).values()
    with caplog.at_level(logging.INFO):
        for number in range(9):
            part.traces(numbered(*range(number + 1)))
    shown = [record.getMessage() for record in caplog.records]
    assert shown == ["1 spans", "2 spans", "5 spans", "8 spans"]


def content(text, environ):
    (node,) = check([Source("t", text)], environ).nodes.values()
    return evaluated(node, {}, environ)


def test_secrets_are_found_and_hidden():
    write = content(
        'prometheus.remote_write "m" {\nendpoint {\n'
        'url = "https://joe:" + env("KEY") + "@there/push?x=1"\n'
        'headers = { "Authorization" = "Bearer tokentoken", "X-A" = "shown" }\n'
        'basic_auth {\npassword = env("WORD")\n}\n}\n}'.replace(
            'basic_auth {\npassword = env("WORD")\n}\n', ""
        ),
        {"KEY": "key%2Fkey"},
    )
    found = secrets([write])
    assert {"key%2Fkey", "key/key", "Bearer tokentoken"} <= set(found)
    assert "shown" not in found
    endpoint = write.blocks["endpoint"][0]
    assert harmless(endpoint["url"], "url") == "https://(secret)@there/push?x=1"
    assert harmless(endpoint["headers"]) == {"Authorization": "(secret)", "X-A": "shown"}
    basic = content(
        'otelcol.auth.basic "a" {\nusername = "u"\npassword = env("W")\n}', {"W": "word"}
    )
    assert secrets([basic]) == ["word"]
    assert harmless(basic["password"]) == "(secret)"
