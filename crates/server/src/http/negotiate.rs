//! What the client wants to read and what it sends: `Accept` and `Content-Type`.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use machinery::{Resource, Status};

use super::encoding::Encoding;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The object itself.
    Plain,
    /// `meta.k8s.io/v1 Table`.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata`.
    Metadata,
}

/// What an answer should look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) shape: Shape,
    pub(crate) encoding: Encoding,
}

impl Accepted {
    /// Whether it is the form in which most objects are stored.
    pub(crate) fn is_plain_json(&self) -> bool {
        self.shape == Shape::Plain && self.encoding == Encoding::Json
    }
}

/// One media range of an `Accept` header.
struct Range<'a> {
    kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Range<'a> {
    fn parse(range: &'a str) -> Self {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let parameters =
            parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.trim(), v.trim().trim_matches('"')));
        Range { kind, parameters: parameters.collect() }
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn quality(&self) -> f32 {
        self.parameter("q").and_then(|q| q.parse().ok()).unwrap_or(1.0)
    }

    fn is_json(&self) -> bool {
        self.encoding(&[Encoding::Json]).is_some()
    }

    /// The encoding of those offered that the range takes.
    fn encoding(&self, offered: &[Encoding]) -> Option<Encoding> {
        match self.kind {
            "application/*" | "*/*" => offered.first().copied(),
            // Clients that mean a watch ask for it.
            "application/cbor-seq" => Some(Encoding::Cbor).filter(|cbor| offered.contains(cbor)),
            kind => offered.iter().copied().find(|encoding| encoding.media_type() == kind),
        }
    }
}

/// The ranges of the `Accept` headers, the most wanted first.
fn ranges(headers: &HeaderMap) -> Vec<Range<'_>> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges: Vec<Range<'_>> = values
        .flat_map(|value| value.split(','))
        .filter(|range| !range.trim().is_empty())
        .map(Range::parse)
        .collect();
    ranges.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
    ranges
}

/// 406: nothing that is offered is accepted.
pub(crate) fn not_acceptable(offered: &[Encoding]) -> Status {
    let message = format!("only the following media types are accepted: {}", Encoding::names(offered));
    Status::new(406, "NotAcceptable", message).about("", "", "")
}

/// The most wanted one of the media types that are offered.
pub(crate) fn accepted_media_type<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Option<&'a str> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return offered.first().copied();
    }
    ranges.iter().find_map(|range| match range.kind {
        "*/*" | "application/*" => offered.first().copied(),
        kind => offered.iter().copied().find(|offered| *offered == kind),
    })
}

/// What an object, a list or a watch should be answered as, out of what is offered, and as a Table if that is.
fn accepted(headers: &HeaderMap, offered: &[Encoding], table: bool) -> Result<Accepted, Status> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return Ok(Accepted { shape: Shape::Plain, encoding: Encoding::Json });
    }
    for range in &ranges {
        let Some(encoding) = range.encoding(offered) else { continue };
        let ours = range.parameter("g") == Some("meta.k8s.io") && range.parameter("v") == Some("v1");
        let shape = match range.parameter("as") {
            None => Shape::Plain,
            // A Table's cells are of any type: it has no message.
            Some("Table") if ours && table && encoding != Encoding::Protobuf => Shape::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if ours => Shape::Metadata,
            Some(_) => continue,
        };
        return Ok(Accepted { shape, encoding });
    }
    Err(not_acceptable(offered))
}

/// What answers about objects of a resource can be written as.
pub(crate) fn accepted_for(headers: &HeaderMap, resource: &Resource) -> Result<Accepted, Status> {
    // What nobody can read again, such as a review, has no columns.
    let table = resource.has_verb("get");
    if Encoding::Protobuf.has(resource) {
        return accepted(headers, &Encoding::ALL, table);
    }
    accepted(headers, &[Encoding::Json, Encoding::Yaml, Encoding::Cbor], table)
}

/// What a watch of a resource can be written as: no YAML, whose documents have no end.
pub(crate) fn accepted_stream(headers: &HeaderMap, resource: &Resource) -> Result<Accepted, Status> {
    if Encoding::Protobuf.has(resource) {
        return accepted(headers, &[Encoding::Json, Encoding::Protobuf, Encoding::Cbor], true);
    }
    accepted(headers, &[Encoding::Json, Encoding::Cbor], true)
}

/// What an error is written as: JSON where the client asked for nothing that is known.
pub(crate) fn accepted_error(headers: &HeaderMap) -> Encoding {
    ranges(headers).iter().find_map(|range| range.encoding(&Encoding::ALL)).unwrap_or(Encoding::Json)
}

/// Whether discovery should be answered in its aggregated form.
pub(crate) fn wants_aggregated_discovery(headers: &HeaderMap) -> Result<bool, Status> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return Ok(false);
    }
    for range in ranges.iter().filter(|range| range.is_json()) {
        match range.parameter("as") {
            None => return Ok(false),
            Some("APIGroupDiscoveryList")
                if range.parameter("g") == Some("apidiscovery.k8s.io")
                    && range.parameter("v") == Some("v2") =>
            {
                return Ok(true);
            }
            Some(_) => {}
        }
    }
    Err(not_acceptable(&[Encoding::Json]))
}

/// The media type of the body, without parameters; JSON if none is given.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// 415: a body of a kind that can't be read here.
pub(crate) fn unsupported(got: &str, offered: &str) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {offered} (got {got:?})"
    );
    Status::new(415, "UnsupportedMediaType", message)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn answered(accept: &'static str) -> Option<(Shape, Encoding)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        accepted(&headers, &Encoding::ALL, true).ok().map(|a| (a.shape, a.encoding))
    }

    #[test]
    fn the_first_range_that_can_be_answered_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, expected) in [
            (kubectl, Some((Shape::Table, Encoding::Json))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some((Shape::Plain, Encoding::Protobuf)),
            ),
            (
                "application/vnd.kubernetes.protobuf;q=0.5, application/json",
                Some((Shape::Plain, Encoding::Json)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some((Shape::Plain, Encoding::Json)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                Some((Shape::Metadata, Encoding::Protobuf)),
            ),
            (
                "application/json;as=Nothing;v=v1;g=meta.k8s.io,application/yaml",
                Some((Shape::Plain, Encoding::Yaml)),
            ),
            ("application/json;q=0.1, application/yaml", Some((Shape::Plain, Encoding::Yaml))),
            ("application/cbor, */*;q=0.1", Some((Shape::Plain, Encoding::Cbor))),
            ("application/cbor-seq", Some((Shape::Plain, Encoding::Cbor))),
            ("text/html, */*;q=0.8", Some((Shape::Plain, Encoding::Json))),
            ("image/png", None),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                Some((Shape::Metadata, Encoding::Json)),
            ),
        ] {
            assert_eq!(answered(accept), expected, "{accept}");
        }
    }
}
