# SPDX-License-Identifier: Apache-2.0
"""What the README and the tutorial say is typed, word for word, and what they say is seen.

Here in the checkout, without what installs something; `make test-docs` follows them in a fresh
system, where nothing is left out but what says so.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.blocks import BadPageError, Commands, Interrupt, NotTested, Output, steps
from tests.docs.follow import follower
from tests.docs.places import ROOT, checkout
from tests.docs.seen import shows

PAGES = ("README.md", "docs/tutorial.md")
# Every block that no test runs, with the reason that the page gives its reader.
NOT_TESTED = {
    ("README.md", "it is what tests"),
    ("README.md", "it needs an account of Grafana Cloud"),
}


@pytest.mark.e2e
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_is_so(page: str, tmp_path: Path) -> None:
    with checkout(tmp_path) as place, follower(place, page) as reader:
        reader.follow(steps((ROOT / page).read_text()))
        assert len(reader.followed) >= 8


def test_no_block_is_left_out_silently() -> None:
    found = set()
    for page in PAGES:
        for step in steps((ROOT / page).read_text()):
            if isinstance(step, NotTested):
                found.add((page, step.why))
    assert found == NOT_TESTED


def test_blocks_become_steps() -> None:
    page = (
        "```sh\none\ntwo\n```\nand then\n```\nseen ...\n```\n"
        "<!-- docs: terminal=2 stays setup -->\n```sh\nthree\n```\n"
        "<!-- docs: numbers terminal=1 -->\n\n```\n1\n```\n<!-- docs: ctrl-c=2 -->\n"
        "```sh\n# not tested: a reason\nfour\n```\n```yaml\na: 1\n```\n"
    )
    assert steps(page) == [
        Commands(1, ("one", "two")),
        Output(6, "seen ...\n", "1"),
        Commands(10, ("three",), "2", setup=True, fresh=True, stays=True),
        Output(15, "1\n", "1", fresh=True, numbers=True),
        Interrupt(18, "2", setup=True, fresh=True),
        NotTested(19, "a reason"),
    ]


@pytest.mark.parametrize(
    "page",
    [
        "```\nseen\n```",
        "```ruby\nx\n```",
        "```sh\nx\n",
        "<!-- docs: sometimes -->\n",
        "<!-- docs: ctrl-c=2 -->\n",
        "```sh\n# not tested: x\n```\n```\nseen\n```",
    ],
)
def test_a_page_that_means_nothing_is_refused(page: str) -> None:
    with pytest.raises(BadPageError):
        steps(page)


def test_what_is_seen() -> None:
    terminal = (
        "\x1b[32mfirst\x1b[0m\r\n2026-11-22 17:12:39.20857 (731.069µs) 200 GET /\r\n"
        "half\rwhole 17\r\nlast\r\n"
    )
    assert shows(terminal, "2020-01-01 00:00:00.1 (1ms) 200 GET /\nwhole 17\n")
    assert shows(terminal, "first\n...\nlast\n")
    assert shows(terminal, "... GET ...\n")
    assert shows(terminal, "whole 3\n", numbers=True)


def test_what_is_not_seen() -> None:
    terminal = "first\r\n2026-11-22 17:12:39.2 (731.069µs) 200 GET /\r\nlast\r\n"
    assert not shows(terminal, "2026-11-22 17:12:39.2 (731.069µs) 404 GET /\n")
    assert not shows(terminal, "first\nlast\n")
    assert not shows(terminal, "firs\n")
    assert not shows(terminal, "last\n...\nfirst\n")


def test_a_page_that_is_wrong_fails(tmp_path: Path) -> None:
    """By what a command says, how it ends, and that it ends."""
    wrong = (
        ("```sh\necho one\n```\n```\ntwo\n```", ":4: not within", 0.5),
        ("```sh\ntrue\nfalse\n```", ":1: exit code 1", 60),
        ("<!-- docs: stays -->\n```sh\ntrue\n```\n```\nx\n```", ":5: its command has ended", 60),
        ("```sh\ntrue\n```\n<!-- docs: ctrl-c=1 -->", ":4: nothing runs there", 60),
    )
    with checkout(tmp_path) as place:
        for page, message, seen_s in wrong:
            with (
                follower(place, "page", seen_s=seen_s) as reader,
                pytest.raises(AssertionError, match=message),
            ):
                reader.follow(steps(page))


def test_a_page_that_is_right_passes(tmp_path: Path) -> None:
    page = (
        "```sh\nn=0\nfor each in a b; do\n  echo $each > made\ndone\ncat made\n```\n```\nb\n```\n"
        "<!-- docs: again -->\n```sh\nn=$((n + 1)); echo run $n\n```\n```\nrun 3\n```\n"
        "<!-- docs: terminal=2 stays -->\n```sh\ncat\n```\n<!-- docs: ctrl-c=2 -->\n"
    )
    with checkout(tmp_path) as place, follower(place, "page") as reader:
        reader.follow(steps(page))
    assert (tmp_path / "checkout" / "made").read_text() == "b\n"
    assert not (ROOT / "made").exists()
