# SPDX-License-Identifier: Apache-2.0
"""Remote write 2.0, and servers that know 1.0 only."""

from __future__ import annotations

import pytest
from tests.e2e.harness.process import wait_until
from tests.unit.prometheus_parts import (
    decoded_request,
    series_of,
    symbols_of,
    web,
)
from tests.unit.remote_write_parts import (
    NO_METADATA,
    OK,
    ONE,
    V2,
    agent,
    endpoint,
    script,
)

from otelauto.agent.pipeline import Metadata
from otelauto.agent.prometheus.counted import (
    SAMPLES_DROPPED,
    SAMPLES_SENT,
)

WRITTEN = {
    "X-Prometheus-Remote-Write-Samples-Written": "2",
    "X-Prometheus-Remote-Write-Histograms-Written": "0",
    "X-Prometheus-Remote-Write-Exemplars-Written": "0",
}


def test_remote_write_2(tmp_path) -> None:
    about = [Metadata("m", "counter", "Help.", "s")]
    with (
        web(script(then=(204, WRITTEN, b""))) as server,
        agent(tmp_path, endpoint(server, V2)) as running,
    ):
        running.component.append(ONE, about)
        wait_until(lambda: running.counted(SAMPLES_SENT) == 2, "sent")
    (request,) = server.requests
    assert request.headers["x-prometheus-remote-write-version"] == "2.0.0"
    proto = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
    assert request.headers["content-type"] == proto
    message = decoded_request(request.body, 2)
    assert [symbols_of(message, s.labels_refs) for s in message.timeseries] == [
        s.labels for s in ONE
    ]
    assert {message.symbols[s.metadata.help_ref] for s in message.timeseries} == {"Help."}


@pytest.mark.parametrize("answer", [OK, (415, {}, b"what?")])
def test_a_server_of_1_only_gets_1(tmp_path, answer) -> None:
    with (
        web(script(answer)) as server,
        agent(tmp_path, endpoint(server, f"{V2}\n{NO_METADATA}")) as running,
    ):
        running.component.append(ONE)
        wait_until(lambda: running.counted(SAMPLES_SENT) == 2, "sent")
        assert running.component.status()["endpoint protocol"] == "prometheus.WriteRequest"
        assert running.counted(SAMPLES_DROPPED, "refused") == 0
    versions = [r.headers["x-prometheus-remote-write-version"] for r in server.requests]
    assert versions == ["2.0.0", "0.1.0"]
    assert len(series_of(decoded_request(server.requests[1].body))) == 2


@pytest.mark.parametrize(("status", "reason"), [(204, "not_written"), (400, "refused")])
def test_what_2_did_not_write_is_counted(tmp_path, status: int, reason: str) -> None:
    some = WRITTEN | {"X-Prometheus-Remote-Write-Samples-Written": "1"}
    with (
        web(script((status, some, b""))) as server,
        agent(tmp_path, endpoint(server, V2)) as running,
    ):
        running.component.append(ONE)
        wait_until(lambda: running.counted(SAMPLES_SENT) == 1, "sent")
        wait_until(lambda: running.counted(SAMPLES_DROPPED, reason) == 1, "dropped")
