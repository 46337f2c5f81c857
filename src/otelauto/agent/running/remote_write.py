# SPDX-License-Identifier: Apache-2.0
"""``prometheus.remote_write``: samples into a log on disk, and from there to each endpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from otelauto.agent.pipeline import Context, Health, Metadata, Refused, Running, Sample
from otelauto.agent.prometheus.counted import (
    SAMPLES_DAMAGED,
    SAMPLES_RECOVERED,
    SAMPLES_WRITTEN,
)
from otelauto.agent.prometheus.endpoint import Endpoint
from otelauto.agent.prometheus.position import read_position
from otelauto.agent.prometheus.wal import Log
from otelauto.agent.river.values import Capsule, Value
from otelauto.agent.schema import APPENDABLE, Decoded
from otelauto.errors import ConfigError, OtelautoError

NS_PER_S: Final = 1_000_000_000
SYNC_S: Final = 1.0
FULL_RETRY_S: Final = 5.0
METADATA_MAX: Final = 100_000


class RemoteWrite(Running):
    """The component. What was appended is on disk: a kill loses nothing of it."""

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        wal = next(iter(content.blocks.get("wal", ())), None)
        if wal is None:
            schema = content.schema.block("wal")
            if schema is None:
                raise KeyError("wal")
            wal = Decoded(schema)
        self._truncate_s: float = wal["truncate_frequency"] / NS_PER_S
        self._keep_s: float = wal["min_keepalive_time"] / NS_PER_S
        self._directory = context.directory / "wal"
        self._log = Log(self._directory, lambda n: context.counters.add(SAMPLES_DAMAGED, n))
        self._metadata: dict[str, Metadata] = {}
        self._endpoints = [
            Endpoint(
                block,
                content["external_labels"] or {},
                self._log,
                context.counters,
                context.log,
                keep_at_most_s=wal["max_keepalive_time"] / NS_PER_S,
                metadata=lambda: dict(self._metadata),
            )
            for block in content.blocks.get("endpoint", ())
        ]
        names = [endpoint.name for endpoint in self._endpoints]
        if len(set(names)) < len(names):
            raise ConfigError(
                "two endpoints have the same URL or name", 'give each a "name" of its own'
            )
        self._stopped = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="remote-write-wal", daemon=True)

    @property
    def exports(self) -> Mapping[str, Value]:
        return {"receiver": Capsule(APPENDABLE, self)}

    def start(self) -> None:
        try:
            self._log.open()
            self._place_endpoints()
        except OSError as error:
            self._log.close()
            raise OtelautoError(
                f"the write-ahead log in {self._directory} cannot be used: {error}",
                "see --storage.path; only one agent may use it",
            ) from error
        waiting = max((endpoint.pending for endpoint in self._endpoints), default=0)
        self.context.counters.add(SAMPLES_RECOVERED, waiting)
        for endpoint in self._endpoints:
            endpoint.start()
        self._keeper.start()

    def _place_endpoints(self) -> None:
        """Where each begins. One that is new takes the place of those that are gone, so that a
        corrected URL gets what the wrong one did not; else it begins now.
        """
        kept = {f"{endpoint.identity}.position" for endpoint in self._endpoints}
        stored = {path: read_position(path) for path in self._directory.glob("*.position")}
        gone = {path: at for path, at in stored.items() if path.name not in kept}
        begin = min((at for at in gone.values() if at is not None), default=self._log.end())
        for endpoint in self._endpoints:
            endpoint.open(self._directory, begin)
        for path in gone:
            path.unlink(missing_ok=True)

    def append(self, samples: Sequence[Sample], metadata: Iterable[Metadata] = ()) -> None:
        """Write ``samples`` to the log. Called from any thread.

        Raises:
            Refused: they could not be written.
        """
        for each in metadata:
            if each.family in self._metadata or len(self._metadata) < METADATA_MAX:
                self._metadata[each.family] = each
        try:
            self._log.append(samples)
        except OSError as error:
            self.last_error = f"the write-ahead log cannot be written: {error}"
            raise Refused(self.last_error, retry_after_s=FULL_RETRY_S) from error
        self.last_error = ""
        self.context.counters.add(SAMPLES_WRITTEN, len(samples))

    def _keep(self) -> None:
        """Sync the log each second, and remove what all endpoints have passed."""
        since_truncation = 0.0
        while not self._stopped.wait(SYNC_S):
            since_truncation += SYNC_S
            due = since_truncation >= self._truncate_s
            passed = min((e.position for e in self._endpoints), default=self._log.end()).segment
            try:
                self._log.sync()
                self._log.truncate(passed, self._keep_s, rotate=due)
            except OSError as error:
                self.context.log.warning("the write-ahead log: %s", error)
            if due:
                since_truncation = 0.0

    def stop(self, deadline_s: float) -> None:
        for endpoint in self._endpoints:
            endpoint.end(deadline_s)
        for endpoint in self._endpoints:
            endpoint.join()
        self._stopped.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        self._log.close()

    def health(self) -> tuple[Health, str]:
        for endpoint in self._endpoints:
            if endpoint.error and not self.last_error:
                return Health.UNHEALTHY, f"{endpoint.name}: {endpoint.error}"
        return super().health()

    def status(self) -> Mapping[str, str | int | float]:
        found: dict[str, str | int | float] = {}
        for number, endpoint in enumerate(self._endpoints):
            prefix = f"endpoint {number}" if len(self._endpoints) > 1 else "endpoint"
            found.update({f"{prefix} {key}": value for key, value in endpoint.status().items()})
        return found
