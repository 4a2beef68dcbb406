//! `get`: objects as a table, or whole.

use std::time::Duration;

use anyhow::bail;
use client::{Client, WatchKind, with_query};
use machinery::json_path::Path;
use serde_json::{Value, json};

use super::output::Output;
use super::sort::sort;
use super::table::TablePrinter;
use super::target::{Selected, Selection, Target};
use super::{jsonpath, put};
use crate::tell::say;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Between the end of a watch and the next.
const AGAIN: Duration = Duration::from_millis(200);

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast get pods -o wide\n  holdfast get deployment/web service/web\n  holdfast get pods -A -w\n  holdfast get pods --sort-by .metadata.creationTimestamp\n  holdfast get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.status.addresses[0].address}{\"\\n\"}{end}'"
)]
pub struct Args {
    /// Which objects.
    #[command(flatten)]
    pub selection: Selection,
    /// wide, json, yaml, name or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<Output>,
    /// Only objects with these fields, such as spec.nodeName=n1
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,
    /// Sort what is shown by a field, such as .metadata.creationTimestamp
    #[arg(long, value_name = "PATH", conflicts_with = "watch", value_parser = jsonpath::sort_path)]
    pub sort_by: Option<Path>,
    /// Show changes as they come
    #[arg(short, long)]
    pub watch: bool,
    /// No line with the columns' names
    #[arg(long)]
    pub no_headers: bool,
    /// No error when a named object is not there
    #[arg(long)]
    pub ignore_not_found: bool,
}

/// Prints objects.
pub async fn get(args: Args) -> anyhow::Result<()> {
    let Selected { client, namespace, targets } = args.selection.ask().await?;
    if args.watch && targets.len() > 1 {
        bail!("you may only specify a single resource type to watch");
    }
    let get = Get { args: &args, client, namespace };
    let form = args.output.clone().unwrap_or_default();
    if form.is_table() { get.tables(&targets).await } else { get.whole(&targets, &form).await }
}

struct Get<'a> {
    args: &'a Args,
    client: Client,
    namespace: String,
}

impl Get<'_> {
    /// The path and query of a target's collection, with what narrows it.
    fn collection(&self, target: &Target, name: Option<&str>, revision: Option<&str>) -> String {
        let namespace = (!self.args.selection.all_namespaces).then_some(self.namespace.as_str());
        let named = name.map(|name| format!("metadata.name={name}"));
        let fields = named.as_deref().or(self.args.field_selector.as_deref());
        let pairs = [
            ("labelSelector", self.args.selection.selector.as_deref()),
            ("fieldSelector", fields),
            ("resourceVersion", revision),
            ("includeObject", self.rows_objects()),
        ];
        let pairs: Vec<_> = pairs.into_iter().filter_map(|(field, value)| Some((field, value?))).collect();
        with_query(&target.resource.path(namespace, None), &pairs)
    }

    /// The paths that a target stands for: the collection, or each named object.
    fn paths(&self, target: &Target) -> Vec<String> {
        if target.names.is_empty() {
            return vec![self.collection(target, None, None)];
        }
        let objects = self.rows_objects().map(|objects| ("includeObject", objects));
        let path = |name: &String| {
            let path = target.resource.path(Some(&self.namespace), Some(name));
            with_query(&path, objects.as_slice())
        };
        target.names.iter().map(path).collect()
    }

    /// What of its object each row of a table has to bring: all, where it is sorted by.
    fn rows_objects(&self) -> Option<&'static str> {
        let is_table = self.args.output.as_ref().is_none_or(Output::is_table);
        (is_table && self.args.sort_by.is_some()).then_some("Object")
    }

    /// The answer, none where an object is not there and that is no error.
    async fn ask(&self, path: &str, accept: &str) -> anyhow::Result<Option<Value>> {
        match self.client.get_as(path, accept).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if self.args.ignore_not_found && error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn tables(&self, targets: &[Target]) -> anyhow::Result<()> {
        let mut printed = 0;
        let mut missing = None;
        for target in targets {
            let mut printer = TablePrinter::default();
            printer.wide = self.args.output == Some(Output::Wide);
            printer.with_namespace = self.args.selection.all_namespaces && target.resource.namespaced;
            printer.no_headers = self.args.no_headers;
            if targets.len() > 1 {
                printer.prefix = format!("{}/", target.resource.typed());
            }
            let mut together: Option<Value> = None;
            for path in self.paths(target) {
                // What else is named is still shown.
                let table = match self.ask(&path, TABLE).await {
                    Ok(Some(table)) => table,
                    Ok(None) => continue,
                    Err(error) if !target.names.is_empty() => {
                        if let Some(earlier) = missing.replace(error) {
                            say!("{}", super::complaint(&earlier));
                        }
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                match together.as_mut().and_then(|t| t.get_mut("rows")?.as_array_mut()) {
                    Some(rows) => rows.extend(table["rows"].as_array().cloned().unwrap_or_default()),
                    None => together = Some(table),
                }
            }
            let Some(mut table) = together else { continue };
            if let (Some(by), Some(rows)) = (&self.args.sort_by, table["rows"].as_array_mut()) {
                sort(rows, by, |row| &row["object"])?;
            }
            if table["rows"].as_array().is_some_and(|rows| !rows.is_empty()) {
                if printed > 0 {
                    put("\n")?;
                }
                printed += 1;
                put(&printer.print(&table))?;
            }
            if self.args.watch {
                return self.watch_table(target, table, printer).await;
            }
        }
        if let Some(error) = missing {
            return Err(error);
        }
        if printed == 0 && !self.args.ignore_not_found {
            match self.args.selection.all_namespaces || targets.iter().all(|t| !t.resource.namespaced) {
                true => say!("No resources found"),
                false => say!("No resources found in {} namespace.", self.namespace),
            }
        }
        Ok(())
    }

    /// The path and query of a watch from a revision on.
    fn watch_path(&self, target: &Target, revision: &str) -> anyhow::Result<String> {
        let name = match target.names.as_slice() {
            [] => None,
            [one] => Some(one.as_str()),
            _ => bail!("only one object, or all of a type, can be watched"),
        };
        Ok(self.collection(target, name, Some(revision)))
    }

    async fn watch_table(
        &self,
        target: &Target,
        table: Value,
        mut printer: TablePrinter,
    ) -> anyhow::Result<()> {
        let mut revision = revision(&table);
        loop {
            let mut watch = self.client.watch(&self.watch_path(target, &revision)?, Some(TABLE)).await?;
            while let Some(event) = watch.next().await? {
                let inner = event.object.pointer("/rows/0/object/metadata/resourceVersion");
                if let Some(at) = inner.and_then(Value::as_str) {
                    revision = at.to_owned();
                }
                if event.kind != WatchKind::Bookmark {
                    put(&printer.print(&event.object))?;
                }
            }
            // The server ended the watch, as it does now and then. One that does so at once is not asked in a hurry.
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn whole(&self, targets: &[Target], form: &Output) -> anyhow::Result<()> {
        let mut items = Vec::new();
        let mut last_list = None;
        for target in targets {
            for path in self.paths(target) {
                let Some(answer) = self.ask(&path, "application/json").await? else { continue };
                if !target.names.is_empty() {
                    items.push(answer);
                    continue;
                }
                let api_version = target.resource.api_version();
                for item in answer["items"].as_array().cloned().unwrap_or_default() {
                    // The items of a list go without saying what they are.
                    let mut whole = json!({"apiVersion": api_version, "kind": target.resource.kind});
                    if let (Some(whole), Value::Object(item)) = (whole.as_object_mut(), item) {
                        whole.extend(item);
                    }
                    items.push(whole);
                }
                last_list = Some(revision(&answer));
            }
        }
        if let Some(by) = &self.args.sort_by {
            sort(&mut items, by, |item| item)?;
        }
        let is_one = targets.len() == 1 && targets[0].names.len() == 1;
        if *form == Output::Name {
            for target in targets {
                let of_target = |i: &&Value| {
                    i["kind"] == target.resource.kind.as_str()
                        && i["apiVersion"] == target.resource.api_version()
                };
                for item in items.iter().filter(of_target) {
                    put(&format!(
                        "{}/{}\n",
                        target.resource.typed(),
                        item["metadata"]["name"].as_str().unwrap_or("")
                    ))?;
                }
            }
        } else if !(is_one && items.is_empty()) {
            let shown = match items.as_slice() {
                [one] if is_one => one.clone(),
                _ => {
                    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
                }
            };
            put(&print(&shown, form)?)?;
        }
        if self.args.watch {
            let from = match (last_list, items.first()) {
                (Some(list), _) => list,
                (None, Some(item)) => revision(item),
                (None, None) => "0".into(),
            };
            let mut watch = self.client.watch(&self.watch_path(&targets[0], &from)?, None).await?;
            while let Some(event) = watch.next().await? {
                match (event.kind, form) {
                    (WatchKind::Bookmark, _) => {}
                    (_, Output::Name) => {
                        let name = event.object["metadata"]["name"].as_str().unwrap_or("");
                        put(&format!("{}/{name}\n", targets[0].resource.typed()))?;
                    }
                    (_, Output::Yaml) => put(&format!("---\n{}", print(&event.object, form)?))?,
                    _ => put(&print(&event.object, form)?)?,
                }
            }
        }
        Ok(())
    }
}

fn print(object: &Value, form: &Output) -> anyhow::Result<String> {
    match form {
        Output::JsonPath(template) => Ok(template.render(object)?),
        Output::Yaml => Ok(values::to_yaml(object)),
        _ => json(object),
    }
}

/// As JSON, four spaces deep, as kubectl prints it.
fn json(value: &Value) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    serde::Serialize::serialize(value, &mut serializer)?;
    bytes.push(b'\n');
    Ok(String::from_utf8(bytes)?)
}

fn revision(object: &Value) -> String {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default().to_owned()
}
