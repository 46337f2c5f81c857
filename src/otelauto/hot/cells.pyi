# SPDX-License-Identifier: Apache-2.0
from otelauto.flows.vocabulary import Attributes

class Epoch:
    """Moves on when anything changes that rows of the fast lane were made from."""

    def bump(self) -> None: ...

class Hits:
    """A counter."""

    count: int

class Series:
    """One histogram. Exporters may use it as a dictionary key: it lives as long as its series.

    ``bounds`` are the upper bounds of all buckets but the last, ascending.
    """

    attributes: Attributes
    start_ns: int
    count: int
    sum: float
    minimum: float
    maximum: float

    def __init__(
        self, attributes: Attributes, bounds: tuple[float, ...], start_ns: int
    ) -> None: ...
    def record(self, value: float) -> None:
        """Count one value."""

    def copied(self) -> tuple[int, float, float, float, list[int]]:
        """Count, sum, minimum, maximum and buckets (not cumulated) of one moment."""
