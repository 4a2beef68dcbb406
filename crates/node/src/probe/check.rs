//! What a probe or a hook does once: an HTTP request, a TCP connection, a command beside the container.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::host::{Command, Spawner, signal_group};

/// What to do.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    Exec(Vec<String>),
    Http(HTTPGetAction),
    Tcp(TCPSocketAction),
    Sleep(Duration),
    /// Something that this version can't do.
    Unknown(&'static str),
}

/// The container that it is done to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub container: Container,
    pub address: IpAddr,
    /// How its process was made, and where it runs: commands run beside it.
    pub command: Command,
    pub spawner: Spawner,
}

impl Check {
    pub(crate) fn of_probe(probe: &Probe) -> Self {
        match (&probe.exec, &probe.http_get, &probe.tcp_socket) {
            (Some(exec), ..) => Check::Exec(exec.command.clone().unwrap_or_default()),
            (_, Some(http), _) => Check::Http(http.clone()),
            (.., Some(tcp)) => Check::Tcp(tcp.clone()),
            _ if probe.grpc.is_some() => {
                Check::Unknown("this version has no grpc probes: use httpGet or tcpSocket")
            }
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

    /// Does it, within `limit`; an error says why it failed.
    pub(crate) async fn run(&self, target: &Target, limit: Duration) -> Result<(), String> {
        match self {
            Check::Exec(argv) => return exec(argv, target, limit).await,
            Check::Sleep(time) => {
                tokio::time::sleep((*time).min(limit)).await;
                return Ok(());
            }
            Check::Unknown(why) => return Err((*why).to_owned()),
            Check::Http(_) | Check::Tcp(_) => {}
        }
        let work = async {
            match self {
                Check::Http(action) => http(action, target).await,
                Check::Tcp(action) => {
                    let host = host(action.host.as_deref(), target);
                    connect(&host, port(&action.port, &target.container)?).await.map(drop)
                }
                _ => Ok(()),
            }
        };
        let late = || Err(format!("no answer within {} s", limit.as_secs_f32()));
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| late())
    }
}

fn host(host: Option<&str>, target: &Target) -> String {
    host.filter(|h| !h.is_empty()).map_or_else(|| target.address.to_string(), str::to_owned)
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
    valid.ok_or_else(|| format!("the container has no port {port:?}"))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let to = (host.trim_start_matches('[').trim_end_matches(']'), port);
    TcpStream::connect(to).await.map_err(|e| format!("dial tcp {host}:{port}: {e}"))
}

async fn http(action: &HTTPGetAction, target: &Target) -> Result<(), String> {
    let (host, port) = (host(action.host.as_deref(), target), port(&action.port, &target.container)?);
    let stream = connect(&host, port).await?;
    let path = match action.path.as_deref().unwrap_or_default() {
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = http::Request::get(&path)
        .header("User-Agent", "kube-probe/1.36")
        .header("Accept", "*/*")
        .header("Connection", "close");
    let headers = action.http_headers.iter().flatten();
    let own_host = headers.clone().any(|h| h.name.eq_ignore_ascii_case("host"));
    if !own_host {
        request = request.header("Host", &authority);
    }
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::new()).map_err(|e| e.to_string())?;
    if action.scheme.as_deref() == Some("HTTPS") {
        let config = pki::client_config_for_anyone().map_err(|e| e.to_string())?;
        let name = match host.parse::<IpAddr>() {
            Ok(address) => rustls::pki_types::ServerName::IpAddress(address.into()),
            Err(_) => host.clone().try_into().map_err(|_| format!("{host:?} is no host name"))?,
        };
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
        return ask(stream.map_err(|e| e.to_string())?, request).await;
    }
    ask(stream, request).await
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<Empty<Bytes>>,
) -> Result<(), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // The connection may end in the same moment as the answer arrives: then the answer counts.
        _ = connection => answer.await,
    };
    let status = answered.map_err(|e| e.to_string())?.status();
    if (200..400).contains(&status.as_u16()) {
        return Ok(());
    }
    Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
}

async fn exec(argv: &[String], target: &Target, limit: Duration) -> Result<(), String> {
    let command = Command { argv: argv.to_vec(), ..target.command.clone() };
    let mut process = target.spawner.spawn(command).await.map_err(|e| e.to_string())?;
    let (stdout, stderr) = (process.child.stdout.take(), process.child.stderr.take());
    let work = async {
        let (out, err, status) = tokio::join!(head(stdout), head(stderr), process.child.wait());
        (out, err, status)
    };
    let result = tokio::time::timeout(limit, work).await;
    signal_group(process.pid, true);
    match result {
        Ok((_, _, Ok(status))) if status.success() => Ok(()),
        Ok((out, err, Ok(status))) => Err(format!("{status}: {out}{err}")),
        Ok((.., Err(error))) => Err(error.to_string()),
        Err(_) => {
            let _ = process.child.wait().await;
            Err(format!("command timed out: {argv:?} timed out after {} s", limit.as_secs_f32()))
        }
    }
}

/// The first kilobytes of an output; the rest is read and dropped, so that the process never blocks on it.
async fn head(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(stream) = stream else { return String::new() };
    let mut text = Vec::new();
    let mut limited = stream.take(4096);
    if limited.read_to_end(&mut text).await.is_ok() {
        let _ = tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&text).into_owned()
}
