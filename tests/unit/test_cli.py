# SPDX-License-Identifier: Apache-2.0
"""The command line: flags in every place, what is called with what, errors and exit codes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from otelauto import __version__, cli, doctor, logs
from otelauto.config import Ports, docs
from otelauto.errors import KernelError, OtelautoError

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")}
RUN = ["--open-port", "80", "--print"]


@pytest.fixture(autouse=True)
def _isolated(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("OTEL", "PROMETHEUS", "METRICS_")) or name in {
            "OPEN_PORT",
            "LOG_LEVEL",
        }:
            monkeypatch.delenv(name)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    logs.hide([])
    root.handlers[:], root.level = before


class App:
    """Notes the calls and does what ``result`` says."""

    def __init__(self):
        self.calls = []
        self.result = 0

    def _called(self, *call):
        self.calls.append(call)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    def run(self, config):
        return self._called("run", config)

    def doctor(self, config):
        return self._called("doctor", config)

    def status(self, config):
        return self._called("status", config)

    def record(self, config, path, raw, seconds):
        return self._called("record", config, path, raw, seconds)

    def replay(self, config, path):
        return self._called("replay", config, path)


@pytest.fixture
def app(monkeypatch):
    made = App()
    monkeypatch.setattr(cli, "_app", lambda: made)
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        ["-config", "FILE"], ["--config", "FILE"], ["-config=FILE"], ["--config=FILE"],
        ["run", "-config", "FILE"], ["-config", "FILE", "run"], ["--debug", "run", "-config=FILE"],
    ],
)  # fmt: skip
def test_forms_of_the_file_flag(app, tmp_path, arguments):
    path = tmp_path / "c.yml"
    path.write_text("ebpf: {open_port: 443}\nprint_traces: true\n")
    assert cli.main([word.replace("FILE", str(path)) for word in arguments]) == 0
    [(name, config)] = app.calls
    assert name == "run"
    assert config.ebpf.open_port == Ports(((443, 443),))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (RUN, {"trace_printer": "text"}),
        ([*RUN, "run"], {"trace_printer": "text"}),
        (["run", *RUN], {"trace_printer": "text"}),
        (["--open-port", "80", "run", "--print-json"], {"trace_printer": "json"}),
        ([*RUN, "--log-level", "debug"], {"log_level": "DEBUG"}),
        (["--print", "run", "--open-port=80", "--log-level=ERROR"], {"log_level": "ERROR"}),
    ],
)
def test_setting_flags_before_and_after_the_command(app, arguments, expected):
    assert cli.main(arguments) == 0
    [(_, config)] = app.calls
    assert config.ebpf.open_port == Ports(((80, 80),))
    for name, value in expected.items():
        assert getattr(config, name) == value


@pytest.mark.parametrize(
    "arguments",
    [
        ["--open-port", "80", "--print", "--print-json"],
        ["--print-json", "run", "--print", "--open-port", "80"],
        ["replay", "f", "--print-json", "--print"],
    ],
)
def test_two_printers_are_refused(app, capsys, arguments):
    assert cli.main(arguments) == 2
    assert app.calls == []
    sentence, remedy = capsys.readouterr().err.splitlines()
    assert sentence == 'otelauto: "--print" and "--print-json" exclude each other.'
    assert remedy == "  -> Give one of them."


def test_showing_the_configuration_is_not_printing_spans(app, capsys):
    assert cli.main(["--print-json", "config", "--print"]) == 0
    assert "trace_printer: json" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [RUN, ["run"], ["replay", "f"], ["replay", "f", "--print"]])
def test_disabled_ends_at_once(app, monkeypatch, capsys, arguments):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "TRUE")
    assert cli.main(arguments) == 0
    assert app.calls == []
    [line] = capsys.readouterr().err.splitlines()
    assert "nothing is watched or published" in line
    assert "OTEL_SDK_DISABLED" in line


@pytest.mark.parametrize("word", ["false", "1", "on"])
def test_only_true_disables(app, monkeypatch, word):
    monkeypatch.setenv("OTEL_SDK_DISABLED", word)
    assert cli.main(RUN) == 0
    assert [call[0] for call in app.calls] == ["run"]


def test_disabled_still_refuses_nonsense_and_answers_questions(app, monkeypatch, capsys):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert cli.main(["--open-port", "80a"]) == 2
    assert cli.main(["record", "-o", "f"]) == 2  # a recording is no telemetry: it needs a selector
    assert "nothing says which processes to watch" in capsys.readouterr().err
    for words in (["doctor"], ["status"], ["record", "-o", "f", "--pid", "1"]):
        assert cli.main(words) == 0
    assert [call[0] for call in app.calls] == ["doctor", "status", "record"]


def test_the_other_setting_flags(app):
    words = ["--pid", "1,2", "--prometheus-port", "9", "--otlp-endpoint", "http://localhost:1"]
    assert cli.main(words) == 0
    assert cli.main(["--system-wide", "--print"]) == 0
    assert cli.main(["--executable-name", "nginx", "--print"]) == 0
    first, second, third = (call[1] for call in app.calls)
    assert first.ebpf.pids == (1, 2)
    assert first.prometheus_export.port == 9
    assert first.otel_metrics_export.endpoint.url == "http://localhost:1/v1/metrics"
    assert first.otel_traces_export.endpoint.url == "http://localhost:1/v1/traces"
    assert second.ebpf.system_wide
    assert third.ebpf.executable_name == "nginx"


def test_sub_commands_get_their_arguments(app, caplog):
    assert cli.main(["doctor"]) == 0
    assert cli.main(["status", "--debug"]) == 0
    assert cli.main(["record", "-o", "f", "--open-port", "1", "--raw", "--seconds", "1.5"]) == 0
    assert cli.main(["--open-port", "1", "record", "-o", "g"]) == 0
    assert cli.main(["replay", "f", "--print"]) == 0
    plain = [(name, *rest) for name, _, *rest in app.calls]
    assert plain == [
        ("doctor",),
        ("status",),
        ("record", Path("f"), True, 1.5),
        ("record", Path("g"), False, None),
        ("replay", Path("f")),
    ]


def test_raw_recording_warns(app, capsys):
    assert cli.main(["record", "-o", "f", "--open-port", "1", "--raw"]) == 0
    assert "level=WARN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence", "remedy"),
    [
        ([], "nothing says which processes to watch", "--open-port"),
        (["--open-port", "80"], "nothing says where to publish", "--print"),
        (["rnu"], 'unknown command "rnu"', '"run"'),
        (["xyz"], 'unknown command "xyz"', "Commands are run"),
        ([str(ROOT / "pyproject.toml")], "unknown command", "otelauto -config "),
        (["--open-prt", "80"], 'unknown flag "--open-prt"', '"--open-port"'),
        (["-confg", "x"], 'unknown flag "-confg"', '"-config"'),
        (["run", "--raw"], 'unexpected argument "--raw"', "otelauto run --help"),
        (["run", "extra"], 'unexpected argument "extra"', "otelauto run --help"),
        (["-config"], "expected one argument", "otelauto --help"),
        (["-config", "/no/such.yml"], "cannot be read: no such file", "Check the path"),
        (["--open-port", "x"], '--open-port: "ebpf.open_port" cannot be "x"', "80,443"),
        (["record", "--open-port", "1"], "required: -o/--output", "otelauto --help"),
        (["record", "-o", "f"], "nothing says which processes", "--open-port"),
        (["record", "-o", "f", "--seconds", "0"], "--seconds", "otelauto --help"),
        (["replay"], "required: FILE", "otelauto --help"),
        (["replay", "f"], "nothing says where to publish", "--print"),
        (["config"], "--check --print", "otelauto --help"),
        (["config", "--check", "--print"], "not allowed with", "otelauto --help"),
    ],
)
def test_wrong_command_lines(app, capsys, arguments, sentence, remedy):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert not app.calls
    first, second = err.splitlines()[:2]
    assert first.startswith("otelauto: ")
    assert sentence in first
    assert second.startswith("  -> ")
    assert remedy in second


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (OtelautoError("it broke.", "Mend it."), 1),
        (KernelError("no.", "Be root."), 3),
        (ZeroDivisionError("x"), 1),
        (KeyboardInterrupt(), 0),
    ],
)
def test_exit_codes(app, capsys, raised, code):
    app.result = raised
    assert cli.main(RUN) == code
    plain = capsys.readouterr().err
    assert "Traceback" not in plain
    assert ("  -> " in plain) == (code != 0)
    assert cli.main([*RUN, "--debug"]) == code
    assert ("Traceback" in capsys.readouterr().err) == (code != 0)


def test_strangers_words_do_not_steer_the_terminal(app, capsys):
    app.result = OtelautoError("no \x1b[2J\nsuch", "Write\n     \x9bkey: \u202evalue\r")
    assert cli.main(RUN) == 1
    assert capsys.readouterr().err == (
        "otelauto: no \\x1b[2J\\nsuch\n  -> Write\n     \\x9bkey: \\u202evalue\\r\n"
    )


TLS = {
    "why": "",
    "libraries": [
        {"library": "OpenSSL", "path": "/lib\nforged/libssl", "state": "refused", "why": "no"}
    ],
}
REPORT = {
    "version": "1", "pid": 1, "uptime_s": 1.0, "tier": "a", "spans": 0, "series": 0, "cpu_s": 0.1,
    "rss_max_bytes": 1, "kernel_memory_bytes": 1, "ring_fill": 0.0, "largest_backlog_bytes": 0,
    "connections": 0, "protocols": {}, "probes": [], "overhead_step": "metrics_only",
    "refusals": ["sock_send_length is absent (Linux 5\x1b[2J)"],
    "counters": [["lost", "\x1b]0;label\x07", 1]],
    "unread": [{"carries": "\x1b[31m", "endpoint": "/run/\x1b[2J", "connections": 1}],
    "targets": [
        {
            "service": "shop\x1b[2J", "pid": 7, "ports": [80], "sdk": "\x1b[2J",
            "reason": "argv \nforged", "tls": TLS,
        }
    ],
    "exporters": {"printer": {"last_error": "\x9b2J"}},
}  # fmt: skip


def test_reports_do_not_steer_the_terminal(capsys):
    doctor.show(REPORT)
    out = capsys.readouterr().out
    assert "shop\\x1b[2J" in out
    assert "argv \\nforged" in out
    assert "\\x9b2J" in out
    assert "  nothing better: sock_send_length is absent (Linux 5\\x1b[2J)\n" in out
    assert all(line.isprintable() for line in out.splitlines())
    assert "forged" not in {line.split()[0] for line in out.splitlines() if line}


def test_what_is_seen_of_a_targets_tls_is_said():
    assert list(doctor.target_tls_lines(TLS)) == [
        "    TLS refused: OpenSSL in /lib\nforged/libssl: no"
    ]
    unseen = {"libraries": [], "why": "the TLS of the Java virtual machine"}
    assert list(doctor.target_tls_lines(unseen)) == [
        "    TLS not seen: the TLS of the Java virtual machine"
    ]
    assert list(doctor.target_tls_lines({"libraries": [], "why": ""})) == []
    assert list(doctor.tls_lines(None, "too old")) == ["  absent  plaintext of TLS: too old"]


def test_the_cost_of_each_program_is_the_difference_of_two_reports():
    def program(number, name, runs, taken):
        return {"program_id": number, "name": name, "runs": runs, "run_time_ns": taken}

    before = [program(1, "busy", 100, 50_000), program(2, "idle", 7, 900)]
    after = [
        program(1, "busy", 2100, 1_050_000),
        program(2, "idle", 7, 900),
        program(3, "new", 9, 9),
    ]
    busy, idle = doctor.cost_lines(before, after, seconds=2.0)
    assert " ".join(busy.split()) == "busy 1000 runs/s 500 ns a run 0.050% of a CPU"
    assert " ".join(idle.split()) == "idle 0 runs/s did not run 0.000% of a CPU"


@pytest.mark.parametrize("arguments", [["--help"], ["-"], ["a", "b"]])
def test_the_page_of_settings_is_not_written_to_a_flag(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert docs.main(arguments) == 2
    assert "usage: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert docs.main(["page.md"]) == 0
    assert (tmp_path / "page.md").read_text() == docs.render()


def test_the_code_of_the_application_is_returned(app):
    app.result = 3
    assert cli.main(RUN) == 3


def test_warnings_are_log_lines(app, capsys):
    assert cli.main([*RUN, "--otlp-endpoint", "http://192.0.2.1"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("time=")
    assert 'level=WARN msg="--otlp-endpoint: what is seen will cross the network' in line


@pytest.mark.parametrize(("extra", "level"), [([], 20), (["--debug"], 10)])
def test_debug_logs_everything(app, extra, level):
    assert cli.main([*RUN, *extra]) == 0
    assert logging.getLogger().level == level


def test_log_lines_stay_one_line_each():
    formatter = logs.LineFormatter(tracebacks=False)
    record = logging.LogRecord("x", logging.INFO, "", 0, 'a\n"b" \x1b[31m é\\', None, None)
    line = formatter.format(record)
    assert line.endswith('level=INFO msg="a\\n\\"b\\" \\x1b[31m é\\\\"')


def execute(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "otelauto.cli", *arguments],
        env=CLEAN | environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


class TestAsAProcess:
    def test_help(self):
        done = execute("--help")
        assert done.returncode == 0
        for word in ("doctor", "status", "config", "record", "replay", "-config", "--open-port"):
            assert word in done.stdout

    def test_version(self):
        assert execute("--version").stdout == f"otelauto {__version__}\n"

    def test_check_accepts_the_example(self):
        done = execute(
            "config", "--check", "-config", str(ROOT / "examples/instrumenter-config.yml")
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "valid" in done.stdout

    def test_check_refuses_with_two_and_no_traceback(self, tmp_path):
        path = tmp_path / "c.yml"
        path.write_text("ebpf:\n  open_prot: 1\nlog_level: LOUD\n")
        done = execute("-config", str(path), "config", "--check")
        assert done.returncode == 2
        assert done.stdout == ""
        levels = "DEBUG, INFO, WARN or ERROR"
        assert done.stderr.splitlines() == [
            f'otelauto: {path}:2: unknown key "ebpf.open_prot".',
            '  -> Did you mean "ebpf.open_port"?',
            f'otelauto: {path}:3: "log_level" cannot be "LOUD": it takes {levels}.',
            "  -> Write, for example, log_level: ERROR",
        ]

    def test_print_says_where_values_come_from(self):
        done = execute("config", "--print", "--open-port", "80", LOG_LEVEL="WARN")
        assert done.returncode == 0
        assert "log_level: WARN " in done.stdout
        assert "# LOG_LEVEL\n" in done.stdout
        assert "# --open-port\n" in done.stdout

    def test_print_masks_the_environment(self):
        done = execute("config", "--print", OTEL_EXPORTER_OTLP_HEADERS="authorization=c4nary")
        assert "authorization" in done.stdout
        assert "c4nary" not in done.stdout + done.stderr

    def test_a_closed_pipe_is_no_traceback(self):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "otelauto.cli", "config", "--print"],
            env=CLEAN, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")

    def test_nothing_heavy_is_imported(self):
        code = (
            "import sys; from otelauto import cli; cli.main(['config', '--print']); "
            "bad = {'ctypes', 'http.client', 'otelauto.app', 'otelauto.kernel', 'asyncio'}; "
            "sys.exit(repr(bad & set(sys.modules)) if bad & set(sys.modules) else 0)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=CLEAN, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
