//! The two ends of a session: the one of the process, and the one of the caller's protocol. Between them lie
//! channels that hold a few pieces, so that a slow end slows the other down.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info_span;

use super::outcome::Outcome;
use crate::container::{Size, Source};

/// How much of a stream is read at a time.
pub(super) const PIECE: usize = 16 << 10;
/// How many pieces of output may lie ready.
const AHEAD: usize = 4;

/// The process' end.
#[derive(Debug)]
pub(super) struct ProcessEnd {
    /// What the caller sends; closed when it has no more. None if it sends nothing.
    pub(super) input: Option<mpsc::Receiver<Bytes>>,
    /// The size of the caller's terminal.
    pub(super) size: watch::Receiver<Option<Size>>,
    /// What the caller gets. It closes when the caller is gone.
    pub(super) output: mpsc::Sender<(Source, Bytes)>,
}

/// The protocol's end. Dropped before the outcome came, the caller is gone.
#[derive(Debug)]
pub(super) struct CallerEnd {
    pub(super) input: Option<mpsc::Sender<Bytes>>,
    pub(super) size: watch::Sender<Option<Size>>,
    /// What the process prints; over when nothing more comes.
    pub(super) output: mpsc::Receiver<(Source, Bytes)>,
    /// How it ended, once the output is over.
    pub(super) outcome: oneshot::Receiver<Outcome>,
}

/// Begins `work` with one end and answers the other.
pub(super) fn begin<W: Future<Output = Outcome> + Send + 'static>(
    with_input: bool,
    work: impl FnOnce(ProcessEnd) -> W,
) -> CallerEnd {
    let (input, inputs) = mpsc::channel(1);
    let (size, sizes) = watch::channel(None);
    let (outputs, output) = mpsc::channel(AHEAD);
    let (tell, outcome) = oneshot::channel();
    let work = work(ProcessEnd { input: with_input.then_some(inputs), size: sizes, output: outputs });
    tasks::spawn(info_span!("process in a container"), async move {
        // The caller may be gone.
        let _ = tell.send(work.await);
    });
    CallerEnd { input: with_input.then_some(input), size, output, outcome }
}

impl CallerEnd {
    /// How it ended; for when the output is over.
    pub(super) async fn ended(&mut self) -> Outcome {
        let gone = |_| Outcome::Failed("the agent lost sight of the command".into());
        (&mut self.outcome).await.unwrap_or_else(gone)
    }
}

/// The size that a caller tells as `{"Width": 80, "Height": 24}`.
pub(super) fn size_of(text: &[u8]) -> Option<Size> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Told {
        width: u16,
        height: u16,
    }
    let told: Told = serde_json::from_slice(text).ok()?;
    Some(Size { columns: told.width, rows: told.height })
}
