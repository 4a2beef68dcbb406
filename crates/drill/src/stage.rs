//! The stage: everything that a run hears, in one place, told as it comes.

use crate::clock::Clock;
use crate::observe::Seen;
use crate::progress::Progress;
use crate::sight::{Change, sights};
use crate::timeline::{Event, Source, concerns, is_repeated, is_shown, is_told};
use crate::{Error, Happening, Moment};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// How long a step waits at most.
const STEP: Duration = Duration::from_millis(10);

pub(crate) struct Stage<'a> {
    pub(crate) clock: Clock,
    pub(crate) progress: Progress<'a>,
    /// The timeline is given relative to this moment, and only from it on; none before the cut.
    pub(crate) since: Option<Moment>,
    /// Everything heard in this run.
    pub(crate) events: Vec<Event>,
    namespace: String,
    inside: UnboundedReceiver<Happening>,
    inside_open: bool,
    seen: UnboundedReceiver<Seen>,
    seen_open: bool,
}

/// What a step brought.
pub(crate) enum Step {
    /// Nothing that needs an answer.
    Time,
    /// The observer has its first list of one kind.
    Synced,
    /// An object changed.
    Change(Moment, Change),
}

impl<'a> Stage<'a> {
    pub(crate) fn new(
        clock: Clock,
        progress: Progress<'a>,
        namespace: &str,
        inside: UnboundedReceiver<Happening>,
    ) -> Self {
        let (_, seen) = unbounded_channel();
        Stage {
            clock,
            progress,
            since: None,
            events: Vec::new(),
            namespace: namespace.to_owned(),
            inside,
            inside_open: true,
            seen,
            seen_open: false,
        }
    }

    /// A new run begins, with an observer of its own.
    pub(crate) fn begin(&mut self, seen: UnboundedReceiver<Seen>) {
        self.since = None;
        self.events.clear();
        self.seen = seen;
        self.seen_open = true;
    }

    /// Waits for the next thing to be heard, a short time at most.
    pub(crate) async fn step(&mut self) -> Result<Step, Error> {
        tokio::select! {
            happening = self.inside.recv(), if self.inside_open => match happening {
                None => self.inside_open = false,
                Some(happening) => {
                    let at = self.clock.moment(happening.at);
                    let subject = happening.fields.get("subject").cloned();
                    self.hear(Event {
                        at,
                        what: happening.what,
                        host: Some(happening.host),
                        subject,
                        fields: happening.fields,
                        source: Source::Inside,
                    })?;
                }
            },
            seen = self.seen.recv(), if self.seen_open => match seen {
                None => self.seen_open = false,
                Some(Seen::Synced) => return Ok(Step::Synced),
                Some(Seen::Change(at, change)) => {
                    for sight in sights(&change) {
                        self.hear(Event {
                            at,
                            what: sight.what.into(),
                            host: sight.host,
                            subject: Some(sight.subject),
                            fields: Default::default(),
                            source: Source::Watch,
                        })?;
                    }
                    return Ok(Step::Change(at, change));
                }
            },
            () = tokio::time::sleep(STEP) => {}
        }
        Ok(Step::Time)
    }

    /// Something that the drill itself did or measured.
    pub(crate) fn note(
        &mut self,
        at: Moment,
        what: &str,
        host: Option<&str>,
        subject: Option<String>,
    ) -> Result<(), Error> {
        let (what, host) = (what.to_owned(), host.map(str::to_owned));
        self.hear(Event { at, what, host, subject, fields: Default::default(), source: Source::Drill })
    }

    /// The first event of a host from `since` on.
    pub(crate) fn first(&self, what: &str, host: &str, since: Moment) -> Option<Moment> {
        let of_host = |e: &&Event| {
            e.what == what
                && e.at >= since
                && [&e.host, &e.subject].iter().any(|h| h.as_deref() == Some(host))
        };
        self.events.iter().filter(of_host).map(|e| e.at).min()
    }

    /// From when on a host was Ready: never before `since`, which is the answer for one that has been Ready all along from `cut` on.
    pub(crate) fn ready_since(&self, host: &str, cut: Moment, since: Moment) -> Option<Moment> {
        let of_host = |e: &&Event| {
            e.at >= cut
                && e.subject.as_deref() == Some(host)
                && ["node-ready", "node-not-ready"].contains(&e.what.as_str())
        };
        match self.events.iter().filter(of_host).max_by_key(|e| e.at) {
            None => Some(since),
            Some(last) if last.what == "node-ready" => Some(last.at.max(since)),
            Some(_) => None,
        }
    }

    /// How many elections were won since then; none where the hosts don't tell what happens inside.
    pub(crate) fn elections_won(&self, since: Moment) -> Option<u64> {
        let is_told = self.events.iter().any(|e| e.source == Source::Inside);
        is_told.then(|| self.wins(since).count() as u64)
    }

    /// Who won the last election since then.
    pub(crate) fn last_winner(&self, since: Moment) -> Option<String> {
        self.wins(since).max_by_key(|e| e.at)?.host.clone()
    }

    fn wins(&self, since: Moment) -> impl Iterator<Item = &Event> {
        let is_win =
            move |e: &&Event| e.source == Source::Inside && e.what == "election-won" && e.at >= since;
        self.events.iter().filter(is_win)
    }

    fn hear(&mut self, event: Event) -> Result<(), Error> {
        if let Some(since) = self.since
            && event.at >= since
            && concerns(&event, &self.namespace)
            && !is_told(&event, &self.events)
            && !is_shown(&event, &self.events)
            && !is_repeated(&event, self.events.iter().filter(|e| e.at >= since))
        {
            self.progress.tell(&event, since)?;
        }
        self.events.push(event);
        Ok(())
    }
}
