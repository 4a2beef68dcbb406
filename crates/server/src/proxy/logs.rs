//! `pods/NAME/log`: from the agent of the pod's host, as it comes; what is wrong is answered as a `Status`.

use http::Response;
use http_body_util::{BodyExt, Limited};
use machinery::{Cause, Status};
use objects::{Named, load};
use serde_json::Value;

use super::Proxy;
use super::agent::container_of;
use crate::http::query::Query;
use crate::http::response::{TEXT, bytes};
use crate::http::{Asked, Body};
use crate::registry::Freshness;

/// How much of what an agent says about an error is passed on, as upstream.
const LONGEST_WORD: usize = 2048;

impl Proxy {
    /// Answers `pods/NAME/log` with the log of one container.
    pub(crate) async fn logs(&self, asked: &Asked<'_>) -> Result<Response<Body>, Status> {
        let target = asked.target;
        let query = options(asked.query, &target.name)?;
        let named = Named { resource: target.resource, namespace: &target.namespace, name: &target.name };
        let pod = load(&*self.registry.get(&named, Freshness::Newest).await?)?;
        let container = container_of(&pod, asked.query.get("container"))?;
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
        if node.is_empty() {
            // As upstream: a pod that is nowhere yet has said nothing.
            return Ok(bytes(200, TEXT, ""));
        }
        let agent = self.agent(node)?;
        let path = format!("/containerLogs/{}/{}/{container}?{query}", target.namespace, target.name);
        let answer = agent.get(&path).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let code = answer.status().as_u16();
        let said = Limited::new(answer.into_body(), LONGEST_WORD).collect().await;
        let said =
            said.map(|said| String::from_utf8_lossy(&said.to_bytes()).into_owned()).unwrap_or_default();
        Err(refused(code, &said, &target.name))
    }
}

/// What an agent's error is to the caller: upstream's `GenericHttpResponseChecker`.
fn refused(code: u16, said: &str, pod: &str) -> Status {
    match code {
        400 => Status::bad_request(said),
        404 => {
            let message = format!("the server could not find the requested resource ( pods {pod})");
            Status::new(404, "NotFound", message).about("", "pods", pod)
        }
        500 => Status::internal(said),
        code => Status::internal(format!("the host's agent answered {code}: {said}")),
    }
}

/// The options as the agent is asked for them, once they make sense (upstream: `ValidatePodLogOptions`).
fn options(query: &Query, pod: &str) -> Result<String, Status> {
    let number = |name: &str| -> Result<Option<i64>, Status> {
        let Some(value) = query.get(name) else { return Ok(None) };
        let wrong = |_| {
            let why = match value.trim_start_matches(['+', '-']).bytes().all(|byte| byte.is_ascii_digit()) {
                true if value.len() > 1 => "value out of range",
                _ => "invalid syntax",
            };
            Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: {why}"))
        };
        value.parse().map(Some).map_err(wrong)
    };
    let (tail, limit, seconds) = (number("tailLines")?, number("limitBytes")?, number("sinceSeconds")?);
    let time = query.get("sinceTime");
    if let Some(time) = time
        && time.parse::<jiff::Timestamp>().is_err()
    {
        let why = format!(
            "parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {time:?} as a time"
        );
        return Err(Status::bad_request(why));
    }
    let mut faults = Vec::new();
    let mut at_least = |name: &str, value: Option<i64>, least: i64, why: &str| {
        if let Some(value) = value.filter(|value| *value < least) {
            faults.push(Cause::invalid(name, &value.into(), why));
        }
    };
    at_least("tailLines", tail, 0, "must be greater than or equal to 0");
    at_least("limitBytes", limit, 1, "must be greater than 0");
    if seconds.is_some() && time.is_some() {
        faults.push(Cause::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    } else {
        at_least("sinceSeconds", seconds, 1, "must be greater than 0");
    }
    if query.get("stream").is_some() {
        faults.push(Cause::forbidden("stream", "may not be specified"));
    }
    if !faults.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", pod, faults));
    }
    let mut encoded = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("tailLines", tail), ("limitBytes", limit), ("sinceSeconds", seconds)] {
        if let Some(value) = value {
            encoded.append_pair(name, &value.to_string());
        }
    }
    if let Some(time) = time {
        encoded.append_pair("sinceTime", time);
    }
    for name in ["follow", "previous", "timestamps"] {
        if query.flag(name) {
            encoded.append_pair(name, "true");
        }
    }
    Ok(encoded.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_as_upstream_does() {
        for (query, code, says) in [
            ("tailLines=-1", 422, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
            ("limitBytes=0", 422, "limitBytes: Invalid value: 0: must be greater than 0"),
            ("sinceSeconds=0", 422, "sinceSeconds: Invalid value: 0: must be greater than 0"),
            (
                "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
                422,
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ),
            ("stream=Stdout", 422, "stream: Forbidden: may not be specified"),
            ("tailLines=-1&limitBytes=0", 422, "is invalid: [tailLines:"),
            ("tailLines=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("tailLines=99999999999999999999", 400, "value out of range"),
            ("sinceTime=yesterday", 400, "parsing time \"yesterday\""),
        ] {
            let status = options(&Query::parse(Some(query)), "multi").unwrap_err();
            assert_eq!(status.code, code, "{query}");
            assert!(status.message.contains(says), "{query}: {}", status.message);
        }
        let all = "timestamps=TRUE&tailLines=0&container=c&follow=0&previous&sinceSeconds=5&limitBytes=1";
        let asked = options(&Query::parse(Some(all)), "multi").unwrap();
        assert_eq!(asked, "tailLines=0&limitBytes=1&sinceSeconds=5&previous=true&timestamps=true");
    }

    #[test]
    fn what_the_agent_says_is_the_message() {
        let status =
            refused(400, "previous terminated container \"one\" in pod \"multi\" not found", "multi");
        assert_eq!((status.code, status.reason), (400, "BadRequest"));
        assert_eq!(status.message, "previous terminated container \"one\" in pod \"multi\" not found");
        assert_eq!(refused(404, "x", "multi").reason, "NotFound");
        assert_eq!(refused(502, "x", "multi").code, 500);
    }
}
