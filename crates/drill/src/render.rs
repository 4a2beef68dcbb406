//! The report as text for people.

use crate::picture::Scale;
use crate::wording::{offset, time, time_or_never, wording};
use crate::{Clock, Entry, Percentiles, Report, Run};
use std::io::{Result, Write};

/// Writes every run and, when there are several, the summary.
pub(crate) fn report(report: &Report, out: &mut dyn Write) -> Result<()> {
    let runs = report.runs.len();
    for (number, run) in report.runs.iter().enumerate() {
        let which = if runs > 1 { format!("Run {} of {runs}: power", number + 1) } else { "Power".into() };
        writeln!(out, "{which} cut on {} ({})", run.target, run.was.join(", "))?;
        clocks(run, out)?;
        timeline(run, out)?;
        writeln!(out)?;
    }
    let cluster = &report.cluster;
    let hosts = if cluster.nodes == 1 { "host" } else { "hosts" };
    let cuts = if runs == 1 { "power cut" } else { "power cuts" };
    let (nodes, net, seed) = (cluster.nodes, &cluster.net, report.seed);
    writeln!(out, "{runs} {cuts}, {nodes} {hosts}, net {net}, seed {seed}")?;
    if runs > 1 {
        let summary = &report.summary;
        writeln!(out, "  {:<26}{:>10}{:>10}{:>10}", "", "p50", "p99", "max")?;
        for (name, clock) in [
            ("API outage", summary.api_outage_ms),
            ("service outage", summary.service_outage_ms),
            ("new pod answers after", summary.replacement_answered_ms),
            ("host Ready after power on", summary.rejoin_ready_ms),
        ] {
            let Percentiles { p50, p99, max } = clock;
            let [p50, p99, max] = [p50, p99, max].map(time_or_never);
            writeln!(out, "  {name:<26}{p50:>10}{p99:>10}{max:>10}")?;
        }
    }
    Ok(())
}

fn clocks(run: &Run, out: &mut dyn Write) -> Result<()> {
    writeln!(out)?;
    writeln!(out, "  {:<26}{:>10}{:>16}{:>18}", "clock", "outage", "failed/asked", "slowest answer")?;
    let rows: [(&str, Option<&Clock>); 4] = [
        ("API", Some(&run.api)),
        ("service", Some(&run.service)),
        ("service, surviving hosts", run.survivors.as_ref()),
        ("service, kubectl proxy", run.kubectl_proxy.as_ref()),
    ];
    for (name, clock) in rows {
        let Some(clock) = clock else { continue };
        let outage = time_or_never(clock.outage_ms);
        let asked = format!("{}/{}", clock.failed, clock.asked);
        let slowest = time(clock.slowest_ms);
        writeln!(out, "  {name:<26}{outage:>10}{asked:>16}{slowest:>18}")?;
    }
    writeln!(out, "  {:<26}{:>10}", "new pod answers after", time_or_never(run.replacement.answered_ms))?;
    writeln!(out, "  {:<26}{:>10}", "host Ready after power on", time_or_never(run.rejoin.ready_ms))
}

/// The timeline in two parts, each with the picture beside it: after the cut, and after the power's return.
fn timeline(run: &Run, out: &mut dyn Write) -> Result<()> {
    let returned = run.timeline.iter().position(|e| e.what == "power-on").unwrap_or(run.timeline.len());
    let (cut, back) = run.timeline.split_at(returned);
    let bars = [
        ("API", run.api.outage_ms),
        ("service", run.service.outage_ms),
        ("new pod", run.replacement.answered_ms),
    ];
    let last = |entries: &[Entry], from: i64| {
        let last = entries.iter().map(|e| e.at_ms - from).max().unwrap_or(0);
        u64::try_from(last).unwrap_or(0)
    };
    let slowest = bars.iter().filter_map(|(_, ms)| *ms).max();
    // One straggler must not squeeze the clocks into a corner.
    let shown = slowest.map_or_else(|| last(cut, 0), |slowest| last(cut, 0).min(slowest + slowest / 2));
    let scale = Scale::up_to(shown.max(slowest.unwrap_or(0)));
    writeln!(out)?;
    writeln!(out, "  {:<54}{}", "after the cut", scale.axis())?;
    for (name, ms) in bars {
        writeln!(out, "  {:<54}{}", format!("{name:>9}  {}", time_or_never(ms)), scale.bar(ms))?;
    }
    lines(cut, 0, &scale, out)?;
    if let Some(power_on) = back.first() {
        let from = power_on.at_ms;
        let scale = Scale::up_to(run.rejoin.ready_ms.unwrap_or(0).max(last(back, from).min(10_000)));
        writeln!(out)?;
        writeln!(out, "  {:<54}{}", "after power on", scale.axis())?;
        lines(back, from, &scale, out)?;
    }
    Ok(())
}

fn lines(entries: &[Entry], from: i64, scale: &Scale, out: &mut dyn Write) -> Result<()> {
    for entry in entries {
        let at = entry.at_ms - from;
        let words = wording(&entry.what, entry.subject.as_deref());
        let words: String = words.chars().take(37).collect();
        let node = entry.node.as_deref().unwrap_or("");
        let text = format!("{:>9}  {node:<4} {words}", offset(at));
        writeln!(out, "  {text:<54}{}", scale.mark(at))?;
    }
    Ok(())
}
