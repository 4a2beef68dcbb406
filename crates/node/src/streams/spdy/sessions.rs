//! What streams are for: the parts of a process, or connections to ports.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tasks::SpawnIn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::info_span;

use super::connection::{Output, Piece, Stream, serve};
use super::transport::Transport;
use crate::container::{Size, Source};
use crate::streams::asked::Process;
use crate::streams::forward::Ports;
use crate::streams::session::{PIECE, size_of};

/// How long a caller may take to open the streams of a process.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// The most bytes of a message with a terminal's size.
const LONGEST_SIZE: usize = 1 << 10;

/// The streams of a process, by their type.
#[derive(Default)]
struct Parts {
    error: Option<Output>,
    stdin: Option<mpsc::Receiver<Piece>>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    resize: Option<mpsc::Receiver<Piece>>,
}

/// Leads a process' session.
pub(in crate::streams) async fn process(transport: Transport, process: Process) {
    let session = |streams| async move {
        let parts = tokio::time::timeout(OPEN_WITHIN, collect(streams, &process)).await;
        let Ok(Some((parts, _streams))) = parts else { return };
        lead(parts, process).await;
    };
    serve(transport, session).await;
}

/// Waits for all streams that the caller said it has. The source of more is kept, so that one more is no fault.
async fn collect(
    mut streams: mpsc::Receiver<Stream>,
    process: &Process,
) -> Option<(Parts, mpsc::Receiver<Stream>)> {
    let flags = process.flags;
    let mut parts = Parts::default();
    loop {
        let complete = parts.error.is_some()
            && parts.stdin.is_some() >= flags.input
            && parts.stdout.is_some() >= flags.output
            && parts.stderr.is_some() >= flags.error
            && parts.resize.is_some() >= flags.resized;
        if complete {
            return Some((parts, streams));
        }
        let Stream { headers, input, output } = streams.recv().await?;
        match headers.get("streamtype").unwrap_or_default() {
            "error" => parts.error = Some(output),
            "stdin" => parts.stdin = Some(input),
            "stdout" => parts.stdout = Some(output),
            "stderr" => parts.stderr = Some(output),
            "resize" => parts.resize = Some(input),
            _ => output.reset().await,
        }
    }
}

async fn lead(parts: Parts, process: Process) {
    let mut end = process.begin();
    let (input, size) = (end.input.take(), end.size.clone());
    let told = async {
        let fed = async {
            let (Some(to), Some(mut from)) = (input, parts.stdin) else { return };
            while let Some(Piece::Data(bytes)) = from.recv().await {
                if to.send(bytes).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(fed, follow_size(parts.resize, size));
        std::future::pending::<()>().await;
    };
    let printed = async {
        while let Some((source, bytes)) = end.output.recv().await {
            let to = match source {
                Source::Stdout => &parts.stdout,
                Source::Stderr => &parts.stderr,
            };
            if let Some(to) = to
                && !to.send(&bytes).await
            {
                return;
            }
        }
        if let Some(error) = &parts.error {
            error.send(end.ended().await.status().to_string().as_bytes()).await;
        }
        for part in [&parts.stdout, &parts.stderr, &parts.error].into_iter().flatten() {
            part.end().await;
        }
    };
    tokio::select! {
        () = told => {}
        () = printed => {}
    }
}

/// Reads sizes, one JSON object after the other.
async fn follow_size(from: Option<mpsc::Receiver<Piece>>, to: watch::Sender<Option<Size>>) {
    let Some(mut from) = from else { return };
    let mut held = BytesMut::new();
    while let Some(Piece::Data(bytes)) = from.recv().await {
        held.extend_from_slice(&bytes);
        while let Some(at) = held.iter().position(|byte| *byte == b'}') {
            if let Some(size) = size_of(&held.split_to(at + 1)) {
                to.send_replace(Some(size));
            }
        }
        if held.len() > LONGEST_SIZE {
            return;
        }
    }
}

/// Connects pairs of streams, one for data and one for what goes wrong, to ports.
pub(in crate::streams) async fn forward(transport: Transport, ports: Arc<Ports>) {
    let session = |mut streams: mpsc::Receiver<Stream>| async move {
        let mut alone: HashMap<String, Stream> = HashMap::new();
        let mut connections = JoinSet::new();
        let mut gone = std::pin::pin!(ports.gone());
        loop {
            tokio::select! {
                stream = streams.recv() => {
                    let Some(stream) = stream else { return };
                    // Streams whose connection never became whole, and that were given up since.
                    alone.retain(|_, stream| !stream.input.is_closed() || !stream.input.is_empty());
                    let Some(request) = stream.headers.get("requestid").map(str::to_owned) else {
                        stream.output.reset().await;
                        continue;
                    };
                    match alone.remove(&request) {
                        None => drop(alone.insert(request, stream)),
                        Some(other) => match pair(other, stream) {
                            Ok((error, data)) => drop(connections.spawn_in(info_span!("forward"), connect(ports.clone(), error, data))),
                            Err(both) => for stream in both {
                                stream.output.reset().await;
                            },
                        },
                    }
                }
                () = &mut gone => return,
                Some(_) = connections.join_next() => {}
            }
        }
    };
    serve(transport, session).await;
}

/// The stream for errors and the one for data.
fn pair(one: Stream, other: Stream) -> Result<(Stream, Stream), [Stream; 2]> {
    match (one.headers.get("streamtype"), other.headers.get("streamtype")) {
        (Some("error"), Some("data")) => Ok((one, other)),
        (Some("data"), Some("error")) => Ok((other, one)),
        _ => Err([one, other]),
    }
}

async fn connect(ports: Arc<Ports>, error: Stream, data: Stream) {
    let Stream { headers, mut input, output } = data;
    let port = headers.get("port").and_then(|port| port.parse().ok()).filter(|port| *port > 0);
    let connected = match port {
        Some(port) => ports.connect(port).await,
        None => Err(format!("{:?} is no port", headers.get("port").unwrap_or_default())),
    };
    match connected {
        Err(why) => drop(error.output.send(why.as_bytes()).await),
        Ok(stream) => relay(stream, &mut input, &output).await,
    }
    output.end().await;
    error.output.end().await;
}

/// Relays until the process has no more to say, or the caller gives the stream up. The end of what the caller sends is
/// passed on alone: the answer may still come.
async fn relay(stream: TcpStream, input: &mut mpsc::Receiver<Piece>, output: &Output) {
    let (mut reader, mut writer) = stream.into_split();
    let inward = async {
        loop {
            match input.recv().await {
                Some(Piece::Data(bytes)) => {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Some(Piece::End) => {
                    let _ = writer.shutdown().await;
                    std::future::pending::<()>().await;
                }
                None => return,
            }
        }
    };
    let outward = async {
        let mut held = BytesMut::new();
        loop {
            held.reserve(PIECE);
            match reader.read_buf(&mut held).await {
                Ok(1..) if output.send(&held.split()).await => {}
                _ => return,
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}
