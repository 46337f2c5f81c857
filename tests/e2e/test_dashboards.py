# SPDX-License-Identifier: Apache-2.0
"""The dashboards of deploy/grafana: a real Prometheus answers each of their expressions.

The pipeline is that of deploy/container/compose.yml, with its own configuration files; only names
and ports are those of this machine.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.harness.otelauto import PROGRAM, READY
from tests.e2e.harness.process import Process, accepts, free_port, wait_until
from tests.house.scan import ROOT

pytestmark = pytest.mark.e2e
DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
SERVICES = ("shop", "catalog", "cart")
WINDOW = "30s"


def panels(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
    return found


def expressions(path: Path) -> list[str]:
    """What the panels and the variables of a dashboard ask, with Grafana's variables filled in."""
    board = json.loads(path.read_text())
    asked = [each["expr"] for panel in board["panels"] for each in panel["targets"]]
    for variable in board["templating"]["list"]:
        if match := re.fullmatch(r"label_values\((\w+), (\w+)\)", variable.get("definition", "")):
            asked.append(f"count by ({match[2]}) ({match[1]})")
        else:
            assert variable["type"] == "datasource"
    filled = [re.sub(r"\$__(rate_interval|range)", WINDOW, each) for each in asked]
    filled = [each.replace("$service", ".+") for each in filled]
    assert not [each for each in filled if "$" in each]
    return filled


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_well_formed(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"].startswith("otelauto-")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    cells = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        mine = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not mine & cells, f"{panel['title']} lies on another panel"
        assert at["x"] + at["w"] <= 24
        cells |= mine
        assert panel["targets"]
        asked = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert {each["uid"] for each in asked} == {"${datasource}"}
    assert len({panel["title"] for panel in board["panels"]}) == len(ids)


def test_the_dashboards_are_three() -> None:
    assert [path.stem for path in DASHBOARDS] == ["otelauto", "service-graph", "services"]


def direct_job(port: int) -> str:
    """A scrape of the page, with what docs/container.md says of it."""
    page = (ROOT / "docs" / "container.md").read_text()
    (said,) = [
        text for text in re.findall(r"```yml\n(.*?)```", page, re.DOTALL) if "relabel" in text
    ]
    targets = [{"targets": [f"127.0.0.1:{port}"]}]
    job = {"job_name": "direct", "static_configs": targets, **yaml.safe_load(said)}
    return "".join(f"  {line}\n" for line in yaml.safe_dump([job]).splitlines())


class Pipeline:
    """Services, instrumenter, agent and Prometheus of the compose file, on this machine."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._directory, self._stack = directory, stack
        self.shop = self._contiguous_ports()
        names = ("prometheus", "otlp", "page", "internal", "direct")
        self._ports = {name: free_port() for name in names}
        self._configure()
        sample = ROOT / "examples" / "demo" / "sample.py"
        self._start("sample", [sys.executable, sample], DEMO_FIRST_PORT=str(self.shop))
        self._start(
            "prometheus",
            [
                "prometheus", f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'tsdb'}", "--web.enable-remote-write-receiver",
                f"--web.listen-address=127.0.0.1:{self._ports['prometheus']}",
            ],
        )  # fmt: skip
        self._wait(self._ports["prometheus"])
        agent = [
            PROGRAM, "agent", "run", directory / "agent.river", "--storage.path",
            directory / "agent", f"--server.http.listen-addr=127.0.0.1:{self._ports['page']}",
        ]  # fmt: skip
        self._start("agent", agent)
        self._wait(self._ports["otlp"])
        for number in range(len(SERVICES)):
            self._wait(self.shop + number)
        words = [PROGRAM, "run", "--config", directory / "instrumenter.yml"]
        state = str(directory / "state")
        started = self._start("instrumenter", words, OTELAUTO_STATE_DIRECTORY=state)
        started.wait_for(lambda: READY in started.stderr(), "the instrumenter is ready")

    def _contiguous_ports(self) -> int:
        while True:
            first = free_port()
            if not any(accepts(first + number) for number in range(len(SERVICES))):
                return first

    def _configure(self) -> None:
        """The files of deploy/container, with what is of this machine put in."""
        ports = self._ports
        replaced = {
            "instrumenter.yml": {
                "8080-8085": f"{self.shop}-{self.shop + len(SERVICES) - 1}",
                "agent:4318": f"127.0.0.1:{ports['otlp']}",
                "interval: 10s": "interval: 1s",
                "port: 9464": f"port: {ports['internal']}",
                "host: 0.0.0.0 # of the container": f"port: {ports['direct']}",
            },
            "agent.river": {
                "0.0.0.0:4318": f"127.0.0.1:{ports['otlp']}",
                "prometheus:9090": f"127.0.0.1:{ports['prometheus']}",
                '"5s"': '"1s"',
            },
            "prometheus.yml": {
                "scrape_interval: 5s": "scrape_interval: 1s",
                "instrumenter:9464": f"127.0.0.1:{ports['internal']}",
                "agent:12345": f"127.0.0.1:{ports['page']}",
            },
        }
        for name, pairs in replaced.items():
            text = (DEPLOY / "container" / name).read_text()
            for old, new in pairs.items():
                assert old in text, f"{name} has no {old}"
                text = text.replace(old, new)
            if name == "instrumenter.yml":
                text += f"control_socket: {self._directory / 'control.sock'}\n"
            if name == "prometheus.yml":
                text += direct_job(ports["direct"])
            (self._directory / name).write_text(text)

    def _start(self, name: str, words: list[str | Path], **environment: str) -> Process:
        errors = self._directory / f"{name}.err"
        process = self._stack.enter_context(Process(words, errors, env=environment))
        self._last = process
        return process

    def _wait(self, port: int) -> None:
        self._last.wait_for(lambda: accepts(port), f"something listens on {port}", 60)

    def fail_once(self) -> None:
        """A request that the shop answers with 500, so that there are errors to show."""
        connection = http.client.HTTPConnection("127.0.0.1", self.shop, timeout=20)
        connection.request("POST", "/checkout/7", b"{}")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 500
        connection.close()

    def values(self, expression: str) -> list[float]:
        """What Prometheus answers now; an expression that it refuses is an error."""
        return [float(row["value"][1]) for row in self.rows(expression)]

    def rows(self, expression: str) -> list[dict[str, Any]]:
        """The same, with the labels."""
        query = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{self._ports['prometheus']}/api/v1/query?{query}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def jobs_of_the_page(self) -> set[str]:
        """The jobs of RED series that were scraped from the instrumenter's page."""
        instance = f"127.0.0.1:{self._ports['direct']}"
        name = "http_server_request_duration_seconds_count"
        rows = self.rows(f'count by (job) ({name}{{instance="{instance}"}})')
        return {row["metric"]["job"] for row in rows}


@pytest.fixture(scope="module", name="pipeline")
def fixture_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with contextlib.ExitStack() as stack:
        yield Pipeline(tmp_path_factory.mktemp("pipeline"), stack)


def test_every_expression_has_an_answer(pipeline: Pipeline) -> None:
    waiting = {each for path in DASHBOARDS for each in expressions(path)}
    assert len(waiting) > 30

    def answered() -> bool:
        pipeline.fail_once()
        for each in sorted(waiting):
            if any(math.isfinite(value) for value in pipeline.values(each)):
                waiting.discard(each)
        return not waiting

    try:
        wait_until(answered, "every expression has an answer", 60)
    except AssertionError as error:
        raise AssertionError("\n".join(["no answer to", *sorted(waiting)])) from error
    with pytest.raises(urllib.error.HTTPError):
        pipeline.values("sum by (job (up)")
    assert pipeline.values("no_such_series") == []
    by_service = 'count by (job) (http_server_request_duration_seconds_count{job!=""})'
    assert len(pipeline.values(by_service)) >= len(SERVICES)


def test_services_are_jobs_where_the_page_is_scraped(pipeline: Pipeline) -> None:
    """With the relabelling of docs/container.md, so that the dashboards are for both."""
    wanted = set(SERVICES)
    wait_until(lambda: pipeline.jobs_of_the_page() == wanted, "the page was scraped", 60)


def test_grafana_is_provisioned_with_what_is_there() -> None:
    """The paths and names of the provisioning files are those of the compose file."""
    compose = yaml.safe_load((DEPLOY / "container" / "compose.yml").read_text())["services"]
    mounted = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    provisioning = DEPLOY / "grafana" / "provisioning"
    assert mounted["../grafana/provisioning"] == "/etc/grafana/provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards/otelauto.yml").read_text())[
        "providers"
    ]
    assert mounted["../grafana/dashboards"] == provider["options"]["path"]
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())
    (source,) = sources["datasources"]
    host = urllib.parse.urlsplit(source["url"])
    assert host.hostname in compose
    assert source["isDefault"]
    port = next(word for word in compose[host.hostname]["ports"])
    assert port.endswith(f":{host.port}")
