//! What a request asks for, in the kubelet's words: `/exec/NAMESPACE/POD/CONTAINER?command=...&input=1&output=1`.

use std::sync::Arc;

use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;

use super::forward::Ports;
use super::session::{CallerEnd, begin};
use super::{attach, exec};
use crate::container::Source;
use crate::pod::uid;
use crate::pods::{Live, PodHost};
use crate::runtime::Runtime;

/// Why not, as an HTTP answer.
pub(super) type Refusal = (StatusCode, String);

/// Which streams the caller has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) input: bool,
    pub(super) output: bool,
    pub(super) error: bool,
    pub(super) terminal: bool,
    /// Whether it tells the size of its terminal.
    pub(super) resized: bool,
}

impl Flags {
    /// The lowest channel that the caller reads.
    pub(super) fn first(self) -> Option<Source> {
        match self {
            Flags { output: true, .. } => Some(Source::Stdout),
            Flags { error: true, .. } => Some(Source::Stderr),
            _ => None,
        }
    }
}

/// What is asked for.
pub(super) enum Asked {
    /// A command, or the container's own process.
    Process(Process),
    /// Ports of a pod. Those named in the query are for WebSocket channels; over SPDY each stream names its own.
    Ports(Arc<Ports>, Vec<u16>),
}

/// A command to run, or a process to attach to, with the streams that are wanted of it.
pub(super) struct Process {
    pub(super) flags: Flags,
    live: Arc<Live>,
    runtime: Arc<dyn Runtime>,
    /// The command; none for the container's own process.
    argv: Option<Vec<String>>,
}

impl Process {
    /// Begins.
    pub(super) fn begin(self) -> CallerEnd {
        let Process { flags, live, runtime, argv } = self;
        match argv {
            Some(argv) => begin(flags.input, move |end| {
                exec::exec(runtime, live.which.clone(), argv, flags.terminal, end)
            }),
            None => {
                begin(flags.input, move |end| attach::attach(runtime, live, flags.output, flags.error, end))
            }
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    flags: Flags,
    command: Vec<String>,
    ports: Vec<u16>,
}

/// How many ports one request may name: two channels each, in a byte.
const MOST_PORTS: usize = 128;

fn query(text: &str) -> Result<Query, String> {
    let mut query = Query::default();
    let yes = |value: &str| matches!(value, "1" | "true");
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        match &*name {
            "input" => query.flags.input = yes(&value),
            "output" => query.flags.output = yes(&value),
            "error" => query.flags.error = yes(&value),
            "tty" => (query.flags.terminal, query.flags.resized) = (yes(&value), yes(&value)),
            "command" => query.command.push(value.into_owned()),
            "port" => {
                for port in value.split(',') {
                    let number = port.parse::<u16>().ok().filter(|port| *port > 0);
                    query.ports.push(number.ok_or_else(|| format!("{port:?} is no port"))?);
                }
            }
            _ => {}
        }
    }
    if query.ports.len() > MOST_PORTS {
        return Err(format!("{} ports are more than {MOST_PORTS}", query.ports.len()));
    }
    Ok(query)
}

/// Finds what a path and its query ask for; None if the path asks for something else.
pub(super) fn asked(host: &Arc<PodHost>, path: &[&str], text: &str) -> Option<Result<Asked, Refusal>> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let found = match *path {
        ["exec", namespace, pod, container] => query(text).map_err(bad).and_then(|query| {
            if query.command.is_empty() {
                return Err(bad("you must specify at least one command for the container".into()));
            }
            process(host, namespace, pod, container, query.flags, Some(query.command))
        }),
        ["attach", namespace, pod, container] => query(text)
            .map_err(bad)
            .and_then(|query| process(host, namespace, pod, container, query.flags, None)),
        ["portForward", namespace, pod] => query(text).map_err(bad).and_then(|query| {
            let found = pod_here(host, namespace, pod)?;
            let ports = Ports::of(host, &found);
            let ports =
                ports.ok_or_else(|| (StatusCode::BAD_REQUEST, format!("pod {pod} has no address yet")))?;
            Ok(Asked::Ports(Arc::new(ports), query.ports))
        }),
        _ => return None,
    };
    Some(found)
}

fn process(
    host: &Arc<PodHost>,
    namespace: &str,
    pod: &str,
    container: &str,
    mut flags: Flags,
    argv: Option<Vec<String>>,
) -> Result<Asked, Refusal> {
    let pod = pod_here(host, namespace, pod)?;
    let missing = || (StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})"));
    let live = host.running.get(uid(&pod), container).ok_or_else(missing)?;
    if argv.is_none() {
        // A process has a terminal or not: that can't be chosen any more.
        flags.terminal = live.terminal;
    }
    // A terminal has one output.
    flags.error &= !flags.terminal;
    if !(flags.input || flags.output || flags.error) {
        let why = "you must specify at least 1 of stdin, stdout, stderr";
        return Err((StatusCode::BAD_REQUEST, why.into()));
    }
    Ok(Asked::Process(Process { flags, live, runtime: host.runtime.clone(), argv }))
}

fn pod_here(host: &PodHost, namespace: &str, name: &str) -> Result<Pod, Refusal> {
    host.pod_here(namespace, name)
        .ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod \"{namespace}/{name}\" is not on this host")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_in_the_kubelets_words() {
        let read = query("command=sh&command=-c&command=a+b&input=1&output=true&tty=1&error=0").unwrap();
        assert_eq!(read.command, ["sh", "-c", "a b"]);
        assert_eq!(
            read.flags,
            Flags { input: true, output: true, error: false, terminal: true, resized: true }
        );
        assert_eq!(query("port=80,81&port=82").unwrap().ports, [80, 81, 82]);
        assert!(query("port=0").is_err());
        assert!(query("port=x").is_err());
        assert!(query(&"port=1&".repeat(200)).is_err());
    }
}
