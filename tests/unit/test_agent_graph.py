# SPDX-License-Identifier: Apache-2.0
"""The components of an agent: made in order, changed while others run, stopped in order."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from otelauto.agent.check import check
from otelauto.agent.graph import Graph
from otelauto.agent.pipeline import Health, Refused, Running, Traces
from otelauto.agent.relay import REFUSED, TAKEN
from otelauto.agent.river.diagnostics import RiverError, Source
from otelauto.agent.river.values import Capsule, OptionalSecret
from otelauto.agent.running import RUNNERS, runner
from otelauto.agent.schema import CONSUMER, HANDLER
from otelauto.errors import ConfigError, OtelautoError

PIPELINE = """
otelcol.receiver.otlp "in" {
  grpc {}
  output { traces = [otelcol.processor.batch.b.input] }
}
otelcol.processor.batch "b" {
  send_batch_size = 1
  output { traces = [otelcol.exporter.otlp.out.input] }
}
otelcol.exporter.otlp "out" {
  client {
    endpoint = "there:4317"
    auth     = otelcol.auth.basic.who.handler
  }
}
local.file "key" { filename = "/key" }
otelcol.auth.basic "who" {
  username = "u"
  password = local.file.key.content
}
"""

FROM_FILE = "timeout = nonsensitive(local.file.key.content)"


class Fake(Running):
    """Remembers what is done to all of its kind, and passes spans on."""

    done: list[tuple[str, str]] = []  # noqa: RUF012 - the test's own, made anew for each
    content_of_files = "secret"
    broken: set[str] = set()  # noqa: RUF012
    refuses = ""

    def __init__(self, context, content):
        super().__init__(context, content)
        if self.refuses and self.refuses in context.id:
            raise ConfigError("refused")
        self.taken = []
        self.done.append(("made", context.id))

    @property
    def exports(self):
        name = self.context.id
        if name.startswith("local.file"):
            return {"content": OptionalSecret(self.content_of_files, True)}
        if ".auth." in name:
            return {"handler": Capsule(HANDLER, self)}
        return {"input": Capsule(CONSUMER, self)}

    def start(self):
        if self.context.id in self.broken:
            raise OtelautoError("its port is in use")
        self.done.append(("started", self.context.id))

    def stop(self, deadline_s):
        self.done.append(("stopped", self.context.id))

    def headers(self, known=False):
        return {"authorization": self.content["password"].text}

    def traces(self, payload):
        outputs = self.content.blocks.get("output", [])
        for consumer in outputs[0]["traces"] if outputs else []:
            consumer.inner.traces(payload)
        self.taken.append(payload)


@pytest.fixture
def fake():
    class Mine(Fake):
        done: list[tuple[str, str]] = []  # noqa: RUF012
        broken: set[str] = set()  # noqa: RUF012

    return Mine


@pytest.fixture
def graph(fake, tmp_path):
    made = Graph(tmp_path, lambda name: None, {}, lambda name: fake)
    yield made
    made.stop(1)


def configuration(text):
    return check([Source("a.river", text)], {})


def spans(count):
    return Traces(TracesData, count, TracesData())


def short(done, what):
    return [name.rpartition(".")[2] for kind, name in done if kind == what]


def test_what_is_needed_is_made_and_started_first_and_stopped_last(graph, fake):
    graph.load(configuration(PIPELINE))
    graph.must_run()
    assert short(fake.done, "made") == short(fake.done, "started")
    order = short(fake.done, "started")
    assert order.index("key") < order.index("who") < order.index("out")
    assert order.index("out") < order.index("b") < order.index("in")
    graph.stop(1)
    assert short(fake.done, "stopped") == order[::-1]


def test_spans_pass_from_one_to_the_next_and_are_counted(graph):
    graph.load(configuration(PIPELINE))
    receiver = graph.cells()["otelcol.receiver.otlp.in"].running
    payload = spans(7)
    receiver.traces(payload)
    assert graph.cells()["otelcol.exporter.otlp.out"].running.taken == [payload]
    assert graph.counters()["otelcol.exporter.otlp.out"].get(TAKEN, "spans") == 7
    assert graph.counters()["otelcol.processor.batch.b"].get(TAKEN, "spans") == 7


def test_only_what_changed_is_made_anew(graph, fake):
    graph.load(configuration(PIPELINE))
    receiver = graph.cells()["otelcol.receiver.otlp.in"].running
    fake.done.clear()
    graph.load(configuration(PIPELINE.replace("there:4317", "elsewhere:4317")))
    assert fake.done == [
        (what, "otelcol.exporter.otlp.out") for what in ("made", "stopped", "started")
    ]
    receiver.traces(spans(1))  # it holds the same consumer as before
    assert len(graph.cells()["otelcol.exporter.otlp.out"].running.taken) == 1
    fake.done.clear()
    graph.load(configuration("// moved\n" + PIPELINE.replace("there:", "elsewhere:")))
    assert fake.done == []


def test_a_new_export_reaches_those_who_use_it(graph, fake):
    graph.load(configuration(PIPELINE))
    handler = graph.cells()["otelcol.exporter.otlp.out"].content.blocks["client"][0]["auth"].inner
    assert handler.headers() == {"authorization": "secret"}
    fake.content_of_files = "another"
    fake.done.clear()
    graph.refresh()
    assert short(fake.done, "started") == ["who"]
    assert handler.headers() == {"authorization": "another"}


def test_what_left_the_configuration_is_stopped_and_refuses(graph, fake):
    graph.load(configuration(PIPELINE))
    content = graph.cells()["otelcol.processor.batch.b"].content
    consumer = content.blocks["output"][0]["traces"][0].inner
    fake.done.clear()
    graph.load(configuration('local.file "key" { filename = "/key" }'))
    assert short(fake.done, "stopped") == ["in", "b", "out", "who"]
    assert list(graph.cells()) == ["local.file.key"]
    with pytest.raises(Refused, match="no part of the configuration") as caught:
        consumer.traces(spans(3))
    assert caught.value.retry_after_s
    assert graph.counters()["otelcol.exporter.otlp.out"].get(REFUSED, "spans") == 3


@pytest.mark.parametrize("reason", ["refuses", "value"])
def test_a_bad_configuration_changes_nothing(graph, fake, reason):
    graph.load(configuration(PIPELINE))
    before = graph.cells()
    fake.done.clear()
    if reason == "refuses":
        fake.refuses = "otelcol.exporter"
        text = PIPELINE.replace("there:4317", "elsewhere:4317")
        with pytest.raises(ConfigError, match=r"a\.river:.*otelcol\.exporter\.otlp\.out: refused"):
            graph.load(configuration(text))
    else:  # known only now, from the file
        text = PIPELINE.replace(
            "send_batch_size = 1", "timeout = nonsensitive(local.file.key.content)"
        )
        with pytest.raises(RiverError, match="is no duration"):
            graph.load(configuration(text))
    assert graph.cells() == before
    assert {what for what, _ in fake.done} <= {"made"}
    graph.cells()["otelcol.receiver.otlp.in"].running.traces(spans(1))


def test_what_cannot_start_is_unhealthy_refuses_and_is_tried_again(graph, fake):
    fake.broken.add("otelcol.exporter.otlp.out")
    graph.load(configuration(PIPELINE))
    with pytest.raises(OtelautoError, match="out: its port is in use"):
        graph.must_run()
    cells = graph.cells()
    assert cells["otelcol.exporter.otlp.out"].health() == (Health.UNHEALTHY, "its port is in use")
    with pytest.raises(Refused, match="its port is in use"):
        cells["otelcol.receiver.otlp.in"].running.traces(spans(1))
    fake.broken.clear()
    graph.retry()
    graph.must_run()
    assert cells["otelcol.exporter.otlp.out"].health() == (Health.HEALTHY, "")
    cells["otelcol.receiver.otlp.in"].running.traces(spans(1))


def test_a_bad_new_export_leaves_what_runs(graph, fake):
    text = PIPELINE.replace("send_batch_size = 1", FROM_FILE)
    fake.content_of_files = "1s"
    graph.load(configuration(text))
    fake.content_of_files = "nonsense"
    graph.refresh()
    batch = graph.cells()["otelcol.processor.batch.b"]
    assert batch.running.content["timeout"] == 10**9
    state, why = batch.health()
    assert state is Health.UNHEALTHY
    assert "earlier values" in why
    fake.content_of_files = "2s"
    graph.refresh()
    assert graph.cells()["otelcol.processor.batch.b"].health()[0] is Health.HEALTHY
    assert graph.cells()["otelcol.processor.batch.b"].running.content["timeout"] == 2 * 10**9


def test_a_caller_waits_while_a_component_is_made_anew(graph, fake):
    graph.load(configuration(PIPELINE))
    receiver = graph.cells()["otelcol.receiver.otlp.in"].running
    held, go = threading.Event(), threading.Event()
    fake.stop = lambda self, deadline_s: (held.set(), go.wait(10))
    change = threading.Thread(
        target=graph.load, args=(configuration(PIPELINE.replace("there:", "elsewhere:")),)
    )
    change.start()
    assert held.wait(10)
    sender = threading.Thread(target=receiver.traces, args=(spans(5),))
    sender.start()
    go.set()
    change.join(10)
    sender.join(10)
    assert [p.items for p in graph.cells()["otelcol.exporter.otlp.out"].running.taken] == [5]


def test_every_runner_can_be_imported():
    for name in RUNNERS:
        assert issubclass(runner(name), Running)
    with pytest.raises(ConfigError, match="cannot run it yet"):
        runner("no.such")
