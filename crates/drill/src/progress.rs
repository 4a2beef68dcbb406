//! Progress: what is happening now, a line each, as it happens.

use crate::Error;
use crate::Moment;
use crate::clock::offset_ms;
use crate::timeline::Event;
use crate::wording::{offset, wording};
use std::io::Write;

/// Where progress is shown.
pub(crate) struct Progress<'a> {
    out: &'a mut (dyn Write + Send),
}

impl<'a> Progress<'a> {
    pub(crate) fn new(out: &'a mut (dyn Write + Send)) -> Self {
        Progress { out }
    }

    /// What the drill does now.
    pub(crate) fn say(&mut self, words: &str) -> Result<(), Error> {
        writeln!(self.out, "{words}")?;
        self.out.flush()?;
        Ok(())
    }

    /// Something on the timeline.
    pub(crate) fn tell(&mut self, event: &Event, since: Moment) -> Result<(), Error> {
        let at = offset(offset_ms(since, event.at));
        let node = event.host.as_deref().unwrap_or("");
        let words = wording(&event.what, event.subject.as_deref());
        writeln!(self.out, "  {at:>9}  {node:<4} {words}")?;
        self.out.flush()?;
        Ok(())
    }
}
