# SPDX-License-Identifier: Apache-2.0
"""``prometheus.remote_write`` against servers that answer in every way."""

from __future__ import annotations

import itertools
import os
import threading
import time

import pytest
from tests.e2e.harness.process import wait_until
from tests.unit.prometheus_parts import (
    Request,
    bits,
    decoded_request,
    labels,
    series_of,
    web,
)
from tests.unit.remote_write_parts import (
    NO_METADATA,
    OK,
    ONE,
    QUICK,
    Agent,
    agent,
    endpoint,
    received,
    script,
    writes,
)

from otelauto.agent.pipeline import STALE, Exemplar, Health, Metadata, NativeHistogram, Sample
from otelauto.agent.prometheus import endpoint as endpoint_module
from otelauto.agent.prometheus.counted import (
    METADATA_SENT,
    REQUESTS_FAILED,
    SAMPLES_DROPPED,
    SAMPLES_RECOVERED,
    SAMPLES_RELABELLED_AWAY,
    SAMPLES_SENT,
    SAMPLES_WRITTEN,
)
from otelauto.agent.prometheus.endpoint import Endpoint
from otelauto.errors import ConfigError, OtelautoError


def test_samples_arrive_as_they_are(tmp_path) -> None:
    with web(script()) as server, agent(tmp_path, endpoint(server)) as running:
        running.component.append(ONE)
        running.component.append([Sample(labels("m", a="1"), 2.0, 2000)])
        wait_until(lambda: running.counted(SAMPLES_SENT) == 3, "sent")
    found = received(server)
    assert found[labels("m", a="1")] == [(1000, 1.0), (2000, 2.0)]
    assert bits(found[labels("m", a="2")][0][1]) == bits(STALE)
    request = server.requests[0]
    assert request.path == "/push"
    assert request.headers["content-encoding"] == "snappy"
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["x-prometheus-remote-write-version"] == "0.1.0"
    assert request.headers["user-agent"].startswith("otelauto/")
    assert running.counted(SAMPLES_WRITTEN) == 3


def test_external_labels_and_rules(tmp_path) -> None:
    rule = 'write_relabel_config {\nsource_labels = ["a"]\nregex = "1"\naction = "drop"\n}'
    text = 'external_labels = { cluster = "eu", a = "never" }\n'
    with web(script()) as server, agent(tmp_path, text + endpoint(server, rule)) as running:
        running.component.append([*ONE, Sample(labels("n"), 3.0, 1000)])
        wait_until(lambda: running.counted(SAMPLES_SENT) == 2, "sent")
        assert running.counted(SAMPLES_RELABELLED_AWAY) == 1
    assert list(received(server)) == [
        labels("m", a="2", cluster="eu"), labels("n", a="never", cluster="eu"),
    ]  # fmt: skip


@pytest.mark.parametrize("status", [500, 503, 429, 401, 403, None])
def test_what_can_be_tried_again_is(tmp_path, status: int | None) -> None:
    wrong = (status, {}, b"not now") if status is not None else None
    seen = threading.Event()
    with (
        web(lambda _: OK if seen.is_set() else wrong) as server,
        agent(tmp_path, endpoint(server, NO_METADATA)) as running,
    ):
        running.component.append(ONE)
        wait_until(lambda: running.component.health()[0] is Health.UNHEALTHY, "seen")
        wait_until(lambda: running.counted(REQUESTS_FAILED) > 3, "again and again")
        seen.set()
        wait_until(lambda: running.counted(SAMPLES_SENT) == 2, "sent")
        wait_until(lambda: running.component.health()[0] is Health.HEALTHY, "well")
        assert running.counted(SAMPLES_DROPPED, "refused") == 0
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_is_refused_is_dropped_and_counted(tmp_path, status: int) -> None:
    with (
        web(script((status, {}, b"out of order sample"))) as server,
        agent(tmp_path, endpoint(server, NO_METADATA)) as running,
    ):
        running.component.append(ONE)
        wait_until(lambda: running.counted(SAMPLES_DROPPED, "refused") == 2, "dropped")
        assert "out of order sample" in running.component.health()[1]
        running.component.append([Sample(labels("m"), 1.0, 1)])
        wait_until(lambda: running.counted(SAMPLES_SENT) == 1, "sent")


def test_429_is_refused_where_it_is_not_to_be_retried(tmp_path) -> None:
    quick = QUICK.replace("{\n", "{\nretry_on_http_429 = false\n", 1)
    with (
        web(script((429, {}, b""))) as server,
        agent(tmp_path, endpoint(server, NO_METADATA, quick)) as running,
    ):
        running.component.append(ONE)
        wait_until(lambda: running.counted(SAMPLES_DROPPED, "refused") == 2, "dropped")


def test_retry_after_is_honoured(tmp_path) -> None:
    with web(script((429, {"Retry-After": "3600"}, b""))) as server:
        running = Agent(tmp_path, endpoint(server, NO_METADATA))
        running.component.start()
        running.component.append(ONE)
        wait_until(lambda: server.requests, "asked")
        running.component.stop(0.3)
        assert len(server.requests) == 1
    with web(script()) as server:
        text = endpoint(server, NO_METADATA + '\nname = "http://127.0.0.1:1/"')
        # Another URL takes the place of the one that is gone.
        with agent(tmp_path, text) as running:
            wait_until(lambda: running.counted(SAMPLES_SENT) == 2, "sent after a restart")
            assert running.counted(SAMPLES_RECOVERED) == 2


def test_no_series_is_twice_in_a_request_and_order_is_kept(tmp_path) -> None:
    queue = QUICK.replace("{\n", "{\nmax_samples_per_send = 7\nmin_shards = 3\n", 1)
    seen: dict = {}
    lock = threading.Lock()
    lost = itertools.cycle([False, False, True])

    def answer(request: Request):
        with lock:
            found = series_of(decoded_request(request.body))
            for own, values in found.items():
                assert len(values) == 1
                seen.setdefault(own, []).append(values[0])
            return None if next(lost) else OK

    with (
        web(answer) as server,
        agent(tmp_path, endpoint(server, NO_METADATA, queue)) as running,
    ):
        for at in range(20):
            running.component.append(
                [Sample(labels("m", n=str(n)), float(at), at) for n in range(50)]
            )
        wait_until(lambda: running.counted(SAMPLES_SENT) == 1000, "sent")
    assert len(seen) == 50
    for values in seen.values():
        assert values == sorted(values)  # a repeated one is the newest, and equal
        assert sorted(set(values)) == [(at, float(at)) for at in range(20)]
    assert any(len(values) > 20 for values in seen.values())


def test_what_is_not_newer_is_not_sent(tmp_path) -> None:
    own = labels("m")
    with web(script()) as server, agent(tmp_path, endpoint(server, NO_METADATA)) as running:
        for value, at in ((1.0, 10), (1.0, 10), (2.0, 10), (3.0, 9), (4.0, 11), (STALE, 11)):
            running.component.append([Sample(own, value, at)])
        running.component.append([Sample(own, STALE, 12), Sample(own, STALE, 12)])
        wait_until(lambda: running.component._endpoints[0].pending == 0, "all")
        reasons = ("repeated", "duplicate_timestamp", "out_of_order")
        assert [running.counted(SAMPLES_DROPPED, reason) for reason in reasons] == [2, 2, 1]
        assert running.counted(SAMPLES_SENT) == 3
    assert [at for at, _ in received(server)[own]] == [10, 11, 12]


def test_a_stop_delivers_and_a_start_goes_on(tmp_path) -> None:
    slow = QUICK.replace("10ms", "1h")
    with web(script()) as server:
        with agent(tmp_path, endpoint(server, NO_METADATA, slow)) as running:
            running.component.append(ONE)
        assert running.counted(SAMPLES_SENT) == 2
        with agent(tmp_path, endpoint(server, NO_METADATA, slow)) as running:
            assert running.counted(SAMPLES_RECOVERED) == 0
            running.component.append([Sample(labels("m"), 1.0, 5000)])
        assert running.counted(SAMPLES_SENT) == 1
    assert len(writes(server)) == 2


@pytest.mark.parametrize("loss", ["tail", "all", "position"])
def test_what_a_loss_of_power_leaves_is_gone_on_with(tmp_path, loss: str) -> None:
    with web(script()) as server:
        with agent(tmp_path, endpoint(server, NO_METADATA)) as running:
            for at in (1, 2):
                running.component.append([Sample(labels("m"), float(at), at)])
        (segment,) = (tmp_path / "wal").glob("*.wal")
        (position,) = (tmp_path / "wal").glob("*.position")
        if loss == "tail":
            os.truncate(segment, segment.stat().st_size - 1)
        elif loss == "all":
            segment.unlink()
        else:
            position.write_bytes(b"torn")
        with agent(tmp_path, endpoint(server, NO_METADATA)) as running:
            running.component.append([Sample(labels("m"), 3.0, 3)])
            again = 2 if loss == "position" else 0
            wait_until(lambda: running.counted(SAMPLES_SENT) == 1 + again, "the new one")
            assert running.component._endpoints[0].pending == 0
    first = [(1, 1.0), (2, 2.0)]
    assert received(server)[labels("m")] == [*first, *first[:again], (3, 3.0)]


def test_a_failure_within_does_not_lose_what_was_read(tmp_path, monkeypatch) -> None:
    with web(script()) as server, agent(tmp_path, endpoint(server, NO_METADATA)) as running:
        sound = Endpoint._deliver
        broken = iter([True, True])

        def deliver(self, window):
            if next(broken, False):
                raise RuntimeError("a defect")
            return sound(self, window)

        monkeypatch.setattr(Endpoint, "_deliver", deliver)
        monkeypatch.setattr(endpoint_module, "AGAIN_S", 0.01)
        running.component.append(ONE)
        wait_until(lambda: running.counted(SAMPLES_SENT) == 2, "sent all the same")
        assert running.counted(REQUESTS_FAILED) == 2
    assert len(received(server)) == 2


def test_two_endpoints_each_at_its_own_pace(tmp_path) -> None:
    with web(script(then=(503, {}, b""))) as stuck, web(script()) as server:
        text = endpoint(stuck, NO_METADATA) + endpoint(server, NO_METADATA)
        with agent(tmp_path, text, stop_s=0.2) as running:
            running.component.append(ONE)
            wait_until(lambda: running.counted(SAMPLES_SENT) == 2, "one has it")
            assert running.component.health()[0] is Health.UNHEALTHY
            status = running.component.status()
            assert (status["endpoint 0 pending"], status["endpoint 1 pending"]) == (2, 0)
        stuck.answer = script()
        with agent(tmp_path, text) as running:
            assert running.counted(SAMPLES_RECOVERED) == 2
            wait_until(lambda: running.counted(SAMPLES_SENT) == 2, "the other, too")
    assert len(received(server)) == 2


def test_metadata_is_sent_from_time_to_time(tmp_path) -> None:
    about = [Metadata("m", "counter", "Help.", "s"), Metadata("n", "gauge", "", "")]
    more = 'metadata_config {\nsend_interval = "20ms"\nmax_samples_per_send = 1\n}'
    with web(script()) as server, agent(tmp_path, endpoint(server, more)) as running:
        running.component.append(ONE, about)
        wait_until(lambda: running.counted(METADATA_SENT) >= 6, "sent again and again")
    found = [m for r in server.requests for m in decoded_request(r.body).metadata]
    assert {(m.metric_family_name, m.type) for m in found} == {("m", 1), ("n", 2)}


EXEMPLAR = Exemplar((("trace_id", "ab"),), 0.5, 900)
NATIVE = Sample(
    labels("h"), 0.0, 1000, (EXEMPLAR,), NativeHistogram(3, 1.5, 0, 0.0, 0, ((0, 1),), (3,))
)


@pytest.mark.parametrize("wanted", [True, False])
def test_exemplars_and_native_histograms(tmp_path, wanted: bool) -> None:
    given = f"send_exemplars = {wanted}\nsend_native_histograms = {wanted}".lower()
    with (
        web(script()) as server,
        agent(tmp_path, endpoint(server, f"{given}\n{NO_METADATA}")) as running,
    ):
        running.component.append([Sample(labels("m"), 1.0, 1000, (EXEMPLAR,)), NATIVE, NATIVE])
        wait_until(lambda: running.component._endpoints[0].pending == 0, "all")
        off = running.counted(SAMPLES_DROPPED, "native_histograms_off")
        assert (off, running.counted(SAMPLES_DROPPED, "repeated")) == ((0, 1) if wanted else (2, 0))
        assert running.counted(SAMPLES_SENT) == (2 if wanted else 1)
    found = [s for r in server.requests for s in decoded_request(r.body).timeseries]
    assert sum(len(series.exemplars) for series in found) == (2 if wanted else 0)
    assert sum(len(series.histograms) for series in found) == (1 if wanted else 0)


def test_what_becomes_too_old_while_it_is_tried_is_dropped(tmp_path) -> None:
    queue = QUICK.replace("{\n", '{\nsample_age_limit = "2s"\n', 1)
    with (
        web(script(then=(503, {}, b""))) as server,
        agent(tmp_path, endpoint(server, NO_METADATA, queue)) as running,
    ):
        running.component.append([Sample(labels("m"), 1.0, time.time_ns() // 1_000_000)])
        wait_until(lambda: running.counted(SAMPLES_DROPPED, "too_old") == 1, "dropped")


def test_what_is_too_old_is_dropped(tmp_path) -> None:
    queue = QUICK.replace("{\n", '{\nsample_age_limit = "1m"\n', 1)
    with web(script()) as server, agent(tmp_path, endpoint(server, NO_METADATA, queue)) as running:
        running.component.append(ONE)
        wait_until(lambda: running.counted(SAMPLES_DROPPED, "too_old") == 2, "dropped")


def test_what_waited_longer_than_the_log_keeps_is_dropped(tmp_path) -> None:
    wal = 'wal {\nmin_keepalive_time = "1ms"\nmax_keepalive_time = "50ms"\n}'
    with (
        web(script(then=(503, {}, b""))) as server,
        agent(tmp_path, endpoint(server, NO_METADATA) + wal) as running,
    ):
        running.component.append(ONE)
        wait_until(lambda: running.counted(SAMPLES_DROPPED, "too_old") == 2, "dropped")


def test_two_of_the_same_name_are_refused(tmp_path) -> None:
    block = 'endpoint {\nurl = "http://h/"\n}\n'
    with pytest.raises(ConfigError, match="the same URL or name"):
        Agent(tmp_path, block + block)


def test_a_directory_that_cannot_be_used(tmp_path) -> None:
    (tmp_path / "wal").write_text("")
    running = Agent(tmp_path, 'endpoint {\nurl = "http://h/"\n}\n')
    with pytest.raises(OtelautoError, match="write-ahead log"):
        running.component.start()
    running.component.stop(1)
