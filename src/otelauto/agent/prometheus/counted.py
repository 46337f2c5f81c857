# SPDX-License-Identifier: Apache-2.0
"""What the prometheus.* components count."""

from __future__ import annotations

from typing import Final

from otelauto.counters import Meaning

SAMPLES_WRITTEN: Final = Meaning(
    "agent_remote_write_samples_written", "Samples that were put into the write-ahead log."
)
SAMPLES_RECOVERED: Final = Meaning(
    "agent_remote_write_samples_recovered",
    "Samples that an earlier process left in the write-ahead log, and that waited there.",
)
SAMPLES_DAMAGED: Final = Meaning(
    "agent_remote_write_samples_damaged",
    "Samples of the write-ahead log whose record was damaged, or never whole.",
)
SAMPLES_SENT: Final = Meaning("agent_remote_write_samples_sent", "Samples that endpoints accepted.")
SAMPLES_DROPPED: Final = Meaning(
    "agent_remote_write_samples_dropped", "Samples that an endpoint never got.", "reason"
)
SAMPLES_RELABELLED_AWAY: Final = Meaning(
    "agent_remote_write_samples_relabelled_away", "Samples that write_relabel_config dropped."
)
METADATA_SENT: Final = Meaning(
    "agent_remote_write_metadata_sent", "Descriptions of metrics that endpoints accepted."
)
REQUESTS_FAILED: Final = Meaning(
    "agent_remote_write_requests_failed", "Requests without success, most of them sent again."
)
SCRAPES_FAILED: Final = Meaning(
    "agent_scrapes_failed", "Scrapes that gave nothing; up is 0 then.", "reason"
)
SCRAPE_SAMPLES_DROPPED: Final = Meaning(
    "agent_scrape_samples_dropped", "Scraped samples that went nowhere.", "reason"
)
