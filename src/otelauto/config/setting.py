# SPDX-License-Identifier: Apache-2.0
"""One declaration per setting: YAML key, environment names, flag and documentation follow."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

from otelauto.config.kinds import Kind

T = TypeVar("T")

OWN_PREFIX = "OTELAUTO_"


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that sets a setting.

    ``kind`` is how its text is read where that differs from YAML. ``lenient``: an invalid value is
    warned about and ignored, as the OpenTelemetry specification demands of its variables.
    """

    name: str
    kind: Kind[Any] | None = None
    lenient: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """What a field of the settings tree declares. ``env`` is strongest first."""

    kind: Kind[Any]
    help: str
    env: tuple[Variable, ...]
    flags: tuple[str, ...]
    key: str | None
    aliases: tuple[str, ...]
    no_effect: str
    default_note: str


@dataclass(frozen=True, slots=True)
class Declaration:
    """A setting in its place: ``path`` is its YAML keys from the top, ``attributes`` its fields."""

    path: tuple[str, ...]
    attributes: tuple[str, ...]
    setting: Setting
    default: Any
    env: tuple[Variable, ...]

    @property
    def key(self) -> str:
        """The dotted YAML key, as messages and the documentation name it."""
        return ".".join(self.path)


def setting(
    default: T,
    kind: Kind[Any],
    help: str,  # noqa: A002 - the word argparse uses too
    *,
    env: tuple[Variable | str, ...] | None = None,
    flags: tuple[str, ...] = (),
    key: str | None = None,
    aliases: tuple[str, ...] = (),
    no_effect: str = "",
    default_note: str = "",
) -> T:
    """Declare a field of a section.

    Without ``env`` the variable's name follows from the key: ``OTELAUTO_<SECTION>_<KEY>``.
    ``key`` is the YAML key where it is not the field's name. ``no_effect`` says why the setting is
    accepted and does nothing. ``default_note`` replaces the default in the documentation.
    """
    variables = tuple(Variable(item) if isinstance(item, str) else item for item in env or ())
    declared = Setting(kind, help, variables, flags, key, aliases, no_effect, default_note)
    made: Any = field(default_factory=lambda: copy.copy(default), metadata={"setting": declared})
    return made  # type: ignore[no-any-return]


def section(cls: type[T]) -> T:
    """Declare a field that holds a section of settings."""
    made: Any = field(default_factory=cls, metadata={"section": cls})
    return made  # type: ignore[no-any-return]


def _walk(
    cls: type[Any], path: tuple[str, ...], attributes: tuple[str, ...]
) -> Iterator[Declaration]:
    for item in fields(cls):
        here = (*attributes, item.name)
        if (nested := item.metadata.get("section")) is not None:
            yield from _walk(nested, (*path, item.name), here)
            continue
        declared: Setting = item.metadata["setting"]
        keys = (*path, declared.key or item.name)
        derived = OWN_PREFIX + "_".join(keys).upper()
        yield Declaration(
            keys,
            here,
            declared,
            item.default_factory(),  # type: ignore[operator]
            declared.env or (Variable(derived),),
        )


@cache
def declarations(root: type[Any]) -> tuple[Declaration, ...]:
    """All settings of the tree under the dataclass ``root``, in the order of declaration."""
    return tuple(_walk(root, (), ()))


def build(root: type[T], values: dict[tuple[str, ...], Any]) -> T:
    """An instance of ``root``; ``values`` are by attribute path, the rest keeps its defaults."""

    def make(cls: type[Any], attributes: tuple[str, ...]) -> Any:
        given: dict[str, Any] = {}
        for item in fields(cls):
            here = (*attributes, item.name)
            if (nested := item.metadata.get("section")) is not None:
                given[item.name] = make(nested, here)
            elif here in values:
                given[item.name] = values[here]
        return cls(**given)

    made: T = make(root, ())
    return made
