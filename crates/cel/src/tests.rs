use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

const SCHEMA: &str = r#"{"type": "object", "properties": {
    "name": {"type": "string"}, "replicas": {"type": "integer"}, "ratio": {"type": "number"},
    "on": {"type": "string", "format": "date-time"}, "every": {"type": "string", "format": "duration"},
    "dash-ed": {"type": "string"}, "namespace": {"type": "string"},
    "port": {"x-kubernetes-int-or-string": true},
    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}}}}"#;

fn object() -> Json {
    json!({"name": "a", "replicas": 3, "ratio": 2, "on": "2026-01-02T03:04:05Z", "every": "90s", "dash-ed": "d",
        "namespace": "ns", "port": "http", "tags": ["x", "y"], "parts": [{"name": "p", "n": 1}, {"name": "q", "n": 2}],
        "labels": {"app": "web", "tier": "front"}})
}

/// The result for `self` of the schema and `free` without one, or what is wrong.
fn run(text: &str) -> Result<Json, String> {
    let (schema, object): (Json, Json) = (serde_json::from_str(SCHEMA).unwrap(), object());
    let environment =
        Environment::default().with("self", Type::of_schema(&schema)).with("free", Type::Dyn).with_messages();
    let (program, _) = Program::compile(&environment, text).map_err(|error| error.to_string())?;
    let variables =
        [("self", Value::of_json(&object, Some(&schema))), ("free", Value::of_json(&object, None))];
    let value = program.evaluate(&variables, &mut Budget::default()).map_err(|error| error.to_string())?;
    value.to_json().map_err(|error| error.to_string())
}

#[test]
fn expressions_have_results() {
    for (text, expected) in [
        ("1 + 2 * 3 - 4 / 2 % 3", json!(5)),
        ("-5 / 2", json!(-2)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("1 < 2 && !(2 <= 1) || false", json!(true)),
        ("dyn(1) == 1.0 && dyn(1u) == 1 && 1 < 1.5 && 2u > 1", json!(true)),
        ("'a' + \"b\" + r'\\n' + '''c''' + '\\u00e9\\n'", json!("ab\\nc\u{e9}\n")),
        ("b'\\xff' == b'\\377'", json!(true)),
        ("0x1F + 1", json!(32)),
        ("true ? 'yes' : 'no'", json!("yes")),
        ("[1, 2] + [3] == [1, 2, 3]", json!(true)),
        ("2 in [1, 2] && 'app' in self.labels && !('x' in self.labels)", json!(true)),
        ("{'a': 1, 'b': 2}['b']", json!(2)),
        ("self.replicas > 2 && self.ratio == 2.0 && self.name.startsWith('a')", json!(true)),
        ("self.dash__dash__ed + self.__namespace__", json!("dns")),
        ("self.port == 'http' && type(self.port) == string", json!(true)),
        ("has(self.name) && !has(free.nothing)", json!(true)),
        ("self.on.getFullYear() == 2026 && self.on.getMonth() == 0 && self.on.getDate() == 2", json!(true)),
        ("self.on.getHours('-03:00')", json!(0)),
        ("self.every > duration('1m') && self.every + duration('30s') == duration('2m')", json!(true)),
        ("self.on + self.every > timestamp('2026-01-02T03:05:00Z')", json!(true)),
        ("string(self.on - timestamp('2026-01-02T03:00:00Z'))", json!("245s")),
        ("self.tags == ['y', 'x'] && self.tags + ['y', 'z'] == ['x', 'y', 'z']", json!(true)),
        ("self.parts.all(p, p.n > 0) && self.parts.exists(p, p.name == 'q')", json!(true)),
        ("self.parts.exists_one(p, p.n == 2)", json!(true)),
        ("self.parts.map(p, p.n)", json!([1, 2])),
        ("self.parts.map(p, p.n > 1, p.name)", json!(["q"])),
        ("self.parts.filter(p, p.n > 1).size()", json!(1)),
        ("self.labels.all(k, k in ['app', 'tier'])", json!(true)),
        ("self.labels.all(k, v, k != v) && [1, 2].exists(i, v, i == 1 && v == 2)", json!(true)),
        ("self.labels.transformMap(k, v, v + '!')", json!({"app": "web!", "tier": "front!"})),
        ("self.labels.transformMapEntry(k, v, {v: k})", json!({"web": "app", "front": "tier"})),
        ("[1, 2, 3].transformList(i, v, i > 0, v * 10)", json!([20, 30])),
        ("free.?nothing.orValue('none') + free.?name.orValue('none')", json!("nonea")),
        ("free[?'nothing'].hasValue() || self.labels[?'app'] == optional.of('web')", json!(true)),
        ("free.?nothing.?more.optMap(x, x + 1).orValue(7)", json!(7)),
        ("optional.of(2).optMap(x, x + 1).value() + optional.none().or(optional.of(1)).value()", json!(4)),
        ("{'a': 1, ?'b': optional.none(), ?'c': optional.of(3)}", json!({"a": 1, "c": 3})),
        ("[?optional.none(), ?optional.of(1)]", json!([1])),
        ("'a,b,c'.split(',')", json!(["a", "b", "c"])),
        ("'a,b,c'.split(',', 2)", json!(["a", "b,c"])),
        ("'ab'.split('')", json!(["a", "b"])),
        ("['a', 'b'].join('-') + 'xyx'.replace('x', 'z', 1) + 'abc'.substring(1, 2)", json!("a-bzyxb")),
        ("'tacocat'.lastIndexOf('a') + 'h\u{e9}llo'.indexOf('l') + 'abc'.indexOf('z')", json!(6)),
        ("' x '.trim().upperAscii() + 'Q'.lowerAscii() + 'abc'.charAt(1)", json!("Xqb")),
        ("optional.unwrap([free.?name, free.?nothing]) + [optional.of('x')].unwrapOpt()", json!(["a", "x"])),
        (
            "'%s is %d of %.2f, %s and %x'.format(['a', 2, 1.5, [dyn(1), 'b'], 255])",
            json!("a is 2 of 1.50, [1, \"b\"] and ff"),
        ),
        ("strings.quote('a\"b')", json!("\"a\\\"b\"")),
        ("'abc123'.matches('^[a-z]+[0-9]+$') && 'abc 123'.find('[0-9]+') == '123'", json!(true)),
        ("'a1b22'.findAll('[0-9]+')", json!(["1", "22"])),
        ("[1, 2, 3].sum() + [3, 1].min() + [3, 1].max() + [1, 2, 1].lastIndexOf(1)", json!(12)),
        ("[1, 2, 2].isSorted() && [3, 1, 2].sort() == [1, 2, 3] && [1, 1].distinct() == [1]", json!(true)),
        ("['bb', 'a'].sortBy(x, x.size())", json!(["a", "bb"])),
        ("[[1], [2, 3]].flatten()", json!([1, 2, 3])),
        ("lists.range(3).slice(1, 3)", json!([1, 2])),
        (
            "sets.contains([1, 2], [2]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])",
            json!(true),
        ),
        ("quantity('1.5Gi').add(quantity('512Mi')).compareTo(quantity('2Gi'))", json!(0)),
        ("quantity('50k').asInteger() + sign(quantity('1').sub(2))", json!(49_999)),
        ("isQuantity('x') || quantity('200m').isLessThan(quantity('1'))", json!(true)),
        ("ip('192.168.0.1').family() == 4 && isIP('::1') && !isIP('::ffff:1.2.3.4')", json!(true)),
        ("ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1')", json!(true)),
        ("cidr('192.168.0.0/24').containsIP('192.168.0.7') && !isCIDR('10.0.0.0/33')", json!(true)),
        (
            "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
            json!(true),
        ),
        ("url('https://user@example.com:80/a%20b?q=1&q=a+b').getHost()", json!("example.com:80")),
        (
            "url('https://[::1]:80/?q=1&q=a+b').getQuery()['q'] + [url('https://[::1]:80/').getHostname()]",
            json!(["1", "a b", "::1"]),
        ),
        ("isURL('https://a:b:c/') || isURL('../x')", json!(false)),
        (
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-alpha').isLessThan(semver('1.0.0'))",
            json!(true),
        ),
        ("isSemver('v1.0') || semver('v1.0', true).major() != 1", json!(false)),
        (
            "format.dns1123Label().validate('A').hasValue() && !format.named('uuid').value().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()",
            json!(true),
        ),
        ("jsonpatch.escapeKey('a/b~c')", json!("a~1b~0c")),
        (
            "'%s'.format([[1, 'a', true, 1.5, b'x', null, {'k': [duration('90s')]}]])",
            json!("[1, \"a\", true, 1.500000, b\"x\", null, {\"k\":[duration(\"90s\")]}]"),
        ),
        (
            "'%.2f|%.1f|%e|%s'.format([1234.5, 'NaN', -1.5, 1e21])",
            json!("1,234.50|NaN|-1.500000\u{d7}10\u{2070}\u{2070}|1e+21"),
        ),
        (
            "string(timestamp('2024-02-29T12:34:56.789+02:00') + duration('36h'))",
            json!("2024-03-02T00:34:56.789+02:00"),
        ),
        (
            "timestamp('2024-02-29T12:34:56+02:00').getHours() == 10 && timestamp(0).getHours('Europe/Berlin') == 1",
            json!(true),
        ),
        (
            "string(self.on - duration('1h')) + string(duration('-1.5s') + duration('1s'))",
            json!("2026-01-02T02:04:05Z-0.5s"),
        ),
        ("string(1.0 / 0.0) + string(100000.0) + string(1e-7)", json!("+Inf1000001e-07")),
        ("{'a': 1, 'a': 2}['a'] + [].sum() + {}[?'a'].orValue(3)", json!(5)),
        ("[].sum() == 1 || self.on == null || optional.of(1) == null || self == null", json!(false)),
        (
            "'abc'.indexOf('', 9) + 'abc'.indexOf('c', 9) + 'abcabc'.lastIndexOf('abc', 2) + 'abc'.lastIndexOf('')",
            json!(11),
        ),
        ("quantity('1000m').isInteger() || quantity('9999999999Ti').isInteger()", json!(false)),
        ("int('7') + int(7.9) + int(3u) + int(timestamp('1970-01-01T00:00:01Z'))", json!(18)),
        ("string(1.5) + string(true) + string(b'x')", json!("1.5truex")),
        ("double('1e3') == 1000.0 && bool('true') && uint(3) == 3u", json!(true)),
        (
            "type(1) == int && type([]) == list && type(null) == null_type && type(duration('1s')) == google.protobuf.Duration",
            json!(true),
        ),
        ("self.parts.map(p, p.name) == ['p', 'q'] ? size('h\u{e9}') : 0", json!(2)),
        // What decides, decides, whatever the other side's error is.
        ("free.nothing == 1 || true", json!(true)),
        ("[free, dyn({'name': 'z'})].exists(x, x.replicas == 3)", json!(true)),
        ("Object{spec: Object.spec{replicas: 3, ?none: optional.none()}}", json!({"spec": {"replicas": 3}})),
        ("[JSONPatch{op: 'add', path: '/a', value: 1}].size()", json!(1)),
        ("free.`dash-ed` // a comment", json!("d")),
    ] {
        assert_eq!(run(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_text_is_told_with_its_place() {
    for (text, expected) in [
        (
            "self.replicas > 'x'",
            "ERROR: <input>:1:15: found no matching overload for '_>_' applied to '(int, string)'\n | self.replicas > 'x'\n | ..............^",
        ),
        (
            "nothing == 1",
            "ERROR: <input>:1:1: undeclared reference to 'nothing' (in container '')\n | nothing == 1\n | ^",
        ),
        ("self.nothing == 1", "undefined field 'nothing'"),
        ("frob(1)", "ERROR: <input>:1:5: undeclared reference to 'frob' (in container '')"),
        ("self.name.frob()", "ERROR: <input>:1:15: undeclared reference to 'frob' (in container '')"),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        ("[dyn(1), 2]", "expected type 'dyn' but found 'int'"),
        ("self.name == null", "found no matching overload for '_==_' applied to '(string, null)'"),
        ("[1][0u]", "found no matching overload for '_[_]' applied to '(list(int), uint)'"),
        ("[1].flatten()", "found no matching overload for 'flatten' applied to 'list(int).()'"),
        ("['a'].sum()", "found no matching overload for 'sum' applied to 'list(string).()'"),
        ("[[1]].sortBy(x, x)", "found no matching overload for '@sortByAssociatedKeys'"),
        ("'%d'.format(['x'])", "decimal clause can only be used on integers, was given string"),
        ("'%s'.format([self])", "string clause can only be used on strings"),
        ("'%s and %s'.format(['a'])", "index 1 out of range"),
        ("'%q'.format(['a'])", "unrecognized formatting clause \"q\""),
        ("'no verb'.format([1])", "too many arguments supplied to string.format (expected 0, got 1)"),
        // What can never work is found when the expression is planned.
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("true || uint(-1) == 0u", "unsigned integer overflow"),
        ("self.name == '' ? int(1e300) : 0", "integer overflow"),
        ("string(b'\\xff')", "invalid UTF-8 in bytes, cannot convert to string"),
        ("self.name.find('(')", "missing closing ): `(`"),
        ("1 +", "Syntax error: mismatched input '<EOF>'"),
        ("'abc", "Syntax error"),
        ("1 2", "Syntax error"),
        ("self.name.matches('[')", "invalid matches argument"),
        ("duration('x') == duration('1s')", "invalid duration argument"),
        ("has(self)", "invalid argument to has() macro"),
        ("self.name.all(x, true)", "cannot be range of a comprehension"),
        ("let + 1", "reserved identifier: let"),
        ("Object{spec: Object.other{}}", "unexpected type name"),
        ("Pod{}", "ERROR: <input>:1:4: undeclared reference to 'Pod'"),
    ] {
        let error = run(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_fails_says_why() {
    for (text, expected) in [
        ("free.nothing", "no such key: nothing"),
        ("[1][5]", "index out of bounds: 5"),
        ("self.replicas / (self.replicas - 3)", "division by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("-9223372036854775808 / -1", "integer overflow"),
        ("int(free.name)", "type conversion error from 'string' to 'int'"),
        ("free.name > 1", "no such overload"),
        ("quantity('x')", "no quantity"),
        ("optional.none().value()", "optional.none() dereference"),
        ("'%d'.format([free.name])", "decimal clause can only be used on integers, was given string"),
        ("'%.2f'.format(['x'])", "fixed-point clause can only be used on doubles, was given string"),
        ("0.0 / 0.0 < 1.0", "NaN values cannot be ordered"),
        ("duration(1)", "type conversion error from 'int' to 'google.protobuf.Duration'"),
        ("timestamp(free.on) + duration('9000000h') + duration('2500000h')", ""),
    ] {
        if !expected.is_empty() {
            let error = run(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        } else {
            let _ = run(text);
        }
    }
}

#[test]
fn nothing_costs_more_than_it_may() {
    let expensive = Err("operation cancelled: actual cost limit exceeded".to_owned());
    let ten = "[1,2,3,4,5,6,7,8,9,0]";
    let nested =
        format!("{ten}.all(a, {ten}.all(b, {ten}.all(c, {ten}.all(d, {ten}.all(e, {ten}.all(f, true))))))");
    assert_eq!(run(&nested), expensive);
    assert_eq!(run("lists.range(100000000000).size() > 0"), expensive);
    // Texts that double; patterns that would be tried for ever elsewhere.
    let doubling = (0..20)
        .fold("'aaaaaaaaaaaaaaaaaaaa'".to_owned(), |text, n| format!("[{text}].map(x{n}, x{n} + x{n})[0]"));
    assert_eq!(run(&doubling), expensive);
    let replacing = (0..20).fold("'a'".to_owned(), |text, _| format!("{text}.replace('a', 'aaaaaaaaaa')"));
    assert_eq!(run(&replacing), expensive);
    assert_eq!(run("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'.matches('^(a+)+$')"), Ok(json!(false)));
    assert!(run("'a'.matches('((a{100}){100}){100}')").is_err());
    let million = format!("'{}'.size()", "a".repeat(99_000));
    assert_eq!(run(&million), Ok(json!(99_000)));
}

#[test]
fn texts_that_nest_or_go_on_are_refused_or_answered() {
    for unit in ["(", "[", "{", "!", "-", "a.", "a ? ", "[1].map(x, ", "1 + ", "true && ", "f("] {
        let error = run(&unit.repeat(90_000 / unit.len()));
        assert!(error.is_err(), "{unit}");
    }
    assert_eq!(run(&format!("{}true", "true && ".repeat(5000))), Ok(json!(true)));
    assert!(run(&format!("{}1", "1 + ".repeat(5000))).unwrap_err().contains("recursion limit"));
    assert!(run(&"a".repeat(100_001)).unwrap_err().contains("code point size exceeds limit"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_has_a_result_or_an_error(text in "\\PC{0,60}") {
        let _ = run(&text);
    }

    #[test]
    fn any_words_have_a_result_or_an_error(
        words in proptest::collection::vec(
            prop::sample::select(vec![
                "self", "free", ".", "name", "tags", "(", ")", "[", "]", "{", "}", ",", ":", "?", "1", "-1", "2.5", "'a'",
                "+", "-", "*", "/", "%", "==", "<", "in", "&&", "||", "!", "has(", ".size()", ".map(x, x)", ".all(x, x == 1)",
                "null", "true", "u", ".?", "[?", ".format(", ".split(", ".replace(", "quantity(", "duration(", "timestamp(",
                "9223372036854775807", "optional.of(", ".orValue(", ".optMap(x, ", "Object{", "ip(", "cidr(", "semver(",
            ]),
            0..24,
        )
    ) {
        let _ = run(&words.join(" "));
    }

    #[test]
    fn whole_numbers_are_computed_or_overflow(a in any::<i64>(), b in any::<i64>()) {
        let expected = a.checked_mul(b).map(|n| json!(n));
        prop_assert_eq!(run(&format!("{a} * {b}")).ok(), expected);
        prop_assert_eq!(run(&format!("{a} < {b} || {a} >= {b}")), Ok(json!(true)));
    }
}
