"""CEL expressions with the results the language's and Kubernetes' libraries' definitions give."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cel import (
    AUTHORIZER,
    BOOL,
    DYN,
    INT,
    RESOURCE_CHECK,
    STRING,
    AccessAnswer,
    AccessCheck,
    Bindings,
    CelCompileError,
    CelError,
    CelRuntimeError,
    compile_expression,
    declared,
    list_of,
    map_of,
    object_of,
    to_cel,
)
from controlplane.cel.authorization import authorizer, resource_check

OBJECT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", "example.com/tier": "front"}},
    "spec": {
        "replicas": 5,
        "ratio": 1.5,
        "paused": False,
        "nothing": None,
        "containers": [
            {"name": "a", "image": "registry.example.com/a:1", "ports": [80, 443]},
            {"name": "b", "image": "docker.io/b", "ports": []},
        ],
    },
}
SELF = object_of(
    "self",
    {
        "count": INT,
        "names": list_of(STRING),
        "limits": map_of(STRING, INT),
        "__namespace__": STRING,
        "child": object_of("self.child", {"when": STRING}),
    },
)
VARIABLES = {"object": DYN, "oldObject": DYN, "numbers": list_of(INT), "name": STRING, "self": SELF}
VALUES: dict[str, Any] = {
    "object": OBJECT,
    "oldObject": None,
    "numbers": [3, 1, 2],
    "name": "web-1",
    "self": {"count": 2, "names": ["x", "y"], "limits": {"cpu": 4}, "__namespace__": "ns"},
}

GOOD: list[tuple[str, Any]] = [
    # Numbers.
    ("1 + 2 * 3", 7),
    ("(1 + 2) * 3", 9),
    ("7 / 2", 3),
    ("-7 / 2", -3),
    ("-7 % 3", -1),
    ("7.0 / 2.0", 3.5),
    ("1.0 / 0.0", math.inf),
    ("2u + 3u", 5),
    ("0x1F", 31),
    ("1 < 2", True),
    ("dyn(1) == 1.0", True),
    ("dyn(1u) == 1", True),
    ("dyn(1) < 1.5", True),
    ("int(3.9)", 3),
    ("int('42')", 42),
    ("double(3) / 2.0", 1.5),
    ("uint(3) == 3u", True),
    ("string(12)", "12"),
    ("-(-3)", 3),
    ("1e3 == 1000.0", True),
    # Logic.
    ("true && !false", True),
    ("false || true", True),
    ("1 > 2 ? 'a' : 'b'", "b"),
    ("true || object.missing", True),
    ("object.missing == 1 || true", True),
    ("false && object.missing == 1", False),
    ("object.missing == 1 && false", False),
    # Texts.
    ("'a' + 'b'", "ab"),
    ('"it\'s"', "it's"),
    (r"r'\d'", r"\d"),
    ("'abc'.contains('b')", True),
    ("'abc'.startsWith('ab') && 'abc'.endsWith('bc')", True),
    ("'abc'.matches('^a.c$')", True),
    ("'abc'.matches('b')", True),
    ("matches('abc', 'x')", False),
    ("size('größe')", 5),
    ("'größe'.size()", 5),
    ("'abc'.charAt(1)", "b"),
    ("'abc'.charAt(3)", ""),
    ("'tacocat'.indexOf('ac')", 1),
    ("'tacocat'.indexOf('a', 2)", 5),
    ("'tacocat'.indexOf('z')", -1),
    ("'tacocat'.indexOf('')", 0),
    ("'tacocat'.lastIndexOf('at')", 5),
    ("'tacocat'.lastIndexOf('a', 4)", 1),
    ("['a', 'b'].join()", "ab"),
    ("['a', 'b'].join('-')", "a-b"),
    ("'TacoCat'.lowerAscii()", "tacocat"),
    ("'TacoCÆt Xii'.lowerAscii()", "tacocÆt xii"),
    ("'TacoCat'.upperAscii()", "TACOCAT"),
    ("'hello hello'.replace('he', 'we')", "wello wello"),
    ("'hello hello'.replace('he', 'we', 1)", "wello hello"),
    ("'hello hello'.replace('he', 'we', 0)", "hello hello"),
    ("'ab'.replace('', '_')", "_a_b_"),
    ("'a,b,c'.split(',')", ["a", "b", "c"]),
    ("'a,b,c'.split(',', 2)", ["a", "b,c"]),
    ("'a,b,c'.split(',', 0)", []),
    ("'abc'.split('')", ["a", "b", "c"]),
    ("'tacocat'.substring(4)", "cat"),
    ("'tacocat'.substring(0, 4)", "taco"),
    ("'  \\ttrim\\n  '.trim()", "trim"),
    ("strings.quote('a\"b')", '"a\\"b"'),
    ("'%s has %d'.format(['web', dyn(3)])", "web has 3"),
    ("'%.2f%%'.format([1.5])", "1.50%"),
    ("'%x %b'.format([255, 5])", "ff 101"),
    ("name + '!'", "web-1!"),
    # Lists and maps.
    ("[1, 2, 3].size()", 3),
    ("size([])", 0),
    ("2 in [1, 2]", True),
    ("'a' in {'a': 1}", True),
    ("[1] + [2]", [1, 2]),
    ("[1, 2][1]", 2),
    ("{'a': 1}['a']", 1),
    ("{'a': 1}.a", 1),
    ("{'a': [1]} == {'a': [1]}", True),
    ("dyn([1, 2]) == [1.0, 2.0].map(x, x)", True),
    ("numbers.all(n, n > 0)", True),
    ("numbers.exists(n, n == 2)", True),
    ("numbers.exists_one(n, n > 1)", False),
    ("numbers.map(n, n * n)", [9, 1, 4]),
    ("numbers.map(n, n > 1, n * n)", [9, 4]),
    ("numbers.filter(n, n > 1)", [3, 2]),
    ("{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])", True),
    ("{'a': 1, 'b': 2}.exists(k, {'a': 1, 'b': 2}[k] == 2)", True),
    ("[].all(x, false)", True),
    ("[].exists(x, true)", False),
    ("[[1, 2], [3]].all(l, l.all(x, x < 4))", True),
    ("numbers.isSorted()", False),
    ("[1, 2, 3].isSorted()", True),
    ("['a', 'b', 'b'].isSorted()", True),
    ("[1, 3].sum()", 4),
    ("[1.0, 3.5].sum()", 4.5),
    ("[duration('1m'), duration('1s')].sum()", timedelta(seconds=61)),
    ("numbers.max()", 3),
    ("numbers.min()", 1),
    ("['b', 'c', 'a'].max()", "c"),
    ("[timestamp('2024-01-01T00:00:00Z'), timestamp('2023-01-01T00:00:00Z')].min().getFullYear()", 2023),
    ("[1, 2, 2, 3].indexOf(2)", 1),
    ("[1, 2, 2, 3].lastIndexOf(2)", 2),
    ("['a'].indexOf('z')", -1),
    ("sets.contains([1, 2, 3], [2, 3])", True),
    ("sets.contains([1], [2])", False),
    ("sets.contains([1], [])", True),
    ("sets.equivalent([1, 2], [2, 1, 1])", True),
    ("sets.intersects([1, 2], [2, 5])", True),
    ("sets.intersects([1], [])", False),
    # Objects.
    ("object.spec.replicas > 3", True),
    ("object.metadata.namespace", "shop"),
    ("object.metadata.labels['example.com/tier']", "front"),
    ("has(object.spec.replicas)", True),
    ("has(object.spec.absent)", False),
    ("has(object.spec.nothing)", True),
    ("object.spec.nothing == null", True),
    ("oldObject == null", True),
    ("object.spec.ratio * 2.0", 3.0),
    ("object.spec.paused ? 1 : 2", 2),
    ("object.spec.containers.all(c, c.image.startsWith('registry.example.com/'))", False),
    ("object.spec.containers.filter(c, size(c.ports) > 0).map(c, c.name)", ["a"]),
    ("object.spec.containers.exists(c, 443 in c.ports)", True),
    ("object.metadata.labels.exists(k, k == 'app')", True),
    ("!('tier' in object.metadata.labels)", True),
    ("self.count + self.limits['cpu']", 6),
    ("self.limits.cpu", 4),
    ("self.names.exists(n, n == 'y')", True),
    ("self.__namespace__", "ns"),
    ("has(self.child)", False),
    ("has(self.child) && self.child.when == ''", False),
    # Optional values.
    ("object.spec.?absent.orValue(7)", 7),
    ("object.?spec.?replicas.orValue(7)", 5),
    ("object.spec.?absent.hasValue()", False),
    ("object.metadata.labels[?'app'].orValue('none')", "web"),
    ("object.metadata.labels[?'zone'].orValue('none')", "none"),
    ("[1, 2][?5].orValue(0)", 0),
    ("optional.of(3).value()", 3),
    ("optional.none().orValue(1)", 1),
    ("optional.ofNonZeroValue('').hasValue()", False),
    ("optional.none().or(optional.of(2)).value()", 2),
    ("optional.of(2).optMap(x, x * 2).value()", 4),
    ("[?object.spec.?absent, ?optional.of(1)]", [1]),
    ("{?'a': object.spec.?absent}.size()", 0),
    ("self.?child.?when.orValue('never')", "never"),
    # Bytes, times, types.
    ("b'abc'", b"abc"),
    ("bytes('ä').size()", 2),
    ("string(b'abc')", "abc"),
    ("duration('1h30m')", timedelta(minutes=90)),
    ("duration('90s').getMinutes()", 1),
    ("timestamp('2024-02-29T12:00:00Z')", datetime(2024, 2, 29, 12, tzinfo=UTC)),
    ("timestamp('2024-02-29T12:00:00Z') + duration('24h') == timestamp('2024-03-01T12:00:00Z')", True),
    ("timestamp('2024-01-01T00:00:00Z') - timestamp('2023-12-31T00:00:00Z') == duration('24h')", True),
    ("timestamp('2024-01-01T00:00:00Z').getMonth()", 0),
    ("timestamp('2024-01-01T23:30:00Z').getDayOfMonth('Europe/Berlin')", 1),
    ("timestamp('2024-01-01T23:30:00Z').getDate('+02:00')", 2),
    ("string(timestamp('2024-01-01T00:00:00Z'))", "2024-01-01T00:00:00Z"),
    ("string(duration('90s'))", "90s"),
    ("type(1) == int", True),
    ("type('a') == string", True),
    ("type(object.spec.containers) == list", True),
    # Regular expressions and URLs.
    ("'abc 123'.find('[0-9]+')", "123"),
    ("'abc'.find('[0-9]+')", ""),
    ("'1 22 333'.findAll('[0-9]+')", ["1", "22", "333"]),
    ("'1 22 333'.findAll('[0-9]+', 2)", ["1", "22"]),
    ("'abc'.findAll('[0-9]+')", []),
    ("isURL('https://example.com:80/path')", True),
    ("isURL('../relative')", False),
    ("isURL('')", False),
    ("url('https://user@example.com:8080/a b?x=1').getHost()", "example.com:8080"),
    ("url('https://example.com:8080/').getHostname()", "example.com"),
    ("url('https://[::1]:8080/').getHostname()", "::1"),
    ("url('https://example.com:8080/').getPort()", "8080"),
    ("url('https://example.com').getPort()", ""),
    ("url('HTTPS://example.com').getScheme()", "https"),
    ("url('https://example.com/a b').getEscapedPath()", "/a%20b"),
    ("url('/path?k=a&k=b').getQuery()['k']", ["a", "b"]),
    ("url('/path').getQuery()", {}),
    # Addresses.
    ("isIP('127.0.0.1')", True),
    ("isIP('::ffff:1.2.3.4')", False),
    ("isIP('fe80::1%eth0')", False),
    ("isIP('127.0.0.256')", False),
    ("ip('::1').family()", 6),
    ("ip('127.0.0.1').isLoopback()", True),
    ("ip('0.0.0.0').isUnspecified()", True),
    ("ip('224.0.0.1').isLinkLocalMulticast()", True),
    ("ip('169.254.1.1').isLinkLocalUnicast()", True),
    ("ip('255.255.255.255').isGlobalUnicast()", False),
    ("ip('10.0.0.1').isGlobalUnicast()", True),
    ("ip.isCanonical('2001:db8::abcd')", True),
    ("ip.isCanonical('2001:DB8::ABCD')", False),
    ("ip('2001:DB8::1') == ip('2001:db8::1')", True),
    ("cidr('192.168.0.0/24').containsIP(ip('192.168.0.1'))", True),
    ("cidr('192.168.0.0/24').containsIP('192.168.1.1')", False),
    ("cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24')", True),
    ("cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/16'))", False),
    ("cidr('192.168.1.5/24').masked() == cidr('192.168.1.0/24')", True),
    ("cidr('192.168.1.5/24').ip() == ip('192.168.1.5')", True),
    ("cidr('::/64').prefixLength()", 64),
    ("isCIDR('192.168.0.0/33')", False),
    # Quantities.
    ("isQuantity('1.5Gi')", True),
    ("isQuantity('Three')", False),
    ("quantity('1') == quantity('1000m')", True),
    ("quantity('50k').add(quantity('20k')) == quantity('70k')", True),
    ("quantity('50k').sub(20000).asInteger()", 30000),
    ("quantity('1.5').isInteger()", False),
    ("quantity('50M').isGreaterThan(quantity('50Mi'))", False),
    ("quantity('1Gi').isLessThan(quantity('2G'))", True),
    ("quantity('200M').compareTo(quantity('0.2G'))", 0),
    ("quantity('-1').sign()", -1),
    ("quantity('1500m').asApproximateFloat()", 1.5),
    # Named formats.
    ("format.dns1123Label().validate('web').hasValue()", False),
    ("format.dns1123Label().validate('Web').hasValue()", True),
    ("format.dns1123Subdomain().validate('a.b').orValue(['x'])", ["x"]),
    ("format.named('labelValue').hasValue()", True),
    ("format.named('unknown').hasValue()", False),
    ("format.date().validate('2024-02-31x').value()", ["invalid date"]),
    ("format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()", False),
    ("format.dns1123LabelPrefix().validate('web-').hasValue()", False),
]  # fmt: skip

RUNTIME_FAULTS = [
    ("object.missing", "no such key: missing"),
    ("object.spec.missing.deep", "no such key: missing"),
    ("numbers[7]", "index out of bounds: 7"),
    ("1 / 0", "division by zero"),
    ("1 % 0", "modulus by zero"),
    ("9223372036854775807 + 1", "integer overflow"),
    ("object.metadata.name + 1", "no such overload"),
    ("object.metadata.name.deep", "no such overload"),
    ("int('x')", "type conversion error from 'string' to 'int'"),
    ("'abc'.charAt(9)", "index out of range: 9"),
    ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
    ("[].map(x, 1).max()", "max called on empty list"),
    ("optional.none().value()", "optional.none() dereference"),
    ("quantity('x')", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
    ("quantity('1.5').asInteger()", "cannot convert value to integer"),
    ("'a'.find(name + '(')", "Illegal regex: error parsing regexp: missing ): web-1(: `web-1(`"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), GOOD, ids=[text for text, _ in GOOD])
def test_result(text: str, expected: Any) -> None:
    result = compile_expression(text, VARIABLES, None).evaluate(VALUES)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(("text", "expected"), RUNTIME_FAULTS, ids=[text for text, _ in RUNTIME_FAULTS])
def test_runtime_fault(text: str, expected: str) -> None:
    with pytest.raises(CelRuntimeError) as caught:
        compile_expression(text, VARIABLES, None).evaluate(VALUES)
    assert str(caught.value) == expected


COMPILE_FAULTS = [
    ("1 == nosuch.x.y", "1:6: undeclared reference to 'nosuch' (in container '')\n | 1 == nosuch.x.y\n | .....^"),
    ("y + 1", "1:1: undeclared reference to 'y' (in container '')\n | y + 1\n | ^"),
    ("self.other == 1", "1:5: undefined field 'other'\n | self.other == 1\n | ....^"),
    ("has(self.child.other)", "1:4: undefined field 'other'"),
    ("self.count == 'a'", "1:12: no matching overload for '_==_' applied to '(int, string)'"),
    ("1 == 1.0", "1:3: no matching overload for '_==_' applied to '(int, double)'"),
    ("self.count.deep", "1:11: type 'int' does not support field selection"),
    ("object.", "1:8: Syntax error: no viable alternative at input '.'"),
    ("name.foo()", "1:9: undeclared reference to 'foo' (in container '')"),
    ("quantity(1)", "1:9: no matching overload for 'quantity' applied to '(int)'"),
    ("ip('::1') == cidr('::1/64')", "1:11: no matching overload for '_==_' applied to '(net.IP, net.CIDR)'"),
    ("[ip('::1')].sum()", "1:16: no matching overload for 'sum' applied to '(list(net.IP))'"),
    ("[1, 'a'].size() == 1", "1:5: expected type 'int' but found 'string'"),
    ("name.matches('(')", "1:14: invalid matches argument"),
    ("self.count", "must evaluate to bool"),
    ("object.spec.paused", "must evaluate to bool"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), COMPILE_FAULTS, ids=[text for text, _ in COMPILE_FAULTS])
def test_compile_fault(text: str, expected: str) -> None:
    with pytest.raises(CelCompileError) as caught:
        compile_expression(text, VARIABLES)
    message = (
        str(caught.value).removeprefix("compilation failed: ERROR: <input>:").replace("found no ", "no ")
    )
    assert message.startswith(expected)


def test_result_types_are_named() -> None:
    with pytest.raises(CelCompileError, match=r"^must evaluate to one of \[string bool\]$"):
        compile_expression("1", {}, (STRING, BOOL))
    assert str(compile_expression("{'a': [1]}", {}, None).result) == "map(string, list(int))"


@pytest.mark.parametrize(
    "text",
    [
        "numbers.all(a, numbers.all(b, numbers.all(c, true)))",
        "numbers.map(a, numbers.map(b, a + b)).size() > 0",
    ],
)
def test_loops_end(text: str) -> None:
    program = compile_expression(text, VARIABLES)
    with pytest.raises(CelRuntimeError, match="actual cost limit exceeded"):
        program.evaluate({"numbers": list(range(2000))})


def test_no_value_explodes() -> None:
    bomb = "['x']" + ".map(a, a + a + a + a + a + a + a + a)" * 10
    with pytest.raises(CelCompileError, match="exceeds budget"):
        compile_expression(f"{bomb}.size() > 0", {})


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(CelCompileError, match="recursion limit exceeded"):
        compile_expression("[" * 200 + "1" + "]" * 200, {}, None)
    with pytest.raises(CelCompileError, match="recursion limit exceeded"):
        compile_expression("(" * 500 + "true" + ")" * 500, {})


def test_values_out_of_range_fail_softly() -> None:
    with pytest.raises(CelRuntimeError):
        compile_expression("object.x == 1", {"object": DYN}).evaluate({"object": {"x": 2**80}})
    with pytest.raises(CelRuntimeError):
        compile_expression("object.x == 'a'", {"object": DYN}).evaluate({"object": {"x": "\ud800"}})


_PIECES = st.sampled_from(
    [
        "object", "self", "self.count", "1", "'a'", "[1, 2]", "{'a': 1}", "null", "1.5", "b'x'", "quantity('1')",
        "ip('::1')", "optional.of(1)", "timestamp('2024-01-01T00:00:00Z')", "format.uri()", "\ud800", "\0", "ä",
        "+", "-", "/", "==", "<", "&&", " in ", " ? ", " : ", ".", ".?", "[", "(", ")", "]", ".all(x, ", ".sum()",
        ".charAt(5)", ".validate('x')", ".orValue(2)", ".map(x, x)", ".find('(')", ".format([1])", ".max()",
    ]
)  # fmt: skip


@given(st.lists(_PIECES, min_size=1, max_size=8), st.sampled_from([1, "x", None, [1], {"b": 2}, 2**70, 1.5]))
def test_nonsense_ends_with_a_cel_error_or_a_value(pieces: list[str], value: Any) -> None:
    try:
        program = compile_expression("".join(pieces), VARIABLES, None)
        program.evaluate({"object": {"a": value}, "self": {"count": 1}})
    except CelError:
        return


def test_authorizer_asks() -> None:
    asked: list[AccessCheck] = []

    def answer(check: AccessCheck) -> AccessAnswer:
        asked.append(check)
        return AccessAnswer(check.verb == "get", "because")

    program = compile_expression(
        "authorizer.group('apps').resource('deployments').subresource('scale').namespace('shop').name('web')"
        ".labelSelector('a=b').check('get').allowed()"
        " && authorizer.path('/healthz').check('post').reason() == 'because'"
        " && !authorizer.requestResource.check('delete').allowed()"
        " && !authorizer.serviceAccount('ns', 'sa').group('').resource('pods').check('get').errored()",
        {"authorizer": AUTHORIZER, "authorizer.requestResource": RESOURCE_CHECK},
    )
    values = {
        "authorizer": authorizer(),
        "authorizer.requestResource": resource_check("", "pods", "", "shop", "web-0"),
    }
    assert program.evaluate(values, answer) is True
    assert asked == [
        AccessCheck("get", "", "apps", "deployments", "scale", "shop", "web", "", "a=b"),
        AccessCheck("post", "/healthz"),
        AccessCheck("delete", "", "", "pods", "", "shop", "web-0"),
        AccessCheck("get", "", "", "pods", service_account="system:serviceaccount:ns:sa"),
    ]


def test_authorizer_without_answers_fails() -> None:
    program = compile_expression("authorizer.path('/x').check('get').allowed()", {"authorizer": AUTHORIZER})
    with pytest.raises(CelRuntimeError, match="authorizer is not available"):
        program.evaluate({"authorizer": authorizer()})


def test_bindings_serve_several_programs() -> None:
    bindings = Bindings(VALUES)
    texts = ("object.spec.replicas == 5", "numbers.size() == 3", "name == 'web-1'")
    assert all(compile_expression(text, VARIABLES).evaluate(bindings) for text in texts)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "in": {"type": "string"},
        "a-b": {"type": "integer"},
        "x.y/z": {"type": "number"},
        "__u": {"type": "boolean"},
        "1st": {"type": "string"},
        "when": {"type": "string", "format": "date-time"},
        "every": {"type": "string", "format": "duration"},
        "raw": {"type": "string", "format": "byte"},
        "port": {"x-kubernetes-int-or-string": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "ratios": {"type": "object", "additionalProperties": {"type": "number"}},
        "rows": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    },
}


@pytest.mark.parametrize(
    "text",
    [
        "self.__in__ == 'x'",
        "self.a__dash__b == 3",
        "self.x__dot__y__slash__z < 2.5",
        "self.__underscores__u",
        "self.when < timestamp('2025-01-01T00:00:00Z')",
        "self.every > duration('1m')",
        "self.raw == b'hello'",
        "self.port == 80",
        "self.free.any.thing == 1",
        "self.ratios.all(k, self.ratios[k] < 2.0)",
        "self.rows[0][1] == 2",
    ],
)
def test_schema_types(text: str) -> None:
    kind = declared(SCHEMA, "self")
    assert kind is not None
    value = {
        "in": "x", "a-b": 3, "x.y/z": 2, "__u": True, "1st": "?", "when": "2024-01-01T00:00:00Z", "every": "1m1s",
        "raw": "aGVsbG8=", "port": 80, "free": {"any": {"thing": 1}}, "ratios": {"a": 1}, "rows": [[1, 2]],
    }  # fmt: skip
    assert compile_expression(text, {"self": kind}).evaluate({"self": to_cel(value, kind)}) is True


def test_resources_show_their_name_only() -> None:
    kind = declared({"type": "object", "properties": {"spec": {"type": "object"}}}, "self", root=True)
    assert kind is not None
    compile_expression("self.metadata.name == 'a' && self.kind == 'B'", {"self": kind})
    with pytest.raises(CelCompileError, match="undefined field 'labels'"):
        compile_expression("self.metadata.labels == {}", {"self": kind})


def test_names_of_any_spelling_can_be_fields() -> None:
    """Object types become protobuf messages, which have opinions about names."""
    numbers = map_of(STRING, INT)
    names = [
        "matchLabels",
        "match_labels",
        "MatchLabels",
        "_x",
        "__",
        "a__b",
        "A",
        "a",
        "fooBar",
        "foo_bar",
        "x1y",
    ]
    kind = object_of("self", dict.fromkeys(names, numbers))
    for name in names:
        program = compile_expression(f"self.{name}.all(k, self.{name}[k] > 0)", {"self": kind})
        assert program.evaluate({"self": {name: {"k": 1}}}) is True
    scalars = object_of("self", dict.fromkeys(names, INT))
    for name in names:
        assert (
            compile_expression(f"self.{name} == 1", {"self": scalars}).evaluate({"self": {name: 1}}) is True
        )
        with pytest.raises(CelCompileError):
            compile_expression(f"self.{name} == 'x'", {"self": scalars})
