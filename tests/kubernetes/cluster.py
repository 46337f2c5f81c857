# SPDX-License-Identifier: Apache-2.0
"""A control plane of Kubernetes for a test: etcd and kube-apiserver, on loopback."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.certificates import self_signed
from tests.e2e.harness.process import Process, free_port, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / ".build" / "kubernetes"
ADMIN = "admin-token"
READY_S = 120.0
# Where objects of a kind are: the API's group, and the plural.
KINDS = {
    "ServiceAccount": ("api/v1", "serviceaccounts"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Service": ("api/v1", "services"),
    "Namespace": ("api/v1", "namespaces"),
    "Pod": ("api/v1", "pods"),
    "DaemonSet": ("apis/apps/v1", "daemonsets"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "ClusterRole": ("apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
}


@dataclass
class ControlPlane:
    """An API server that answers on localhost with ``certificate``; etcd outlives its restarts."""

    directory: Path
    certificate: str
    key: str
    port: int = field(default_factory=free_port)
    etcd: int = field(default_factory=free_port)

    @contextmanager
    def server(self) -> Iterator[Process]:
        """kube-apiserver, ready."""
        words = [
            BUILT / "apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={self.certificate}",
            f"--tls-private-key-file={self.key}",
            f"--cert-dir={self.directory}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self.key}",
            f"--service-account-key-file={self.certificate}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--disable-admission-plugins=ServiceAccount",  # no controller makes accounts here
        ]
        (self.directory / "tokens.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n')
        with Process(words, self.directory / "apiserver.log") as process:
            process.wait_for(self._ready, "the API server is ready", READY_S)
            yield process

    def _ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def ask(self, method: str, path: str, body: Any = None, token: str = ADMIN) -> tuple[int, Any]:
        """Status and answer of a request."""
        context = ssl.create_default_context(cafile=self.certificate)
        connection = http.client.HTTPSConnection(
            "localhost", self.port, timeout=60, context=context
        )
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, json.loads(data) if data.startswith(b"{") else data.decode()

    def create(self, item: Any, query: str = "") -> Any:
        """Make an object of a kind of :data:`KINDS`; what the server says of it."""
        group, plural = KINDS[item["kind"]]
        namespace = item["metadata"].get("namespace")
        place = f"{group}/namespaces/{namespace}" if namespace else group
        status, answer = self.ask("POST", f"/{place}/{plural}{query}", item)
        assert status == http.client.CREATED, answer
        return answer

    def namespace(self, name: str) -> None:
        """Make a namespace."""
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def kubeconfig(self, token: str, name: str = "kubeconfig") -> str:
        """A file to reach it with as the owner of ``token``."""
        cluster = {
            "server": f"https://localhost:{self.port}",
            "certificate-authority": self.certificate,
        }
        document = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file = self.directory / name
        file.write_text(yaml.safe_dump(document))
        return str(file)


@contextmanager
def control_plane(directory: Path) -> Iterator[ControlPlane]:
    """etcd, for API servers that come and go."""
    plane = ControlPlane(directory, *self_signed(directory, "apiserver"))
    client, peer = f"http://127.0.0.1:{plane.etcd}", f"http://127.0.0.1:{free_port()}"
    words = [
        BUILT / "etcd",
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    ]
    with Process(words, directory / "etcd.log"):
        wait_until(lambda: _answers(plane.etcd), "etcd answers", READY_S)
        yield plane


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def documents(path: Path) -> list[Any]:
    """The objects of a file of manifests."""
    return [item for item in yaml.safe_load_all(path.read_text()) if item]
