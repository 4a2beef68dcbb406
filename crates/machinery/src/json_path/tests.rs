use proptest::prelude::*;
use serde_json::json;

use super::*;

const MOST: usize = 1000;

#[test]
fn paths_lead_to_values() {
    let object = json!({
        "metadata": {"annotations": {"example.com/a": "x"}},
        "spec": {"list": [{"name": "a", "n": 1}, {"name": "b", "n": 2}], "a b": true},
        "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]},
    });
    for (path, expected) in [
        (".spec.list[0].name", json!("a")),
        (".spec.list[-1].name", json!("b")),
        (".spec.list[*].name", json!("a")),
        (".spec.list[1:].name", json!("b")),
        (".spec.list.*.n", json!(1)),
        (".spec['a b']", json!(true)),
        (".metadata.annotations.example\\.com/a", json!("x")),
        (".metadata.annotations['example\\.com/a']", json!("x")),
        (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
        (".status.conditions[?(@.type=='Ready')].status", json!("True")),
        (".spec.list[?(@.n>1)].name", json!("b")),
        (".spec.list[?(@.name!='a')].n", json!(2)),
        (".spec.list[?(@.n != 'a')].name", json!("a")),
        (".spec.list[?(@.name==$.spec.list[1].name)].n", json!(2)),
        (".spec.list[0,1].name", json!("a")),
        (".spec.list[?(@.none)].name", Value::Null),
        ("..status.conditions[0].type", json!("Synced")),
        (".spec.list[7]", Value::Null),
    ] {
        let found = path.parse::<Path>().unwrap().first(&object, MOST).unwrap().cloned();
        assert_eq!(found.unwrap_or_default(), expected, "{path}");
    }
    for bad in
        ["[", ".a[", ".a[x]", ".a[]", ".a..", ".a[?(b==1)]", ".a[?(@.b=1)]", ".a[::0]", ".a[?(@.b==x)]"]
    {
        assert!(bad.parse::<Path>().is_err(), "{bad}");
    }
    assert_eq!(pointer_of(".spec.a/b"), "/spec/a~1b");
}

proptest! {
    #[test]
    fn any_text_is_a_path_or_none(text in "([.\\[\\]()@?*:'\"=<>!\\\\a-c0-2\\PC-]){0,24}") {
        if let Ok(path) = text.parse::<Path>() {
            let _ = path.first(&json!({"a": [{"b": 1}, [2]], "b": {"a": null}}), MOST);
        }
    }
}

#[test]
fn the_work_for_a_path_is_bounded_whether_it_finds_anything_or_not() {
    let object = json!({"list": vec![json!({}); 100], "text": "x".repeat(10_000)});
    for path in [
        "..[*]..[*]..[*]",
        ".list[?($.list[?($.none)])]",
        ".list[*]['a','b','c','d','e','f','g','h','i','j']",
        ".list[?($.text==$.text)]",
    ] {
        let path: Path = path.parse().unwrap();
        assert_eq!(path.first(&object, 500), Err(TooManyValues(500)), "{path:?}");
    }
    assert!("x".repeat(LONGEST + 1).parse::<Path>().is_err(), "long");
    let deep = format!(".a{}@.b{}", "[?(@.a".repeat(100), ")]".repeat(100));
    assert!(deep.parse::<Path>().is_err(), "deep");
}

#[test]
fn plain_values_of_one_kind_are_ordered() {
    assert_eq!(order(&json!(3), &json!(20)), Some(Ordering::Less));
    assert_eq!(order(&json!("3"), &json!("20")), Some(Ordering::Greater));
    assert_eq!(order(&json!(3), &json!("20")), None);
    assert_eq!(order(&json!([]), &json!([])), None);
}
