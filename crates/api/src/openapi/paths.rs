//! The paths of the OpenAPI v3 documents: of what there is to be asked, and of every resource.

use std::collections::BTreeMap;

use machinery::{Resource, Subresource, api_version};
use serde_json::{Map, Value, json};

use super::operation::{Action, Of, log_responses, parameter, plain, reference, text};
use super::{META, schema_of};
use crate::kinds::resources;

/// The documents that are about no resources, by their paths.
pub(super) fn roots() -> Vec<(String, Value)> {
    let meta = |kind: &str| reference(&format!("{META}.{kind}"));
    let of = |path: &str, operation: Value| {
        (path.to_owned(), json!({ format!("/{path}/"): { "get": operation } }))
    };
    let mut all = vec![
        of(
            "version",
            plain("getCodeVersion", "version", &reference("io.k8s.apimachinery.pkg.version.Info"), true),
        ),
        of("api", plain("getCoreAPIVersions", "core", &meta("APIVersions"), false)),
        of("apis", plain("getAPIVersions", "apis", &meta("APIGroupList"), false)),
    ];
    let mut groups: Vec<&str> = resources().map(|r| r.group).filter(|group| !group.is_empty()).collect();
    groups.dedup();
    for group in groups {
        let (tag, id) = (tag(group), capital(&tag(group)));
        all.push(of(
            &format!("apis/{group}"),
            plain(&format!("get{id}APIGroup"), &tag, &meta("APIGroup"), false),
        ));
    }
    all
}

/// The paths of one group and version.
pub(super) fn of_version<'a>(
    group: &str,
    version: &str,
    resources: impl Iterator<Item = &'a Resource>,
) -> Value {
    let root = if group.is_empty() { "/api/".to_owned() } else { "/apis/".to_owned() };
    let root = format!("{root}{}/", api_version(group, version));
    let tag = tag(group);
    let id = format!("{}{}", capital(&tag), capital(version));
    let tag = format!("{tag}_{version}");
    let mut paths = BTreeMap::new();
    let mut resources = resources.peekable();
    if resources.peek().is_some_and(|resource| resource.custom().is_none()) {
        let list = reference(&format!("{META}.APIResourceList"));
        let get = plain(&format!("get{id}APIResources"), &tag, &list, false);
        paths.insert(root.clone(), json!({ "get": get }));
    }
    for resource in resources {
        Paths { root: &root, id: &id, tag: &tag, resource, paths: &mut paths }.add();
    }
    paths.into_iter().collect::<Map<_, _>>().into()
}

/// `core`, `apps`, `rbacAuthorization`.
fn tag(group: &str) -> String {
    let mut parts = group.strip_suffix(".k8s.io").unwrap_or(group).split(['.', '-']);
    let first = parts.next().filter(|first| !first.is_empty()).unwrap_or("core");
    parts.fold(first.to_owned(), |tag, part| tag + &capital(part))
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Makes the paths of one resource.
struct Paths<'a> {
    root: &'a str,
    /// What the operations' ids have of group and version: `AppsV1`.
    id: &'a str,
    tag: &'a str,
    resource: &'a Resource,
    paths: &'a mut BTreeMap<String, Value>,
}

impl Paths<'_> {
    fn add(mut self) {
        let resource = self.resource;
        let Resource { plural, kind, namespaced, .. } = *resource;
        let scope = if namespaced { "namespaces/{namespace}/" } else { "" };
        let scoped = if namespaced { format!("Namespaced{kind}") } else { kind.to_owned() };
        let all = format!("{scope}{plural}");
        let one = format!("{all}/{{name}}");
        use Action::*;
        self.path(
            &all,
            &[("get", List), ("post", Post), ("delete", DeleteCollection)],
            |action| match action {
                DeleteCollection => format!("Collection{scoped}"),
                _ => scoped.clone(),
            },
        );
        self.path(&one, &[("get", Get), ("put", Put), ("patch", Patch), ("delete", Delete)], |_| {
            scoped.clone()
        });
        // Of definitions' kinds upstream doesn't tell them, nor some other things (`pkg/controller/openapi/builder`).
        let has_watches = resource.custom().is_none();
        if has_watches {
            self.path(&format!("watch/{all}"), &[("get", WatchList)], |_| format!("{scoped}List"));
            self.path(&format!("watch/{one}"), &[("get", Watch)], |_| scoped.clone());
        }
        if namespaced {
            self.path(plural, &[("get", List)], |_| format!("{kind}ForAllNamespaces"));
        }
        if namespaced && has_watches {
            self.path(&format!("watch/{plural}"), &[("get", WatchList)], |_| {
                format!("{kind}ListForAllNamespaces")
            });
        }
        for sub in resource.subresources {
            let path = format!("{one}/{}", sub.name);
            let name = format!("{scoped}{}", capital(sub.name));
            if sub.kind.ends_with("Options") {
                self.connect(&path, &name, sub);
                if sub.name == "proxy" {
                    self.connect(&format!("{path}/{{path}}"), &format!("{name}WithPath"), sub);
                }
            } else {
                self.subresource(&path, &name, sub);
            }
        }
    }

    fn path(&mut self, path: &str, methods: &[(&str, Action)], name: impl Fn(Action) -> String) {
        let resource = self.resource;
        let operations = methods.iter().filter(|(_, action)| resource.has_verb(verb(*action)));
        let operations: Vec<_> = operations
            .map(|(method, action)| {
                let answer = match action {
                    Action::List => reference(&format!("{}List", resource.schema.name)),
                    Action::Watch | Action::WatchList => reference(&format!("{META}.WatchEvent")),
                    Action::DeleteCollection => reference(&format!("{META}.Status")),
                    Action::Delete if !resource.answers_deleted_object() => {
                        reference(&format!("{META}.Status"))
                    }
                    _ => reference(resource.schema.name),
                };
                let kind = (resource.group, resource.version, resource.kind);
                let mut operation = self.operation(*action, &name(*action), kind);
                operation.insert("responses".into(), action.responses(&answer, self.of()));
                if let Some(request) = action.request(resource.schema.name, self.of()) {
                    operation.insert("requestBody".into(), request);
                }
                (*method, operation, action.parameters(self.of()))
            })
            .collect();
        self.insert(path, operations);
    }

    fn subresource(&mut self, path: &str, name: &str, sub: &Subresource) {
        let schema = schema_of(self.resource, sub);
        let methods = [
            ("create", "post", Action::Post),
            ("get", "get", Action::Get),
            ("update", "put", Action::Put),
            ("patch", "patch", Action::Patch),
        ];
        let operations = methods.into_iter().filter(|(verb, ..)| sub.verbs.contains(verb));
        let operations: Vec<_> = operations
            .map(|(_, method, action)| {
                let mut operation = self.operation(action, name, self.kind_of(sub));
                let mut parameters = action.parameters(self.of());
                let responses = if sub.name == "log" {
                    parameters.extend([
                        "container",
                        "follow",
                        "insecureSkipTLSVerifyBackend",
                        "limitBytes",
                        "previous",
                    ]);
                    parameters.extend(["sinceSeconds", "stream", "tailLines", "timestamps"]);
                    log_responses()
                } else {
                    action.responses(&reference(&schema), self.of())
                };
                operation.insert("responses".into(), responses);
                if let Some(request) = action.request(&schema, self.of()) {
                    operation.insert("requestBody".into(), request);
                }
                (method, operation, parameters)
            })
            .collect();
        self.insert(path, operations);
    }

    fn connect(&mut self, path: &str, name: &str, sub: &Subresource) {
        let methods: &[&str] = match sub.name {
            "proxy" => &["delete", "get", "head", "options", "patch", "post", "put"],
            _ => &["get", "post"],
        };
        let parameters: &[&str] = match sub.name {
            "proxy" => &["path"],
            "portforward" => &["ports"],
            "attach" => &["container", "stderr", "stdin", "stdout", "tty"],
            _ => &["command", "container", "stderr", "stdin", "stdout", "tty"],
        };
        let operations = methods.iter().map(|method| {
            let mut operation =
                self.operation(Action::Connect, &format!("{}{name}", capital(method)), self.kind_of(sub));
            operation.insert("responses".into(), Action::Connect.responses(&text(), self.of()));
            (*method, operation, parameters.to_vec())
        });
        let operations = operations.collect();
        self.insert(path, operations);
    }

    fn of(&self) -> Of {
        if self.resource.custom().is_some() { Of::Custom } else { Of::BuiltIn }
    }

    fn kind_of(&self, sub: &Subresource) -> (&'static str, &'static str, &'static str) {
        match sub.version {
            "" => (self.resource.group, self.resource.version, sub.kind),
            version => (sub.group, version, sub.kind),
        }
    }

    fn operation(
        &self,
        action: Action,
        name: &str,
        (group, version, kind): (&str, &str, &str),
    ) -> Map<String, Value> {
        // The id has group and version behind the verb, and in front of the method that a connection goes by.
        let mut operation = Map::new();
        operation.insert("operationId".into(), format!("{}{}{name}", action.verb(), self.id).into());
        operation.insert("tags".into(), json!([self.tag]));
        operation.insert("x-kubernetes-action".into(), action.name().into());
        let kind = json!({ "group": group, "kind": kind, "version": version });
        operation.insert("x-kubernetes-group-version-kind".into(), kind);
        operation
    }

    /// Adds a path: parameters that all of its operations have stand with the path.
    fn insert(&mut self, path: &str, operations: Vec<(&str, Map<String, Value>, Vec<&'static str>)>) {
        let Some((_, _, first)) = operations.first() else { return };
        let of_all: Vec<&str> = first
            .iter()
            .copied()
            .filter(|name| operations.iter().all(|(_, _, all)| all.contains(name)))
            .collect();
        let mut item = Map::new();
        let mut common: Vec<(&str, &str)> = of_all.iter().map(|name| (*name, "query")).collect();
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        common.extend(in_path.map(|name| (name, "path")));
        common.sort_unstable();
        for (method, mut operation, mut own) in operations {
            own.retain(|name| !of_all.contains(name));
            own.sort_unstable();
            if !own.is_empty() {
                let own: Value = own.into_iter().map(|name| parameter("query", name)).collect();
                operation.insert("parameters".into(), own);
            }
            item.insert(method.to_owned(), operation.into());
        }
        if !common.is_empty() {
            let common: Value = common.into_iter().map(|(name, place)| parameter(place, name)).collect();
            item.insert("parameters".into(), common);
        }
        self.paths.insert(format!("{}{path}", self.root), item.into());
    }
}

/// The verb that a resource must have for an action.
fn verb(action: Action) -> &'static str {
    match action {
        Action::Post => "create",
        Action::Put => "update",
        Action::WatchList => "watch",
        other => other.name(),
    }
}
