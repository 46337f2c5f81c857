# SPDX-License-Identifier: Apache-2.0
"""Requests of remote write to one URL, one at a time, and what their answers mean.

Sources: "Prometheus Remote-Write 1.0 specification", "Retries & Backoff"; 2.0, "Required
``Written`` Response Headers". Other than there, 401, 403 and 407 are retried: the samples are
sound, and credentials can be corrected.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Final

import cramjam

from otelauto import __version__
from otelauto.agent.prometheus.http_client import (
    Grants,
    HttpClient,
    Response,
    explained,
    secret_text,
)
from otelauto.agent.prometheus.remote import HEADERS, V2
from otelauto.agent.schema import Decoded
from otelauto.errors import OtelautoError
from otelauto.export.otlp_http import retry_after
from otelauto.export.retry import Retry
from otelauto.export.transport import Answer, Body, Verdict, shortened, shown

NS_PER_S: Final = 1_000_000_000
CREDENTIALS: Final = frozenset({401, 403, 407})
WRITTEN: Final = tuple(
    f"x-prometheus-remote-write-{kind}-written" for kind in ("samples", "histograms", "exemplars")
)


class Settings:
    """The arguments of an ``endpoint`` block. Raises :class:`ConfigError`."""

    def __init__(self, block: Decoded) -> None:
        self.block = block
        self.url: str = block["url"] or ""
        self.grants = Grants.of(block)
        self.headers = {n.lower(): secret_text(v) for n, v in (block["headers"] or {}).items()}
        self.timeout_s: float = block["remote_timeout"] / NS_PER_S
        self.exemplars = bool(block["send_exemplars"])
        self.histograms = bool(block["send_native_histograms"])
        queue = _only(block, "queue_config")
        self.capacity = max(1, int(queue["capacity"]))
        self.batch = int(queue["max_samples_per_send"])
        self.min_shards, self.max_shards = int(queue["min_shards"]), int(queue["max_shards"])
        self.deadline_s: float = queue["batch_send_deadline"] / NS_PER_S
        self.min_backoff_s: float = queue["min_backoff"] / NS_PER_S
        self.max_backoff_s: float = queue["max_backoff"] / NS_PER_S
        self.retry_429 = bool(queue["retry_on_http_429"])
        self._age_limit_ns: int = queue["sample_age_limit"]
        metadata = _only(block, "metadata_config")
        self.metadata = bool(metadata["send"])
        self.metadata_s: float = metadata["send_interval"] / NS_PER_S
        self.metadata_batch = max(1, int(metadata["max_samples_per_send"]))
        self.thread_name = "remote-write-send"

    def oldest_ms(self) -> int:
        """Samples of before then, milliseconds since the epoch, are not sent any more."""
        limit = self._age_limit_ns
        return (time.time_ns() - limit) // 1_000_000 if limit > 0 else -(1 << 63)


def _only(block: Decoded, name: str) -> Decoded:
    """The block ``name``, or what its defaults are."""
    schema = block.schema.block(name)
    if schema is None:
        raise KeyError(name)
    return next(iter(block.blocks.get(name, ())), Decoded(schema))


class Sender:
    """One connection. One thread at a time uses it; ``abort`` may come from another.

    ``wants_v1``: the endpoint showed that it does not know remote write 2.0.
    """

    EXPIRED: Final = "older than max_keepalive_time or sample_age_limit"

    def __init__(
        self,
        settings: Settings,
        closing: threading.Event,
        seconds_left: Callable[[], float | None],
        report: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._client = HttpClient(settings.url, settings.block, grants=settings.grants)
        self.shown = self._client.shown
        self._retry = Retry(
            self._post,
            report,
            closing,
            seconds_left,
            first_pause_s=settings.min_backoff_s,
            longest_pause_s=settings.max_backoff_s,
            limit_s=0,
        )
        self._protocol = ""
        self._items = 0
        self._expired: Callable[[], bool] = lambda: False
        self.wants_v1 = False

    def send(self, body: bytes, protocol: str, items: int, expired: Callable[[], bool]) -> Answer:
        """Send the message until there is an answer that counts; ``expired`` is asked before each
        try. ``RETRY``: there was no time for one. ``rejected`` of an accepted one are samples that
        the endpoint did not write, of a refused one those that it wrote all the same.
        """
        self._protocol, self._items, self._expired = protocol, items, expired
        self.wants_v1 = False
        return self._retry.send(_compressed(body))

    def post_once(self, body: bytes, protocol: str) -> Answer:
        """Send the message; what comes of it is all there is."""
        self._protocol, self._items, self._expired = protocol, 0, lambda: False
        return self._post(_compressed(body), None)

    def abort(self) -> None:
        """From another thread: fail now."""
        self._client.abort()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _post(self, body: Body, seconds_left: float | None) -> Answer:
        if self._expired():
            return Answer(Verdict.REFUSED, self.EXPIRED)
        headers = {
            "user-agent": f"otelauto/{__version__}",
            **self._settings.headers,
            **HEADERS[self._protocol],
        }
        timeout_s = shortened(self._settings.timeout_s or None, seconds_left)
        if timeout_s is not None and timeout_s <= 0:
            return Answer(Verdict.RETRY, "no time left")
        data = body if isinstance(body, bytes) else b"".join(body)
        try:
            response = self._client.request("POST", headers, data, timeout_s=timeout_s)
        except (OSError, HTTPException, OtelautoError) as error:
            return Answer(Verdict.RETRY, explained(error))
        return self._judged(response)

    def _judged(self, response: Response) -> Answer:
        status = response.status
        written = _written(response.headers) if self._protocol == V2 else None
        if 200 <= status < 300:
            if self._protocol != V2:
                return Answer(Verdict.ACCEPTED)
            if written is None:
                return self._not_v2("it does not say what it wrote")
            return Answer(Verdict.ACCEPTED, "", max(0, self._items - written))
        text = shown(response.body)
        error = f"HTTP {status} {response.reason}{': ' if text else ''}{text}"
        if status == 415 and self._protocol == V2:
            return self._not_v2(error)
        if status >= 500 or status in CREDENTIALS or (status == 429 and self._settings.retry_429):
            after = retry_after(response.headers.get("retry-after"))
            return Answer(Verdict.RETRY, error, retry_after_s=after)
        return Answer(Verdict.REFUSED, error, min(self._items, written or 0))

    def _not_v2(self, error: str) -> Answer:
        self.wants_v1 = True
        return Answer(Verdict.REFUSED, error)


def _compressed(data: bytes) -> bytes:
    """As a snappy block."""
    return bytes(cramjam.snappy.compress_raw(data))


def _written(headers: Mapping[str, str]) -> int | None:
    """Samples and histograms that were written; ``None``: the answer does not say it."""
    found = [headers.get(name, "") for name in WRITTEN]
    if not any(found):
        return None
    return sum(int(each) for each in found[:2] if each.isdecimal())
