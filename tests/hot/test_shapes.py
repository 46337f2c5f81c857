# SPDX-License-Identifier: Apache-2.0
"""The compiled shape of a path is what the learner of routes makes of its segments."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from otelauto.counters import Counters
from otelauto.hot.rows import shape
from otelauto.spans.routes import Routes, Unmatched
from otelauto.spans.span import Service
from otelauto.spans.templates import Templates, looks_like_id

WORDS = ("42", "deadbee1", "decade", "feedback", "item-42", "a.3f9c01d2.js", "section-1", "", "*",
         "a@b", "%C3", "x" * 25, "f" * 16, "v1", "-", "a-b-c-d-e", "1-2", "A1b2C3d4E5f6G7h8I9j0",
         "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "ab_cd", "x" * 41, "1.2.3", "abc123")  # fmt: skip
SEGMENT = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="/"),
            max_size=45),
    st.text("0123456789abcdefXYZ-_.:~,;=@%", max_size=45),
)  # fmt: skip
PATHS = st.lists(SEGMENT, max_size=15).map(lambda segments: "/" + "/".join(segments))


def expected(path: str) -> str:
    return "/".join("*" if looks_like_id(each) else each for each in path.split("/"))


@settings(max_examples=2000, deadline=None)
@given(PATHS)
@example("/")
@example("//")
def test_shapes(path: str) -> None:
    assert shape(path.encode()) == expected(path).encode()


@settings(max_examples=200, deadline=None)
@given(st.lists(PATHS, max_size=120))
def test_paths_of_one_shape_have_one_template(paths: list[str]) -> None:
    templates = Templates()
    for path in paths:
        templates.template(path)
    for path in paths:
        assert templates.template(path) == templates.template(expected(path))


def test_a_pattern_that_names_an_identifier_is_not_by_shape() -> None:
    def routes(*patterns: str, unmatched: Unmatched = Unmatched.WILDCARD) -> Routes:
        return Routes(Counters(), patterns, unmatched)

    assert routes("/users/:id", "/v1/{name}/*").by_shape
    assert not routes("/users/42").by_shape
    assert not routes(unmatched=Unmatched.PATH).by_shape
    with_patterns = routes("/a/:x/b", "/v1/*")
    for path in ("/a/42/b", "/v1/7/8", "/a/42", "/77"):
        service = Service("s", "", "")
        assert with_patterns.find(service, path) == with_patterns.find(service, expected(path))
