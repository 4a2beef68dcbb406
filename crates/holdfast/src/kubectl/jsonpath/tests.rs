use serde_json::json;

use super::*;

fn pods() -> Value {
    json!({"kind": "List", "items": [
        {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web"}}, "n": 1,
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "x"}]}},
        {"metadata": {"name": "b"}, "n": 20, "ok": true, "list": [1, 2, 3, 4]},
        {"metadata": {"name": "c"}, "n": 3.5, "none": null},
    ]})
}

fn render(template: &str) -> String {
    template.parse::<Template>().unwrap().render(&pods()).unwrap()
}

#[test]
fn templates_are_kubectl_s() {
    for (template, expected) in [
        ("{.kind}", "List"),
        ("{ .kind }!", "List!"),
        ("{$.kind} {@.kind} {kind}", "List List List"),
        ("{.items[*].metadata.name}", "a b c"),
        ("{.items[0].metadata.name}", "a"),
        ("{.items[-1].metadata.name}", "c"),
        ("{.items[0,2].metadata.name}", "a c"),
        ("{.items[1:].metadata.name}", "b c"),
        ("{.items[-2:].n}", "20 3.5"),
        ("{.items[0:3:2].n}", "1 3.5"),
        ("{.items[:1].n}", "1"),
        ("{.items.[0].n}", "1"),
        ("{.items[9].n}{.nothing.at.all}{.kind.name}", ""),
        ("{..name}", "a b c"),
        ("{.items[*]['n','ok']}", "1 20 true 3.5"),
        (r#"{.items[0].metadata.labels['app.kubernetes.io/name']}"#, "web"),
        (r"{.items[0].metadata.labels.app\.kubernetes\.io/name}", "web"),
        (r#"{.items[0].status.conditions[?(@.type=="Ready")].status}"#, "True"),
        (r#"{.items[?(@.metadata.name != "b")].n}"#, "1 3.5"),
        ("{.items[?(@.n>=3.5)].metadata.name}", "b c"),
        ("{.items[?(@.n<2)].metadata.name}", "a"),
        ("{.items[?(@.ok==true)].n}", "20"),
        ("{.items[?(@.list)].n}", "20"),
        (r#"{.items[?(@.metadata.labels['app.kubernetes.io/name']=='web')].n}"#, "1"),
        ("{.items[1].list}", "[1,2,3,4]"),
        ("{.items[1].list[*]}", "1 2 3 4"),
        ("{.items[0].metadata.labels}", r#"{"app.kubernetes.io/name":"web"}"#),
        (r#"{range .items[*]}{.metadata.name}{"\t"}{.n}{"\n"}{end}."#, "a\t1\nb\t20\nc\t3.5\n."),
        ("{range .items[*]}{range .list[*]}{@};{end}{$.kind} {end}", "List 1;2;3;4;List List "),
        ("plain", "plain"),
        ("", ""),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn what_is_no_template_is_refused() {
    for wrong in [
        "{.a",
        "{.a[0}",
        "{end}",
        "{range .a}",
        "{range .a}{end}{end}",
        "{.a..}",
        "{.a[x]}",
        "{.a[1:2:0]}",
        "{.a[?(@.b==c)]}",
        r#"{"text}"#,
        r#"{"a" .b}"#,
        "{.a[0:1:2:3]}",
        "{.a[]}",
        "{.a[99999999999999999999]}",
    ] {
        assert!(wrong.parse::<Template>().is_err(), "{wrong}");
    }
    assert!("{range .a}".repeat(100).parse::<Template>().is_err(), "deep");
    assert!("x".repeat(1 << 20).parse::<Template>().is_err(), "long");
}

#[test]
fn what_would_come_by_too_many_values_ends() {
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep, 1, 1]);
    }
    let template: Template = "{..[*]..[*]..[*]..[*]}".parse().unwrap();
    assert!(template.render(&deep).is_err());
}

#[test]
fn a_path_to_sort_by_may_stand_in_braces() {
    let path = sort_path(".metadata.name").unwrap();
    assert_eq!(sort_path("{.metadata.name}"), Ok(path.clone()));
    let all = pods();
    assert_eq!(first(&path, &all["items"][1]), Ok(Some(&json!("b"))));
    assert_eq!(first(&path, &json!({})), Ok(None));
}
