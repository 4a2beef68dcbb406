//! The picture of a run: a lane for each clock's requests, for each host, and for the new pod.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{escaped, first};
use crate::picture::Scale;
use crate::wording::{time, wording};
use crate::{Dot, Run};

const ROW: i64 = 34;
const TOP: i64 = 26;

/// A scale of time across the picture.
pub(super) struct Axis {
    from: i64,
    width: i64,
    to_ms: u64,
}

impl Axis {
    /// With room for names on the left.
    pub(super) fn new(width: i64, to_ms: u64) -> Self {
        let from = if width < 500 { 62 } else { 92 };
        Axis { from, width: width - from - 12, to_ms: to_ms.max(1) }
    }

    /// The width of the whole drawing, by which its pattern is called: a page has a drawing for each width.
    fn whole(&self) -> i64 {
        self.from + self.width + 12
    }

    /// Where a moment is; what lies before the cut is at its left edge, what is too late at its right.
    pub(super) fn at(&self, ms: i64) -> i64 {
        let ms = ms.clamp(0, i64::try_from(self.to_ms).unwrap_or(i64::MAX));
        self.from + ms.saturating_mul(self.width) / i64::try_from(self.to_ms).unwrap_or(i64::MAX)
    }

    /// Lines with their times, over a height.
    pub(super) fn grid(&self, height: i64, out: &mut String) {
        for quarter in 0..=4_u64 {
            let ms = self.to_ms * quarter / 4;
            let x = self.at(i64::try_from(ms).unwrap_or(i64::MAX));
            let anchor = match quarter {
                0 => "start",
                4 => "end",
                _ => "middle",
            };
            let seconds = ms as f64 / 1000.0;
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"{TOP}\" y2=\"{height}\"/><text class=\"faint\" x=\"{x}\" y=\"16\" \
                 text-anchor=\"{anchor}\">{seconds} s</text>"
            );
        }
    }
}

/// The picture, in a drawing of that width.
pub(super) fn picture(run: &Run, width: i64) -> String {
    let stateful = run.safety.stateful_answered_ms;
    let clocks = [run.api.outage_ms, run.service.outage_ms, run.replacement.answered_ms, stateful];
    let slowest = clocks.into_iter().flatten().max();
    let last = run.before_mended().iter().map(|entry| entry.at_ms).max();
    let last = u64::try_from(last.unwrap_or(0)).unwrap_or(0);
    // A straggler must not squeeze the clocks into a corner.
    let shown = slowest.map_or(last, |slowest| slowest + slowest / 20);
    let axis = Axis::new(width, Scale::up_to(shown.max(400)).end_ms());
    let hosts: BTreeSet<&str> = run.timeline.iter().filter_map(|entry| entry.node.as_deref()).collect();
    let has_stateful = !run.safety.unseen.contains_key("stateful_answered_ms");
    let has_pod = run.has_replacement();
    let rows = 2 + i64::from(has_pod) + i64::from(has_stateful) + i64::try_from(hosts.len()).unwrap_or(0);
    let height = TOP + rows * ROW + 6;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"What happened after the fault\"><defs><pattern id=\"off{width}\" \
         width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><line class=\"stripe\" x1=\"0\" x2=\"0\" \
         y1=\"0\" y2=\"6\"/></pattern></defs>"
    );
    axis.grid(height, &mut out);
    let mut row = 0;
    for (name, outage, asks) in
        [("API", run.api.outage_ms, &run.asks.api), ("service", run.service.outage_ms, &run.asks.service)]
    {
        requests(&axis, row, name, outage, asks, &mut out);
        row += 1;
    }
    for host in hosts {
        lane_of_host(&axis, row, run, host, &mut out);
        row += 1;
    }
    let made = [
        ("pod-placed", "pod", "it gets a host"),
        ("pod-started", "pod", "it starts"),
        ("pod-ready", "pod", "it becomes ready"),
    ];
    let not_ready = ("node-not-ready", "wait", "the lost host's node still counts as Ready");
    let spare = [not_ready, ("pod-created", "pod", "a spare pod is made")];
    if has_pod {
        let new = (run.replacement.pod.as_deref(), run.replacement.answered_ms);
        pod_lane(&axis, row, run, "new pod", new, spare.iter().chain(&made), &mut out);
        row += 1;
    }
    if has_stateful {
        let fenced = ("node-fenced", "wait", "the lost host's lease isn't over for sure");
        let anew = [fenced, ("pod-created", "pod", "the same pod is made anew")];
        let pod = (run.safety.stateful_pod.as_deref(), stateful);
        pod_lane(&axis, row, run, "stateful", pod, anew.iter().chain(&made), &mut out);
    }
    out += "</svg>";
    out
}

fn middle(row: i64) -> i64 {
    TOP + row * ROW + ROW / 2
}

fn label(row: i64, name: &str, out: &mut String) {
    // A long name would run into the picture.
    let short: String = if name.chars().count() > 9 {
        name.chars().take(8).chain("…".chars()).collect()
    } else {
        name.to_owned()
    };
    let (name, short, y) = (escaped(name), escaped(&short), middle(row) + 4);
    let _ = write!(out, "<text x=\"0\" y=\"{y}\">{short}<title>{name}</title></text>");
}

fn bar(axis: &Axis, row: i64, class: &str, from: i64, to: i64, tip: &str, out: &mut String) {
    let (x, end, y) = (axis.at(from), axis.at(to), middle(row) - 8);
    let (wide, tip) = ((end - x).max(1), escaped(tip));
    let _ = write!(
        out,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"16\" rx=\"2\"><title>{tip}</title></rect>"
    );
}

fn requests(axis: &Axis, row: i64, name: &str, outage: Option<u64>, asks: &[Dot], out: &mut String) {
    label(row, name, out);
    let until = outage.map_or(i64::MAX, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
    if until > 0 {
        bar(
            axis,
            row,
            "away",
            0,
            until,
            &format!("{name} away: {}", crate::wording::time_or_never(outage)),
            out,
        );
    }
    let end = i64::try_from(axis.to_ms).unwrap_or(i64::MAX);
    for ask in asks.iter().filter(|ask| (0..=end).contains(&ask.sent_ms)) {
        let (x, y) = (axis.at(ask.sent_ms), middle(row));
        let tip = format!(
            "sent at {} ms, {} after {}",
            ask.sent_ms,
            if ask.ok { "answered" } else { "failed" },
            time(ask.took_ms)
        );
        let _ = match ask.ok {
            true => write!(
                out,
                "<circle class=\"good\" cx=\"{x}\" cy=\"{y}\" r=\"3\"><title>{tip}</title></circle>"
            ),
            false => {
                let (left, right, above, below) = (x - 4, x + 4, y - 4, y + 4);
                write!(
                    out,
                    "<path class=\"bad\" d=\"M{left} {above}L{right} {below}M{left} {below}L{right} {above}\"><title>{tip}</title></path>"
                )
            }
        };
    }
}

fn lane_of_host(axis: &Axis, row: i64, run: &Run, host: &str, out: &mut String) {
    label(row, host, out);
    let end = i64::try_from(axis.to_ms).unwrap_or(i64::MAX);
    let of_host =
        || run.before_mended().iter().filter(|entry| entry.node.as_deref() == Some(host) && entry.at_ms >= 0);
    let at = |what: &str| of_host().find(|entry| entry.what == what).map(|entry| entry.at_ms);
    if host == run.target {
        let fill = format!("off\" style=\"fill:url(#off{})", axis.whole());
        let until = run.timeline.get(run.mended_at()).map_or(end, |mended| mended.at_ms.min(end));
        bar(axis, row, &fill, 0, until, run.fault.state(), out);
    }
    match at("election-won") {
        // It may win again when it is back, which is a mark and no lane of its own.
        _ if host == run.target => {}
        None => bar(axis, row, "idle", 0, end, "follows", out),
        Some(won) => {
            bar(axis, row, "wait", 0, won, &format!("waits for a leader for {won} ms, then leads"), out);
            bar(axis, row, "lead", won, end, "leads", out);
            if end > won && axis.at(end) - axis.at(won) > 60 {
                let (x, y) = (axis.at(end) - 6, middle(row) + 4);
                let _ = write!(
                    out,
                    "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" style=\"fill:var(--paper)\">leads</text>"
                );
            }
        }
    }
    for entry in of_host().filter(|entry| entry.at_ms <= end) {
        let (x, above, below) = (axis.at(entry.at_ms), middle(row) - 12, middle(row) + 12);
        let tip = escaped(&format!("{} ms: {}", entry.at_ms, wording(&entry.what, entry.subject.as_deref())));
        let _ = write!(
            out,
            "<line class=\"mark\" x1=\"{x}\" x2=\"{x}\" y1=\"{above}\" y2=\"{below}\"><title>{tip}</title></line>"
        );
    }
}

/// What has to happen until a pod answers, in which class it is drawn while it is waited for, and in words.
type Step = (&'static str, &'static str, &'static str);

fn pod_lane<'a>(
    axis: &Axis,
    row: i64,
    run: &Run,
    name: &str,
    (pod, answered): (Option<&str>, Option<u64>),
    steps: impl Iterator<Item = &'a Step>,
    out: &mut String,
) {
    label(row, name, out);
    let end = answered.map_or(i64::MAX, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
    let mut from = 0;
    for (what, class, words) in steps {
        let at = first(run, what, pod).and_then(|at| i64::try_from(at).ok());
        let Some(at) = at.filter(|at| (from..=end).contains(at)) else { continue };
        bar(axis, row, class, from, at, &format!("{words}: until {at} ms"), out);
        from = at;
    }
    let tip = format!("answers: {}", crate::wording::time_or_never(answered));
    bar(axis, row, "pod", from, end, &tip, out);
}
