# SPDX-License-Identifier: Apache-2.0
"""What each component's block may hold. One entry for each component; nothing runs here."""

from __future__ import annotations

from otelauto.agent.components import otelcol, others
from otelauto.agent.schema import Component

COMPONENTS: dict[str, Component] = {
    each.name: each for each in (*otelcol.COMPONENTS, *others.COMPONENTS)
}
# Blocks of the language that this agent does not have.
ABSENT = (
    "argument", "declare", "export", "foreach", "http", "import.file", "import.git", "import.http",
    "import.string", "livedebugging", "remotecfg", "tracing",
)  # fmt: skip
