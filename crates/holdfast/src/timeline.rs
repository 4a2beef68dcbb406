//! The host's timeline: tracing events of target `timeline`, written as JSON lines for a drill to read.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The target that marks an event as part of the timeline.
pub const TARGET: &str = "timeline";

/// A file that grows past this many bytes makes way for a new one; the old one is kept beside it.
const LIMIT: u64 = 4 << 20;

/// Writes the timeline's events to a file, one JSON object a line:
/// `{"at_us": unix microseconds, "host": name, "what": name, ...fields}`.
pub struct Timeline {
    host: String,
    path: PathBuf,
    file: Mutex<(File, u64)>,
}

impl Timeline {
    /// Appends to `path`, in the name of `host`.
    pub fn open(path: &Path, host: &str) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(Timeline { host: host.to_owned(), path: path.to_owned(), file: Mutex::new((file, length)) })
    }

    fn write(&self, line: &[u8]) -> std::io::Result<()> {
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, length) = &mut *guard;
        if *length > LIMIT {
            std::fs::rename(&self.path, self.path.with_extension("jsonl.old"))?;
            *file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            *length = 0;
        }
        // One write a line: a reader meanwhile sees whole lines.
        file.write_all(line)?;
        *length += line.len() as u64;
        Ok(())
    }
}

impl<S: tracing::Subscriber> Layer<S> for Timeline {
    #[allow(clippy::disallowed_methods, reason = "the timeline says when something happened")]
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != TARGET {
            return;
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        let mut fields = Fields(Map::new());
        fields.0.insert("at_us".into(), at.into());
        fields.0.insert("host".into(), self.host.clone().into());
        event.record(&mut fields);
        let mut line = Value::Object(fields.0).to_string();
        line.push('\n');
        // A full disk must not take the host down; the timeline is for people.
        let _ = self.write(line.as_bytes());
    }
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn an_event_of_the_timeline_becomes_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timeline.jsonl");
        let layer = Timeline::open(&path, "n1").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "timeline", what = "election-won", term = 3u64);
            tracing::info!("not of the timeline");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let line: Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (&line["host"], &line["what"], &line["term"]),
            (&"n1".into(), &"election-won".into(), &3.into())
        );
    }
}
