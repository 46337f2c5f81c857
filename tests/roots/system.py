# SPDX-License-Identifier: Apache-2.0
"""Systems made by install.sh, used so that nothing is written to them."""

from __future__ import annotations

from pathlib import Path

SYSTEMS = Path(__file__).resolve().parent.parent.parent / ".build" / "roots"
OLD = SYSTEMS / "bullseye"
FRESH = SYSTEMS / "bookworm"


def layer(system: Path, directory: Path) -> str:
    """Shell commands, in a mount namespace of their own: ``system`` is in ``directory``/merged.

    What is written there goes to a layer on top, ``directory``/above. Makes the directories.
    """
    for name in ("above", "work", "merged"):
        (directory / name).mkdir()
    return " && ".join(
        (
            "mount --make-rprivate /",
            f"cd {directory}",
            f"mount -t overlay overlay merged -o lowerdir={system},upperdir=above,workdir=work",
            "for name in proc sys dev; do mount --rbind /$name merged/$name; done",
        )
    )
