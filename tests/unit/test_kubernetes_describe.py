# SPDX-License-Identifier: Apache-2.0
"""What is kept of a pod, and what services are called by it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from tests.unit.kubernetes_api import RECORDED, recorded

from otelauto.discover.containers import Container, Metadata
from otelauto.export.exposition import label_pairs
from otelauto.export.otlp_encode import encode_resource
from otelauto.kubernetes.describe import Options, describe
from otelauto.kubernetes.pods import Pod, PodStore, key_of, reduced
from otelauto.spans.span import Service

ID = "0123456789abcdef" * 4
OPTIONS = Options(node="node-9", cluster="prod")


def pod(name: str, /, **metadata: Any) -> Pod:
    found = reduced(recorded(name, **metadata))
    assert found is not None
    return found


def described(name: str, inner: str = "web", pid: int = 1, options: Options = OPTIONS) -> Metadata:
    found = pod(name)
    container = Container(id=ID, pod_uid=found.uid, pod_container=inner)
    return describe(container, found, pid, options)


def test_everything_of_a_deployment() -> None:
    assert described("deployment") == Metadata(
        {
            "container.id": ID,
            "container.image.name": "registry.example.com:5000/shop/cart",
            "container.image.tags": ("1.4.2",),
            "k8s.cluster.name": "prod",
            "k8s.container.name": "web",
            "k8s.deployment.name": "cart",
            "k8s.namespace.name": "shop",
            "k8s.node.name": "node-1",
            "k8s.pod.name": "cart-6d4b75cb6d-x2x1z",
            "k8s.pod.uid": "5f0c9b3e-8c52-4a17-9a53-2f0d6f7f1a01",
            "k8s.replicaset.name": "cart-6d4b75cb6d",
            "service.version": "1.4.2",
        },
        service_name="cart",
        namespace="shop",
        instance_id="shop.cart-6d4b75cb6d-x2x1z.web",
    )


@pytest.mark.parametrize(
    ("name", "inner", "owners", "service"),
    [
        ("annotated", "web", {"k8s.statefulset.name": "geo"}, "geolocation"),
        ("daemonset", "fluent", {"k8s.daemonset.name": "fluent"}, "fluent"),
        (
            "cronjob", "backup",
            {"k8s.cronjob.name": "backup", "k8s.job.name": "backup-29401230"}, "backup",
        ),
        ("job", "import", {"k8s.job.name": "import-1"}, "import-1"),
        ("replicaset", "web", {"k8s.replicaset.name": "old"}, "old"),
        ("bare", "sh", {}, "shell"),
        ("static", "etcd", {}, "etcd-node-1"),
    ],
)  # fmt: skip
def test_owners(name: str, inner: str, owners: dict[str, str], service: str) -> None:
    found = described(name, inner)
    kinds = ("deployment", "replicaset", "statefulset", "daemonset", "cronjob", "job")
    made = {k: v for k, v in found.attributes.items() if k.split(".")[1] in kinds}
    assert made == owners
    assert found.service_name == service


def test_labels_name_services_unless_they_are_not_wanted() -> None:
    found = described("labelled")
    assert (found.service_name, found.namespace) == ("payments-eu", "checkout")
    assert found.attributes["service.version"] == "2.0.1"
    plain = described("labelled", options=Options(use_labels=False))
    assert (plain.service_name, plain.namespace) == ("pay", "shop")
    assert plain.attributes["service.version"] == "2.0.1-rc3"


def test_annotations_win() -> None:
    found = described("annotated", pid=7)
    assert found.service_name == "geolocation"
    assert (found.namespace, found.instance_id) == ("maps", "geo-main")
    assert found.attributes["service.version"] == "3.3"
    assert found.attributes["deployment.environment.name"] == "staging"
    assert not any("applied" in key for key in found.attributes)


def test_processes_of_one_container_are_instances_of_their_own() -> None:
    assert described("deployment", pid=31).instance_id == "shop.cart-6d4b75cb6d-x2x1z.web:31"


def test_each_container_has_its_own_image() -> None:
    found = described("deployment", "proxy")
    assert found.attributes["container.image.name"] == "envoyproxy/envoy"
    assert found.attributes["container.image.tags"] == ("v1.31.0",)
    assert "container.image.name" not in described("replicaset").attributes  # an id


def test_without_the_api_the_runtime_tells_of_the_pod() -> None:
    container = Container(ID, "", "shop/cart:2", "u-1", "cart-1-x", "shop", "web")
    assert describe(container, None, 1, OPTIONS) == Metadata(
        {
            "container.id": ID,
            "container.image.name": "shop/cart",
            "container.image.tags": ("2",),
            "k8s.cluster.name": "prod",
            "k8s.container.name": "web",
            "k8s.namespace.name": "shop",
            "k8s.node.name": "node-9",
            "k8s.pod.name": "cart-1-x",
            "k8s.pod.uid": "u-1",
        },
        service_name="",
        namespace="shop",
        instance_id="shop.cart-1-x.web",
    )


def test_outside_of_kubernetes_there_is_only_the_container() -> None:
    found = describe(Container(ID, "shop", "shop:3"), None, 1, OPTIONS)
    assert found == Metadata(
        {
            "container.id": ID,
            "container.name": "shop",
            "container.image.name": "shop",
            "container.image.tags": ("3",),
        }
    )


def test_lists_of_a_resource_in_each_export() -> None:
    service = Service("cart", "", "", {"container.image.tags": ("1.4", 'a"b')})
    resource = ResourceSpans.FromString(encode_resource(service)).resource
    values = next(p.value.array_value.values for p in resource.attributes if "tags" in p.key)
    assert [value.string_value for value in values] == ["1.4", 'a"b']
    assert label_pairs(service.attributes) == {"container_image_tags": '["1.4","a\\"b"]'}


def test_a_static_pod_is_known_by_the_hash_of_its_file() -> None:
    item = recorded("static")
    assert key_of(item) == "9f4c31a8d0ee7d2c1b5c6a0f5d9e8b7a"
    assert key_of(recorded("deployment")) == recorded("deployment")["metadata"]["uid"]


@pytest.mark.parametrize(
    "item",
    [None, [], "x", {}, {"metadata": None}, {"metadata": {"uid": 3, "name": "x"}},
     {"metadata": {"uid": "u"}}],
)  # fmt: skip
def test_nonsense_is_no_pod(item: Any) -> None:
    assert reduced(item) is None
    assert key_of(item) in ("", "u")


def test_nonsense_within_a_pod_is_left_out() -> None:
    item = {
        "metadata": {
            "uid": "u", "name": "n", "labels": {"app.kubernetes.io/name": 7}, "annotations": [],
            "ownerReferences": [3, {"kind": "Job"}, {"kind": "Job", "controller": True}],
        },
        "spec": {"containers": [None, {"name": "a"}, {"image": "b"}], "initContainers": {}},
    }  # fmt: skip
    assert reduced(item) == Pod("u", "n", "", "", (), (), (), (("a", ""), ("", "b")))


def test_little_is_kept_of_a_pod() -> None:
    text = RECORDED.read_text()
    assert "swordfish" in text  # what is in there to be left out
    kept = repr([reduced(item) for item in json.loads(text).values()])
    assert "swordfish" not in kept
    assert len(kept) < len(text) / 4


def test_annotations_are_bounded() -> None:
    many = {f"resource.opentelemetry.io/a{n}": "v" * 999 for n in range(99)}
    found = pod("bare", annotations=many)
    assert len(found.annotations) == 32
    assert max(len(value) for _, value in found.annotations) == 255


def test_the_store_tells_what_changed_once() -> None:
    store, first, second = PodStore(), pod("deployment"), pod("labelled")
    store.replace({first.uid: first, second.uid: second})
    assert store.take_changed() == {first.uid, second.uid}
    store.replace({first.uid: pod("deployment"), second.uid: second})
    assert store.take_changed() == set()
    store.put(first.uid, pod("deployment"))
    assert store.take_changed() == set()
    store.put(first.uid, pod("deployment", namespace="other"))
    assert store.take_changed() == {first.uid}
    store.remove(first.uid)
    assert (len(store), store.get(first.uid), store.take_changed()) == (1, None, set())
