//! nginx' configuration, as far as it hands connections on.

use std::collections::{BTreeMap, BTreeSet};

use super::blocks::{Block, BlocksError, Ends, blocks};
use super::words::milliseconds;
use super::{NotUnderstood, endpoint, is_api_port, keyword, note};

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
    /// A server of it has the port of an API server.
    is_api: bool,
    /// It hands on connections, and not requests.
    in_stream: bool,
}

/// A server of an upstream.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Server {
    pub(crate) host: String,
    port: Option<u16>,
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

/// Servers behind proxies, in sum: more is no file that somebody wrote.
const MOST: usize = 1000;

impl Nginx {
    /// The proxies in front of API servers: those whose servers are such by their port, or, where there are none of these, all that hand
    /// on connections; requests are a website's.
    pub(crate) fn of_api(&self) -> impl Iterator<Item = &Proxy> {
        let by_port = self.proxies.iter().any(|proxy| proxy.is_api);
        self.proxies.iter().filter(move |proxy| if by_port { proxy.is_api } else { proxy.in_stream })
    }
}

/// Reads a file, or several that are one.
pub(crate) fn nginx(text: &str) -> Result<Nginx, BlocksError> {
    let mut read = Nginx::default();
    let (mut contexts, mut loose) = (Vec::new(), Vec::new());
    for outer in blocks(text, Ends::Semicolon)? {
        match outer.name() {
            "stream" | "http" => contexts.push(outer),
            "include" => note(&mut read.not_understood, outer.line, &outer.words.join(" ")),
            // Files that are included begin with what stands in a context.
            "upstream" | "server" => loose.push(outer),
            _ => {}
        }
    }
    for block in loose {
        let context = if is_http(&block) { "http" } else { "stream" };
        match contexts.iter_mut().find(|of| of.name() == context) {
            Some(of) => of.inner.push(block),
            None => {
                contexts.push(Block { words: vec![context.into()], inner: vec![block], ..Block::default() })
            }
        }
    }
    let all = contexts.iter().flat_map(|of| &of.inner).filter(|of| of.name() == "upstream");
    let upstreams: BTreeMap<&str, &Block> = all.filter_map(|of| Some((of.argument()?, of))).collect();
    let mut used = BTreeSet::new();
    let mut many = 0;
    let mut add = |places: [&Block; 3], target: &str, read: &mut Nginx| {
        let upstream = upstreams.get(target).copied();
        many += 1 + upstream.map_or(0, |of| of.inner.len());
        if many <= MOST {
            let proxy = proxy(places, target, upstream, &mut read.not_understood);
            read.proxies.push(proxy);
        }
    };
    for context in &contexts {
        for block in &context.inner {
            if block.name() == "include" {
                note(&mut read.not_understood, block.line, &block.words.join(" "));
            }
            if block.name() != "server" {
                continue;
            }
            for place in places(block) {
                let Some(target) = place.value("proxy_pass") else { continue };
                let target = target.rsplit("//").next().unwrap_or(target);
                let target = target.split('/').next().unwrap_or_default();
                used.insert(target.to_owned());
                add([place, block, context], target, &mut read);
            }
        }
    }
    // An upstream without a server here is used by a file that isn't here.
    for context in &contexts {
        let named = context.inner.iter().filter(|of| of.name() == "upstream").filter_map(Block::argument);
        for target in named.filter(|target| !used.contains(*target)) {
            add([context; 3], target, &mut read);
        }
    }
    if many > MOST {
        note(
            &mut read.not_understood,
            0,
            &format!("more than {MOST} servers behind proxies: the rest isn't read"),
        );
    }
    Ok(read)
}

/// Where a server may say to whom it hands on.
fn places(server: &Block) -> impl Iterator<Item = &Block> {
    std::iter::once(server).chain(server.inner.iter().filter(|of| of.name() == "location"))
}

/// A server hands on requests, and not connections.
fn is_http(block: &Block) -> bool {
    block.last("location").is_some() || block.value("proxy_pass").is_some_and(|target| target.contains("//"))
}

fn proxy(
    places: [&Block; 3],
    target: &str,
    upstream: Option<&Block>,
    unknown: &mut Vec<NotUnderstood>,
) -> Proxy {
    let value = |name: &str| places.iter().find_map(|place| place.last(name));
    let listens = places[1].inner.iter().filter(|of| of.name() == "listen");
    let listens = listens.filter_map(|of| of.argument()).filter(|text| text.contains([':', '.']));
    let connect = value("proxy_connect_timeout");
    let connect_ms = connect.and_then(Block::argument).and_then(|text| milliseconds(text, 1000.0));
    if let (Some(statement), None) = (connect, connect_ms) {
        note(unknown, statement.line, "proxy_connect_timeout isn't a time here");
    }
    let servers = match upstream {
        Some(upstream) => upstream.inner.iter().filter_map(|of| server(of, unknown)).collect(),
        // An address right in `proxy_pass`: one server, that no other stands in for.
        None => {
            let (host, port) = endpoint(target);
            vec![Server {
                host,
                port,
                line: places[0].line,
                fail_timeout_ms: FAIL_TIMEOUT_MS,
                ..Server::default()
            }]
        }
    };
    Proxy {
        listens: listens.map(|text| endpoint(text).0).collect(),
        is_api: servers.iter().any(|server: &Server| is_api_port(server.port)),
        in_stream: places[2].name() == "stream",
        servers,
        connect_ms: connect_ms.unwrap_or(CONNECT_MS),
        tries_next: value("proxy_next_upstream").and_then(Block::argument) != Some("off"),
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
            note(unknown, block.line, &format!("upstream: {}", keyword(other)));
            return None;
        }
    }
    let (host, port) = endpoint(block.argument()?);
    let mut server = Server {
        host,
        port,
        line: block.line,
        max_fails: 1,
        fail_timeout_ms: FAIL_TIMEOUT_MS,
        is_told: false,
    };
    for word in block.words.iter().skip(2) {
        let mut is_read = true;
        match word.split_once('=') {
            Some(("max_fails", text)) => match text.parse() {
                Ok(fails) => server.max_fails = fails,
                Err(_) => is_read = false,
            },
            Some(("fail_timeout", text)) => match milliseconds(text, 1000.0) {
                Some(ms) => server.fail_timeout_ms = ms,
                None => is_read = false,
            },
            Some(("weight" | "max_conns" | "slow_start", _)) => continue,
            None if word == "backup" || word == "resolve" => continue,
            None if word == "down" => return None,
            _ => is_read = false,
        }
        if is_read {
            server.is_told = true;
        } else {
            // Its name alone: what it is set to may be a secret.
            let name = word.split('=').next().unwrap_or_default();
            note(unknown, block.line, &format!("server: {}", keyword(name)));
        }
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

    #[test]
    fn a_website_is_no_proxy_of_the_api() {
        let site = "http {\n server { listen 10.0.0.100:443; location / { proxy_pass http://127.0.0.1:3000; } }\n}\n";
        assert_eq!(nginx(site).unwrap().of_api().count(), 0);
        let api = "stream { upstream apis { server 10.0.0.1:6443; server 10.0.0.2:6443; } server { listen 6443; proxy_pass apis; } }";
        let read = nginx(&[site, api].concat()).unwrap();
        assert_eq!(read.of_api().map(|proxy| proxy.servers.len()).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn an_upstream_and_a_server_in_files_of_their_own_belong_together() {
        let text = "stream { proxy_connect_timeout 2s; include conf.d/*.conf; }\nupstream apis { server 10.0.0.1:6443; server 10.0.0.2:6443; }\n\
            server { listen 6443; proxy_pass apis; }";
        let read = nginx(text).unwrap();
        let told: Vec<_> = read.proxies.iter().map(|proxy| (proxy.servers.len(), proxy.connect_ms)).collect();
        assert_eq!(told, [(2, 2000)]);
    }

    #[test]
    fn what_cannot_be_read_is_named_without_what_it_says() {
        let text = "stream { upstream a { server 10.0.0.1:6443 token=geheim max_fails=x fail_timeout=$y; } server { proxy_connect_timeout soon; proxy_pass a; } }";
        let read = nginx(text).unwrap();
        let named: Vec<_> = read.not_understood.iter().map(|told| &*told.what).collect();
        assert_eq!(
            named,
            [
                "proxy_connect_timeout isn't a time here",
                "server: token",
                "server: max_fails",
                "server: fail_timeout"
            ]
        );
        assert_eq!((read.proxies[0].servers[0].max_fails, read.proxies[0].connect_ms), (1, 60_000));
    }

    #[test]
    fn many_locations_cost_no_more_than_their_words() {
        let servers = "server a:6443;".repeat(2000);
        let locations = "location / { proxy_pass http://u; }".repeat(2000);
        let read = nginx(&format!("http {{ upstream u {{ {servers} }} server {{ {locations} }} }}")).unwrap();
        assert!(
            read.proxies.is_empty() && read.not_understood[0].what.contains("more than 1000"),
            "{read:?}"
        );
    }
}
