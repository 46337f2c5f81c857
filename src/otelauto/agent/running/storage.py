# SPDX-License-Identifier: Apache-2.0
"""``otelcol.storage.file``: where sending queues are on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from otelauto.agent.pipeline import Context, Running
from otelauto.agent.river.values import Capsule, Value
from otelauto.agent.schema import STORAGE, Decoded


class File(Running):
    """A directory, made when it is needed; each exporter has one of its own in it."""

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        given = content["directory"]
        self.directory = Path(given) if given else context.directory

    @property
    def exports(self) -> Mapping[str, Value]:
        return {"handler": Capsule(STORAGE, self.directory)}
