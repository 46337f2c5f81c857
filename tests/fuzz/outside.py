# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed beside captured traffic: files, variables, /proc and short texts from outside."""

from __future__ import annotations

import atexit
import json
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.elf_files import CODE, Elf, go_program, note
from tests.wire.transcripts import TRANSCRIPTS
from tests.wire.wire import Wire

from otelauto.config import InvalidConfig, Loaded, Purpose, load
from otelauto.config.otlp import ATTRIBUTES, ENDPOINT_AS_GIVEN, HEADERS
from otelauto.config.setting import declarations
from otelauto.config.settings import Config
from otelauto.config.show import as_yaml, secrets
from otelauto.discover import containers, elf, golang
from otelauto.discover.procfs import ProcFs
from otelauto.discover.symbols import functions
from otelauto.discover.tls_libraries import find_library
from otelauto.errors import ConfigError
from otelauto.export import otlp_json
from otelauto.export.protobuf import integer, sized
from otelauto.export.proxy import proxy_for
from otelauto.export.transport import Verdict, accepted, rpc_status
from otelauto.kubernetes.describe import Options, describe
from otelauto.kubernetes.pods import key_of, reduced
from otelauto.protocols import proxy_protocol, traceparent, url
from otelauto.recording import Reader, Writer

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
VARIABLES = sorted({v.name for item in declarations(Config) for v in item.env})
PROC_FILES = (
    "stat", "cmdline", "environ", "status", "cgroup", "net/tcp", "net/tcp6", "net/unix",
    "net/sockstat", "task/7/children", "mountinfo",
)  # fmt: skip
TGID = 7
PODS = Path(__file__).parent.parent / "unit" / "kubernetes_pods.json"
_SCRATCH = Path(tempfile.mkdtemp(prefix="otelauto-fuzz-"))
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)


def _file(data: bytes) -> Path:
    path = _SCRATCH / "input"
    path.write_bytes(data)
    return path


def _loaded(path: Path | None, environ: dict[str, str]) -> None:
    """Either the configuration is refused in sentences, or all of it can be used and shown."""
    try:
        loaded = load(path, environ, {}, Purpose.SHOW)
    except InvalidConfig as refused:
        problems = refused.problems
    else:
        problems = ()
        _usable(loaded)
    assert all(one.sentence and one.remedy for one in problems)


def _usable(loaded: Loaded) -> None:
    as_yaml(loaded).encode()
    secrets(loaded.config)
    for export in (loaded.config.otel_traces_export, loaded.config.otel_metrics_export):
        if export.endpoint is not None:
            assert export.endpoint.host
            assert 0 < export.endpoint.port < 65536
            assert export.endpoint.url.isprintable()
            export.endpoint.is_loopback()


def configuration(data: bytes) -> None:
    """A configuration file. What it may refer to is not there."""
    if b"file:/" not in data:  # a file of this machine is not the fuzzer's input
        _loaded(_file(data), {"T": "x"})


def variables(data: bytes) -> None:
    """Lines of a variable's number and its text, as an environment gives it."""
    environ = {}
    for line in data.split(b"\n"):
        if line and b"\0" not in line:
            name = VARIABLES[line[0] % len(VARIABLES)]
            environ[name] = line[1:].decode("utf-8", "surrogateescape")
    _loaded(None, environ)


def header_list(data: bytes) -> None:
    """``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_RESOURCE_ATTRIBUTES`` and an endpoint."""
    text = data.decode("utf-8", "surrogateescape")
    for kind in (HEADERS, ATTRIBUTES, ENDPOINT_AS_GIVEN):
        try:
            value = kind.read(text)
        except ValueError:
            continue
        kind.show(value)
        if kind is HEADERS:
            for name, said in value.items():
                assert name == name.lower()
                assert not set("\r\n\0") & set(name + said)


def proc(data: bytes) -> None:
    """A process directory of which every file, and each line of some, is the input."""
    directory = _SCRATCH / "proc" / str(TGID)
    for name in PROC_FILES:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((b"title\n" if name.startswith("net/") else b"") + data)
    reader = ProcFs(str(_SCRATCH / "proc"))
    stat = reader.stat(TGID)
    assert stat is None or isinstance(stat.identity[0], int)
    assert all(isinstance(word, str) for word in reader.cmdline(TGID))
    assert all(name.startswith("OTEL_") for name in reader.otel_environ(TGID))
    assert all(pid >= 0 for pid in (*reader.namespace_pids(TGID), *reader.children(TGID)))
    container = containers.look(reader, TGID)
    assert container is None or len(container.id) in (0, 64)
    assert all(inode >= 0 and port >= 0 for inode, port in reader.tcp_listeners(TGID).items())
    reader.unix_listeners(TGID)


def executable(data: bytes) -> None:
    """A program's file: what it was written in, its functions, where probes would go."""
    path = str(_file(data))
    assert elf.language(path) in ("", "go", "rust")
    assert all(0 <= offset < len(data) for offset in functions(path, ("SSL_read", "f")).values())
    with suppress(elf.ElfError):
        found = find_library(path)
        assert all(0 <= spot.offset < len(data) for spot in (found[1] if found else ()))
    with suppress(elf.ElfError), elf.Image(path) as image:
        assert isinstance(image.build_id, str)
        assert golang.built_by(image).isascii()


def recording(data: bytes) -> None:
    """A recording, once as it is and once with checksums that are right."""
    for content in (data, _with_checksum(data)):
        notes: list[dict[str, object]] = []
        try:
            reader = Reader(_file(content), notes.append)
            items = sum(1 for _ in reader)
        except ConfigError:
            continue
        assert items + len(notes) + reader.torn_bytes <= len(content)


def _with_checksum(data: bytes) -> bytes:
    """A valid header, then one block of what ``data`` says: a checksum stops no liar."""
    start = struct.pack("<4sII", b"BLCK", len(data), data[0] % 8 if data else 0)
    return _recording(()) + start + struct.pack("<I", zlib.crc32(data, zlib.crc32(start))) + data


@cache
def _recording(records: tuple[bytes, ...]) -> bytes:
    path = _SCRATCH / "private" / "recording"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with Writer(path, None) as writer:
        writer.note({"tgid": 7, "service": ["a", "b", "c"], "attributes": {}})
        for record in records:
            writer.write(record)
    content = path.read_bytes()
    path.unlink()
    return content if records else content[: content.index(b"BLCK")]


def short_texts(data: bytes) -> None:
    """Values of fields: ``traceparent``, request targets, authorities, PROXY prefixes."""
    context = traceparent.parse(data)
    assert context is None or (len(context.trace_id), len(context.span_id)) == (16, 8)
    for connect in (False, True):
        target = url.split_target(data, connect)
        assert "?" not in (target.path or "")
        _, port = url.split_authority(target.authority, target.scheme)
        assert 0 <= port <= 99_999
        url.redact_query(target.query)
    prefix = proxy_protocol.parse(data)
    if prefix is not None:
        assert proxy_protocol.may_begin(data)
        assert not proxy_protocol.broken(data)
        assert 0 < prefix.size <= len(data)
        assert prefix.client is None or 0 <= prefix.client.port < 65536


def answers(data: bytes) -> None:
    """What an OTLP endpoint answers; and the variables that name a proxy."""
    for answer in (accepted(data), otlp_json.accepted(data)):
        assert answer.verdict is Verdict.ACCEPTED
        assert answer.rejected >= 0
        assert answer.error.isprintable()
    assert otlp_json.rpc_message(data).isprintable()
    message, delay = rpc_status(data)
    assert message.isprintable()
    assert delay is None or 0 <= delay < float("inf")
    text = data.decode("utf-8", "surrogateescape")
    for environ in ({"https_proxy": text}, {"https_proxy": "http://p", "no_proxy": text}):
        try:
            proxy = proxy_for("https", "c.example", 4317, environ)
        except ConfigError:
            continue
        if proxy is not None:
            assert proxy.host
            assert all(value.isascii() for value in proxy.headers().values())


def pods(data: bytes) -> None:
    """What the API of Kubernetes says of a pod, and what a runtime keeps of a container."""
    try:
        item = json.loads(data)
    except (ValueError, RecursionError):
        return
    pod = reduced(item)
    key_of(item)
    told = containers.of_bundle(item) if isinstance(item, dict) else {}
    found = describe(containers.Container("", **told), pod, 1, Options())
    assert all(each and len(each) <= 600 for each in found.attributes.values())


TARGETS: dict[str, Callable[[bytes], None]] = {
    "configuration": configuration,
    "variables": variables,
    "header_list": header_list,
    "proc": proc,
    "pods": pods,
    "executable": executable,
    "recording": recording,
    "short_texts": short_texts,
    "answers": answers,
}

YAML = (
    b"ebpf: {open_port: '80,443-8443', pids: [1, 2]}\nprint_traces: on\n",
    b"routes:\n  patterns: [/a/:b, '/c/{d}']\n  unmatched: wildcard\n",
    b"otel_traces_export: {endpoint: 'https://u:${T}@[::1]:1/x?y=z', headers: {a: '${T:-b}'}}\n",
    b"x: &a [*a]\n? [1]\n: !!python/object:os.system {}\n---\n",
    b"a: 1\na: 2\n<<: {b: 3}\nlimits: {series_ttl: 1h2m3.5s, series: 1e9}\n",
    b"\xef\xbb\xbftrace_printer: !!binary anNvbg==\nnaming: 2023\ndisabled: ~\n",
)
TEXTS = (
    b"authorization=Basic%20dTpw,x-scope-orgid=a b",
    b"service.name=a,deployment.environment.name=%C3%A4",
    b"a=%0d%0ab:c",
    b"=,==,a",
    b"http://u:p@[fe80::1%25eth0]:4318/v1?q=1#f",
    b"https://localhost:65536/",
)
FIELDS = (
    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 80\r\nGET / HTTP/1.1\r\n",
    b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(range(12)),
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + bytes(range(36)),
    b"http://u@h:80/p?sig=1&X-Goog-Signature=2#f",
    b"[::1]:443",
    b"*",
)


_DELAY = sized(1, b"t/google.rpc.RetryInfo") + sized(2, sized(1, integer(1, 2) + integer(2, 5)))
ANSWERS = (
    b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"no"},"message":"x"}',
    b"",
    b"\n\0",
    sized(1, integer(1, 5) + sized(2, b"too old")),
    sized(1, integer(1, -5)),
    integer(1, 8) + sized(2, b"slow down") + sized(3, _DELAY),
    sized(3, sized(1, b"t/google.rpc.Help")),
    b"http://u:p@[::1]:3128",
    b"*, .example:4317, 10.0.0.0/8, [::1]:1",
)


def _program(*names: bytes) -> bytes:
    """An ELF file of sections with these names (elf(5)); the last section holds the names."""
    text = b"\0" + b"\0".join(names) + b"\0/rustc/"
    header = struct.pack(
        "<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 3, 62, 1, 0, 0, 64 + len(text), 0, 64, 0, 0, 64,
        len(names), len(names) - 1,
    )  # fmt: skip
    at = (text.index(b"\0" + name + b"\0") + 1 for name in names)
    table = [struct.pack("<IIQQQQIIQQ", n, 3, 0, 0, 64, len(text), 0, 0, 1, 0) for n in at]
    return header + text + b"".join(table)


def seeds(target: str) -> list[bytes]:
    """Inputs to start from."""
    match target:
        case "configuration":
            return [*YAML, *(path.read_bytes() for path in sorted(EXAMPLES.glob("*.yml")))]
        case "variables":
            samples = (b"1", b"true", b"10s", b"http://h:1", b"/a,/b", *TEXTS)
            return [
                bytes([number]) + samples[number % len(samples)] for number in range(len(VARIABLES))
            ]
        case "header_list":
            return list(TEXTS)
        case "proc":
            names = (name.removeprefix("task/7/") for name in PROC_FILES)
            found = (Path("/proc/self") / name for name in names)
            return [path.read_bytes()[:4096] for path in found if path.exists()]
        case "pods":
            every = json.loads(PODS.read_text()).values()
            bundle = {"annotations": {"io.kubernetes.pod.name": "a", "io.kubernetes.pod.uid": "b"}}
            return [json.dumps(each).encode() for each in (*every, bundle)]
        case "executable":
            kinds = ((b".go.buildinfo", b".n"), (b".rodata", b".n"), (b".text", b".n"))
            go = go_program(["crypto/tls.(*Conn).Read", "crypto/tls.(*Conn).Write", "f"])
            code = bytes.fromhex("4883ec18 85d2 7802 55 5d c3 e8f3ffffff c3")
            named = {name: (CODE + at, 11) for name, at in (("SSL_read", 0), ("SSL_write", 11))}
            library = Elf(code, named, notes=note(b"GNU\0", 3, bytes(20)))
            whole = [one.file() for one in (go, library)]
            assert all(len(one) <= 4096 for one in whole)
            return [*(_program(*names) for names in kinds), *whole, b"\x7fELF", b"#!/bin/sh\n", b""]
        case "recording":
            wires = [Wire().open() for _ in TRANSCRIPTS]
            for wire, transcript in zip(wires, TRANSCRIPTS, strict=True):
                for sender, said in transcript.turns:
                    wire.send(sender, said)
            whole = [_recording(tuple(wire.records)) for wire in wires]
            blocks = [content[content.index(b"BLCK") + 16 :] for content in whole]
            return [content for content in (*whole, *blocks) if len(content) <= 4096]
        case "answers":
            return list(ANSWERS)
        case _:
            return list(FIELDS)
