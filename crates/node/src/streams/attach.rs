//! A caller at a container's own process: sees what it prints from now on, writes what it reads.

use std::sync::Arc;

use super::exec::follow_size;
use super::outcome::Outcome;
use super::session::ProcessEnd;
use crate::host::Source;
use crate::pods::Live;

/// Stays with the process until its output is over or the caller is gone.
pub(super) async fn attach(live: Arc<Live>, stdout: bool, stderr: bool, end: ProcessEnd) -> Outcome {
    let ProcessEnd { input, size, output } = end;
    let mut pieces = live.output.watch();
    let printed = async {
        while let Some((source, piece)) = pieces.recv().await {
            let wanted = match source {
                Source::Stdout => stdout,
                Source::Stderr => stderr,
            };
            if wanted && output.send((source, piece)).await.is_err() {
                return;
            }
        }
    };
    let writes = input.is_some();
    let told = async {
        let fed = async {
            let Some(mut input) = input else { return };
            while let Some(piece) = input.recv().await {
                if !live.input.write(&piece).await {
                    return;
                }
            }
            live.input.left().await;
        };
        tokio::join!(fed, follow_size(size, live.terminal.clone()));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = printed => {}
        () = told => {}
        () = output.closed() => {}
    }
    if writes {
        live.input.left().await;
    }
    Outcome::Exited(0)
}
