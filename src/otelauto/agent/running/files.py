# SPDX-License-Identifier: Apache-2.0
"""``local.file``: the content of a file, as it is now."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from otelauto.agent.pipeline import Context, Running
from otelauto.agent.river.values import OptionalSecret, Value
from otelauto.agent.schema import Decoded
from otelauto.errors import ConfigError

NOTICED_S: Final = 1.0  # how often a file is looked at by the detector "fsnotify"

_Version = tuple[int, int, int]


class LocalFile(Running):
    """Looks at the file every second, or as ``poll_frequency`` says; a new content is exported."""

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        self._path = Path(content["filename"])
        poll = content["detector"] == "poll"
        self._every_s = content["poll_frequency"] / 1e9 if poll else NOTICED_S
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otelauto-local-file", daemon=True)
        try:
            self._version, self._text = self._read()
        except OSError as error:
            raise ConfigError(
                f"{self._path} cannot be read: {error.strerror}", "Give a file that is there."
            ) from error

    @property
    def exports(self) -> Mapping[str, Value]:
        return {"content": OptionalSecret(self._text, bool(self.content["is_secret"]))}

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join(deadline_s)

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self.look()

    def look(self) -> None:
        """Read the file if it is another one than before; what cannot be read changes nothing."""
        try:
            if _version(self._path) == self._version:
                self.last_error = ""
                return
            self._version, text = self._read()
        except OSError as error:
            if not self.last_error:
                self.context.log.warning("%s: %s", self._path, error.strerror)
            self.last_error = f"the file cannot be read: {error.strerror}"
            return
        self.last_error = ""
        if text != self._text:
            self._text = text
            self.context.changed()

    def _read(self) -> tuple[_Version, str]:
        version = _version(self._path)  # first: a change while it is read is seen the next time
        return version, self._path.read_bytes().decode("utf-8", "surrogateescape")


def _version(path: Path) -> _Version:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
