//! What a task logs names the task, in both forms of the log.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tasks::SpawnIn;
use tokio::task::JoinSet;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

#[test]
fn a_task_and_a_thread_are_named_in_the_log() {
    let (text, json) = (Log::default(), Log::default());
    let plain = tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_writer(text.clone());
    let objects = tracing_subscriber::fmt::layer().json().without_time().with_writer(json.clone());
    // For all threads: this test is alone in its program.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(plain).with(objects))
        .unwrap();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let here = runtime.handle().clone();
    runtime.block_on(async {
        let span = |number: u8| tracing::info_span!("task", number);
        let say = async || tracing::info!("here");
        let mut set = JoinSet::new();
        set.spawn_in(span(1), async move { say().await });
        set.spawn_in_on(span(2), async move { say().await }, &here);
        set.join_all().await;
        tasks::spawn(span(3), async move { say().await }).await.unwrap();
        tasks::spawn_on(&here, span(4), async move { say().await }).await.unwrap();
        tasks::blocking(span(5), || tracing::info!("here")).await.unwrap();
    });
    tasks::thread("six", tracing::info_span!("task", number = 6), || tracing::info!("here"))
        .unwrap()
        .join()
        .unwrap();

    let expected: Vec<String> = (1..=6).map(|n| format!(" INFO task{{number={n}}}: log: here")).collect();
    assert_eq!(text.lines(), expected);
    let json = json.lines();
    assert_eq!(json.len(), 6);
    for n in 1..=6 {
        let spans = format!(r#""spans":[{{"number":{n},"name":"task"}}]"#);
        assert!(json.iter().any(|line| line.contains(&spans)), "{spans}: {json:?}");
    }
}
