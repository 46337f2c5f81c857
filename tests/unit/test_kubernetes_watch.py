# SPDX-License-Identifier: Apache-2.0
"""Following the pods of an API server that pages, forgets, refuses, breaks off and goes away."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import self_signed
from tests.e2e.harness.process import free_port, wait_until
from tests.unit.kubernetes_api import FakeApi, recorded

from otelauto.counters import Counters
from otelauto.errors import ConfigError
from otelauto.kubernetes import watch as module
from otelauto.kubernetes.access import Access, from_kubeconfig, in_cluster
from otelauto.kubernetes.pods import PodStore
from otelauto.kubernetes.watch import LISTS, OBJECTS_BAD, REQUESTS_FAILED, PodWatch

MANY = Path(__file__).parent / "kubernetes_many.py"
CART = recorded("deployment")["metadata"]["uid"]
PAY = recorded("labelled")["metadata"]["uid"]


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again soon: what is waited for here is not time."""
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_DELAY_S", 0.05)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as server:
        server.put(recorded("deployment"))
        yield server


class Following:
    """A watch of an API, its store and what it counted."""

    def __init__(self, access: Access, node: str = "") -> None:
        self.store, self.counters, self.changes = PodStore(), Counters(), 0
        self.watch = PodWatch(
            access, self.store, self.counters, node=node, on_change=self._on_change
        )

    def _on_change(self) -> None:
        self.changes += 1

    def __enter__(self) -> Following:
        self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watch.close()
        wait_until(
            lambda: not any(t.name == "otelauto-kubernetes" for t in threading.enumerate()),
            "its thread ends",
        )

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what)

    def knows(self, *uids: str) -> None:
        self.wait(lambda: all(self.store.get(uid) for uid in uids), f"pods {uids}")

    def failed(self, reason: str) -> int:
        return self.counters.get(REQUESTS_FAILED, reason)


def plain(api: FakeApi, **given: Any) -> Access:
    return Access("127.0.0.1", api.port, encrypted=False, token="first", **given)


def watching(api: FakeApi) -> int:
    return sum(bool(query.get("watch")) for _, query in list(api.requests))


def listing(api: FakeApi) -> list[dict[str, str]]:
    return [query for _, query in list(api.requests) if not query.get("watch")]


def test_a_list_in_pages_then_what_changes(api: FakeApi) -> None:
    for number in range(250):
        api.put(recorded("labelled", uid=f"u-{number}", name=f"pay-{number}"))
    with Following(plain(api)) as found:
        assert found.watch.listed.wait(20)
        assert len(found.store) == 251
        assert [query["limit"] for query in listing(api)] == ["100"] * 3
        assert found.watch.problem == ""
        api.put(recorded("annotated"))
        found.knows(recorded("annotated")["metadata"]["uid"])
        api.remove("u-3")
        found.wait(lambda: found.store.get("u-3") is None, "the pod is gone")
        assert found.changes >= 2
        assert found.counters.get(LISTS) == 1


def test_only_the_pods_of_the_node(api: FakeApi) -> None:
    elsewhere = recorded("labelled")
    elsewhere["spec"]["nodeName"] = "node-2"
    api.put(elsewhere)
    with Following(plain(api), node="node-1") as found:
        found.knows(CART)
        assert len(found.store) == 1
        found.wait(lambda: watching(api) == 1, "the watch")
    assert {query["fieldSelector"] for _, query in api.requests} == {"spec.nodeName=node-1"}


def test_a_watch_that_ends_goes_on_from_the_last_bookmark(api: FakeApi) -> None:
    with Following(plain(api)) as found:
        found.wait(lambda: watching(api) == 1, "the first watch")
        version = api.bookmark()
        api.put(recorded("labelled"))
        found.knows(PAY)
        last = version + 1
        api.cut()
        found.wait(lambda: watching(api) >= 2, "the next watch")
    versions = [int(query["resourceVersion"]) for _, query in api.requests if query.get("watch")]
    assert versions[1] == last
    assert len(listing(api)) == 1
    assert {query.get("allowWatchBookmarks") for _, query in api.requests[1:]} == {"true"}


def test_a_bookmark_alone_moves_on(api: FakeApi) -> None:
    with Following(plain(api)) as found:
        found.wait(lambda: watching(api) == 1, "the first watch")
        version = api.bookmark()
        found.wait(lambda: found.watch._version == str(version), "the bookmark is read")
        api.cut()
        found.wait(lambda: watching(api) >= 2, "the next watch")
    versions = [query["resourceVersion"] for _, query in api.requests if query.get("watch")]
    assert versions[1] == str(version)


def test_a_version_that_is_too_old_means_a_new_list(api: FakeApi) -> None:
    with Following(plain(api)) as found:
        found.knows(CART)
        found.wait(lambda: watching(api) == 1, "the watch")
        api.put(recorded("labelled"))
        found.knows(PAY)
        api.remove(CART)
        api.forget()
        found.wait(lambda: found.counters.get(LISTS) >= 2, "another list")
        found.wait(lambda: found.store.get(CART) is None, "what went meanwhile is gone")
        assert found.failed("gone") >= 1
        assert found.store.get(PAY)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "denied"), (403, "denied"), (410, "gone"), (429, "too_many"), (500, "refused"),
     (503, "refused")],
)  # fmt: skip
def test_refusals_are_counted_and_tried_again(api: FakeApi, status: int, reason: str) -> None:
    api.failures += [status, status]
    with Following(plain(api)) as found:
        found.knows(CART)
        assert found.failed(reason) == 2
        found.wait(lambda: not found.watch.problem, "all is well")


def test_a_server_that_is_not_there_yet() -> None:
    port = free_port()
    with Following(Access("127.0.0.1", port, encrypted=False)) as found:
        found.wait(lambda: found.failed("unreachable") >= 3, "tries")
        assert "refused" in found.watch.problem
        assert not found.watch.listed.is_set()


def test_what_was_known_stays_while_the_server_is_away(api: FakeApi) -> None:
    with Following(plain(api)) as found:
        found.knows(CART)
        api.failures += [500] * 5
        api.cut()
        found.wait(lambda: found.failed("refused") == 5, "refusals")
        found.wait(lambda: not found.watch.problem, "all is well")
        assert found.store.get(CART)


def test_a_token_that_is_replaced_is_read_again(api: FakeApi, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with Following(replace(plain(api), token="", token_file=str(token))) as found:
        found.knows(CART)
        api.token = "second"
        api.cut()
        found.wait(lambda: found.failed("denied") >= 1, "the old token is refused")
        token.write_text("second\n")
        api.put(recorded("labelled"))
        found.knows(PAY)
        token.unlink()
        api.cut()
        found.wait(lambda: found.failed("unreachable") >= 1, "no token is a failure, not the end")


def test_pods_that_make_no_sense_are_counted(api: FakeApi) -> None:
    nameless = recorded("labelled")
    del nameless["metadata"]["name"]
    api.put(nameless)
    with Following(plain(api)) as found:
        found.knows(CART)
        assert found.counters.get(OBJECTS_BAD) == 1
        found.wait(lambda: watching(api) == 1, "the watch")
        api.put(nameless)
        found.wait(lambda: found.counters.get(OBJECTS_BAD) == 2, "the event is counted")


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{]}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    b'HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{"items": 3, "metadata": {}}'[:-1],
    b'HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{"items": [], "metadata": null}'[:-1],
    b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_answers_the_thread_lives(answer: bytes) -> None:

    with socket.create_server(("127.0.0.1", free_port())) as listener:
        listener.settimeout(0.05)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    peer, _ = listener.accept()
                except TimeoutError:
                    continue
                with peer:
                    peer.settimeout(5)
                    peer.recv(65536)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            port = listener.getsockname()[1]
            with Following(Access("127.0.0.1", port, encrypted=False)) as found:
                failures = lambda: found.failed("malformed") + found.failed("unreachable")  # noqa: E731
                found.wait(lambda: failures() >= 2, "it tries again")
                assert not found.watch.listed.is_set()
                assert not found.failed("defect")
        finally:
            stop.set()
            thread.join()


def kubeconfig(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> str:
    file = path / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "other", "context": {"cluster": "x", "user": "y"}},
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    file.write_text(json.dumps(document))
    return str(file)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return self_signed(tmp_path_factory.mktemp("tls"), "api")


@pytest.mark.parametrize("inline", [False, True])
def test_over_tls_by_a_kubeconfig(tmp_path: Path, pair: tuple[str, str], inline: bool) -> None:
    cert = Path(pair[0]).read_bytes()
    with FakeApi(pair) as api:
        api.put(recorded("deployment"))
        server = f"https://localhost:{api.port}"
        given: dict[str, str] = (
            {"certificate-authority-data": base64.b64encode(cert).decode()}
            if inline
            else {"certificate-authority": pair[0]}
        )
        key = base64.b64encode(Path(pair[1]).read_bytes()).decode()
        user = {
            "token": "first",
            "client-certificate-data": base64.b64encode(cert).decode(),
            "client-key-data": key,
        }
        access = from_kubeconfig(kubeconfig(tmp_path, {"server": server, **given}, user))
        with Following(access) as found:
            found.knows(CART)
            api.put(recorded("labelled"))
            found.knows(PAY)


def test_a_stranger_is_told_nothing(tmp_path: Path, pair: tuple[str, str]) -> None:
    with FakeApi(pair) as api:
        with Following(Access("localhost", api.port, token="first")) as found:
            found.wait(lambda: found.failed("tls") >= 2, "the certificate is refused")
        path = kubeconfig(
            tmp_path,
            {"server": f"https://127.0.0.1:{api.port}", "certificate-authority": pair[0]},
            {"token": "first"},
        )
        with Following(from_kubeconfig(path)) as found:
            found.wait(lambda: found.failed("tls") >= 1, "it is another host's")
        assert not api.requests
        named = replace(from_kubeconfig(path), server_name="localhost")
        with Following(named) as found:
            assert found.watch.listed.wait(20)


def test_the_service_account_of_a_pod(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert in_cluster(environ, tmp_path) is None
    (tmp_path / "token").write_text("t")
    found = in_cluster(environ, tmp_path)
    assert found is not None
    assert (found.host, found.port, found.authorization()) == ("10.0.0.1", 6443, "Bearer t")
    assert found.authority == str(tmp_path / "ca.crt")
    assert in_cluster({}, tmp_path) is None


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({"server": "https://x"}, {"exec": {"command": "aws"}}, "'exec'"),
        ({"server": "ftp://x"}, {}, "no URL"),
        ({}, {}, "server"),
        ({"server": "https://x", "certificate-authority-data": "*"}, {}, "no base64"),
    ],
)
def test_bad_kubeconfigs(tmp_path: Path, cluster: Any, user: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_kubeconfig(kubeconfig(tmp_path, cluster, user))


@pytest.mark.parametrize("text", ["", "[]", "{", "current-context: x", "a: [", "clusters: 3"])
def test_files_that_are_no_kubeconfig(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(ConfigError, match="kubeconfig"):
        from_kubeconfig(str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        from_kubeconfig(str(tmp_path / "nothing"))


def test_five_thousand_pods_take_little_memory() -> None:
    """The time of the list is printed, not judged: it is the machine's and the server's, too."""
    with FakeApi() as api:
        for number in range(5000):
            api.put(recorded("labelled", uid=f"u-{number}", name=f"pay-7c9f8d6b5-{number}"))
        program = [sys.executable, MANY, "127.0.0.1", str(api.port), "first"]
        answer = subprocess.run(program, capture_output=True, check=True, timeout=100)
    found = json.loads(answer.stdout)
    print(found)
    assert found["pods"] == 5000
    assert found["most"] < 30e6
