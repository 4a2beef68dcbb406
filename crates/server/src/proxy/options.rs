//! What a client wants of a stream or a proxy, as the object that policies and webhooks see: `PodExecOptions` and so on.

use form_urlencoded::Serializer;
use machinery::{Object, Status};
use objects::Named;
use serde_json::{Map, Value, json};

use super::Proxy;
use crate::http::Asked;
use crate::http::query::Query;

impl Proxy {
    /// Asks those outside about a stream; the answer is the query as they made it.
    pub(super) async fn admit_stream(&self, asked: &Asked<'_>) -> Result<Query, Status> {
        let subresource = asked.target.subresource.as_str();
        let kind = match subresource {
            "exec" => "PodExecOptions",
            "attach" => "PodAttachOptions",
            _ => "PodPortForwardOptions",
        };
        let admitted = self.admit(asked, options(kind, stream_fields(subresource, asked.query)?)).await?;
        Ok(query_of(&admitted))
    }

    /// Asks those outside about a proxy.
    pub(super) async fn admit_proxy(&self, asked: &Asked<'_>) -> Result<(), Status> {
        let kind = match asked.target.resource.plural {
            "pods" => "PodProxyOptions",
            "services" => "ServiceProxyOptions",
            _ => "NodeProxyOptions",
        };
        let path = asked.target.rest.trim_start_matches('/');
        let fields =
            if path.is_empty() { Map::new() } else { Map::from_iter([("path".to_owned(), json!(path))]) };
        let asked_for = options(kind, fields);
        if self.admit(asked, asked_for.clone()).await? != asked_for {
            return Err(Status::internal(
                "a policy or a webhook would change where a proxy leads, which it can't",
            ));
        }
        Ok(())
    }

    async fn admit(&self, asked: &Asked<'_>, options: Object) -> Result<Object, Status> {
        let target = asked.target;
        let named = Named { resource: target.resource, namespace: &target.namespace, name: &target.name };
        self.registry.connect(asked.who, named, &target.subresource, options).await
    }
}

fn options(kind: &str, fields: Map<String, Value>) -> Object {
    let mut object =
        Map::from_iter([("kind".to_owned(), json!(kind)), ("apiVersion".to_owned(), json!("v1"))]);
    object.extend(fields);
    Object(object)
}

const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

fn stream_fields(subresource: &str, query: &Query) -> Result<Map<String, Value>, Status> {
    let mut fields = Map::new();
    if subresource == "portforward" {
        let number = |port: &str| {
            let wrong = || format!("strconv.ParseInt: parsing {port:?}: invalid syntax");
            port.parse::<i32>().map_err(|_| Status::bad_request(wrong()))
        };
        let ports = query.all("ports").flat_map(|ports| ports.split(','));
        let ports: Vec<i32> = ports.map(number).collect::<Result<_, _>>()?;
        if !ports.is_empty() {
            fields.insert("ports".into(), json!(ports));
        }
        return Ok(fields);
    }
    for flag in FLAGS.into_iter().filter(|flag| query.flag(flag)) {
        fields.insert(flag.into(), json!(true));
    }
    if let Some(container) = query.get("container") {
        fields.insert("container".into(), json!(container));
    }
    if subresource == "exec" {
        fields.insert("command".into(), query.all("command").collect::<Vec<_>>().into());
    }
    Ok(fields)
}

fn query_of(options: &Object) -> Query {
    let mut query = Serializer::new(String::new());
    for flag in FLAGS {
        if options.0.get(flag) == Some(&json!(true)) {
            query.append_pair(flag, "true");
        }
    }
    if let Some(container) = options.0.get("container").and_then(Value::as_str) {
        query.append_pair("container", container);
    }
    for list in ["command", "ports"] {
        for item in options.0.get(list).and_then(Value::as_array).into_iter().flatten() {
            query.append_pair(list, &item.as_str().map_or_else(|| item.to_string(), str::to_owned));
        }
    }
    Query::parse(Some(&query.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_what_the_query_says_and_back() {
        let query = Query::parse(Some("stdin=true&stdout=1&stderr=false&command=sh&command=-c&container=c"));
        let exec = options("PodExecOptions", stream_fields("exec", &query).unwrap());
        assert_eq!(
            exec.clone().into_value(),
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "stdout": true, "container": "c",
                "command": ["sh", "-c"]})
        );
        let back = query_of(&exec);
        assert!(back.flag("stdin") && back.flag("stdout") && !back.flag("stderr") && !back.flag("tty"));
        assert_eq!(back.all("command").collect::<Vec<_>>(), ["sh", "-c"]);
        assert_eq!(back.get("container"), Some("c"));
        let ports = |query| stream_fields("portforward", &Query::parse(Some(query)));
        let asked = ports("ports=80&ports=81,82").unwrap();
        assert_eq!(Value::Object(asked.clone()), json!({"ports": [80, 81, 82]}));
        let back = query_of(&Object(asked));
        assert_eq!(back.all("ports").collect::<Vec<_>>(), ["80", "81", "82"]);
        assert_eq!(ports("ports=http").unwrap_err().code, 400);
    }
}
