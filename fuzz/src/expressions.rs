//! Expressions in CEL, over recorded objects.

use cel::{Budget, Environment, Error, Program, Sizes, Type, Value};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value as Json, json};

use crate::corpus::Corpus;
use crate::mutate;

/// What inputs are made of: together they call most of what there is.
const EXPRESSIONS: [&str; 36] = [
    "object.metadata.name.startsWith('a') && size(object.metadata.labels) < 64",
    "has(object.spec.template) ? object.spec.template.spec.containers.all(c, c.image.contains(':')) : true",
    "object.?spec.?replicas.orValue(1) * 2 - 3 >= int('7') || !(1u in [1u, 2u])",
    "object.metadata.?labels[?'app'].optMap(x, x + x).hasValue()",
    "object.spec.containers.map(c, c.name).sortBy(n, size(n)).join(',')",
    "object.spec.containers.exists_one(i, c, i == 0 && c.name == 'a')",
    "object.metadata.annotations.transformMap(k, v, k.size() > 3, v.upperAscii())",
    "object.metadata.labels.transformMapEntry(k, v, {v: k})",
    "[1, 2, 3].transformList(i, v, v > 1, v * i).sum() % 4",
    "[[1], [2, [3]]].flatten(2) == [1, 2, 3].reverse().distinct().sort()",
    "lists.range(10).filter(i, i % 2 == 0).slice(1, 3).isSorted()",
    "lists.range(1000).map(i, object)",
    "lists.range(1000).all(i, lists.range(1000).all(j, i * j >= 0))",
    "'a,b,c'.split(',', 2).map(p, p.replace('a', 'bb', 1).trim().substring(0, 1))",
    "'%s %d %.3f %x %b %e'.format(['a', 1, 1.5, 255, true, 0.1])",
    "'aaaa'.matches('^(a+)+$') && 'abc123'.find('[0-9]+') != '' || 'x1y2'.findAll('[a-z]', 1) == ['x']",
    "quantity('1.5Gi').add(quantity('200Mi')).isGreaterThan(quantity('1')) && isQuantity('1e3')",
    "ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3') && !isIP('::g')",
    "cidr('fd00::/8').containsCIDR(cidr('fd12::/16').masked()) && ip.isCanonical('::1')",
    "url('https://a:80/p?q=1&q=2').getQuery()['q'].size() + int(url('http://b').getPort() == '')",
    "semver('v1.2', true).isLessThan(semver('1.3.0')) && isSemver('1.0.0-a+b')",
    "format.dns1123Label().validate('A').hasValue() && !format.named('uuid').value().validate('x').hasValue()",
    "timestamp('2026-01-01T00:00:00Z') + duration('36h') > timestamp(0) && duration('1h30m').getMinutes() == 90",
    "timestamp(object.metadata.creationTimestamp).getFullYear('Europe/Berlin')",
    "sets.contains([1, 2], [1]) && sets.intersects(['a'], ['a', 'b']) && sets.equivalent([1], [1, 1])",
    "optional.of(1).or(optional.none()).value() + optional.unwrap([optional.of(2)])[0]",
    "{'a': 1, 2: 'b', true: [null, b'\\xff', 1.0e300, 0x7f, 3u]}",
    "Object{metadata: Object.metadata{labels: {'a': string(size(object))}}}",
    "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/c'), value: object.metadata}]",
    "type(object) == map && type(1) == int && dyn(1) == 1.0 && [1] + [2] == [1, 2]",
    "self.metadata.name + self.list.map(x, x.key)[0] + string(self.count / 2)",
    "self.list.all(x, self.map[x.key] != '') && self.when < timestamp('2030-01-01T00:00:00Z')",
    "oldSelf == self || self.list.exists(x, x.key in self.map)",
    "-9223372036854775808 / -1",
    "r'\\d' + '\\u00e9' + '''x''' + \"\\101\" + string(b'abc')",
    "strings.quote('\"') + 'abc'.charAt(3) + string('x'.lastIndexOf('') + 'xyz'.indexOf('z', 1))",
];

/// What expressions take for `self`.
fn schema() -> Json {
    json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
        "count": {"type": "integer"}, "when": {"type": "string", "format": "date-time"},
        "map": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 9},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"],
            "items": {"type": "object", "properties": {"key": {"type": "string"}}}}}})
}

/// Two expressions into one another, and their bytes changed; with an object.
pub(crate) fn make(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let any = |rng: &mut StdRng| EXPRESSIONS[rng.random_range(0..EXPRESSIONS.len())];
    let mut text = any(rng).to_owned();
    for _ in 0..rng.random_range(0..3) {
        let other = any(rng);
        let ends = |text: &str| -> Vec<usize> {
            let is_end = |c: char| !c.is_alphanumeric() && c != '_';
            let ends = text.char_indices().filter(|(_, c)| is_end(*c)).map(|(at, _)| at);
            ends.chain([0, text.len()]).collect()
        };
        let cut = |rng: &mut StdRng, text: &str| {
            let ends = ends(text);
            let (a, b) = (ends[rng.random_range(0..ends.len())], ends[rng.random_range(0..ends.len())]);
            (a.min(b), a.max(b))
        };
        let ((from, to), (start, end)) = (cut(rng, &text), cut(rng, other));
        text.replace_range(from..to, &other[start..end]);
        text.truncate(20_000);
    }
    if rng.random_range(0..3) == 0 {
        let other = any(rng);
        text = String::from_utf8_lossy(&mutate::bytes(rng, text.into_bytes(), other.as_bytes())).into_owned();
    }
    let object = corpus.values[rng.random_range(0..corpus.values.len())].clone();
    let other = &corpus.values[rng.random_range(0..corpus.values.len())];
    json!([text, mutate::tree(rng, object, other)]).to_string().into_bytes()
}

/// An expression that grows, or the object that it is about.
pub(crate) fn grow(rng: &mut StdRng, corpus: &Corpus) -> crate::grow::Growing {
    let whole: Json = serde_json::from_slice(&make(rng, corpus)).unwrap_or_default();
    let (text, object) = (whole[0].as_str().unwrap_or_default().to_owned(), whole[1].clone());
    if rng.random_range(0..3) == 0 {
        let tree = crate::grow::tree(rng, object);
        return Box::new(move |times| json!([text, tree(times)]).to_string().into_bytes());
    }
    let text = crate::grow::bytes(rng, text.as_bytes());
    Box::new(move |times| json!([String::from_utf8_lossy(&text(times)), object]).to_string().into_bytes())
}

/// An expression has a result or an error, and neither its work nor its result outgrows the budget.
pub(crate) fn read(input: &[u8]) {
    let Ok(Json::Array(both)) = serde_json::from_slice(input) else { return };
    let [Json::String(text), object] = both.as_slice() else { return };
    let schema = schema();
    let environment = Environment::default()
        .with("object", Type::Dyn)
        .with_schema("self", Type::of_schema(&schema), &schema)
        .with_schema("oldSelf", Type::of_schema(&schema), &schema)
        .with_messages();
    let program = match Program::compile_with_cost(&environment, text, &Sizes::default()) {
        Ok((program, ..)) => program,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let of_schema = || Value::of_json(object, Some(&schema));
    let variables =
        [("object", Value::of_json(object, None)), ("self", of_schema()), ("oldSelf", of_schema())];
    let mut whole = Budget::new(200_000);
    let found = program.evaluate(&variables, &mut whole);
    let spent = 200_000 - whole.left();
    match found {
        Ok(value) => {
            if let Ok(json) = value.to_json() {
                let size = json.to_string().len();
                assert!(size <= 64 << 20, "{size} bytes come out of {text}");
            }
            // With less it ends sooner, and with as much it comes to an end again.
            let mut less = Budget::new(spent / 2);
            let sooner = program.evaluate(&variables, &mut less);
            assert!(spent < 2 || matches!(sooner, Err(Error::TooExpensive)), "{text} costs {spent}");
            assert!(program.evaluate(&variables, &mut Budget::new(spent)).is_ok(), "{text} costs {spent}");
        }
        Err(Error::TooExpensive) => assert_eq!(whole.left(), 0, "{text}"),
        Err(Error::Failed(why)) => assert!(!why.is_empty(), "{text}"),
    }
}
