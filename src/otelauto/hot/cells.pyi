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
        self,
        attributes: Attributes,
        bounds: tuple[float, ...],
        start_ns: int,
        exponential: bool = False,
    ) -> None:
        """``exponential``: values (not below 0) are counted in exponential buckets as well."""

    def record(self, value: float) -> None:
        """Count one value."""

    def exemplify(self, value: float, time_ns: int, ids: bytes) -> None:
        """Keep the span (trace id and span id, 24 bytes) as the latest of its bucket."""

    def copied(
        self,
    ) -> tuple[
        int,
        float,
        float,
        float,
        list[int],
        tuple[int, int, int, list[int]] | None,
        tuple[tuple[int, float, int, bytes, bytes], ...],
    ]:
        """Of one moment: count, sum, minimum, maximum, buckets (not cumulated).

        Then the exponential buckets (scale, zeros, index of the first, counts), if wanted; and the
        exemplars: bucket, value, time, trace id, span id.
        """

    def copied_exemplars(self) -> tuple[tuple[int, float, int, bytes, bytes], ...]:
        """The exemplars alone."""

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
