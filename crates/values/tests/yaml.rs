//! YAML as Kubernetes reads it, and what it may cost. What scalars mean was compared with `kubectl annotate --local`.

#![allow(missing_docs, clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use values::{YamlError, documents, from_yaml, to_yaml, yaml_and_duplicates};

fn read(text: &str) -> Value {
    from_yaml(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

#[test]
fn scalars_mean_what_they_mean_to_kubectl() {
    for (text, meaning) in [
        ("yes", json!(true)),
        ("On", json!(true)),
        ("y", json!(true)),
        ("NO", json!(false)),
        ("off", json!(false)),
        ("yEs", json!("yEs")),
        ("", json!(null)),
        ("~", json!(null)),
        ("Null", json!(null)),
        ("nil", json!("nil")),
        ("0755", json!(493)),
        ("0o17", json!(15)),
        ("0b11", json!(3)),
        ("-0b11", json!(-3)),
        ("0xFf", json!(255)),
        ("1_000", json!(1000)),
        ("+12", json!(12)),
        ("08", json!(8)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("9223372036854775808", json!(9_223_372_036_854_776_000_u64)),
        ("18446744073709551615", json!(u64::MAX as f64)),
        ("123456789012345678901", json!(123456789012345680000.0)),
        ("1.0", json!(1)),
        ("1e3", json!(1000)),
        ("1.5e-7", json!(1.5e-7)),
        (".5", json!(0.5)),
        ("1.", json!(1)),
        ("1e400", json!("1e400")),
        ("1e", json!("1e")),
        (".", json!(".")),
        ("-", json!([null])),
        ("0x", json!("0x")),
        ("0x_f", json!(15)),
        ("190:20:30", json!("190:20:30")),
        ("2001-01-01", json!("2001-01-01")),
        ("2001-12-14t21:59:43.10-05:00", json!("2001-12-14t21:59:43.10-05:00")),
        ("1.2.3", json!("1.2.3")),
        ("'0755'", json!("0755")),
        ("\"yes\"", json!("yes")),
        ("!!str 0755", json!("0755")),
        ("!!int \"3\"", json!(3)),
        ("!!float 3", json!(3)),
        ("!!binary aGk=", json!("hi")),
        ("!mine yes", json!("yes")),
        ("! yes", json!("yes")),
        ("|\n a\n b\n", json!("a\nb\n")),
        (">-\n a\n b\n", json!("a b")),
    ] {
        let value = read(&format!("k: {text}").replace("k: -", if text == "-" { "k:\n-" } else { "k: -" }));
        assert_eq!(value["k"], meaning, "{text}");
    }
}

#[test]
fn keys_are_texts_as_gos_are() {
    for (text, key) in [
        ("y: 1", "true"),
        ("off: 1", "false"),
        ("0755: 1", "493"),
        ("1.50: 1", "1.5"),
        ("1e7: 1", "1e+07"),
        ("0.00001: 1", "1e-05"),
        ("? a\n: 1", "a"),
        ("&k a: 1", "a"),
        ("\"\": 1", ""),
    ] {
        assert_eq!(read(text), json!({key: 1}), "{text}");
    }
    for text in ["~: 1", "? [a]\n: 1", "? {a: b}\n: 1", "18446744073709551615: 1"] {
        assert!(matches!(from_yaml(text.as_bytes()), Err(YamlError::Meaning { line: 1, .. })), "{text}");
    }
}

#[test]
fn aliases_and_merges() {
    assert_eq!(read("a: &x [1]\nb: *x"), json!({"a": [1], "b": [1]}));
    // What a merge brings replaces what stands before it, and not what stands behind: go-yaml v2.
    let merged = "base: &x {z: 2, q: 3}\nz: 1\n<<: *x\nq: 4";
    assert_eq!(read(merged), json!({"base": {"z": 2, "q": 3}, "z": 2, "q": 4}));
    assert!(yaml_and_duplicates(merged.as_bytes()).unwrap().1.is_empty());
    assert_eq!(read("<<: [{a: 1}, {a: 2, b: 2}]"), json!({"a": 1, "b": 2}));
    assert_eq!(read("\"<<\": 1"), json!({"<<": 1}));
    for bad in ["<<: 1", "<<: [1]", "a: &a [*a]", "*nothing"] {
        assert!(from_yaml(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn keys_that_stand_twice_are_told_in_go_yamls_words() {
    let (value, told) = yaml_and_duplicates(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").unwrap();
    assert_eq!(value, json!({"a": 3, "b": {"c": 2}}));
    let says = "yaml: unmarshal errors:\n  line 4: key \"c\" already set in map\n  line 5: key \"a\" already set in map";
    assert_eq!(told, [says]);
    assert_eq!(yaml_and_duplicates(br#"{"a":1,"a":2}"#).unwrap().1, [r#"duplicate field "a""#]);
}

#[test]
fn streams_have_documents() {
    let read =
        |text: &str| documents(text).unwrap().into_iter().map(|document| document.value).collect::<Vec<_>>();
    assert_eq!(
        read("a: 1\n---\n---\nb: &x 2\n...\n---\nc: 3\n"),
        [json!({"a": 1}), json!(null), json!({"b": 2}), json!({"c": 3})]
    );
    assert_eq!(read(""), Vec::<Value>::new());
    assert_eq!(read("\u{feff}# only a comment\n"), Vec::<Value>::new());
    // JSON has escapes and long keys that YAML has not.
    assert_eq!(read(r#"{"a": "\ud83d\ude00\/"}"#), [json!({"a": "😀/"})]);
    assert!(matches!(from_yaml(b"a: 1\n---\nb: 2"), Err(YamlError::Documents)));
    assert!(documents("a: &x 1\n---\nb: *x").is_err(), "an anchor is its document's");
}

#[test]
fn depth_is_bounded() {
    let million = |part: &str| part.repeat(1_000_000 / part.len());
    let indents: String = (0..1400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    for text in [
        million("["),
        million("{"),
        million("[{a: "),
        million("- "),
        million("? "),
        million("- ? "),
        million("!!seq ["),
        million("&a ["),
        format!("a: {}", million("[")),
        indents,
    ] {
        let error = from_yaml(text.as_bytes()).unwrap_err();
        let shown = &text[..20];
        assert!(!matches!(error, YamlError::TooLarge(_)), "{shown}: {error}");
    }
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(from_yaml(deep(values::DEEPEST).as_bytes()).is_ok());
    assert!(matches!(from_yaml(deep(values::DEEPEST + 1).as_bytes()), Err(YamlError::TooDeep)));
}

#[test]
fn memory_is_bounded() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{}, ", level - 1).repeat(9);
        laughs += &format!("a{level}: &a{level} [{before}]\n");
    }
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(1_000_000), "*a, ".repeat(100_000));
    let merges = format!(
        "a: &a {{{}}}\nb: [{}]",
        (0..1000).map(|n| format!("k{n}: 1, ")).collect::<String>(),
        "{<<: *a}, ".repeat(10_000)
    );
    for text in [
        laughs,
        long,
        merges,
        format!("[{}]", "{},".repeat(300_000)),
        format!("[{}]", "{a},".repeat(300_000)),
    ] {
        let error = from_yaml(text.as_bytes()).unwrap_err();
        assert!(matches!(error, YamlError::TooLarge(_)), "{error}");
    }
}

/// Large and flat is lawful: each is read to its end, or refused, in linear time.
#[test]
fn large_inputs_are_read_to_their_end() {
    let lines: String = (0..50_000).map(|n| format!("k{n}: v\n")).collect();
    assert_eq!(read(&lines).as_object().unwrap().len(), 50_000);
    assert_eq!(read(&format!("[{}]", "1,".repeat(500_000))).as_array().unwrap().len(), 500_000);
    assert_eq!(documents(&"---\n".repeat(250_000)).unwrap().len(), 250_000);
    assert_eq!(read(&format!("a: \"{}\"", "x".repeat(1_000_000)))["a"].as_str().unwrap().len(), 1_000_000);
    assert_eq!(read(&format!("a: |\n{}", "  line\n".repeat(140_000)))["a"].as_str().unwrap().len(), 700_000);
    for text in [
        "&a ".repeat(300_000),
        "!!str ".repeat(200_000),
        "a".repeat(1_000_000) + ": 1",
        "\"".to_owned() + &"a".repeat(1_000_000) + "\": 1",
        "# \n".repeat(300_000),
        "\n".repeat(1_000_000),
        " ".repeat(1_000_000),
        "%TAG ! x\n".repeat(100_000),
        "a:b ".repeat(250_000),
        "a: ".repeat(300_000),
        "'".repeat(1_000_000),
        "*a ".repeat(300_000),
        "]".repeat(1_000_000),
        "[a, ".repeat(100) + &"a, ".repeat(300_000),
        "{? ".to_owned() + &"? ".repeat(400_000),
        "|".repeat(1_000_000),
        "\t".repeat(1_000_000),
        "- \n".repeat(300_000),
        "a: &a b\n".to_owned() + &"*a : *a\n".repeat(100_000),
    ] {
        let _ = from_yaml(text.as_bytes());
    }
}

fn anything() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~]{0,12}",
        ".{0,12}",
        "[a\n \t#:-]{0,9}",
        "[0-9xob_.:eE+-]{1,8}",
        Just("yes".to_owned()),
        Just("2001-01-01 1:2:3".to_owned()),
        Just("🙂\u{85}\u{2028}\u{feff}\u{7f}".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6..1e6f64).prop_filter("has a fraction", |number| number.fract() != 0.0).prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(prop_oneof!["[a-z/.]{1,9}", "[ -~]{0,6}", ".{0,4}"], inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(value in anything()) {
        let text = to_yaml(&value);
        // A text that begins as JSON is tried as such first: read it as YAML alone, too.
        prop_assert_eq!(from_yaml(text.as_bytes()).map_err(|e| format!("{e}\n{text}")).unwrap(), value.clone());
        let commented = format!("# c\n{text}");
        prop_assert_eq!(from_yaml(commented.as_bytes()).map_err(|e| format!("{e}\n{text}")).unwrap(), value);
    }

    #[test]
    fn any_text_is_a_value_or_an_error(text in "[\\[\\]{}:,?&*!|>'\"%@`#\n\t a1-]{0,60}") {
        if let Ok(value) = from_yaml(text.as_bytes()) {
            prop_assert_eq!(from_yaml(to_yaml(&value).as_bytes()).unwrap(), value);
        }
    }
}

#[test]
fn what_is_written_looks_like_kubectls() {
    let value = json!({"metadata": {"name": "a", "labels": {}}, "spec": {"args": ["-c", "true", "echo 1\necho 2\n"],
        "ports": [{"name": "x", "port": 80}], "none": null, "on": "0755"}});
    let text = "metadata:\n  labels: {}\n  name: a\nspec:\n  args:\n  - -c\n  - \"true\"\n  - |\n    echo 1\n    echo 2\n  \
                none: null\n  \"on\": \"0755\"\n  ports:\n  - name: x\n    port: 80\n";
    assert_eq!(to_yaml(&value), text);
}
