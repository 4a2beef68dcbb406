//! A caller at a container's own process: sees what it prints from now on, writes what it reads.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::exec::follow_size;
use super::outcome::Outcome;
use super::session::{PIECE, ProcessEnd};
use crate::container::Source;
use crate::pods::Live;
use crate::runtime::{OutputReader, Runtime};

/// Stays with the process until its output is over or the caller is gone.
pub(super) async fn attach(
    runtime: Arc<dyn Runtime>,
    live: Arc<Live>,
    stdout: bool,
    stderr: bool,
    end: ProcessEnd,
) -> Outcome {
    let ProcessEnd { input, size, output } = end;
    let Some(attached) = runtime.attach(&live.which, (stdout, stderr)).await else {
        return Outcome::Failed("the container ended".into());
    };
    let (out, err) = attached.outputs;
    let printed =
        async { tokio::join!(print(out, Source::Stdout, &output), print(err, Source::Stderr, &output)) };
    let writes = input.is_some();
    let told = async {
        let fed = async {
            let (Some(mut input), Some(mut writer)) = (input, attached.input.filter(|_| live.reads)) else {
                return;
            };
            while let Some(piece) = input.recv().await {
                if writer.write_all(&piece).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
            drop(writer);
            left(&*runtime, &live);
        };
        tokio::join!(fed, follow_size(size, attached.terminal));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = printed => {}
        () = told => {}
        () = output.closed() => {}
    }
    if writes {
        left(&*runtime, &live);
    }
    Outcome::Exited(0)
}

/// A caller that wrote has ended.
fn left(runtime: &dyn Runtime, live: &Live) {
    if live.once {
        runtime.close_input(&live.which);
    }
}

/// Sends on what is printed, as fast as it is taken.
async fn print(mut from: OutputReader, source: Source, to: &mpsc::Sender<(Source, Bytes)>) {
    let mut held = BytesMut::new();
    loop {
        held.reserve(PIECE);
        let Ok(1..) = from.read_buf(&mut held).await else { return };
        if to.send((source, held.split().freeze())).await.is_err() {
            return;
        }
    }
}
