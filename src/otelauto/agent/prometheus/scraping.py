# SPDX-License-Identifier: Apache-2.0
"""One target of ``prometheus.scrape``: asked again and again, and what becomes of its answers.

Source: Prometheus, "Jobs and instances", "scrape_config" and "Staleness".
"""

from __future__ import annotations

import gzip
import io
import logging
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Final
from urllib.parse import urlencode

from otelauto import __version__
from otelauto.agent.pipeline import STALE, Appender, Exemplar, Labels, Metadata, Refused, Sample
from otelauto.agent.prometheus.counted import SCRAPE_SAMPLES_DROPPED, SCRAPES_FAILED
from otelauto.agent.prometheus.exposition import (
    OPENMETRICS_TYPE,
    Exposition,
    ExpositionError,
    Scraped,
)
from otelauto.agent.prometheus.http_client import (
    Grants,
    HttpClient,
    TooLargeError,
    explained,
)
from otelauto.agent.prometheus.names import NAME, sorted_labels
from otelauto.agent.schema import Decoded
from otelauto.counters import Counters
from otelauto.errors import ConfigError, OtelautoError

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
BODY_MAX: Final = 256 << 20  # bytes, where no body_size_limit is given
RESERVED: Final = "__"
ACCEPT: Final = (
    "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;"
    "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


class ScrapeError(Exception):
    """A scrape that gave nothing; ``reason`` is for the counter."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Limits:
    """What a scrape may not exceed; 0 is no limit."""

    body: int = 0
    samples: int = 0
    labels: int = 0
    label_name: int = 0
    label_value: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """The arguments of ``prometheus.scrape`` about what a scrape becomes."""

    job: str
    interval_s: float
    timeout_s: float
    honor_labels: bool
    honor_timestamps: bool
    track_timestamps: bool
    extra_metrics: bool
    limits: Limits
    grants: Grants | None


def target_url(target: Mapping[str, str], content: Decoded) -> str:
    """The URL of a target: its ``__address__``, and what else it says for itself.

    Raises:
        ConfigError: it has no address.
    """
    address = target.get("__address__", "")
    if not address or "/" in address:
        raise ConfigError(
            f"a target's __address__ is {address!r}", "it is a host and a port: localhost:9090"
        )
    parameters = {name: list(values) for name, values in (content["params"] or {}).items()}
    for name, value in target.items():
        if name.startswith("__param_"):
            parameters.setdefault(name.removeprefix("__param_"), [""])[0] = value
    scheme = target.get("__scheme__") or content["scheme"]
    path = target.get("__metrics_path__") or content["metrics_path"]
    query = urlencode(parameters, doseq=True)
    separator = "&" if "?" in path else "?"
    slash = "" if path.startswith("/") else "/"
    return f"{scheme}://{address}{slash}{path}{separator + query if query else ''}"


def target_labels(target: Mapping[str, str], job: str) -> dict[str, str]:
    """The labels that all samples of a target get."""
    found = {"job": job, "instance": target.get("__address__", "")}
    found.update({n: v for n, v in target.items() if not n.startswith(RESERVED) and v})
    return found


@dataclass(slots=True)
class _Read:
    """What one scrape gave."""

    samples: list[Sample] = field(default_factory=list)
    metadata: list[Metadata] = field(default_factory=list)
    tracked: dict[Labels, None] = field(default_factory=dict)  # those that can become stale
    scraped: int = 0
    body: int = 0


class Target:
    """One target. A thread of its own asks it each ``interval_s``, first after ``offset_s``.

    Raises:
        ConfigError: its URL or an argument cannot be used.
    """

    def __init__(
        self,
        target: Mapping[str, str],
        content: Decoded,
        rules: Rules,
        to: Sequence[Appender],
        counters: Counters,
        log: logging.Logger,
        offset_s: float,
    ) -> None:
        self._client = HttpClient(target_url(target, content), content, grants=rules.grants)
        self.url = self._client.shown
        self._labels = target_labels(target, rules.job)
        self._rules = rules
        self._to = to
        self._counters = counters
        self._log = log
        self._offset_s = offset_s
        self._tracked: dict[Labels, None] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrape", daemon=True)
        self.error = "not scraped yet"
        self.samples = 0

    def start(self) -> None:
        """Begin to scrape."""
        self._thread.start()

    def stop(self) -> None:
        """Begin to end; :meth:`join` waits for it."""
        self._stop.set()
        self._client.abort()

    def join(self, seconds: float) -> None:
        """Wait for a scrape in progress to end."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        due = time.monotonic() + self._offset_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self.scrape()
            due += self._rules.interval_s
            if due < time.monotonic():  # it took longer: what was due meanwhile is left out
                due = time.monotonic()
        self._client.close()

    def scrape(self) -> None:
        """Ask once, and pass on what comes of it, ``up`` at least."""
        started_ns = time.time_ns()
        began = time.monotonic()
        now_ms = started_ns // NS_PER_MS
        read = _Read()
        error = ""
        try:
            read = self._read(now_ms)
        except ScrapeError as failure:
            if self._stop.is_set():
                return
            error = str(failure)
            self._counters.add(SCRAPES_FAILED, label=failure.reason)
            if error != self.error:
                self._log.warning("%s: %s", self.url, error)
        gone = [
            Sample(labels, STALE, now_ms) for labels in self._tracked if labels not in read.tracked
        ]
        added = sum(labels not in self._tracked for labels in read.tracked)
        about = self._report(read, time.monotonic() - began, added, now_ms, up=not error)
        refused = self._pass_on([*read.samples, *gone, *about], read.metadata)
        self._tracked = read.tracked if not refused else self._tracked
        self.error, self.samples = error or refused, read.scraped

    def _pass_on(self, samples: Sequence[Sample], metadata: Sequence[Metadata]) -> str:
        """Returns why somebody did not take them."""
        problem = ""
        for appender in self._to:
            try:
                appender.append(samples, metadata)
            except Refused as refused:
                problem = str(refused)
                self._counters.add(SCRAPE_SAMPLES_DROPPED, len(samples), "refused")
                self._log.warning("%s: %d samples are lost: %s", self.url, len(samples), refused)
        return problem

    def _report(
        self, read: _Read, seconds: float, added: int, now_ms: int, *, up: bool
    ) -> list[Sample]:
        """What Prometheus says of each scrape."""
        values: dict[str, float] = {
            "up": up,
            "scrape_duration_seconds": seconds,
            "scrape_samples_scraped": read.scraped,
            "scrape_samples_post_metric_relabeling": read.scraped,
            "scrape_series_added": added,
        }
        if self._rules.extra_metrics:
            values["scrape_timeout_seconds"] = self._rules.timeout_s
            values["scrape_sample_limit"] = self._rules.limits.samples
            values["scrape_body_size_bytes"] = read.body if up else -1
        return [
            Sample(sorted_labels({**self._labels, NAME: name}), float(value), now_ms)
            for name, value in values.items()
        ]

    # ---- one answer ----

    def _read(self, now_ms: int) -> _Read:
        """Raises :class:`ScrapeError`."""
        data, content_type = self._fetch()
        openmetrics = content_type.partition(";")[0].strip().lower() == OPENMETRICS_TYPE
        exposition = Exposition(data, openmetrics=openmetrics)
        read = _Read(body=len(data))
        seen: set[Labels] = set()
        try:
            for scraped in exposition:
                self._keep(scraped, read, seen, now_ms)
        except ExpositionError as error:
            raise ScrapeError("malformed", str(error)) from None
        read.metadata = exposition.metadata
        return read

    def _keep(self, scraped: Scraped, read: _Read, seen: set[Labels], now_ms: int) -> None:
        read.scraped += 1
        self._check(scraped, read.scraped)
        labels = self._merged(scraped.labels)
        own_time = scraped.timestamp_ms if self._rules.honor_timestamps else None
        if labels in seen and own_time is None:
            self._counters.add(SCRAPE_SAMPLES_DROPPED, 1, "twice")
            return
        seen.add(labels)
        if own_time is None or self._rules.track_timestamps:
            read.tracked[labels] = None
        exemplars: tuple[Exemplar, ...] = ()
        if scraped.exemplar is not None:
            example = scraped.exemplar
            stamped = example.timestamp_ms or now_ms
            exemplars = (Exemplar(example.labels, example.value, stamped),)
        timestamp_ms = now_ms if own_time is None else own_time
        read.samples.append(Sample(labels, scraped.value, timestamp_ms, exemplars))

    def _check(self, scraped: Scraped, count: int) -> None:
        limits = self._rules.limits
        if limits.samples and count > limits.samples:
            raise ScrapeError("sample_limit", f"more than {limits.samples} samples")
        if limits.labels and len(scraped.labels) + len(self._labels) > limits.labels:
            raise ScrapeError("label_limit", f"a series with more than {limits.labels} labels")
        for name, value in scraped.labels.items():
            if limits.label_name and len(name) > limits.label_name:
                raise ScrapeError("label_limit", f"the label name {name[:40]}... is too long")
            if limits.label_value and len(value) > limits.label_value:
                raise ScrapeError("label_limit", f"a value of the label {name} is too long")

    def _merged(self, scraped: dict[str, str]) -> Labels:
        """The labels of a sample and of its target. Where both have one, ``honor_labels`` says
        whose counts; the other sample's is called ``exported_...`` then.
        """
        if self._rules.honor_labels:
            return sorted_labels({**self._labels, **scraped})
        merged = dict(scraped)
        for name, value in self._labels.items():
            if name in scraped:
                exported = f"exported_{name}"
                while exported in merged or exported in self._labels:
                    exported = f"exported_{exported}"
                merged[exported] = scraped[name]
            merged[name] = value
        return sorted_labels(merged)

    def _fetch(self) -> tuple[bytes, str]:
        """The body, unpacked, and its content type. Raises :class:`ScrapeError`."""
        headers = {
            "user-agent": f"otelauto/{__version__}",
            "accept": ACCEPT,
            "accept-encoding": "gzip",
            "x-prometheus-scrape-timeout-seconds": f"{self._rules.timeout_s:g}",
        }
        most = self._rules.limits.body or BODY_MAX
        try:
            answer = self._client.request(
                "GET", headers, timeout_s=self._rules.timeout_s, most=most
            )
        except TooLargeError as error:
            raise ScrapeError("body_size_limit", str(error)) from None
        except (OSError, HTTPException, OtelautoError) as error:
            raise ScrapeError("unreachable", explained(error)) from None
        if answer.status != 200:
            raise ScrapeError("status", f"HTTP {answer.status} {answer.reason}")
        body = answer.body
        if answer.headers.get("content-encoding", "") == "gzip":
            body = _unpacked(body, most)
        return body, answer.headers.get("content-type", "")


def _unpacked(data: bytes, most: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            body = packed.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ScrapeError("malformed", f"the body is no gzip: {error}") from None
    if len(body) > most:
        raise ScrapeError("body_size_limit", f"a body of more than {most} bytes")
    return body
