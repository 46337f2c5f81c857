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

    def point(self, start_ns: int, now_ns: int, bounds: bytes, attributes: bytes) -> bytes:
        """The field ``Histogram.data_points`` (metrics.v1) as it is now. Times are wall time.

        Bounds and attributes are encoded fields.
        """

class Lines:
    """The lines of the histograms of one instrument in a Prometheus text format."""

    def __init__(self, bucket: bytes, bounds: list[bytes], sum_: bytes, count: bytes) -> None:
        """What comes before the labels of buckets, sum and count, and behind those of each bucket.

        There is one more bucket than the histograms' bounds.
        """

    def written(self, series: Series, labels: bytes) -> bytes:
        """The lines of one histogram as it is now."""
