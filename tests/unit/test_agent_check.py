# SPDX-License-Identifier: Apache-2.0
"""What is said about an agent's configuration: names, types, references, rules, secrets."""

from __future__ import annotations

import pytest

from otelauto.agent.check import check
from otelauto.agent.components import ABSENT, COMPONENTS
from otelauto.agent.river.covering import shown
from otelauto.agent.river.diagnostics import RiverError, Source
from otelauto.agent.river.lexer import quote
from otelauto.agent.river.values import Secret, Unknown, ValueFault
from otelauto.agent.schema import decode, duration_ns, size_bytes

PIPELINE = """
logging {
  level = "debug"
}

otelcol.receiver.otlp "default" {
  grpc {}
  http {
    endpoint = "0.0.0.0:4318"
  }

  output {
    metrics = [otelcol.processor.batch.default.input]
    traces  = [otelcol.processor.batch.default.input]
  }
}

otelcol.processor.batch "default" {
  output {
    metrics = [otelcol.exporter.prometheus.default.input]
    traces  = [otelcol.exporter.otlp.tempo.input]
  }
}

otelcol.exporter.prometheus "default" {
  forward_to = [prometheus.remote_write.mimir.receiver]
}

prometheus.remote_write "mimir" {
  endpoint {
    url = "https://" + env("USER") + ":" + env("KEY") + "@" + env("HOST") + "/api/prom/push"
  }
}

otelcol.exporter.otlp "tempo" {
  client {
    endpoint = sys.env("TEMPO")
    auth     = otelcol.auth.basic.creds.handler
  }
}

otelcol.auth.basic "creds" {
  username = env("USER")
  password = local.file.key.content
}

local.file "key" {
  filename  = "/run/key"
  is_secret = true
}
"""
OUTPUT = "output {}"


def errors(*texts, environ=None):
    with pytest.raises(RiverError) as caught:
        check([Source(f"f{n}", text) for n, text in enumerate(texts)], environ or {})
    return [str(one) for one in caught.value.diagnostics]


def error(text, environ=None):
    (one,) = errors(text, environ=environ)
    return one.removeprefix("f0:")


def test_a_whole_pipeline_is_valid():
    found = check([Source("f", PIPELINE)], {"USER": "me", "KEY": "k=+", "HOST": "h"})
    assert len(found.nodes) == 8
    assert not found.warnings
    batch = found.nodes["otelcol.processor.batch.default"]
    assert batch.needs == ("otelcol.exporter.prometheus.default", "otelcol.exporter.otlp.tempo")
    assert batch.content["timeout"] == 200_000_000
    (endpoint,) = found.nodes["prometheus.remote_write.mimir"].content.blocks["endpoint"]
    assert endpoint["url"] == "https://me:k=+@h/api/prom/push"
    assert endpoint["remote_timeout"] == 30 * 10**9
    (http,) = found.nodes["otelcol.receiver.otlp.default"].content.blocks["http"]
    assert (http["endpoint"], http["max_request_body_size"]) == ("0.0.0.0:4318", 20 << 20)
    creds = found.nodes["otelcol.auth.basic.creds"].content
    assert creds.arguments["password"] == Unknown("secret")


def test_a_receiver_listens_on_the_loopback_unless_told():
    text = f'otelcol.receiver.otlp "a" {{\n grpc {{}}\n http {{}}\n {OUTPUT}\n}}'
    blocks = check([Source("f", text)], {}).nodes["otelcol.receiver.otlp.a"].content.blocks
    assert [blocks[name][0]["endpoint"] for name in ("grpc", "http")] == [
        "127.0.0.1:4317",
        "127.0.0.1:4318",
    ]


def test_files_are_one_configuration():
    one, other = PIPELINE.split('otelcol.processor.batch "', 1)
    found = check([Source("a", one), Source("b", 'otelcol.processor.batch "' + other)], {})
    assert len(found.nodes) == 8
    assert errors(PIPELINE, "logging { }")[0] == "f1:1:1: block logging already declared at f0:2:1"


def test_syntax_errors_of_all_files_come_first():
    assert errors("a = [", "otelcol.nothing {", "x {\n y = 1 1\n}") == [
        "f0:1:6: expected ], got EOF",
        "f1:1:18: expected }, got EOF",
        "f2:2:8: expected TERMINATOR, got NUMBER",
    ]


BATCH = f'otelcol.processor.batch "b" {{\n%s\n{OUTPUT}\n}}'
WRITE = 'prometheus.remote_write "w" {\nendpoint {\n%s\n}\n}'
MESSAGES = [
    ("x = 1", '1:1: unrecognized attribute name "x"'),
    ('otelcol.reciever.otlp "a" { }',
     '1:1: cannot find the definition of component name "otelcol.reciever.otlp"'),
    ('declare "a" { }', '1:1: block "declare" is not supported by this agent'),
    (f"otelcol.processor.batch {{ {OUTPUT} }}",
     '1:1: component "otelcol.processor.batch" must have a label'),
    ('logging "a" { }', '1:1: block "logging" does not support specifying labels'),
    ("logging {}\nlogging {}", "2:1: block logging already declared at f0:1:1"),
    ('otelcol.processor.batch "b" { }', '1:1: missing required block "output"'),
    ('otelcol.auth.basic "a" { username = "u" }', '1:1: missing required attribute "password"'),
    (BATCH % "timeuot = 1", '2:1: unrecognized attribute name "timeuot"'),
    (BATCH % "timeout {}", '2:1: "timeout" must be an attribute, but is used as a block'),
    (BATCH % "debug_metrics = 1",
     '2:1: "debug_metrics" must be a block, but is used as an attribute'),
    (BATCH % "debug {}", '2:1: unrecognized block name "debug"'),
    (BATCH % 'timeout = "1s"\ntimeout = "2s"',
     '3:1: attribute "timeout" may only be provided once'),
    (BATCH % "output {}", '3:1: block "output" may only be specified once'),
    (BATCH % 'debug_metrics "x" {}',
     '2:1: block "debug_metrics" does not support specifying labels'),
    (BATCH % 'timeout = "1d"', '2:11: "1d" is no duration such as "1h30m", "5s" or "200ms"'),
    (BATCH % "timeout = 10", '2:11: 10 is no duration such as "1h30m", "5s" or "200ms"'),
    (BATCH % "timeout = true", "2:11: true should be string, got bool"),
    (BATCH % 'send_batch_size = "many"', '2:19: "many" should be number, got string'),
    (BATCH % "send_batch_size = 10\nsend_batch_max_size = 5",
     '1:1: "send_batch_max_size" must not be less than "send_batch_size"'),
    (BATCH % "metadata_keys = [1, [2]]", "2:21: [2] should be string, got array"),
    (BATCH % 'metadata_keys = concat(["a"], [true])',
     '2:17: concat(["a"], [true])[1] should be string, got bool'),
    (BATCH % "timeout = nothing",
     '2:11: component "nothing" does not exist or is out of scope'),
    (BATCH % "timeout = otelcol.processor.batch.b.input",
     "2:11: component otelcol.processor.batch.b refers to itself"),
    (BATCH % "timeout = 1 + \"s\"", '2:15: "s" should be number, got string'),
    ("logging { level = \"loud\" }",
     '1:19: "loud" must be one of "debug", "info", "warn", "error"'),
    (WRITE % 'url = "h:9090"', '2:1: "url" must be a URL that begins with http:// or https://'),
    (WRITE % 'url = "https://u:a/b@h/push"', None),
    (WRITE % 'url = "http://h"\nbearer_token_file = "x"\nbasic_auth {}',
     "2:1: at most one of basic_auth, bearer_token_file may be given"),
    (WRITE % 'url = "http://h"\nbasic_auth {\npassword_file = "x"\npassword = env("P")\n}',
     "4:1: at most one of password, password_file may be given"),
    (WRITE % 'url = "http://h"\nqueue_config {\nmax_shards = 0\n}',
     '4:1: "max_shards" must not be less than "min_shards"'),
    ('otelcol.connector.spanmetrics "s" {\nhistogram {}\noutput {}\n}',
     "2:1: exactly one of explicit, exponential has to be given"),
    ('otelcol.processor.memory_limiter "m" {\ncheck_interval = "1s"\noutput {}\n}',
     "1:1: exactly one of limit, limit_percentage has to be given"),
    ('otelcol.processor.memory_limiter "m" {\ncheck_interval = "0s"\nlimit = "1MiB"\noutput {}\n}',
     '1:1: "check_interval" must be at least 1ns'),
    (('otelcol.exporter.prometheus "p" {\nforward_to = [otelcol.exporter.debug.d.input]\n}\n'
     'otelcol.exporter.debug "d" { }'),
     "2:15: otelcol.exporter.debug.d.input should be prometheus.Appendable, got otelcol.Consumer"),
    (('otelcol.exporter.prometheus "p" {\nforward_to = otelcol.exporter.debug.d.input\n}\n'
     'otelcol.exporter.debug "d" { }'),
     "2:14: otelcol.exporter.debug.d.input should be array, got otelcol.Consumer"),
    ('local.file "f" { filename = "x" }\n' + BATCH % "send_batch_size = local.file.f.contents",
     '3:32: field "contents" does not exist'),
    ('local.file "f" {\nfilename = "x"\nis_secret = true\n}\n'
     + BATCH % "timeout = local.file.f.content",
     "6:11: local.file.f.content should be string, got capsule"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MESSAGES)
def test_what_is_wrong_is_told_where(text, expected):
    found = error(text)
    assert expected is None or found == expected
    if expected is None:
        assert "use a basic_auth block" in found


def test_a_key_that_ends_the_host_is_refused_without_showing_it():
    with pytest.raises(RiverError) as caught:
        check([Source("f", PIPELINE)], {"USER": "u", "KEY": "hunter2/", "HOST": "h"})
    text = shown(caught.value.diagnostics)
    assert "basic_auth" in text
    assert "hunter2" not in text


def test_a_fault_of_a_secret_does_not_show_it():
    text = 'otelcol.auth.basic "a" {\n username = "u"\n password = ["hunter2"]\n}'
    with pytest.raises(RiverError) as caught:
        check([Source("f", text)], {})
    said = shown(caught.value.diagnostics)
    assert "[(secret)] should be string or secret, got array" in said
    assert "hunter2" not in said


def test_a_secret_in_the_file_is_warned_about_and_covered():
    text = 'otelcol.auth.basic "a" {\n username = "u"\n password = "hunter2"\n}'
    found = check([Source("f", text)], {})
    (warning,) = found.warnings
    assert str(warning) == 'f:3:2: "password" is a secret that stands in the file'
    assert "hunter2" not in shown([warning])
    assert found.nodes["otelcol.auth.basic.a"].content["password"] == Secret("hunter2")
    assert "hunter2" not in repr(found.nodes)


def test_components_that_need_each_other_are_told_once():
    names = ("a", "b", "c")
    files = [
        f'local.file "{name}" {{ filename = local.file.{other}.content }}'
        for name, other in zip(names, ("b", "c", "a"), strict=True)
    ]
    way = " -> ".join(f"local.file.{name}" for name in (*names, "a"))
    assert errors(*files) == [f"f0:1:29: components need each other: {way}"]


def test_several_errors_in_one_run():
    text = BATCH % 'timeout = "x"\nsend_batch_size = [1]\nnothing = 2' + '\notelcol.nothing "x" { }'
    assert [one.split(" ")[0] for one in errors(text)] == [
        "f0:2:11:", "f0:3:19:", "f0:4:1:", "f0:7:1:",
    ]  # fmt: skip


# Every argument of every component: a value that fits, one that does not, and a wrong name.
GOOD = {
    "string": '"x"', "secret": 'env("S")', "number": "1", "bool": "true", "duration": '"1s"',
    "size": '"1KiB"', "any": "[1]", "list(string)": '["a", 1]', "list(duration)": '["1ms"]',
    "map(string)": '{ a = "b" }', "map(secret)": "{ a = env(\"S\") }",
    "map(list(string))": "{ a = [] }",
    "map(list(secret))": "{ a = [] }", "list(map(string))": "[{ a = 1 }]",
    "otelcol.Handler": "null", "list(otelcol.Consumer)": "[]", "list(prometheus.Appendable)": "[]",
    "otelcol.Storage": "null",
}  # fmt: skip
BAD = {
    "string": "[]", "secret": "true", "number": '"1x"', "bool": '"true"', "duration": '"1d"',
    "size": '"1 apple"', "list(string)": '"a"', "list(duration)": '["1"]', "map(string)": "[]",
    "map(secret)": "{ a = [] }", "map(list(string))": "{ a = 1 }", "map(list(secret))": "[]",
    "list(map(string))": "[1]", "otelcol.Handler": '"x"', "list(otelcol.Consumer)": "[1]",
    "list(prometheus.Appendable)": "[env]", "otelcol.Storage": "1",
}  # fmt: skip


def places(schema, path=()):
    """(path of blocks, argument) of everything that ``schema`` takes."""
    for argument in schema.arguments:
        yield path, argument
    for block in schema.blocks:
        yield from places(block, (*path, block.name))


PLACES = [(c, path, a) for c in COMPONENTS.values() for path, a in places(c)]


def only(component, path, line):
    """A component with one line in the block at ``path``; what is missing is another error."""
    label = ' "x"' if component.labelled else ""
    opened = "".join(f"{name} {{\n" for name in path)
    return f"{component.name}{label} {{\n{opened}{line}\n{'}' * 0}" + "\n}" * (len(path) + 1)


def said_on(line, text):
    try:
        check([Source("f", text)], {"S": "s"})
    except RiverError as refused:
        return [d for d in refused.diagnostics if d.position.line == line]
    return []


@pytest.mark.parametrize(
    ("component", "path", "argument"),
    PLACES,
    ids=[f"{c.name}:{'.'.join((*path, a.name))}" for c, path, a in PLACES],
)
def test_every_argument_takes_its_type_only(component, path, argument):
    line = 2 + len(path)
    good = quote(argument.choices[0]) if argument.choices else GOOD[argument.type]
    if argument.name == "url":
        good = '"http://h"'
    assert not said_on(line, only(component, path, f"{argument.name} = {good}"))
    misspelt = said_on(line, only(component, path, f"{argument.name}x = {good}"))
    assert [one.message for one in misspelt] == [f'unrecognized attribute name "{argument.name}x"']
    assert f'"{argument.name}"' in misspelt[0].hint
    if argument.type != "any":
        assert said_on(line, only(component, path, f"{argument.name} = {BAD[argument.type]}"))
    if argument.choices:
        assert said_on(line, only(component, path, f'{argument.name} = "no such choice"'))


def test_every_default_is_a_value():
    assert len(PLACES) > 200
    for component, path, argument in PLACES:
        if argument.default is not None:
            decode(argument.default, argument)
            assert not argument.required, (component.name, path, argument.name)


def test_names_are_distinct():
    assert not set(ABSENT) & set(COMPONENTS)
    for component, path, argument in PLACES:
        twins = [a for c, p, a in PLACES if (c, p, a.name) == (component, path, argument.name)]
        assert len(twins) == 1, argument.name


@pytest.mark.parametrize(
    ("text", "ns"),
    [("1h30m", 5_400 * 10**9), ("200ms", 200_000_000), ("-1.5s", -1_500_000_000), ("0", 0),
     ("1us", 1_000), ("1µs", 1_000), (".5s", 500_000_000), ("1h1ns", 3_600_000_000_001)],
)  # fmt: skip
def test_durations(text, ns):
    assert duration_ns(text) == ns


@pytest.mark.parametrize(
    "text", ["", "1", "1d", "s", "1 s", "1s ", "--1s", "1e3s", "300y", "9999999h"]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueFault):
        duration_ns(text)


def test_sizes():
    found = [size_bytes(t) for t in ("0", "1024", "1KiB", "1kb", "1.5MiB", "2 GB", "5B")]
    assert found == [0, 1024, 1024, 1000, 3 << 19, 2 * 10**9, 5]
    for text in ("", "-1", "1 apple", "1KKiB"):
        with pytest.raises(ValueFault):
            size_bytes(text)
