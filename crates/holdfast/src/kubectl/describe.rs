//! `describe`: all that an object says, in words, with what happened to it.

use std::fmt::Write;

use client::{Client, with_query};
use serde_json::{Map, Value};

use super::put;
use super::target::{Selected, Selection, Target};

/// The most events that are shown, the newest ones.
const MOST_EVENTS: usize = 20;
/// What `apply` notes for itself: the whole object once more, Secrets among them.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const NONE: &str = "<none>";

/// Arguments of `describe`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The values in Secrets aren't shown.\n\nExamples:\n  holdfast describe pod web-1\n  holdfast describe node/n1 deployment/web\n  holdfast describe pods -l app=web"
)]
pub struct Args {
    /// Which objects.
    #[command(flatten)]
    pub selection: Selection,
}

/// Prints what objects say.
pub async fn describe(args: Args) -> anyhow::Result<()> {
    let Selected { client, namespace, targets } = args.selection.ask().await?;
    let mut before = "";
    for target in &targets {
        for object in objects(&client, target, &namespace, &args).await? {
            put(before)?;
            put(&told(&object, &target.resource.kind, &target.resource.api_version()))?;
            put(&events(&client, &object, &target.resource.kind).await)?;
            before = "\n\n";
        }
    }
    anyhow::ensure!(!before.is_empty(), "No resources found");
    Ok(())
}

async fn objects(
    client: &Client,
    target: &Target,
    namespace: &str,
    args: &Args,
) -> anyhow::Result<Vec<Value>> {
    if target.names.is_empty() {
        let namespace = (!args.selection.all_namespaces).then_some(namespace);
        let labels = args.selection.selector.as_deref().map(|labels| ("labelSelector", labels));
        let path = with_query(&target.resource.path(namespace, None), labels.as_slice());
        let mut list = client.get(&path).await?;
        return Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        });
    }
    let mut objects = Vec::new();
    for name in &target.names {
        objects.push(client.get(&target.resource.path(Some(namespace), Some(name))).await?);
    }
    Ok(objects)
}

/// An object in words, but for what only servers read.
fn told(object: &Value, kind: &str, api_version: &str) -> String {
    let metadata = &object["metadata"];
    let mut head = Map::new();
    let mut rest = Map::new();
    for (field, value) in metadata.as_object().into_iter().flatten() {
        match field.as_str() {
            "name" | "namespace" | "labels" | "annotations" | "managedFields" => {}
            _ => drop(rest.insert(field.clone(), value.clone())),
        }
    }
    if !rest.is_empty() {
        head.insert("metadata".to_owned(), Value::Object(rest));
    }
    for (field, value) in object.as_object().into_iter().flatten() {
        let shown = match field.as_str() {
            "apiVersion" | "kind" | "metadata" => continue,
            "data" if kind == "Secret" && api_version == "v1" => sizes(value),
            _ => value.clone(),
        };
        head.insert(field.clone(), shown);
    }
    let mut out = String::new();
    let scalar = |field: &str| metadata[field].as_str().unwrap_or(NONE).to_owned();
    let first = [
        ("Name", scalar("name")),
        ("Namespace", scalar("namespace")),
        ("Labels", pairs(&metadata["labels"], "=")),
        ("Annotations", pairs(&metadata["annotations"], ": ")),
        ("API Version", api_version.to_owned()),
        ("Kind", kind.to_owned()),
    ];
    const WIDTH: usize = 14;
    for (label, text) in first {
        // What has several lines goes on below its first one.
        let text = text.lines().map(plain).collect::<Vec<_>>().join(&format!("\n{:WIDTH$}", ""));
        let label = format!("{label}:");
        let _ = writeln!(out, "{label:WIDTH$}{text}");
    }
    fields(&head, 0, &mut out);
    out
}

/// How large the values in a Secret are: what they are, `get -o yaml` shows to those who ask for that.
fn sizes(data: &Value) -> Value {
    let size = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
        Value::from(format!("{} bytes", (text.len() / 4 * 3).saturating_sub(padding)))
    };
    let all = data.as_object().into_iter().flatten();
    Value::Object(all.map(|(field, value)| (field.clone(), size(value))).collect())
}

/// Labels or annotations, a line each.
fn pairs(value: &Value, between: &str) -> String {
    let all = value.as_object().into_iter().flatten().filter(|(name, _)| *name != LAST_APPLIED);
    let lines: Vec<String> = all
        .map(|(name, value)| {
            format!("{name}{between}{}", value.as_str().unwrap_or_default().replace('\n', " "))
        })
        .collect();
    if lines.is_empty() { NONE.to_owned() } else { lines.join("\n") }
}

fn fields(object: &Map<String, Value>, indent: usize, out: &mut String) {
    let labelled: Vec<(String, &Value)> =
        object.iter().map(|(field, value)| (format!("{}:", label(field)), value)).collect();
    let scalars = labelled.iter().filter(|(_, value)| scalar(value).is_some());
    let width = scalars.map(|(label, _)| label.chars().count()).max().unwrap_or(0) + 2;
    for (label, value) in labelled {
        match scalar(value) {
            Some(text) if !text.contains('\n') => {
                let _ = writeln!(out, "{:indent$}{label:width$}{}", "", plain(&text));
            }
            _ => {
                let _ = writeln!(out, "{:indent$}{label}", "");
                beneath(value, indent + 2, out);
            }
        }
    }
}

/// What doesn't stand beside its label.
fn beneath(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(object) => fields(object, indent, out),
        Value::Array(elements) => {
            for element in elements {
                let mut lines = String::new();
                match scalar(element) {
                    Some(text) if !text.contains('\n') => lines = format!("{:indent$}{}\n", "", plain(&text)),
                    _ => beneath(element, indent + 2, &mut lines),
                }
                // Each begins with a dash, in the place of what is before it.
                if element.is_object() && lines.len() > indent {
                    lines.replace_range(indent..=indent, "-");
                }
                out.push_str(&lines);
            }
        }
        other => {
            for line in scalar(other).unwrap_or_default().lines() {
                let _ = writeln!(out, "{:indent$}{}", "", plain(line));
            }
        }
    }
}

/// A value that stands beside its label.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => fields.is_empty().then(|| NONE.to_owned()),
        Value::Array(elements) => elements.is_empty().then(|| NONE.to_owned()),
        Value::Null => Some(NONE.to_owned()),
        other => Some(other.to_string()),
    }
}

/// What others wrote may hold anything, commands to a terminal among it.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// `creationTimestamp` as `Creation Timestamp`. What is no name of a field (a label, a file of a ConfigMap) stays as it is.
fn label(field: &str) -> String {
    if !field.chars().all(|c| c.is_ascii_alphanumeric()) {
        return plain(field);
    }
    let mut label = String::new();
    let mut was_small = false;
    for (at, c) in field.chars().enumerate() {
        if was_small && c.is_ascii_uppercase() {
            label.push(' ');
        }
        was_small = c.is_ascii_lowercase();
        label.push(if at == 0 { c.to_ascii_uppercase() } else { c });
    }
    label
}

/// What happened to an object, the newest last.
async fn events(client: &Client, object: &Value, kind: &str) -> String {
    let metadata = &object["metadata"];
    let (name, namespace) = (metadata["name"].as_str().unwrap_or_default(), metadata["namespace"].as_str());
    let path = match namespace {
        Some(namespace) => format!("/api/v1/namespaces/{namespace}/events"),
        None => "/api/v1/events".to_owned(),
    };
    let selector = format!("involvedObject.name={name},involvedObject.kind={kind}");
    match client.get(&with_query(&path, &[("fieldSelector", selector.as_str())])).await {
        Ok(list) => table_of(list["items"].as_array().map(Vec::as_slice).unwrap_or_default(), metadata),
        Err(error) => format!("Events:       can't be read: {error}\n"),
    }
}

fn table_of(events: &[Value], metadata: &Value) -> String {
    // Of a former object of the name are others; a Node's events have its name for a uid.
    let is_its = |event: &&Value| {
        let uid = &event["involvedObject"]["uid"];
        uid.as_str().is_none_or(str::is_empty) || *uid == metadata["uid"] || *uid == metadata["name"]
    };
    let time = |event: &Value| {
        let times = ["lastTimestamp", "eventTime", "firstTimestamp"].map(|field| event[field].as_str());
        times.into_iter().flatten().next().unwrap_or_default().to_owned()
    };
    let mut all: Vec<(String, &Value)> =
        events.iter().filter(is_its).map(|event| (time(event), event)).collect();
    all.sort_by(|(left, _), (right, _)| left.cmp(right));
    let newest = &all[all.len().saturating_sub(MOST_EVENTS)..];
    if newest.is_empty() {
        return format!("Events:       {NONE}\n");
    }
    let mut out = "Events:\n".to_owned();
    let text = |value: &Value| plain(value.as_str().unwrap_or_default());
    for (time, event) in newest {
        let from = [&event["source"]["component"], &event["reportingComponent"]].map(text);
        let from = from.into_iter().find(|from| !from.is_empty()).unwrap_or_default();
        let (kind, reason) = (text(&event["type"]), text(&event["reason"]));
        let message = text(&event["message"]);
        let _ = writeln!(out, "  {time:<28}{kind:<9}{reason:<24}{from:<30}{message}");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_told_in_words() {
        let object = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "managedFields": [{"x": 1}],
                "labels": {"app": "web", "tier": "front"}, "annotations": {LAST_APPLIED: "{}"}},
            "spec": {"replicas": 3, "paused": false, "nothing": {},
                "containers": [{"name": "main", "podIP": "10.0.0.1"}, {"name": "side"}], "args": ["a", "b\u{1b}[2J"]},
            "data": {"app.conf": "one\ntwo"},
        });
        let expected = "Name:         web
Namespace:    default
Labels:       app=web
              tier=front
Annotations:  <none>
API Version:  apps/v1
Kind:         Deployment
Data:
  app.conf:
    one
    two
Metadata:
  Uid:  u
Spec:
  Args:
    a
    b [2J
  Containers:
    - Name:    main
      Pod IP:  10.0.0.1
    - Name:  side
  Nothing:   <none>
  Paused:    false
  Replicas:  3
";
        assert_eq!(told(&object, "Deployment", "apps/v1"), expected);
    }

    #[test]
    fn a_secret_s_values_are_not_told() {
        let secret =
            json!({"metadata": {"name": "key"}, "data": {"token": "c2VjcmV0IQ=="}, "type": "Opaque"});
        let told = told(&secret, "Secret", "v1");
        assert!(told.contains("Token:  7 bytes") && !told.contains("c2VjcmV0"), "{told}");
    }

    #[test]
    fn its_own_events_are_shown_in_their_order() {
        let event = |uid: &str, at: &str, message: &str| {
            json!({"involvedObject": {"uid": uid}, "lastTimestamp": at, "type": "Normal", "reason": "Started",
                "message": message, "source": {"component": "kubelet"}})
        };
        let events = [
            event("u", "2026-11-30T12:00:01Z", "second"),
            event("old", "2026-11-30T12:00:02Z", "another's"),
            event("u", "2026-11-30T12:00:00Z", "first"),
        ];
        let table = table_of(&events, &json!({"name": "web", "uid": "u"}));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert!(lines[1].ends_with("first") && lines[2].ends_with("second"), "{table}");
        assert_eq!(table_of(&[], &json!({})), "Events:       <none>\n");
    }

    #[test]
    fn fields_are_words() {
        for (field, expected) in [
            ("creationTimestamp", "Creation Timestamp"),
            ("podIP", "Pod IP"),
            ("clusterIPs", "Cluster IPs"),
            ("a/b", "a/b"),
        ] {
            assert_eq!(label(field), expected);
        }
    }
}
