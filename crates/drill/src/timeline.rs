//! The timeline: what happened inside the hosts and what was seen from outside, as one story.

use crate::Moment;
use crate::clock::offset_ms;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Something that happened, from whatever source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) at: Moment,
    pub(crate) what: String,
    /// The host where it happened.
    pub(crate) host: Option<String>,
    /// What it happened to: a host, `namespace/pod` or `namespace/service`.
    pub(crate) subject: Option<String>,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) source: Source,
}

/// Where the news of an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The drill did or measured it.
    Drill,
    /// The host itself.
    Inside,
    /// A watch, a little later.
    Watch,
}

/// One line of a run's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Milliseconds since the cut.
    pub at_ms: i64,
    /// What happened.
    pub what: String,
    /// On which host, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// To what: a host, `namespace/pod` or `namespace/service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// What a host says and what a watch shows may be one thing when they are no further apart than this.
const TWINS: Duration = Duration::from_secs(2);

/// The event has a place in the story of this workload.
pub(crate) fn concerns(event: &Event, namespace: &str) -> bool {
    let subject = event.subject.as_deref().unwrap_or_default();
    subject.split_once('/').is_none_or(|(of, _)| of == namespace)
}

/// A watch shows what a host has told already.
pub(crate) fn is_told(watched: &Event, all: &[Event]) -> bool {
    watched.source == Source::Watch && all.iter().any(|e| are_twins(watched, e))
}

/// A host tells what a watch has shown already.
pub(crate) fn is_shown(inside: &Event, all: &[Event]) -> bool {
    inside.source == Source::Inside && all.iter().any(|e| are_twins(e, inside))
}

fn are_twins(watched: &Event, inside: &Event) -> bool {
    watched.source == Source::Watch
        && inside.source == Source::Inside
        && (&watched.what, &watched.subject) == (&inside.what, &inside.subject)
        && watched.at.abs_diff(inside.at) <= TWINS
}

/// Whether it was so already: a state of a host (Ready or not, heard or silent) that is reported a second time
/// without having been otherwise in between.
pub(crate) fn is_repeated<'a>(event: &Event, earlier: impl DoubleEndedIterator<Item = &'a Event>) -> bool {
    let Some(key) = state_of(event) else { return false };
    earlier.rev().find(|e| state_of(e) == Some(key)).is_some_and(|last| last.what == event.what)
}

/// Which state an event sets: of what, and in whose eyes.
fn state_of(event: &Event) -> Option<(&str, Option<&str>, &str)> {
    let subject = event.subject.as_deref().filter(|s| !s.contains('/'))?;
    match event.what.split('-').next()? {
        // Fenced or not is another matter than Ready or not.
        "node" if event.what.ends_with("fenced") => Some(("fence", None, subject)),
        // A Node is Ready or not for everybody.
        "node" => Some(("node", None, subject)),
        own @ ("host" | "endpoints") => Some((own, event.host.as_deref(), subject)),
        _ => None,
    }
}

/// The story of a run, in order: everything from the cut on that concerns the workload, each thing told once,
/// and the last heartbeat of the host that was cut.
pub(crate) fn merge(events: &[Event], cut: Moment, namespace: &str, target: &str) -> Vec<Entry> {
    let told = events.iter().filter(|e| e.at >= cut && concerns(e, namespace) && !is_told(e, events));
    let mut told: Vec<&Event> = told.collect();
    told.sort_by_key(|e| e.at);
    let entry = |e: &Event| Entry {
        at_ms: offset_ms(cut, e.at),
        what: e.what.clone(),
        node: e.host.clone(),
        subject: e.subject.clone(),
    };
    let fresh = told.iter().enumerate().filter(|(i, e)| !is_repeated(e, told[..*i].iter().copied()));
    let mut story: Vec<(Moment, Entry)> = fresh.map(|(_, e)| (e.at, entry(e))).collect();
    if let Some(at) = last_heartbeat(events, cut, target) {
        let entry = Entry {
            at_ms: offset_ms(cut, at),
            what: "last-heartbeat".into(),
            node: Some(target.to_owned()),
            subject: None,
        };
        story.push((at, entry));
    }
    story.sort_by_key(|(at, _)| *at);
    story.into_iter().map(|(_, entry)| entry).collect()
}

/// When anybody heard the host for the last time, from what those say who miss it.
fn last_heartbeat(events: &[Event], cut: Moment, target: &str) -> Option<Moment> {
    let missed = events.iter().filter(|e| {
        e.what == "host-silent"
            && e.subject.as_deref() == Some(target)
            && e.at >= cut
            && e.source == Source::Inside
    });
    let heard = missed.filter_map(|e| {
        let ago: u64 = e.fields.get("last_heard_ms_ago")?.parse().ok()?;
        e.at.checked_sub(Duration::from_millis(ago))
    });
    heard.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, what: &str, host: &str, subject: &str, source: Source) -> Event {
        let there = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
        Event {
            at: Duration::from_millis(at),
            what: what.into(),
            host: there(host),
            subject: there(subject),
            fields: BTreeMap::new(),
            source,
        }
    }

    #[test]
    fn one_story_of_many_sources() {
        let mut silent = event(1250, "host-silent", "n2", "n1", Source::Inside);
        silent.fields.insert("last_heard_ms_ago".into(), "262".into());
        let mut silent_too = event(1260, "host-silent", "n3", "n1", Source::Inside);
        silent_too.fields.insert("last_heard_ms_ago".into(), "251".into());
        let events = [
            event(2010, "pod-created", "", "x/web-2", Source::Watch),
            event(2000, "pod-created", "n2", "x/web-2", Source::Inside),
            event(2005, "pod-created", "n2", "kube-system/other", Source::Inside),
            event(2300, "pod-ready", "n3", "x/web-2", Source::Watch),
            event(900, "pod-ready", "n1", "x/web-0", Source::Inside),
            event(1000, "power-off", "n1", "", Source::Drill),
            event(1400, "election-won", "n2", "", Source::Inside),
            silent,
            silent_too,
            event(9000, "pod-ready", "n1", "x/web-2", Source::Inside),
        ];
        let story = merge(&events, Duration::from_millis(1000), "x", "n1");
        let told: Vec<_> = story.iter().map(|e| (e.at_ms, e.what.as_str(), e.node.as_deref())).collect();
        assert_eq!(
            told,
            [
                (0, "power-off", Some("n1")),
                (9, "last-heartbeat", Some("n1")),
                (250, "host-silent", Some("n2")),
                (260, "host-silent", Some("n3")),
                (400, "election-won", Some("n2")),
                (1000, "pod-created", Some("n2")),
                (1300, "pod-ready", Some("n3")),
                (8000, "pod-ready", Some("n1")),
            ]
        );
    }

    #[test]
    fn a_state_is_told_when_it_changes() {
        let events = [
            event(1, "node-not-ready", "n2", "n1", Source::Inside),
            event(2, "node-not-ready", "n3", "n1", Source::Inside),
            event(3, "node-ready", "", "n1", Source::Watch),
            event(4, "node-not-ready", "n3", "n1", Source::Inside),
            event(5, "host-silent", "n2", "n1", Source::Inside),
            event(6, "host-silent", "n3", "n1", Source::Inside),
            event(7, "host-heard", "n2", "n1", Source::Inside),
            event(8, "host-silent", "n2", "n1", Source::Inside),
            event(8, "host-silent", "n2", "n1", Source::Inside),
            event(9, "endpoint-added", "n2", "x/web", Source::Inside),
            event(9, "endpoint-added", "n2", "x/web", Source::Inside),
            event(10, "node-fenced", "n2", "n1", Source::Inside),
            event(11, "node-not-ready", "n2", "n1", Source::Inside),
            event(12, "node-fenced", "n3", "n1", Source::Inside),
            event(13, "node-unfenced", "", "n1", Source::Watch),
        ];
        let at: Vec<i64> = merge(&events, Duration::ZERO, "x", "n1").iter().map(|e| e.at_ms).collect();
        assert_eq!(at, [1, 3, 4, 5, 6, 7, 8, 9, 9, 10, 13]);
    }

    #[test]
    fn nothing_told_nothing_made_up() {
        assert_eq!(merge(&[], Duration::ZERO, "x", "n1"), []);
        let without = event(10, "host-silent", "n2", "n1", Source::Inside);
        assert_eq!(
            merge(&[without], Duration::ZERO, "x", "n1").len(),
            1,
            "no last heartbeat without a number"
        );
    }
}
