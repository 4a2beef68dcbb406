//! nginx' configuration, as far as it hands connections on.

use super::blocks::{Block, BlocksError, Ends, blocks};
use super::words::milliseconds;
use super::{NotUnderstood, endpoint, note};

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Nginx {
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) not_understood: Vec<NotUnderstood>,
}

/// A `server` that hands connections or requests on to an `upstream`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Proxy {
    pub(crate) listens: Vec<String>,
    pub(crate) servers: Vec<Server>,
    pub(crate) connect_ms: u64,
    /// It tries another server where one doesn't answer.
    pub(crate) tries_next: bool,
    pub(crate) line: usize,
}

/// A server of an upstream.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) line: usize,
    /// After so many failures it is left alone for a while; never with 0.
    pub(crate) max_fails: u64,
    pub(crate) fail_timeout_ms: u64,
    /// `max_fails` or `fail_timeout` stand there.
    pub(crate) is_told: bool,
}

/// nginx' own: how long connecting may take.
const CONNECT_MS: u64 = 60_000;
/// nginx' own: how long a server that failed is left alone.
const FAIL_TIMEOUT_MS: u64 = 10_000;

/// Reads a file.
pub(crate) fn nginx(text: &str) -> Result<Nginx, BlocksError> {
    let mut read = Nginx::default();
    for outer in blocks(text, Ends::Semicolon)? {
        match outer.name() {
            "stream" | "http" => of_context(&outer, &mut read),
            "include" => note(&mut read.not_understood, outer.line, &outer.words.join(" ")),
            // Files that are included begin with what stands in a context.
            "upstream" | "server" => {
                let context = Block { inner: vec![outer], ..Block::default() };
                of_context(&context, &mut read);
            }
            _ => {}
        }
    }
    Ok(read)
}

fn of_context(context: &Block, read: &mut Nginx) {
    let upstreams: Vec<&Block> = context.inner.iter().filter(|block| block.name() == "upstream").collect();
    let mut used = Vec::new();
    for block in &context.inner {
        match block.name() {
            "include" => note(&mut read.not_understood, block.line, &block.words.join(" ")),
            "server" => {
                let places =
                    std::iter::once(block).chain(block.inner.iter().filter(|of| of.name() == "location"));
                for place in places {
                    let Some(target) = place.value("proxy_pass") else { continue };
                    let target =
                        target.rsplit("//").next().unwrap_or(target).split('/').next().unwrap_or_default();
                    let upstream = upstreams.iter().find(|of| of.argument() == Some(target)).copied();
                    used.extend(upstream.map(|of| of.line));
                    read.proxies.push(proxy(
                        [place, block, context],
                        target,
                        upstream,
                        &mut read.not_understood,
                    ));
                }
            }
            _ => {}
        }
    }
    // An upstream without a server here is used by a file that isn't here.
    for upstream in upstreams.into_iter().filter(|of| !used.contains(&of.line)) {
        let target = upstream.argument().unwrap_or_default();
        read.proxies.push(proxy([context; 3], target, Some(upstream), &mut read.not_understood));
    }
}

fn proxy(
    places: [&Block; 3],
    target: &str,
    upstream: Option<&Block>,
    unknown: &mut Vec<NotUnderstood>,
) -> Proxy {
    let value = |name: &str| places.iter().find_map(|place| place.value(name));
    let listens = places[1].inner.iter().filter(|of| of.name() == "listen");
    let listens = listens.filter_map(|of| of.argument()).filter(|text| text.contains([':', '.']));
    let servers = match upstream {
        Some(upstream) => upstream.inner.iter().filter_map(|of| server(of, unknown)).collect(),
        // An address right in `proxy_pass`: one server, that no other stands in for.
        None => {
            let (host, _) = endpoint(target);
            vec![Server { host, line: places[0].line, fail_timeout_ms: FAIL_TIMEOUT_MS, ..Server::default() }]
        }
    };
    Proxy {
        listens: listens.map(|text| endpoint(text).0).collect(),
        servers,
        connect_ms: value("proxy_connect_timeout")
            .and_then(|text| milliseconds(text, 1000.0))
            .unwrap_or(CONNECT_MS),
        tries_next: value("proxy_next_upstream") != Some("off"),
        line: upstream.unwrap_or(places[0]).line,
    }
}

fn server(block: &Block, unknown: &mut Vec<NotUnderstood>) -> Option<Server> {
    match block.name() {
        "server" => {}
        "zone" | "least_conn" | "hash" | "random" | "keepalive" | "ip_hash" | "keepalive_timeout" => {
            return None;
        }
        other => {
            note(unknown, block.line, &format!("upstream: {other}"));
            return None;
        }
    }
    let (host, _) = endpoint(block.argument()?);
    let mut server =
        Server { host, line: block.line, max_fails: 1, fail_timeout_ms: FAIL_TIMEOUT_MS, is_told: false };
    for word in block.words.iter().skip(2) {
        match word.split_once('=') {
            Some(("max_fails", text)) => server.max_fails = text.parse().unwrap_or(1),
            Some(("fail_timeout", text)) => {
                server.fail_timeout_ms = milliseconds(text, 1000.0).unwrap_or(FAIL_TIMEOUT_MS);
            }
            Some(("weight" | "max_conns" | "slow_start", _)) => continue,
            None if word == "backup" || word == "resolve" => continue,
            None if word == "down" => return None,
            _ => {
                note(unknown, block.line, &format!("server: {word}"));
                continue;
            }
        }
        server.is_told = true;
    }
    Some(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_in_front_of_api_servers() {
        let text = "events {}\nstream {\n upstream apis {\n  least_conn;\n  server 10.0.0.1:6443 max_fails=3 fail_timeout=30s;\n\
            server 10.0.0.2:6443;\n  server 10.0.0.3:6443 down;\n check interval=3000; }\n\
            server { listen 10.0.0.100:8443; proxy_connect_timeout 1s; proxy_pass apis; } }\nhttp { include x/*.conf; }";
        let read = nginx(text).unwrap();
        let named: Vec<_> = read.not_understood.iter().map(|n| (n.line, &*n.what)).collect();
        assert_eq!(named, [(8, "upstream: check"), (10, "include x/*.conf")]);
        let [one] = &read.proxies[..] else { panic!("{:?}", read.proxies) };
        assert_eq!(
            (one.connect_ms, &one.listens, one.tries_next),
            (1000, &vec!["10.0.0.100".to_owned()], true)
        );
        let servers: Vec<_> =
            one.servers.iter().map(|s| (s.max_fails, s.fail_timeout_ms, s.is_told)).collect();
        assert_eq!(servers, [(3, 30_000, true), (1, 10_000, false)]);
    }

    #[test]
    fn requests_that_go_to_one_address_have_one_server() {
        let read = nginx("server { listen 443; location / { proxy_pass https://10.0.0.1:6443/; } }").unwrap();
        let one = &read.proxies[0];
        assert_eq!((one.servers.len(), &*one.servers[0].host, one.connect_ms), (1, "10.0.0.1", 60_000));
        assert!(one.listens.is_empty(), "a port alone is every address");
    }
}
