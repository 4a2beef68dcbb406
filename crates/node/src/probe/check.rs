//! What a probe or a hook does once: an HTTP request, a TCP connection, a question by gRPC, a command beside the container.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::grpc_health;
use super::http::{self, Url};
use crate::runtime::{Exec, Runtime, Streams, Which};

/// What to do.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    Exec(Vec<String>),
    Http(HTTPGetAction),
    Tcp(TCPSocketAction),
    Grpc(GRPCAction),
    Sleep(Duration),
    /// Nothing that this version knows.
    Unknown(&'static str),
}

/// The container that it is done to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub container: Container,
    pub address: IpAddr,
    pub which: Which,
    /// Runs the container, and commands beside it.
    pub runtime: Arc<dyn Runtime>,
}

impl Check {
    pub(crate) fn of_probe(probe: &Probe) -> Self {
        match (&probe.exec, &probe.http_get, &probe.tcp_socket, &probe.grpc) {
            (Some(exec), ..) => Check::Exec(exec.command.clone().unwrap_or_default()),
            (_, Some(http), ..) => Check::Http(http.clone()),
            (_, _, Some(tcp), _) => Check::Tcp(tcp.clone()),
            (.., Some(grpc)) => Check::Grpc(grpc.clone()),
            _ => Check::Unknown("the probe says nothing to do"),
        }
    }

    pub(crate) fn of_hook(hook: &LifecycleHandler) -> Self {
        match (&hook.exec, &hook.http_get, &hook.tcp_socket, &hook.sleep) {
            (Some(exec), ..) => Check::Exec(exec.command.clone().unwrap_or_default()),
            (_, Some(http), ..) => Check::Http(http.clone()),
            (_, _, Some(tcp), _) => Check::Tcp(tcp.clone()),
            (.., Some(sleep)) => Check::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))),
            _ => Check::Unknown("the hook says nothing to do"),
        }
    }

    /// Does it, within `limit`; what went well may have a warning, an error says why it failed.
    pub(crate) async fn run(&self, target: &Target, limit: Duration) -> Result<Option<String>, String> {
        match self {
            Check::Exec(argv) => return exec(argv, target, limit).await.map(|()| None),
            Check::Sleep(time) => {
                tokio::time::sleep((*time).min(limit)).await;
                return Ok(None);
            }
            Check::Unknown(why) => return Err((*why).to_owned()),
            Check::Grpc(action) => {
                return grpc_health::check(action, target.address, limit).await.map(|()| None);
            }
            Check::Http(_) | Check::Tcp(_) => {}
        }
        let work = async {
            match self {
                Check::Http(action) => {
                    let headers = action.http_headers.as_deref().unwrap_or_default();
                    http::get(url(action, target)?, headers).await
                }
                Check::Tcp(action) => {
                    let host = host(action.host.as_deref(), target);
                    http::connect(&host, port(&action.port, &target.container)?).await.map(|_| None)
                }
                _ => Ok(None),
            }
        };
        let late = || Err(format!("no answer within {} s", limit.as_secs_f32()));
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| late())
    }
}

fn host(host: Option<&str>, target: &Target) -> String {
    let host = host.filter(|h| !h.is_empty()).map_or_else(|| target.address.to_string(), str::to_owned);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn url(action: &HTTPGetAction, target: &Target) -> Result<Url, String> {
    let path = match action.path.as_deref().unwrap_or_default() {
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    Ok(Url {
        tls: action.scheme.as_deref() == Some("HTTPS"),
        host: host(action.host.as_deref(), target),
        port: port(&action.port, &target.container)?,
        path,
    })
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    let valid = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    valid.ok_or_else(|| match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("the container has no port of the name {name:?}"),
    })
}

async fn exec(argv: &[String], target: &Target, limit: Duration) -> Result<(), String> {
    let asked = Exec { argv: argv.to_vec(), streams: Streams::Outputs, limit: Some(limit) };
    let made = target.runtime.exec(&target.which, asked).await;
    let session = made.map_err(|error| error.to_string())?;
    let (stdout, stderr) = session.outputs;
    let work = async { tokio::join!(head(stdout), head(stderr), session.end.exit()) };
    match tokio::time::timeout(limit, work).await {
        Ok((_, _, Some(exit))) if exit.code == 0 => Ok(()),
        // As upstream, what it printed says why; its status only where it printed nothing.
        Ok((out, err, Some(exit))) if out.is_empty() && err.is_empty() => Err(match exit.signal {
            0 => format!("exit status: {}", exit.code),
            signal => format!("signal: {signal}"),
        }),
        Ok((out, err, Some(_))) => Err(format!("{out}{err}")),
        Ok((.., None)) => Err(session.end.failure().unwrap_or_else(|| "the container ended".into())),
        Err(_) => {
            session.end.kill();
            session.end.exit().await;
            let command = argv.join(" ");
            Err(format!("command timed out: {command:?} timed out after {}s", limit.as_secs_f32()))
        }
    }
}

/// The first kilobytes of an output; the rest is read and dropped, so that the process never blocks on it.
async fn head(stream: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let mut limited = stream.take(4096);
    if limited.read_to_end(&mut text).await.is_ok() {
        let _ = tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&text).into_owned()
}
