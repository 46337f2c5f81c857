# SPDX-License-Identifier: Apache-2.0
"""What is learned about endpoints: how little of their connections has to be copied.

Of a connection without a verdict, much of each turn is copied. Once the exchanges of an endpoint
have shown that requests wait for their responses, the first bytes of each turn are enough. A
pipelined request takes that back for a while; a head that did not fit makes it more bytes of each
turn, CAPTURE_MAX at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from otelauto.abi import AbiLimit, CaptureMode
from otelauto.flows.vocabulary import Address, Family, Verdict
from otelauto.hot.lane import Tally

LEARN_EXCHANGES = 8  # in a row, before less is copied
RELEARN_MAX = 4096
WANT_REQUEST = 8192  # a traceparent may stand at the end of a long head
WANT_RESPONSE_MIN = 1024
WANT_RESPONSE_MAX = 8192  # unless a head was cut there
# Where messages follow one another without waiting, a head may lie anywhere in a turn. Still no
# more than this is copied of one: bulk data must not fill the ring.
WANT_GENEROUS = int(AbiLimit.CAPTURE_MAX)
STREAM = Verdict(CaptureMode.MODE_STREAM)
GENEROUS = Verdict(CaptureMode.MODE_HEADS, (WANT_GENEROUS, WANT_GENEROUS))
# When cost counts more than detail.
WANT_SHORT_REQUEST = 512
WANT_SHORT_RESPONSE = 256
ENDPOINTS_MAX = 4096

Key = tuple[int, Address, bool]  # netns inode, address, is local


@dataclass(slots=True)
class Endpoint:
    """One service's listener, or one remote service."""

    key: Key | None  # None: AF_UNIX; its connections are told one by one
    request_direction: int
    start: bytes
    needed: int = LEARN_EXCHANGES
    plain: int = 0  # exchanges in a row without pipelining
    largest_response: int = 0
    want_request: int = WANT_REQUEST
    want_response_max: int = WANT_RESPONSE_MAX
    verdict: Verdict | None = None
    tally: Tally | None = None  # of its connections in the fast lane


def key_of(netns: int, local: Address, peer: Address, serves: bool) -> Key | None:
    """The endpoint a connection belongs to, ``None`` if it can have none."""
    if local.family is Family.UNIX:
        return None
    if serves:
        return (netns, Address(Family.INET, "", local.port), True) if local.port else None
    return (netns, peer, False) if peer.port and peer.host else None


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


class Endpoints:
    """The bounded table of endpoints, and the verdicts that have not been taken yet."""

    def __init__(self) -> None:
        self._known: dict[Key, Endpoint] = {}
        self._verdicts: list[Verdict] = []
        self._short = False

    def shorten(self, short: bool) -> None:
        """Copy less of each turn (or as much as before) where no head may lie further in."""
        self._short = short
        for endpoint in self._known.values():
            verdict = endpoint.verdict
            if verdict is None or verdict.mode != CaptureMode.MODE_HEADS:
                continue
            if verdict.want != GENEROUS.want:
                self._decide(endpoint, self._learned(endpoint))

    def take(self) -> list[Verdict]:
        """The verdicts since the last call, oldest first."""
        verdicts, self._verdicts = self._verdicts, []
        return verdicts

    def say(self, verdict: Verdict) -> None:
        """Queue a verdict."""
        self._verdicts.append(verdict)

    def find(self, key: Key | None, request_direction: int, start: bytes) -> Endpoint:
        """The endpoint of a connection that carries requests in ``request_direction``."""
        if key is None:
            return Endpoint(None, request_direction, start)
        endpoint = self._known.get(key)
        if endpoint is None or endpoint.start != start:
            if len(self._known) >= ENDPOINTS_MAX:
                del self._known[next(iter(self._known))]
            endpoint = self._known[key] = Endpoint(key, request_direction, start)
        return endpoint

    def find_multiplexed(self, key: Key | None, request_direction: int) -> Endpoint:
        """The endpoint of a connection on which exchanges overlap: all of it is copied.

        Where others of the endpoint's connections carry something else, each one is told.
        """
        known = self._known.get(key) if key is not None else None
        if known is None and key is not None:
            known = self.find(key, request_direction, b"")
            self._decide(known, Verdict(CaptureMode.MODE_STREAM, endpoint=key))
        if known is None or known.verdict is None or known.verdict.mode != CaptureMode.MODE_STREAM:
            return Endpoint(None, request_direction, b"", verdict=STREAM)
        return known

    def learn(
        self, endpoint: Endpoint, heads: tuple[int, int], cut: tuple[bool, bool], pipelined: bool
    ) -> None:
        """Take in one whole exchange: head sizes of request and response, and which were cut."""
        if endpoint.tally is not None:
            self.fold(endpoint.tally)
        if pipelined:
            self._unlearn(endpoint)
            return
        response = 2 * heads[1] if cut[1] else heads[1]
        grown = response > endpoint.largest_response
        if cut[1] and endpoint.want_response_max < AbiLimit.CAPTURE_MAX:
            endpoint.want_response_max = int(AbiLimit.CAPTURE_MAX)
            grown = True
        if cut[0] and endpoint.want_request < AbiLimit.CAPTURE_MAX:
            endpoint.want_request = int(AbiLimit.CAPTURE_MAX)
            grown = True
        self._learn_plain(endpoint, 1, response, grown)

    def fold(self, tally: Tally) -> None:
        """Take in what connections in the fast lane have shown."""
        exchanges, response = tally.take()
        if exchanges:
            self._learn_plain(tally.endpoint, exchanges, response, False)
            for connection in tally.followers:
                connection.pass_on(tally.endpoint)

    def _learn_plain(self, endpoint: Endpoint, exchanges: int, response: int, grown: bool) -> None:
        """``exchanges`` one after another; ``response`` is the size of the largest response head.

        ``grown``: there is another reason to want more than before.
        """
        endpoint.plain += exchanges
        if response > endpoint.largest_response:
            endpoint.largest_response = response
            grown = True
        if endpoint.verdict is None or endpoint.verdict.want == GENEROUS.want:
            if endpoint.plain >= endpoint.needed:
                self._decide(endpoint, self._learned(endpoint))
        elif grown:
            self._decide(endpoint, self._learned(endpoint))

    def _unlearn(self, endpoint: Endpoint) -> None:
        endpoint.plain = 0
        if endpoint.verdict is None or endpoint.verdict.want != GENEROUS.want:
            endpoint.needed = min(endpoint.needed * 8, RELEARN_MAX)
            self._decide(endpoint, self._heads(endpoint, GENEROUS.want))

    def _learned(self, endpoint: Endpoint) -> Verdict:
        response = _power_of_two(2 * endpoint.largest_response)
        response = min(max(response, WANT_RESPONSE_MIN), endpoint.want_response_max)
        if self._short:
            return self._heads(endpoint, (WANT_SHORT_REQUEST, WANT_SHORT_RESPONSE))
        return self._heads(endpoint, (endpoint.want_request, response))

    def _heads(self, endpoint: Endpoint, want: tuple[int, int]) -> Verdict:
        """``want`` is of requests and of responses."""
        start = (b"", endpoint.start)
        if endpoint.request_direction == 1:
            want, start = want[::-1], start[::-1]
        return Verdict(CaptureMode.MODE_HEADS, want, start, endpoint=endpoint.key)

    def _decide(self, endpoint: Endpoint, verdict: Verdict) -> None:
        if verdict == endpoint.verdict:
            return
        endpoint.verdict = verdict
        if endpoint.key is not None:
            self.say(verdict)
