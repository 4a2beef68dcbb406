//! HAProxy's configuration, as far as it decides about failover.

use super::words::{milliseconds, words};
use super::{NotUnderstood, endpoint, keyword, note};

/// Statements that can't change how long a failover takes, by how they begin.
const HARMLESS: &[&str] = &[
    "mode",
    "log",
    "maxconn",
    "user",
    "group",
    "daemon",
    "chroot",
    "pidfile",
    "nbthread",
    "cpu-map",
    "tune.",
    "ssl-default",
    "ca-base",
    "crt-base",
    "stats",
    "description",
    "monitor-uri",
    "monitor",
    "errorfile",
    "compression",
    "http-request",
    "http-response",
    "tcp-request",
    "tcp-response",
    "acl",
    "capture",
    "unique-id",
    "email-alert",
    "cookie",
    "fullconn",
    "backlog",
    "log-format",
    "log-tag",
    "http-after-response",
    "declare",
    "filter",
    "load-server-state-from-file",
    "server-state-file",
];
/// Options that can't either.
const HARMLESS_OPTIONS: &[&str] = &[
    "tcplog",
    "httplog",
    "dontlognull",
    "http-server-close",
    "http-keep-alive",
    "forwardfor",
    "tcpka",
    "clitcpka",
    "srvtcpka",
    "log-health-checks",
    "dontlog-normal",
    "logasap",
    "contstats",
    "splice-auto",
    "http-use-htx",
    "abortonclose",
    "ssl-hello-chk",
    "tcp-check",
];
/// Words after a server's address that need no argument, and can't change a failover.
const PLAIN: [&str; 9] = [
    "ssl",
    "check-ssl",
    "send-proxy",
    "send-proxy-v2",
    "tfo",
    "non-stick",
    "no-check-ssl",
    "force-tlsv12",
    "allow-0rtt",
];

/// Sections, servers, and whatever else there are many of: more is no proxy that somebody wrote.
const MOST: usize = 1000;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Haproxy {
    pub(crate) sections: Vec<Section>,
    pub(crate) not_understood: Vec<NotUnderstood>,
    /// Lines with passwords that anybody can read who can read the file.
    pub(crate) passwords: Vec<usize>,
    /// How much of all that was read.
    many: usize,
}

/// A `frontend`, a `backend`, or a `listen`, which is both; with what `defaults` before it said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) listens: Vec<Listen>,
    /// The backends that it names.
    pub(crate) uses: Vec<String>,
    pub(crate) servers: Vec<Server>,
    pub(crate) connect_ms: Option<u64>,
    pub(crate) check_ms: Option<u64>,
    pub(crate) redispatches: bool,
    default_server: Server,
}

/// Where a frontend listens.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Listen {
    pub(crate) address: String,
    pub(crate) line: usize,
    /// The address need not be there.
    pub(crate) transparent: bool,
}

/// A server of a backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) line: usize,
    /// Its health is looked at.
    pub(crate) checked: bool,
    pub(crate) inter_ms: Option<u64>,
    pub(crate) fastinter_ms: Option<u64>,
    pub(crate) fall: Option<u64>,
    pub(crate) disabled: bool,
}

impl Section {
    /// The servers that get requests now.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| !server.disabled)
    }
}

/// Reads a file.
pub(crate) fn haproxy(text: &str) -> Haproxy {
    let mut read = Haproxy::default();
    let mut defaults = Section::default();
    let mut kind = String::new();
    for (place, line) in text.lines().enumerate() {
        let number = place + 1;
        // A remark begins where a word does.
        let words: Vec<String> = words(line).into_iter().take_while(|word| !word.starts_with('#')).collect();
        let Some((first, rest)) = words.split_first() else { continue };
        if read.many > MOST {
            note(
                &mut read.not_understood,
                number,
                &format!("more than {MOST} sections and servers: the rest isn't read"),
            );
            break;
        }
        let name = || rest.first().cloned().unwrap_or_default();
        match first.as_str() {
            "defaults" => defaults = Section::default(),
            "frontend" | "backend" | "listen" => {
                read.many += 1;
                read.sections.push(Section { name: name(), line: number, ..defaults.clone() });
            }
            "global" | "peers" | "resolvers" | "userlist" | "mailers" | "program" | "cache" | "ring"
            | "http-errors" | "log-forward" => {}
            _ => {
                statement(&mut read, &mut defaults, &kind, number, first, rest);
                continue;
            }
        }
        kind = first.clone();
    }
    read
}

fn statement(
    read: &mut Haproxy,
    defaults: &mut Section,
    kind: &str,
    line: usize,
    first: &str,
    rest: &[String],
) {
    let argument = |at: usize| rest.get(at).map_or("", String::as_str);
    // Not what it says: it must not be told.
    if first == "stats" && argument(0) == "auth"
        || argument(1) == "insecure-password"
        || argument(2) == "insecure-password"
    {
        read.passwords.push(line);
        read.many += 1;
    }
    let section = match kind {
        "defaults" => defaults,
        "frontend" | "backend" | "listen" => match read.sections.last_mut() {
            Some(section) => section,
            None => return,
        },
        // What stands in `global` and its like changes no failover.
        "" => {
            note(&mut read.not_understood, line, keyword(first));
            return;
        }
        _ => return,
    };
    let understood = match first {
        "timeout" => {
            let ms = milliseconds(argument(1), 1.0);
            match argument(0) {
                "connect" => section.connect_ms = ms,
                "check" => section.check_ms = ms,
                _ => {}
            }
            ms.is_some()
        }
        "retries" => argument(0).parse::<u64>().is_ok(),
        "option" => {
            section.redispatches |= argument(0) == "redispatch";
            argument(0) == "redispatch" || argument(0) == "httpchk" || HARMLESS_OPTIONS.contains(&argument(0))
        }
        "no" if argument(0) == "option" && argument(1) == "redispatch" => {
            section.redispatches = false;
            true
        }
        // A proxy's own alone: `defaults` has none of them.
        "bind" | "server" | "server-template" | "use_backend" if kind == "defaults" => false,
        "bind" => {
            let transparent = rest.iter().any(|word| word == "transparent");
            let listens = argument(0).split(',').take(MOST).map(|of| Listen {
                address: endpoint(of).0,
                line,
                transparent,
            });
            let before = section.listens.len();
            section.listens.extend(listens);
            read.many += section.listens.len() - before;
            true
        }
        "default_backend" | "use_backend" => {
            // Only one is the default.
            if kind == "defaults" {
                section.uses.clear();
            }
            section.uses.push(argument(0).to_owned());
            read.many += 1;
            true
        }
        "balance" | "hash-type" | "http-check" | "tcp-check" | "http-reuse" => true,
        "default-server" => server_words(&mut section.default_server, rest, 0),
        "server" | "server-template" => {
            let at = if first == "server" { 1 } else { 2 };
            let (host, port) = endpoint(argument(at));
            let fresh =
                Server { name: argument(0).to_owned(), host, port, line, ..section.default_server.clone() };
            let (mut server, mut understood) = (fresh, !argument(at).is_empty());
            understood &= server_words(&mut server, rest, at + 1);
            let count = if first == "server" { 1 } else { copies(argument(1)) };
            if first == "server" {
                section.servers.push(server);
            } else {
                let each = |of: usize| Server { host: format!("{} ({of})", server.host), ..server.clone() };
                section.servers.extend((1..=count).map(each));
            }
            read.many += count;
            // Whatever its name stands for may be one host or many.
            understood && first == "server"
        }
        _ => HARMLESS.iter().any(|known| first == *known || known.ends_with('.') && first.starts_with(known)),
    };
    if !understood {
        let words = if first == "option" {
            format!("{first} {}", keyword(argument(0)))
        } else {
            keyword(first).to_owned()
        };
        note(&mut read.not_understood, line, &words);
    }
}

/// `3` or `1-3`, within bounds.
fn copies(text: &str) -> usize {
    let (first, last) = text.split_once('-').unwrap_or(("1", text));
    let (first, last): (usize, usize) = (first.parse().unwrap_or(1), last.parse().unwrap_or(1));
    (last.saturating_sub(first) + 1).min(16)
}

/// What stands after a server's address, or in `default-server`; false where a word is unknown.
fn server_words(server: &mut Server, words: &[String], from: usize) -> bool {
    let mut rest = words.iter().skip(from).map(String::as_str).peekable();
    let mut understood = true;
    while let Some(word) = rest.next() {
        match word {
            "check" => server.checked = true,
            "no-check" => server.checked = false,
            "backup" | "no-backup" => {}
            "disabled" => server.disabled = true,
            "enabled" => server.disabled = false,
            "inter" => {
                server.inter_ms = rest.next().and_then(|text| milliseconds(text, 1.0));
                understood &= server.inter_ms.is_some();
            }
            "fastinter" => {
                server.fastinter_ms = rest.next().and_then(|text| milliseconds(text, 1.0));
                understood &= server.fastinter_ms.is_some();
            }
            "fall" => {
                server.fall = rest.next().and_then(|text| text.parse().ok());
                understood &= server.fall.is_some();
            }
            "rise" | "weight" | "maxconn" | "minconn" | "maxqueue" | "slowstart" | "downinter" | "verify"
            | "ca-file" | "crt" | "sni" | "alpn" | "id" | "source" | "check-sni" | "check-alpn"
            | "verifyhost" | "init-addr" | "resolvers" | "resolve-prefer" | "proto" | "pool-max-conn"
            | "pool-purge-delay" | "cookie" | "on-marked-down" | "on-marked-up" => drop(rest.next()),
            _ if PLAIN.contains(&word) => {}
            _ => understood = false,
        }
    }
    understood
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
global
  maxconn 7000
  nonsense here
userlist people
  user a insecure-password b
defaults
  mode tcp
  timeout connect 5s
  timeout check 700
  retries 3
  option redispatch 1
  default-server inter 2s fall 3 rise 2 # as usual
frontend api
  bind 10.0.0.100:8443,[::]:8443 transparent
  default_backend apis
backend apis
  balance roundrobin
  option external-check
  server n1 10.0.0.1:6443 check
  server n2 10.0.0.2:6443 check inter 500ms fall 2 weight 3
  server n3 10.0.0.3:6443 wondrous 4
listen other
  bind :80
  server-template t 2 things:80
";

    #[test]
    fn sections_take_what_their_defaults_say() {
        let read = haproxy(FILE);
        let names: Vec<_> = read.sections.iter().map(|s| (&*s.name, s.line)).collect();
        assert_eq!(names, [("api", 14), ("apis", 17), ("other", 23)]);
        let [api, apis, other] = &read.sections[..] else { panic!("{:?}", read.sections) };
        let listens: Vec<_> = api.listens.iter().map(|l| (&*l.address, l.transparent)).collect();
        assert_eq!((listens, &*api.uses[0]), (vec![("10.0.0.100", true), ("::", true)], "apis"));
        assert_eq!((apis.connect_ms, apis.check_ms, apis.redispatches), (Some(5000), Some(700), true));
        let servers: Vec<_> =
            apis.servers.iter().map(|s| (&*s.host, s.port, s.checked, s.inter_ms, s.fall)).collect();
        assert_eq!(
            servers,
            [
                ("10.0.0.1", Some(6443), true, Some(2000), Some(3)),
                ("10.0.0.2", Some(6443), true, Some(500), Some(2)),
                ("10.0.0.3", Some(6443), false, Some(2000), Some(3)),
            ]
        );
        assert_eq!(other.servers.len(), 2);
    }

    #[test]
    fn what_may_matter_and_is_unknown_is_named_and_a_password_is_not_told() {
        let read = haproxy(FILE);
        let named: Vec<_> = read.not_understood.iter().map(|n| (n.line, &*n.what)).collect();
        assert_eq!(named, [(19, "option external-check"), (22, "server"), (25, "server-template")]);
        assert_eq!(read.passwords, [6]);
    }
}
