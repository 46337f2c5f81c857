# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from typing import Protocol

from otelauto.flows.connection import Connection
from otelauto.flows.endpoints import Endpoint
from otelauto.flows.vocabulary import Entry
from otelauto.hot.cells import Epoch, Hits
from otelauto.hot.http2 import Session
from otelauto.hot.ring import Sink
from otelauto.hot.rows import Row
from otelauto.hot.spans import Writer
from otelauto.spans.span import Service

class Tally:
    """What the lane's connections of an endpoint have shown since it was last looked at.

    ``followers`` are those that have to be told of the endpoint's verdict one by one.
    """

    endpoint: Endpoint
    followers: set[Connection]

    def __init__(self, endpoint: Endpoint) -> None: ...
    def take(self) -> tuple[int, int]:
        """Whole exchanges since the last call, and the largest response head ever, in bytes."""

class Resolver(Protocol):
    """What the lane asks about what it has not seen yet."""

    def service(self, tgid: int) -> Service | None:
        """The service of a process."""
        ...

    def route(self, service: Service, path: str) -> tuple[object, Hits | None, bool]:
        """Whatever tells routes apart, where requests are to be counted, whether it overflowed."""
        ...

class Lane(Sink):
    """The table of adopted connections. One thread uses it."""

    rest: Callable[[memoryview], None]
    resume: Callable[[int, int, tuple[int, int], int, list[bytes], int], None]
    describe: Callable[[int, int, Entry], None]
    defect: Callable[[Exception], None] | None
    @property
    def exchanges(self) -> int:
        """Exchanges that the lane has published itself."""

    @property
    def wants_row(self) -> bool:
        """Whether an exchange is being described of which a row is to be remembered."""

    def __init__(
        self,
        resolver: Resolver,
        epoch: Epoch,
        most: int,
        queries: bool,
        writer: Writer | None,
        by_shape: bool,
    ) -> None:
        """``most`` connections at once. ``queries``: requests with a query are not for the lane.
        ``by_shape``: paths that differ only in what looks like identifiers have one route.

        ``epoch`` moves on when an answer of ``resolver`` or a row is not true any more. Before the
        first record ``rest`` must be set, which takes the records that are not the lane's, and
        ``resume``, which takes connections back: cookie, number of the next record, offsets,
        time of the last record, the records since then, and how many exchanges there were since the
        adoption (-1: this one is only to be described). And ``describe``, which takes exchanges of
        HTTP/2 that no row is known for: cookie, time of the last record, the exchange.
        ``defect`` is told of exceptions; without it they are raised.
        """

    def feed(self, record: bytes | memoryview) -> None:
        """Take one record, as from the ring."""

    def adopt(
        self,
        cookie: int,
        sequence: int,
        received: int,
        sent: int,
        asks: int,
        tgid: int,
        last_ns: int,
        af_unix: bool,
        peer: bytes,
        tally: Tally | None,
        session: Session | None,
    ) -> bool:
        """Read a connection from here on; ``False`` if there is no room.

        It is of HTTP/1 and has a ``tally``, or of HTTP/2 and has a ``session``.

        ``sequence`` is the number of its next record, ``received`` and ``sent`` are the offsets at
        which the directions go on, ``asks`` is the direction of requests, ``peer`` the attributes
        of the peer as encoded fields of a span.
        """

    def take_out(self, cookie: int) -> bool:
        """Give a connection back through ``resume``; ``False`` if the lane does not have it."""

    def last_ns(self, cookie: int) -> int:
        """When something passed last on a connection; 0 if the lane does not have it."""

    def stalled(self, before_ns: int) -> list[int]:
        """AF_UNIX connections in the middle of a response and silent since ``before_ns``."""

    def learn(self, row: Row) -> None:
        """Remember what becomes of exchanges like the one that is being described."""

    def take_tallies(self) -> list[Tally]:
        """The tallies with exchanges since the last call."""

    def take_counts(self) -> dict[str, int]:
        """Exchanges since the last call by what their rows and routes are counted as.

        (``"route"``: the service has no room for its route.) And by ``"unmatched"`` and
        ``"desync"`` responses without a request, and places lost.
        """

    def take_spans(self) -> list[tuple[Service, int, memoryview]]:
        """Spans since the last call: service, how many, encoded one behind another."""
