//! Who holds the API's virtual address: asked of all hosts at once, as every client's kernel does.

use crate::Moment;
use crate::clock::Clock;
use crate::site::{Held, Site};
use tokio::sync::mpsc::UnboundedReceiver;

/// The questions of a run, and how they were answered.
pub(crate) struct Holders(Result<UnboundedReceiver<Held>, String>);

impl Holders {
    pub(crate) fn begin(site: &dyn Site) -> Self {
        Holders(site.holders())
    }

    /// How many questions since then were answered by more than one host.
    ///
    /// # Errors
    /// Why that can't be said.
    pub(crate) fn double(self, clock: Clock, since: Moment) -> Result<usize, String> {
        let mut asked = self.0?;
        let answers = std::iter::from_fn(|| asked.try_recv().ok());
        let answers: Vec<Held> = answers.filter(|held| clock.moment(held.at) >= since).collect();
        if answers.iter().all(|held| held.by == 0) {
            return Err("no host answered the question who holds the API's virtual address".into());
        }
        Ok(answers.iter().filter(|held| held.by > 1).count())
    }
}
