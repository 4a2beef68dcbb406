//! Callers that ask as fast as they are answered, each by a socket of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::cluster::Case;
use crate::process;
use crate::store::Histogram;

/// After this time a datagram is lost.
const LOST: Duration = Duration::from_secs(1);

/// Who asks how much.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The number of services to ask about.
    pub services: usize,
    /// The number of callers.
    pub callers: usize,
    /// For how many seconds they ask.
    pub seconds: u64,
}

impl Load {
    /// Asks a server, which is the process `pid`.
    ///
    /// # Errors
    /// If it doesn't answer, or not rightly.
    #[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    pub async fn measure(self, case: Case, server: SocketAddr, pid: u32) -> anyhow::Result<Value> {
        let questions: Arc<[Vec<u8>]> = (0..self.services).map(|service| case.question(service)).collect();
        // What is done once is not measured.
        self.ask(case, server, &questions, Duration::from_millis(500)).await?;
        let (cpu, began) = (process::cpu_seconds(pid)?, Instant::now());
        let (times, lost) = self.ask(case, server, &questions, Duration::from_secs(self.seconds)).await?;
        let (cpu, took) = (process::cpu_seconds(pid)? - cpu, began.elapsed().as_secs_f64());
        let answers = times.total() as f64;
        anyhow::ensure!(answers > 0.0, "{server} doesn't answer");
        Ok(json!({
            "per_s": answers / took,
            "per_core_s": answers / cpu,
            "p50_ms": times.percentile_ms(50.0),
            "p99_ms": times.percentile_ms(99.0),
            "lost": lost,
            "resident_mb": process::resident_mb(pid)?,
        }))
    }

    #[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    async fn ask(
        self,
        case: Case,
        server: SocketAddr,
        questions: &Arc<[Vec<u8>]>,
        time: Duration,
    ) -> anyhow::Result<(Histogram, u64)> {
        let end = Instant::now() + time;
        let mut callers = JoinSet::new();
        for number in 0..self.callers {
            callers.spawn(call(case, server, questions.clone(), number * 7919, end));
        }
        let mut times = Histogram::default();
        let mut lost = 0;
        while let Some(caller) = callers.join_next().await {
            let (some, missing) = caller??;
            times.merge(&some);
            lost += missing;
        }
        Ok((times, lost))
    }
}

#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
async fn call(
    case: Case,
    server: SocketAddr,
    questions: Arc<[Vec<u8>]>,
    start: usize,
    end: Instant,
) -> anyhow::Result<(Histogram, u64)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(server).await?;
    let (mut times, mut lost) = (Histogram::default(), 0);
    let mut buffer = [0; 2048];
    let mut number = start;
    while Instant::now() < end {
        let mut question = questions[number % questions.len()].clone();
        let id = (number as u16).to_be_bytes();
        question[..2].copy_from_slice(&id);
        number += 1;
        let asked = Instant::now();
        socket.send(&question).await?;
        loop {
            match timeout(LOST, socket.recv(&mut buffer)).await {
                Ok(received) => {
                    let answer = &buffer[..received.context("can't receive")?];
                    // One that was taken for lost comes late.
                    if answer.get(..2) == Some(&id) {
                        anyhow::ensure!(case.is_answer(answer), "{server} answers wrongly: {answer:02x?}");
                        times.record(asked.elapsed().as_nanos() as u64);
                        break;
                    }
                }
                Err(_) => {
                    lost += 1;
                    break;
                }
            }
        }
    }
    Ok((times, lost))
}
