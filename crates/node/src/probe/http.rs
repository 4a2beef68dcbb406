//! An HTTP request of a probe or a hook, as the kubelet makes it (`pkg/probe/http`): redirects are followed as long as
//! they stay at the same host.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPHeader;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How many requests one probe makes at most, as Go's client.
const MOST_REQUESTS: usize = 10;
/// How much of an answer's body is shown.
const LONGEST_BODY: usize = 10 << 10;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// With the query.
    pub(super) path: String,
}

impl Url {
    fn authority(&self) -> String {
        let Url { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Where a `Location` leads from here, and whether it names no host.
    fn to(&self, location: &str) -> Result<(Url, bool), String> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = if self.tls { "https" } else { "http" };
        let absolute = match location.strip_prefix("//") {
            Some(rest) => format!("{scheme}://{rest}"),
            None => location.to_owned(),
        };
        if absolute.split(['/', '?']).next().is_some_and(|first| first.ends_with(':')) {
            let wrong = |_| format!("failed to parse Location header {location:?}");
            let uri: Uri = absolute.parse().map_err(wrong)?;
            let tls = match uri.scheme_str() {
                Some("http") => false,
                Some("https") => true,
                _ => return Err(format!("unsupported protocol scheme in Location header {location:?}")),
            };
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            return Ok((Url { tls, host, port, path }, false));
        }
        let here = self.path.split('?').next().unwrap_or_default();
        let path = match location.chars().next() {
            None => self.path.clone(),
            Some('/') => location.to_owned(),
            Some('?') => format!("{here}{location}"),
            Some(_) => format!("{}/{location}", here.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Ok((Url { path: without_dots(&path), ..self.clone() }, true))
    }
}

/// The path with `.` and `..` resolved (RFC 3986, 5.2.4).
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut parts: Vec<&str> = Vec::new();
    let last = path.rsplit('/').next().unwrap_or_default();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if matches!(last, "." | "..") {
        parts.push("");
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("/{}{query}", parts.join("/"))
}

/// The headers as the pod names them. Two are sent unless it names them, and not even then if they are empty.
fn headers(asked: &[HTTPHeader]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for header in asked {
        let wrong = || format!("invalid header {:?}", header.name);
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| wrong())?;
        map.append(name, HeaderValue::from_str(&header.value).map_err(|_| wrong())?);
    }
    for (name, default) in [(header::USER_AGENT, "kube-probe/1.36"), (header::ACCEPT, "*/*")] {
        match map.get(&name) {
            None => drop(map.insert(name, HeaderValue::from_static(default))),
            Some(value) if value.is_empty() => drop(map.remove(name)),
            Some(_) => {}
        }
    }
    map.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(map)
}

/// Asks, and follows where it is sent. What is fine may still have a warning.
pub(super) async fn get(mut url: Url, asked: &[HTTPHeader]) -> Result<Option<String>, String> {
    let mut headers = headers(asked)?;
    let mut own_host = headers.remove(header::HOST);
    let first_host = url.host.clone();
    for _ in 0..MOST_REQUESTS {
        let host = match &own_host {
            Some(host) => host.clone(),
            None => HeaderValue::from_str(&url.authority()).map_err(|e| e.to_string())?,
        };
        headers.insert(header::HOST, host);
        let answer = ask(&url, headers.clone()).await?;
        if let (301..=303 | 307 | 308, Some(location)) = (answer.status, &answer.location) {
            let (next, is_relative) = url.to(location)?;
            if next.host == first_host {
                url = next;
                own_host = own_host.filter(|_| is_relative);
                continue;
            }
        }
        return match answer.status {
            200..=299 => Ok(None),
            300..=399 => Ok(Some(format!("Probe terminated redirects, Response body: {}", answer.body))),
            status => Err(format!("HTTP probe failed with statuscode: {status}")),
        };
    }
    Err("stopped after 10 redirects".into())
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

async fn ask(url: &Url, headers: HeaderMap) -> Result<Answer, String> {
    let stream = connect(&url.host, url.port).await?;
    let mut request = http::Request::get(&url.path).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    *request.headers_mut() = headers;
    if !url.tls {
        return send(stream, request).await;
    }
    let config = pki::client_config_for_anyone().map_err(|e| e.to_string())?;
    let name = match url.host.parse::<IpAddr>() {
        Ok(address) => rustls::pki_types::ServerName::IpAddress(address.into()),
        Err(_) => url.host.clone().try_into().map_err(|_| format!("{:?} is no host name", url.host))?,
    };
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
    send(stream.map_err(|e| e.to_string())?, request).await
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<Empty<Bytes>>,
) -> Result<Answer, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let mut answer = std::pin::pin!(async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.map(str::to_owned);
        // Only a warning shows the body.
        let body = match status {
            300..=399 => Limited::new(response.into_body(), LONGEST_BODY).collect().await.ok(),
            _ => None,
        };
        let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
        Ok(Answer { status, location, body: body.unwrap_or_default() })
    });
    tokio::select! {
        biased;
        answered = &mut answer => answered,
        // The connection may end in the same moment as the answer arrives: then the answer counts.
        _ = connection => answer.await,
    }
}

/// Connects.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|e| format!("dial tcp {host}:{port}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_from_where_it_was_said() {
        let here = Url { tls: false, host: "10.0.0.1".into(), port: 8080, path: "/a/b?c".into() };
        for (location, host, port, path) in [
            ("/bad", "10.0.0.1", 8080, "/bad"),
            ("bad", "10.0.0.1", 8080, "/a/bad"),
            ("../bad?x=1#y", "10.0.0.1", 8080, "/bad?x=1"),
            ("..", "10.0.0.1", 8080, "/"),
            ("./x/./y/../z", "10.0.0.1", 8080, "/a/x/z"),
            ("?d", "10.0.0.1", 8080, "/a/b?d"),
            ("?u=http://x/", "10.0.0.1", 8080, "/a/b?u=http://x/"),
            ("http://10.0.0.1/x", "10.0.0.1", 80, "/x"),
            ("https://10.0.0.1:9443", "10.0.0.1", 9443, "/"),
            ("//other.example/x", "other.example", 80, "/x"),
            ("http://[::1]:5/x", "::1", 5, "/x"),
        ] {
            let (url, _) = here.to(location).unwrap();
            assert_eq!((url.host.as_str(), url.port, url.path.as_str()), (host, port, path), "{location}");
        }
        assert!(here.to("ftp://10.0.0.1/x").is_err());
        assert!(here.to("http://").is_err());
    }

    #[test]
    fn an_empty_header_takes_a_default_away() {
        let named = |list: &[(&str, &str)]| {
            let list: Vec<HTTPHeader> = list
                .iter()
                .map(|(name, value)| HTTPHeader { name: (*name).into(), value: (*value).into() })
                .collect();
            let map = headers(&list).unwrap();
            let of = |name: HeaderName| {
                map.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            (of(header::USER_AGENT), of(header::ACCEPT))
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(named(&[]), (vec!["kube-probe/1.36".into()], vec!["*/*".into()]));
        assert_eq!(named(&[("User-Agent", ""), ("accept", "")]), (none.clone(), none));
        assert_eq!(named(&[("user-agent", "x"), ("Accept", "y")]), (vec!["x".into()], vec!["y".into()]));
    }
}
