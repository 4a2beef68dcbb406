//! All runs side by side: a strip for each clock, a dot for each run.

use std::fmt::Write;

use super::lanes::Axis;
use crate::picture::Scale;
use crate::wording::time_or_never;
use crate::{Percentiles, Report, Run};

const TOP: i64 = 26;
const ROW: i64 = 52;
/// Dots that lie on each other are stacked up to this height.
const STACK: i64 = 5;

/// The picture, in a drawing of that width.
pub(super) fn picture(report: &Report, width: i64) -> String {
    /// None where it wasn't to be seen in that run, which is no dot; none within where it never came.
    type Clock = fn(&Run) -> Option<Option<u64>>;
    let summary = &report.summary;
    let mut clocks: Vec<(&str, Clock, Percentiles)> = vec![
        ("API", |run| Some(run.api.outage_ms), summary.api_outage_ms),
        ("service", |run| Some(run.service.outage_ms), summary.service_outage_ms),
        (
            "new pod",
            |run| run.has_replacement().then_some(run.replacement.answered_ms),
            summary.replacement_answered_ms,
        ),
        ("Ready", |run| Some(run.rejoin.ready_ms), summary.rejoin_ready_ms),
    ];
    if let Some(percentiles) = summary.safety.stateful_answered_ms {
        let seen: Clock = |run| {
            let is_seen = !run.safety.unseen.contains_key("stateful_answered_ms");
            is_seen.then_some(run.safety.stateful_answered_ms)
        };
        clocks.push(("stateful", seen, percentiles));
    }
    let longest = clocks
        .iter()
        .flat_map(|(_, clock, _)| report.runs.iter().filter_map(clock).flatten())
        .max()
        .unwrap_or(0);
    let axis = Axis::new(width, Scale::up_to(longest.max(400)).end_ms());
    let height = TOP + ROW * i64::try_from(clocks.len()).unwrap_or(0);
    let mut out = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"All runs\">");
    axis.grid(height, &mut out);
    for (row, (name, clock, percentiles)) in (0..).zip(clocks) {
        let base = TOP + row * ROW + 36;
        let _ = write!(out, "<text x=\"0\" y=\"{}\">{name}</text>", base + 4);
        let mut stacked = std::collections::BTreeMap::<i64, i64>::new();
        for (number, run) in report.runs.iter().enumerate() {
            let Some(ms) = clock(run) else { continue };
            let x = axis.at(ms.map_or(i64::MAX, |ms| i64::try_from(ms).unwrap_or(i64::MAX)));
            let level = stacked.entry(x / 6).or_default();
            let y = base - (*level % STACK) * 6;
            *level += 1;
            let tip = format!("run {}: {}", number + 1, time_or_never(ms));
            let _ = match ms {
                Some(_) => write!(
                    out,
                    "<circle class=\"good\" cx=\"{x}\" cy=\"{y}\" r=\"3\"><title>{tip}</title></circle>"
                ),
                None => write!(
                    out,
                    "<path class=\"bad\" d=\"M{} {}L{} {}M{} {}L{} {}\"><title>{tip}</title></path>",
                    x - 4,
                    y - 4,
                    x + 4,
                    y + 4,
                    x - 4,
                    y + 4,
                    x + 4,
                    y - 4
                ),
            };
        }
        if let Some(median) = percentiles.p50 {
            let x = axis.at(i64::try_from(median).unwrap_or(i64::MAX));
            let told = format!(
                "median {}, slowest {}",
                time_or_never(percentiles.p50),
                time_or_never(percentiles.max)
            );
            let _ = write!(
                out,
                "<line class=\"median\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"><title>{told}</title></line>",
                base - 30,
                base + 8
            );
        }
    }
    out += "</svg>";
    out
}
