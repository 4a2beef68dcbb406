//! A SPDY connection from the side that asks: the streams of a process, as the runtimes of others serve them
//! (k8s.io/kubelet's `cri/streaming/remotecommand`, `v4.channel.k8s.io`).

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::info_span;

use super::connection::{QUEUE, speak};
use super::frame::{Decoder, Frame, data, open, ping};
use super::headers::{Reader, Writer};
use super::transport::{Incoming, Outgoing, Transport};
use crate::container::{Resize, Size};
use crate::runtime::{InputWriter, OutputReader};
use crate::streams::outcome::Outcome;
use crate::streams::session::PIECE;

/// The subprotocol.
const PROTOCOL: &str = "v4.channel.k8s.io";
/// How long it may take until the streams are open.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// The longest word on how a process ended.
const LONGEST_STATUS: usize = 64 << 10;

/// Which streams there are to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub input: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Whether it has a terminal, of which a size can be told.
    pub terminal: bool,
}

/// The streams of a process elsewhere. Dropped, the connection ends.
pub(crate) struct Remote {
    /// What it prints; what isn't wanted is over at once.
    pub outputs: (OutputReader, OutputReader),
    /// What it reads, if that is wanted.
    pub input: Option<InputWriter>,
    /// Its terminal's size, if it has one.
    pub terminal: Option<Box<dyn Resize>>,
    /// How it ends.
    pub end: Ends,
}

/// How a process elsewhere ends. Dropped, the connection does.
#[derive(Debug)]
pub(crate) struct Ends {
    told: watch::Receiver<Option<Outcome>>,
    task: AbortHandle,
}

impl Ends {
    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Outcome {
        let gone = || Outcome::Failed("the connection to the container's runtime was lost".into());
        let mut told = self.told.clone();
        let outcome = told.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        outcome.ok().flatten().unwrap_or_else(gone)
    }

    /// Why there is none, if that is known by now.
    pub(crate) fn failure(&self) -> Option<String> {
        match &*self.told.borrow() {
            Some(Outcome::Failed(why)) => Some(why.clone()),
            _ => None,
        }
    }

    /// Hangs up.
    pub(crate) fn hang_up(&self) {
        self.task.abort();
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// Tells a size on its stream: the last one that was said counts.
struct Sizes(watch::Sender<Option<Size>>);

impl Resize for Sizes {
    fn resize(&self, to: Size) -> io::Result<()> {
        self.0.send_replace(Some(to));
        Ok(())
    }
}

/// Goes to a place that a runtime named and opens the streams of its process.
///
/// # Errors
/// If nobody there speaks the protocol.
pub(crate) async fn connect(url: &str, wanted: Wanted) -> io::Result<Remote> {
    let opened = tokio::time::timeout(OPEN_WITHIN, upgrade(url)).await;
    let transport =
        opened.map_err(|_| io::Error::other("the runtime's streaming server doesn't answer"))??;
    begin(transport, wanted)
}

async fn upgrade(url: &str) -> io::Result<Transport> {
    let wrong = |why: &str| io::Error::other(format!("the runtime names a streaming server that {why}"));
    let uri: Uri = url.parse().map_err(|_| wrong("has no address"))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("speaks TLS, or says not where it is: have it listen without, on this host alone"));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    let _ = stream.set_nodelay(true);
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(io::Error::other)?;
    tasks::spawn(info_span!("ask a streaming server"), async move {
        // What breaks it breaks the request too.
        let _ = connection.with_upgrades().await;
    });
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, authority)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", PROTOCOL)
        .body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        return Err(io::Error::other(format!("the runtime's streaming server answers {status}")));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(io::Error::other)?;
    Ok(Transport::Connection(Box::new(TokioIo::new(upgraded))))
}

/// The numbers of the streams: who asks counts in odd numbers.
const ERROR: u32 = 1;
const STDIN: u32 = 3;
const STDOUT: u32 = 5;
const STDERR: u32 = 7;
const RESIZE: u32 = 9;

fn begin(transport: Transport, wanted: Wanted) -> io::Result<Remote> {
    let (incoming, outgoing) = transport.split();
    let mut writer = Writer::new().map_err(io::Error::other)?;
    let all = [
        (ERROR, "error", true),
        (STDIN, "stdin", wanted.input),
        (STDOUT, "stdout", wanted.stdout),
        (STDERR, "stderr", wanted.stderr),
        (RESIZE, "resize", wanted.terminal),
    ];
    let mut opening = Vec::new();
    for (number, kind, _) in all.into_iter().filter(|(.., is_wanted)| *is_wanted) {
        let block = writer.write(&[("streamtype", kind)]).map_err(io::Error::other)?;
        opening.push(open(number, &block));
    }
    let mut printed = HashMap::new();
    let mut output = |number: u32, is_wanted: bool| -> OutputReader {
        if !is_wanted {
            return Box::pin(tokio::io::empty());
        }
        let (ours, theirs) = tokio::io::duplex(PIECE);
        printed.insert(number, theirs);
        Box::pin(ours)
    };
    let outputs = (output(STDOUT, wanted.stdout), output(STDERR, wanted.stderr));
    let (input, read) = tokio::io::duplex(PIECE);
    let (size, sizes) = watch::channel(None);
    let (tell, told) = watch::channel(None);
    let session = Session { incoming, printed, tell };
    let asked = wanted;
    let task = tasks::spawn(info_span!("streams of a process elsewhere"), async move {
        let (frames, queue) = mpsc::channel(QUEUE);
        let work = async {
            for frame in opening {
                let _ = frames.send(frame).await;
            }
            let feeding = async {
                tokio::join!(
                    async {
                        if asked.input {
                            feed(read, &frames).await;
                        }
                    },
                    tell_sizes(sizes, &frames),
                )
            };
            tokio::select! {
                () = session.listen(&frames) => {}
                () = async { feeding.await; std::future::pending().await } => {}
            }
        };
        tokio::select! {
            () = work => {}
            // It begins its questions with 1.
            () = speaking(outgoing, queue) => {}
        }
    });
    Ok(Remote {
        outputs,
        input: wanted.input.then(|| Box::pin(input) as InputWriter),
        terminal: wanted.terminal.then(|| Box::new(Sizes(size)) as Box<dyn Resize>),
        end: Ends { told, task: task.abort_handle() },
    })
}

async fn speaking(outgoing: Outgoing, queue: mpsc::Receiver<Bytes>) {
    speak(outgoing, queue, u32::MAX).await;
}

/// Sends on what is written for the process, and its end.
async fn feed(mut from: DuplexStream, frames: &mpsc::Sender<Bytes>) {
    let mut held = BytesMut::new();
    loop {
        held.reserve(PIECE);
        let Ok(1..) = from.read_buf(&mut held).await else {
            let _ = frames.send(data(STDIN, true, b"")).await;
            return;
        };
        if frames.send(data(STDIN, false, &held.split())).await.is_err() {
            return;
        }
    }
}

async fn tell_sizes(mut sizes: watch::Receiver<Option<Size>>, frames: &mpsc::Sender<Bytes>) {
    while sizes.changed().await.is_ok() {
        let size = *sizes.borrow_and_update();
        let Some(Size { columns, rows }) = size else { continue };
        let text = format!("{{\"Width\":{columns},\"Height\":{rows}}}\n");
        if frames.send(data(RESIZE, false, text.as_bytes())).await.is_err() {
            return;
        }
    }
}

struct Session {
    incoming: Incoming,
    /// The outputs that aren't over.
    printed: HashMap<u32, DuplexStream>,
    tell: watch::Sender<Option<Outcome>>,
}

impl Session {
    /// Hears until all is said.
    async fn listen(mut self, frames: &mpsc::Sender<Bytes>) {
        let (mut decoder, mut reader) = (Decoder::default(), Reader::default());
        let (mut status, mut is_told) = (BytesMut::new(), false);
        while !(is_told && self.printed.is_empty())
            && let Some(bytes) = self.incoming.next().await
        {
            decoder.push(&bytes);
            loop {
                let frame = match decoder.next() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => {
                        return self
                            .over(Outcome::Failed(format!("the runtime speaks SPDY wrongly: {error}")));
                    }
                };
                match frame {
                    Frame::Data { stream: ERROR, fin, bytes } => {
                        if status.len() + bytes.len() > LONGEST_STATUS {
                            return self.over(Outcome::Failed("the runtime tells no end of the end".into()));
                        }
                        status.extend_from_slice(&bytes);
                        is_told |= fin;
                    }
                    Frame::Data { stream, fin, bytes } => self.print(stream, fin, &bytes).await,
                    Frame::Reset { stream } => drop(self.printed.remove(&stream)),
                    Frame::Ping(id) if id % 2 == 0 => drop(frames.send(ping(id)).await),
                    Frame::Open { block, .. } | Frame::MoreHeaders { block } => {
                        if reader.read(&block).is_err() {
                            return self.over(Outcome::Failed("the runtime's headers can't be read".into()));
                        }
                    }
                    Frame::Ping(_) | Frame::GoAway | Frame::Other => {}
                }
            }
        }
        let outcome = Outcome::of_status(&status);
        self.over(outcome);
    }

    async fn print(&mut self, stream: u32, fin: bool, bytes: &[u8]) {
        let Some(to) = self.printed.get_mut(&stream) else { return };
        // Nobody may read it any more: then it is dropped.
        if to.write_all(bytes).await.is_err() || fin {
            self.printed.remove(&stream);
        }
    }

    fn over(self, outcome: Outcome) {
        // Before the outputs end, with this: who has read them asks for it.
        self.tell.send_replace(Some(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::spdy::frame::tests::until;

    fn started(wanted: Wanted) -> (Remote, DuplexStream) {
        let (here, there) = tokio::io::duplex(1 << 16);
        (begin(Transport::Connection(Box::new(here)), wanted).unwrap(), there)
    }

    #[tokio::test]
    async fn a_process_elsewhere_reads_prints_and_ends() {
        let all = Wanted { input: true, stdout: true, stderr: true, terminal: true };
        let (mut remote, mut there) = started(all);
        let (mut decoder, mut reader, mut kinds) = (Decoder::default(), Reader::default(), Vec::new());
        for _ in 0..5 {
            let opened = until(&mut there, &mut decoder, |frame| matches!(frame, Frame::Open { .. })).await;
            let Frame::Open { stream, block, .. } = opened else { panic!() };
            kinds.push((stream, reader.read(&block).unwrap().get("streamType").unwrap().to_owned()));
        }
        let kinds: Vec<_> = kinds.iter().map(|(number, kind)| (*number, kind.as_str())).collect();
        assert_eq!(kinds, [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr"), (9, "resize")]);

        let mut input = remote.input.take().unwrap();
        input.write_all(b"in").await.unwrap();
        let said =
            until(&mut there, &mut decoder, |frame| matches!(frame, Frame::Data { stream: 3, .. })).await;
        assert_eq!(said, Frame::Data { stream: 3, fin: false, bytes: "in".into() });
        drop(input);
        until(&mut there, &mut decoder, |frame| matches!(frame, Frame::Data { stream: 3, fin: true, .. }))
            .await;
        remote.terminal.as_ref().unwrap().resize(Size { columns: 80, rows: 24 }).unwrap();
        let said =
            until(&mut there, &mut decoder, |frame| matches!(frame, Frame::Data { stream: 9, .. })).await;
        let Frame::Data { bytes, .. } = said else { panic!() };
        assert_eq!(&bytes[..], b"{\"Width\":80,\"Height\":24}\n");
        there.write_all(&ping(2)).await.unwrap();
        until(&mut there, &mut decoder, |frame| *frame == Frame::Ping(2)).await;

        there.write_all(&data(STDOUT, false, b"out")).await.unwrap();
        there.write_all(&data(STDERR, true, b"err")).await.unwrap();
        there.write_all(&data(STDOUT, true, b"")).await.unwrap();
        let status = Outcome::Exited(7).status().to_string();
        there.write_all(&data(ERROR, true, status.as_bytes())).await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        remote.outputs.0.read_to_string(&mut out).await.unwrap();
        remote.outputs.1.read_to_string(&mut err).await.unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("out", "err"));
        assert_eq!(remote.end.wait().await, Outcome::Exited(7));
    }

    #[tokio::test]
    async fn a_runtime_that_says_nothing_right_is_a_reason() {
        for last_words in [&b""[..], b"GET / HTTP/1.1\r\n\r\n____________", &data(ERROR, true, b"{")] {
            let (remote, mut there) = started(Wanted { stdout: true, ..Wanted::default() });
            there.write_all(last_words).await.unwrap();
            drop(there);
            let outcome = remote.end.wait().await;
            assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
            assert!(remote.end.failure().is_some());
        }
        let (remote, mut there) = started(Wanted::default());
        let endless = vec![b'x'; LONGEST_STATUS + 1];
        there.write_all(&data(ERROR, false, &endless)).await.unwrap();
        assert!(matches!(remote.end.wait().await, Outcome::Failed(_)));
    }
}
