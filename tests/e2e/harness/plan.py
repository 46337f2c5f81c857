# SPDX-License-Identifier: Apache-2.0
"""The requests that a client will send: the same ones on every run.

A planned request is a dictionary, one JSON line for the clients:

``id``          unique; the last segment of the path
``method``, ``path``, ``version`` ("1.1", or "1.0" from the raw client)
``body``        bytes of the request's body; ``framing`` is "none", "length" or "chunked"
``chunks``      into how many chunks the raw client cuts a chunked body
``connection``  "keep" (the worker's own), "new" (closed after the answer), "close" (asks for it)
``style``       "whole", "pieces", "dribble", "expect" (100-continue); others know "expect" only
``group``       requests of one group are pipelined in one write; ``None``: on its own
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

Planned = dict[str, Any]

BODY_SIZES = (1, 10, 99, 255, 256, 257, 1000, 4096, 5000, 16_384, 16_385, 100_000)
STATUSES = (201, 304, 404, 500)
SMALL_UPLOADS = (1, 30, 60)
LARGE_UPLOADS = (3000, 40_000)
# nginx answers a chunked upload that it has no use for before it has read it, and later reads the
# rest in calls of 4 KiB that may end in the next request. Of such late calls otelauto copies the
# beginning once it knows a service, so behind a long body that request is not seen
# (flows_responses_unmatched counts its response; docs/troubleshooting.md says so). Bodies that end
# within one such call, chunk framing included, are copied whole.
EARLY_ANSWERED_UPLOADS = (3000, 3900)


@dataclass(frozen=True)
class Features:
    """What a server does with a request beyond the common ground.

    ``answers_early``: it may answer a request whose body it has not read, and discard that after.
    """

    pipelining: bool = True
    answers_early: bool = False


def _kinds(rng: random.Random, features: Features) -> Planned:
    """One request without id, connection and style."""
    kind = rng.choices(
        ("items", "echo", "upload", "chunked", "big", "head", "delete", "status", "slow", "close"),
        weights=(30, 18, 10, 10, 5, 6, 6, 8, 3, 4),
    )[0]
    match kind:
        case "echo":
            return _posted("echo", "length", rng.choice(BODY_SIZES), 1)
        case "upload" if rng.random() < 0.5:
            return _posted("upload", "chunked", rng.choice(SMALL_UPLOADS), rng.choice((1, 3)))
        case "upload":
            sizes = EARLY_ANSWERED_UPLOADS if features.answers_early else LARGE_UPLOADS
            return _posted("upload", "chunked", rng.choice(sizes), rng.choice((1, 8)))
        case "head":
            return _plain("HEAD", "items")
        case "delete":
            return _plain("DELETE", "items")
        case "status":
            return _plain("GET", f"status/{rng.choice(STATUSES)}")
        case _:
            return _plain("GET", kind)


def _plain(method: str, kind: str) -> Planned:
    return {"method": method, "path": f"/{kind}/", "body": 0, "framing": "none", "chunks": 0}


def _posted(kind: str, framing: str, size: int, chunks: int) -> Planned:
    return {
        "method": "POST", "path": f"/{kind}/", "body": size, "framing": framing, "chunks": chunks,
    }  # fmt: skip


def make_plan(
    seed: str, prefix: str, count: int, features: Features, *, raw: bool
) -> list[Planned]:
    """``count`` requests, a function of the arguments alone; ids are ``prefix`` and a number."""
    rng = random.Random(seed)
    plan: list[Planned] = []
    while len(plan) < count:
        if raw and features.pipelining and rng.random() < 0.02:
            size = min(rng.choice((2, 5, 16)), count - len(plan))
            group: str | None = f"group-{len(plan)}"
        else:
            size, group = 1, None
        for _ in range(size):
            request = _pipelined(rng) if group else _alone(rng, features, raw=raw)
            ident = f"{prefix}{len(plan):04d}"
            plan.append({**request, "id": ident, "path": request["path"] + ident, "group": group})
    return plan


def _pipelined(rng: random.Random) -> Planned:
    choices = (
        _plain("GET", "items"), _plain("HEAD", "items"), _plain("DELETE", "items"),
        _plain("GET", "chunked"), _plain("GET", "status/404"), _posted("echo", "length", 300, 1),
    )  # fmt: skip
    return {**rng.choice(choices), "version": "1.1", "connection": "keep", "style": "whole"}


def _alone(rng: random.Random, features: Features, *, raw: bool) -> Planned:
    request = _kinds(rng, features)
    connection = rng.choices(("keep", "new", "close"), weights=(80, 10, 10))[0]
    if features.answers_early and request["body"] and not raw:
        # Others stop sending a body when an answer comes that ends the connection, and do not tell.
        connection = "keep"
    style, version = "whole", "1.1"
    if request["body"] and rng.random() < 0.15:
        style = "expect"
    elif raw:
        style = rng.choices(("whole", "pieces", "dribble"), weights=(80, 10, 10))[0]
    if raw and request["framing"] != "chunked" and style != "expect" and rng.random() < 0.1:
        connection, version = "new", "1.0"
        if rng.random() < 0.5:  # without chunks, such an answer ends with its connection
            request = _plain("GET", "chunked")
    return {**request, "connection": connection, "style": style, "version": version}
