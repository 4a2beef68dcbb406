//! What a host has to say: where it goes, and in which form.

use std::io;

use anyhow::Context;
use config::HostConfig;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::timeline::{self, Timeline};

/// The form of what a host has to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object a line: `timestamp`, `level`, `target`, `fields` with the `message`, and the spans it happened in.
    Json,
}

impl LogFormat {
    /// The arguments by which a host is started that writes its log in this form.
    pub fn host_arguments(self) -> Vec<std::ffi::OsString> {
        match self {
            LogFormat::Text => vec!["host".into()],
            LogFormat::Json => ["host", "--log-format", "json"].map(Into::into).to_vec(),
        }
    }
}

/// What there is to say goes to stderr, the timeline to its file.
pub fn log_to(config: &HostConfig, format: LogFormat) -> anyhow::Result<()> {
    let file = Timeline::open(&config.timeline_file, &config.name)
        .with_context(|| format!("can't write {}", config.timeline_file.display()))?;
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let log = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    let log = match format {
        LogFormat::Text => log.boxed(),
        LogFormat::Json => log.json().boxed(),
    };
    let log = log.with_filter(filter);
    let timeline = file.with_filter(filter_fn(|metadata| metadata.target() == timeline::TARGET));
    tracing_subscriber::registry().with(log).with(timeline).init();
    Ok(())
}
