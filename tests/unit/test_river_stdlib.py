# SPDX-License-Identifier: Apache-2.0
"""River's values: operators, the standard library under both its names, secrets."""

from __future__ import annotations

import math
import socket

import pytest

from otelauto.agent.river.diagnostics import RiverError, Source
from otelauto.agent.river.evaluate import Evaluator
from otelauto.agent.river.parser import parse_expression
from otelauto.agent.river.stdlib import library
from otelauto.agent.river.values import Capsule, OptionalSecret, Secret, Unknown

SCOPE = {
    **library({"HOME": "/root"}),
    "sec": Secret("hunter2"),
    "osec": OptionalSecret("hunter2", True),
    "open": OptionalSecret("pub", False),
    "obj": {"a": 1, "b": [1, 2]},
    "capsule": Capsule("otelcol.Consumer"),
    "later": Unknown("string"),
    "later_secret": Unknown("secret"),
    "anything": Unknown(),
}


def evaluate(text):
    source = Source("f", text)
    return Evaluator(source, SCOPE)(parse_expression(source))


def fault(text):
    with pytest.raises(RiverError) as caught:
        evaluate(text)
    (one,) = caught.value.diagnostics
    return str(one).removeprefix("f:")


VALUES = [
    ("9223372036854775807", 2**63 - 1),
    ("9223372036854775808", 2**63),
    ("18446744073709551616", 2.0**64),
    ("08", 8.0),
    ("0", 0),
    ("00", 0),
    ("7 % -3", 1),
    ("-7 / 2", -3),
    ("7.5 % 2", 1.5),
    ("2 ^ 63", 2**63),
    ("2.0 ^ 3", 8.0),
    ("(-1) ^ 1000000000000", 1),
    ("(-1) ^ 1000000000001", -1),
    ("0 ^ 0", 1),
    ("10 - 2 - 3", 5),
    ("2 * 3 % 4", 2),
    ("1 + 2 == 3 && 2 < 3", True),
    ("false || true && false", False),
    ('"b" > "a"', True),
    ('"a" <= "a"', True),
    ("3 >= 3.0", True),
    ("1 != 2", True),
    ("[1, 2.0] == [1.0, 2]", True),
    ("{ a = 1 } == { a = 1.0 }", True),
    ("{ a = 1 } == { b = 1 }", False),
    ("[] == {}", False),
    ("null == null", True),
    ("true == 1", False),
    ("env == env", False),
    ("sec == sec", True),
    ("sec == osec", False),
    ('open == "pub"', True),
    ("capsule == capsule", True),
    ("-(1.5)", -1.5),
    ("!false", True),
    ('obj["a"]', 1),
    ("obj.b[1.9]", 2),
    ("{ a = 1, a = 2 }.a", 2),
    ('"a" + open', "apub"),
    ("1.5 + 1", 2.5),
]


@pytest.mark.parametrize(("text", "expected"), VALUES)
def test_operators(text, expected):
    found = evaluate(text)
    assert found == expected
    assert type(found) is type(expected)


FAULTS = [
    ("1 / 0", "1:5: 0 divide by zero error"),
    ("1.5 % 0.0", "1:7: 0.0 divide by zero error"),
    ("9223372036854775807 * 9223372036854775807", "1:1: 9223372036854775807 overflows 64 bits"),
    ("10 ^ 1000000000000", "1:1: 10 overflows 64 bits"),
    ("1e999", "1:1: 1e999 is out of the range of numbers"),
    ("-true", "1:2: true should be number, got bool"),
    ("!null", "1:2: null should be bool, got null"),
    ("null + 1", "1:1: null should be one of [number string] for binop +, got null"),
    ("[1] + [2]", "1:1: [1] should be one of [number string] for binop +, got array"),
    ('"a" * 2', '1:1: "a" should be one of [number] for binop *, got string'),
    ("true && 1", "1:9: 1 should be one of [bool] for binop &&, got number"),
    ("false && 1", "1:10: 1 should be one of [bool] for binop &&, got number"),
    ("1 + 2 + true", "1:9: true should be one of [number string] for binop +, got bool"),
    ('1 + 2 + "a"', '1:9: "a" should be number, got string'),
    ('"a" < 1', "1:7: 1 should be string, got number"),
    ("obj.a.b", '1:1: obj.a cannot access field "b" on value of type number'),
    ('"a"[0]', '1:1: "a" expected object or array, got string'),
    ("obj.b[-1]", "1:7: -1 index -1 is out of range of array with length 2"),
    ('obj.b["a"]', '1:7: "a" should be number, got string'),
    ("obj[1]", "1:5: 1 should be string, got number"),
    ("1(2)", "1:1: 1 should be function, got number"),
    ("join([[1], []], env)", "1:7: [1] should be string, got array"),
    ("join(obj.b[0], 1)", "1:6: obj.b[0] should be array, got number"),
    ("env(true)", "1:5: true should be string, got bool"),
    ('split("a")', "1:1: split expected 2 args, got 1"),
    ("format()", "1:1: format expected at least 1 args, got 0"),
    ("sec + sec", "1:1: sec should be one of [number string] for binop +, got capsule"),
    ("later + 1", "1:9: 1 should be string, got number"),
    (
        "later_secret + 1",
        "1:1: later_secret should be one of [number string] for binop +, got capsule",
    ),
    ("string.join", None),
    ("string.jion", '1:8: field "jion" does not exist'),
]


@pytest.mark.parametrize(("text", "expected"), FAULTS)
def test_faults_name_the_expression(text, expected):
    if expected is None:
        evaluate(text)
    else:
        assert fault(text) == expected


BOTH_NAMES = [
    ("env", "sys.env", '("HOME")', "/root"),
    ("env", "sys.env", '("NOT_SET")', ""),
    ("nonsensitive", "convert.nonsensitive", "(sec)", "hunter2"),
    ("nonsensitive", "convert.nonsensitive", "(osec)", "hunter2"),
    ("concat", "array.concat", "([1], [], [[2]])", [1, [2]]),
    ("concat", "array.concat", "()", []),
    ("json_decode", "encoding.from_json", '("[1, {}]")', [1.0, {}]),
    ("yaml_decode", "encoding.from_yaml", '("a: [1, 2.5, x, null, 2020-01-02]")',
     {"a": [1, 2.5, "x", None, "2020-01-02"]}),
    ("base64_decode", "encoding.from_base64", '("dGFuZ2VyaW5l")', "tangerine"),
    ("format", "string.format", '("%s %t %v", "a", true, [1, "b"])', "a true [1 b]"),
    ("join", "string.join", '(["a", 1.5, 2], "-")', "a-1.5-2"),
    ("replace", "string.replace", '("1 + 2 + 3", "+", "-")', "1 - 2 - 3"),
    ("split", "string.split", '("a,b", ",")', ["a", "b"]),
    ("split", "string.split", '("", ",")', [""]),
    ("split", "string.split", '("ab", "")', ["a", "b"]),
    ("to_lower", "string.to_lower", '("HeLLo")', "hello"),
    ("to_upper", "string.to_upper", '("HeLLo")', "HELLO"),
    ("trim", "string.trim", '("?!hello?!", "!?")', "hello"),
    ("trim", "string.trim", '(" x ", "")', " x "),
    ("trim_prefix", "string.trim_prefix", '("helloworld", "hello")', "world"),
    ("trim_suffix", "string.trim_suffix", '("helloworld", "world")', "hello"),
    ("trim_space", "string.trim_space", '(" \\n x\\t")', "x"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "arguments", "expected"), BOTH_NAMES)
def test_functions_have_both_names(old, new, arguments, expected):
    assert evaluate(old + arguments) == expected
    assert evaluate(new + arguments) == expected


FUNCTIONS = [
    ("coalesce(0, false, \"\", [], {}, null)", None),
    ("coalesce(sec, 1)", Secret("hunter2")),
    ("coalesce()", None),
    ('encoding.from_URLbase64("c3RyaW5nMTIzIT8kKiYoKSctPUB-")', "string123!?$*&()'-=@~"),
    ("encoding.to_base64(\"string123!?$*&()'-=@~\")", "c3RyaW5nMTIzIT8kKiYoKSctPUB+"),
    ("encoding.to_URLbase64(\"string123!?$*&()'-=@~\")", "c3RyaW5nMTIzIT8kKiYoKSctPUB-"),
    ("encoding.url_encode(\"string123!?$*&()'-=@~\")",
     "string123%21%3F%24%2A%26%28%29%27-%3D%40~"),
    ('encoding.url_decode("string123%21%3F%24%2A%26%28%29%27-%3D%40~")', "string123!?$*&()'-=@~"),
    ('encoding.to_json({ b = [1, null], a = "<é>" })', '{"a":"<é>","b":[1,null]}'),
    ('file.path_join("/etc", "", "a/../b", "c")', "/etc/b/c"),
    ("file.path_join()", ""),
    ('array.combine_maps([{ i = 1, t = "A" }], [{ i = 1, c = "p" }, { i = 2 }], ["i"])',
     [{"i": 1, "t": "A", "c": "p"}]),
    ('array.combine_maps([{ i = 3 }], [{ i = 1 }], ["i"])', []),
    ('array.combine_maps([{ i = 3 }], [{ i = 1 }], ["i"], true)', [{"i": 3}]),
    ('array.group_by([{ t = "f", n = 1 }, { n = 2 }, { t = "f", n = 3 }], "t", false)',
     [{"t": "f", "items": [{"t": "f", "n": 1}, {"t": "f", "n": 3}]},
      {"t": "", "items": [{"n": 2}]}]),
    ('array.group_by([{ n = 2 }], "t", true)', []),
    ("constants.hostname", socket.gethostname()),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FUNCTIONS)
def test_functions(text, expected):
    assert evaluate(text) == expected


BAD_CALLS = [
    ('json_decode("{")', "json_decode: this is no JSON: Expecting property name"),
    ('json_decode("NaN")', "json_decode: this is no JSON"),
    ('yaml_decode("a: [")', "yaml_decode: this is no YAML that is understood here: "),
    ('yaml_decode("1: 2")', "keys must be strings"),
    ('yaml_decode("!!python/object:os.system {}")', "this is no YAML"),
    ('yaml_decode("&a [*a]")', "too many levels"),
    ('base64_decode("?")', '"?" is no base64'),
    ('encoding.url_decode("%zz")', '"%zz" is not percent-encoded'),
    ("encoding.to_json(1e308 * 10)", "holds what JSON cannot hold"),
    ('json_path("{}", "$[")', "is no JSONPath that is understood here"),
    ("concat([1], 2)", "2 should be array, got number"),
    ("array.combine_maps([], [], [])", "[] should name at least one key"),
    ('array.combine_maps([1], [], ["a"])', "1:21: 1 should be object"),
    ('array.group_by([{ t = 1 }], "t", true)', "1:23: 1 should be string"),
    ('format("%9999999d", 1)', "width or precision is more than"),
]


@pytest.mark.parametrize(("text", "expected"), BAD_CALLS)
def test_faults_of_functions(text, expected):
    assert expected in fault(text)


JSON = r'"{\"a\":[{\"b\":1,\"c\":\"x\"},{\"b\":2,\"c\":\"y\"}],\"d e\":{\"b\":3}}"'


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", 1), (".a[0].b", [1]), ("$.a[*].b", [1, 2]), (".a[-1].c", ["y"]), (".a[9]", []),
        (".a[0:1].b", [1]), (".a[::-1].b", [2, 1]), ("$..b", [1, 2, 3]), ("['d e'].b", [3]),
        (".a[0,1].b", [1, 2]), (".a[?(@.c == 'y')].b", [2]), (".a[?(@.b > 1)].c", ["y"]),
        (".a[?(@.z)]", []), (".nothing.at.all", []), (".*.b", [3]), (".a[?(@.c > 1)]", []),
    ],
)  # fmt: skip
def test_json_path(path, expected):
    found = evaluate(f'json_path({JSON}, "{path}")')
    assert (len(found) if path == "$" else found) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('"%d", "a"', "%!d(string=a)"),
        ('"%d"', "%!d(MISSING)"),
        ('"x", 1', "x%!(EXTRA int=1)"),
        ('"%d %d", 1', "1 %!d(MISSING)"),
        ('"%[2]d %[1]d", 1, 2', "2 1"),
        ('"%[3]d", 1', "%!d(BADINDEX)"),
        ('"100%%"', "100%"),
        ('"%"', "%!(NOVERB)"),
        ('"%5d|%-5d|%05d|%+d", 42, 42, -42, 42', "   42|42   |-0042|+42"),
        ('"%x %X %o %b %#x", 255, 255, 8, 5, 255', "ff FF 10 101 0xff"),
        ('"%x", "hi"', "6869"),
        ('"%q %v", "a\\"b", "a"', '"a\\"b" a'),
        ('"%5.1f|%.0f|%e", 3.14159, 2.5, 1234.5', "  3.1|2|1.234500e+03"),
        ('"%g %v %v", 1e21, 100000.0, 1e-7', "1e+21 100000 1e-07"),
        ('"%v %v", null, true', "<nil> true"),
        ('"%v", { b = 1, a = [true] }', "map[a:[true] b:1]"),
        ('"%s", 1.5', "%!s(float64=1.5)"),
        ('"%*d", 5, 42', "   42"),
        ('"%.2s", "abc"', "ab"),
        ('"%c%U", 233, 233', "éU+00E9"),
        ('"%t", 1', "%!t(int=1)"),
        ('"%T", [1]', "[]interface {}"),
    ],
)
def test_format(arguments, expected):
    assert evaluate(f"format({arguments})") == expected


@pytest.mark.parametrize("name", ["sec", "osec", "later_secret", "[sec]", "{ a = [osec] }"])
@pytest.mark.parametrize("function", ['format("%v", {})', "encoding.to_json({})"])
def test_no_function_makes_text_of_a_secret(function, name):
    said = fault(function.replace("{}", name))
    assert "is a secret, which" in said
    assert "hunter2" not in said


def test_secrets_are_not_shown():
    for name in ("sec", "osec"):
        assert repr(evaluate(name)) == "(secret)"
        assert "hunter2" not in f"{evaluate(f'[{name}, 1]')}"
    with pytest.raises(RiverError, match="got capsule"):
        evaluate("join([sec], 1)")


def test_what_is_known_only_later_stays_unknown():
    assert evaluate('later + "/x"') == Unknown("string")
    assert evaluate("json_decode(later).a[0]") == Unknown()
    assert evaluate("later == 1") == Unknown("bool")
    assert evaluate("-anything") == Unknown("number")
    assert evaluate("anything(1)[anything].b") == Unknown()
    assert evaluate("[later][0]") == Unknown("string")


def test_floats_are_text_without_an_exponent():
    texts = {
        "1e21": "1" + "0" * 21,
        "1.5e-7": "0.00000015",
        "-2.50": "-2.5",
        "1e300 * 1e300": "+Inf",
    }
    for number, text in texts.items():
        assert evaluate(f"to_upper({number})") == text.upper()
    assert math.isnan(evaluate("(-8.0) ^ 0.5"))
