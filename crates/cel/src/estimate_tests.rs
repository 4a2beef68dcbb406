use serde_json::{Value, json};

use crate::{Environment, Program, Sizes, Type};

fn cost(schema: &Value, rule: &str) -> u64 {
    let environment = Environment::default()
        .with_schema("self", Type::of_schema(schema), schema)
        .with_schema("oldSelf", Type::of_schema(schema), schema);
    match Program::compile_with_cost(&environment, rule, &Sizes::default()) {
        Ok((_, _, cost)) => cost,
        Err(error) => panic!("{rule}: {error}"),
    }
}

/// A schema of a type; or a format, or something special.
fn of(kind: &str) -> Value {
    match kind {
        "duration" | "date" | "date-time" | "byte" => json!({"type": "string", "format": kind}),
        "int-or-string" => json!({"x-kubernetes-int-or-string": true}),
        kind => json!({"type": kind}),
    }
}

fn limited(mut schema: Value, key: &str, most: Option<u64>) -> Value {
    if let Some(most) = most {
        schema[key] = most.into();
    }
    schema
}

fn list(items: Value, most: Option<u64>) -> Value {
    limited(json!({"type": "array", "items": items}), "maxItems", most)
}

fn map(values: Value, most: Option<u64>) -> Value {
    limited(json!({"type": "object", "additionalProperties": values}), "maxProperties", most)
}

fn text(most: Option<u64>) -> Value {
    limited(json!({"type": "string"}), "maxLength", most)
}

fn required() -> Value {
    json!({"type": "object", "required": ["required"],
        "properties": {"required": {"type": "string"}, "optional": {"type": "string"}}})
}

/// What upstream comes to, without limits and with them.
#[test]
fn costs_are_estimated_as_upstream_does() {
    type Make = fn(Option<u64>) -> Value;
    let cases: [(&str, Make, u64, u64, u64); 36] = [
        ("self.all(x, true)", |most| list(of("number"), most), 4_718_591, 10, 32),
        ("self.all(x, true)", |most| list(of("string"), most), 3_145_727, 20, 62),
        ("self.all(x, true)", |most| list(of("boolean"), most), 1_887_437, 5, 17),
        ("self.all(x, true)", |most| list(list(of("number"), most), most), 3_145_727, 100, 302),
        ("self.all(x, true)", |most| list(required(), most), 555_128, 50, 152),
        ("self.all(x, true)", |most| list(of("int-or-string"), most), 4_718_591, 10, 32),
        ("self.all(x, true)", |most| list(of("duration"), most), 2_359_295, 5, 17),
        ("self.all(x, true)", |most| list(of("date"), most), 725_936, 15, 47),
        ("self.all(x, true)", |most| list(of("date-time"), most), 428_963, 25, 77),
        ("self.all(x, true)", |most| map(of("number"), most), 1_348_169, 10, 32),
        ("self.all(x, true)", |most| map(of("string"), most), 1_179_647, 3, 11),
        ("self.all(x, true)", |most| map(required(), most), 428_963, 20, 62),
        ("self.all(x, true)", |most| map(map(of("number"), None), most), 1_179_647, 10, 32),
        ("self.contains('test')", text, 314_574, 10, 5),
        ("self.startsWith('test')", text, 2, 15, 2),
        ("size(self + \"hello\") > size(\"hello\")", text, 314_578, 4, 7),
        ("self[1] == 0.0", |most| list(of("number"), most), 2, 5000, 2),
        ("self[1] == self[1]", |most| list(of("string"), most), 314_577, 8, 314_577),
        ("self.matches('x')", text, 314_574, 50, 22),
        ("''.matches('(((((((((())))))))))[0-9]')", text, 7, 10, 7),
        ("self.all(x, x.contains(self[x]))", |most| map(text(most), most), 2_752_507, 10, 72),
        ("self == 'x'", text, 2, 0, 1),
        ("self.all(x, x == 0.0)", |most| list(of("number"), most), 6_291_454, 3 * 1024 * 2048, 25_165_826),
        ("self.all(x, x['y'].required == 'z')", |most| list(map(required(), most), most), 7_340_027, 10, 72),
        ("self[0] == 5", |most| list(of("int-or-string"), most), 3, 10, 3),
        ("self.all(x, x.y == 25.2)", |most| list(map(of("number"), None), most), 6_291_452, 12, 74),
        ("self[0].getHours() == 2", |most| list(of("duration"), most), 4, 525, 4),
        ("self.find('[0-9]+') == ''", text, 629_147, 10, 11),
        ("self.join(' ') == 'aa bb'", |most| list(text(most), most), 329_853_068_905, 10, 43),
        ("self.isSorted() == true", |most| list(text(most), most), 329_854_432_052, 10, 52),
        ("self.lowerAscii() == 'lower!'", text, 314_575, 10, 6),
        ("oldSelf.size() == self.size()", |most| map(of("integer"), most), 5, 10, 5),
        ("self['a'] == self['b']", |most| map(of("date-time"), most), 8, 7, 8),
        ("self.all(x, self.all(y, true))", |most| list(of("number"), most), 7_421_701_914_624, 10, 352),
        ("self.str.replace(self.before, self.after) == 'does not matter'", replacing, 629_154, 4, 12),
        ("self.str.split(self.by) == []", splitting, 629_160, 10, 22),
    ];
    for (rule, make, without, most, with) in cases {
        assert_eq!(cost(&make(None), rule), without, "{rule} without limits");
        assert_eq!(cost(&make(Some(most)), rule), with, "{rule} with {most}");
    }
}

/// A type's name has no size of its own, and upstream takes that of `self` for it.
#[test]
fn types_cost_no_more_than_what_they_are_asked_of() {
    let either = || of("int-or-string");
    let object = json!({"type": "object", "properties": {"a": either(), "b": either()}});
    for (schema, rule, most) in [
        (either(), "type(self) == int", 314_576),
        (either(), "type(self) != string", 314_576),
        (either(), "type(self) == int ? self > 0 : true", 314_578),
        (either(), "type(self) == int ? self > 0 : self.matches('^[0-9]+%$')", 943_720 + 314_576),
        (object.clone(), "type(self.a) == int", 4),
        (object.clone(), "type(self.a) == string ? self.a == '99%' : self.a == 42", 7),
        (text(Some(10)), "type(self) == string", 7),
        (list(either(), Some(10)), "self.all(x, type(x) == int)", 72),
    ] {
        assert_eq!(cost(&schema, rule), most, "{rule}");
    }
    // Of neither side is anything known.
    assert!(cost(&object, "type(self.a) == type(self.b)") > 1_000_000_000);
}

fn replacing(most: Option<u64>) -> Value {
    json!({"type": "object",
        "properties": {"str": text(most), "before": text(Some(2)), "after": text(Some(4))}})
}

fn splitting(most: Option<u64>) -> Value {
    json!({"type": "object", "properties": {"str": text(most), "by": text(most)}})
}

#[test]
fn functions_of_libraries_cost_as_upstream_says() {
    let schema = json!({"type": "string", "maxLength": 100});
    for (rule, most) in [
        ("[1, 2, 3, 4, 5].sum() == 0", 16),
        ("['012345678901', '012345678901', '012345678901', '012345678901', '012345678901'].isSorted()", 25),
        ("'01234567890123456789012345678901234567890123456789'.indexOf('123') == 0", 6),
        ("url('https:://kubernetes.io/').getHost() == ''", 4),
        ("ip('192.168.0.1').isLoopback()", 3),
        ("ip('2001:db8:3333:4444:5555:6666:7777:8888').family() == 6", 6),
        ("ip.isCanonical('2001:db8:3333:4444:5555:6666:7777:8888')", 8),
        ("ip('192.168.0.1') == ip('192.168.0.1')", 5),
        ("cidr('192.168.0.0/16').containsCIDR(cidr('192.0.0.0/30'))", 11),
        ("cidr('192.168.0.0/16').containsIP('192.169.0.1')", 8),
        ("self.size() > 3 ? true : self.contains('abc')", 44),
        ("['a', 'b'].exists(x, x == self)", 25),
        ("[1, 2].map(x, x * 2).size() == 2", 51),
        ("[1, 2].filter(x, x > 1).exists_one(x, x == 1)", 61),
        ("{'a': 1}.transformMap(k, v, v + 1).size() == 1", 68),
        ("optional.of(1).optMap(x, x + 1).hasValue()", 18),
        ("string(string(true)) == 'true'", 3),
        ("lists.range(-1).size() == 0", 13),
    ] {
        assert_eq!(cost(&schema, rule), most, "{rule}");
    }
}

#[test]
fn items_of_what_has_no_place_cost_by_the_schema_of_self() {
    let schema = json!({"type": "object", "properties": {
        "addresses": {"type": "array", "maxItems": 256, "items": {"type": "string", "maxLength": 64}}}});
    let rule = "(has(self.addresses) ? self.addresses : []).exists(k, k.contains('/'))";
    assert!(cost(&schema, rule) < 10_000, "{}", cost(&schema, rule));
}
