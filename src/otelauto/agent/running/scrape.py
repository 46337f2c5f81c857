# SPDX-License-Identifier: Apache-2.0
"""``prometheus.scrape``: asks targets for their metrics and passes them on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from otelauto.agent.pipeline import Appender, Context, Health, Running
from otelauto.agent.prometheus.http_client import Grants
from otelauto.agent.prometheus.scraping import Limits, Rules, Target
from otelauto.agent.schema import Decoded
from otelauto.errors import ConfigError

NS_PER_S: Final = 1_000_000_000


class Scrape(Running):
    """The component. Has a thread for each target; their first scrapes are spread over the
    interval, and stale markers end the series that a target does not have any more.
    """

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        targets: list[dict[str, str]] = content["targets"]
        most = int(content["target_limit"])
        if most and len(targets) > most:
            raise ConfigError(f"there are {len(targets)} targets", f"target_limit is {most}")
        for name in ("enable_protobuf_negotiation", "scrape_classic_histograms"):
            if content[name]:
                context.log.warning("%s: only the text formats are scraped", name)
        rules = Rules(
            job=content["job_name"] or context.id,
            interval_s=content["scrape_interval"] / NS_PER_S,
            timeout_s=content["scrape_timeout"] / NS_PER_S,
            honor_labels=bool(content["honor_labels"]),
            honor_timestamps=bool(content["honor_timestamps"]),
            track_timestamps=bool(content["track_timestamps_staleness"]),
            extra_metrics=bool(content["extra_metrics"]),
            limits=Limits(
                body=int(content["body_size_limit"]),
                samples=int(content["sample_limit"]),
                labels=int(content["label_limit"]),
                label_name=int(content["label_name_length_limit"]),
                label_value=int(content["label_value_length_limit"]),
            ),
            grants=Grants.of(content),
        )
        to: list[Appender] = [capsule.inner for capsule in content["forward_to"]]
        self._targets = [
            Target(
                each, content, rules, to, context.counters, context.log,
                rules.interval_s * number / len(targets),
            )
            for number, each in enumerate(targets)
        ]  # fmt: skip

    def start(self) -> None:
        for target in self._targets:
            target.start()

    def stop(self, deadline_s: float) -> None:
        """End without stale markers: a restart must not look like the end of all series."""
        until = time.monotonic() + deadline_s
        for target in self._targets:
            target.stop()
        for target in self._targets:
            target.join(max(0.0, until - time.monotonic()))

    def health(self) -> tuple[Health, str]:
        down = [target for target in self._targets if target.error]
        if down and len(down) == len(self._targets):
            return Health.UNHEALTHY, f"{down[0].url}: {down[0].error}"
        return super().health()

    def status(self) -> Mapping[str, str | int | float]:
        return {
            "targets": len(self._targets),
            "targets up": sum(not target.error for target in self._targets),
            "samples of the last scrapes": sum(target.samples for target in self._targets),
        }
