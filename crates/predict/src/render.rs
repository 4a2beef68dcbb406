//! The report as text for people.

use std::fmt::Write;

use crate::picture::Scale;
use crate::span::{NEVER, time};
use crate::{Kind, Level, Phase, Report};

/// How wide sentences are.
const WIDTH: usize = 110;
/// The most of anything that is listed.
const MOST: usize = 40;
/// How much room a phase has before its bar.
const LABEL: usize = 68;

pub(crate) fn text(report: &Report) -> String {
    let mut out = String::new();
    if report.kind == Kind::Unknown {
        out += "No file here is known: nothing can be predicted.\n";
    } else {
        head(report, &mut out);
        times(report, &mut out);
        phases(report, &mut out);
        advice(report, &mut out);
    }
    findings(report, &mut out);
    lists(report, &mut out);
    out
}

fn head(report: &Report, out: &mut String) {
    let what = match report.kind {
        Kind::Holdfast => "Holdfast",
        Kind::K3s => "k3s",
        Kind::Kubernetes | Kind::Unknown => "Kubernetes",
    };
    let members = match report.members {
        0 => String::new(),
        1 => ", 1 member".into(),
        count => format!(", {count} members"),
    };
    let _ = writeln!(out, "Power cut of the host that leads and holds the address ({what}{members})");
    paragraph(out, &format!("hosts: {}", some(&report.hosts)), 2, 4);
    out.push('\n');
}

/// Names, and how many more there are.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(MOST).map(|name| cut(name, WIDTH)).collect::<Vec<_>>().join(", ");
    match names.len() > MOST {
        true => format!("{shown} and {} more", names.len() - MOST),
        false => shown,
    }
}

fn times(report: &Report, out: &mut String) {
    let _ = writeln!(out, "  {:<28}{:>10}{:>10}{:>10}   longest part", "clock", "best", "typical", "worst");
    for clock in &report.clocks {
        let [min, typical, max] = [clock.span.min_ms, clock.span.typical_ms, clock.span.max_ms].map(time);
        let _ = writeln!(out, "  {:<28}{min:>10}{typical:>10}{max:>10}   {}", clock.name, clock.dominated_by);
    }
}

fn phases(report: &Report, out: &mut String) {
    let ends =
        report.phases.iter().map(|phase| phase.ends).chain(report.clocks.iter().map(|clock| clock.span));
    // The worst may be far away, and must not squeeze the rest into a corner.
    let shown = ends.map(|span| span.typical_ms).filter(|ms| *ms != NEVER).max().unwrap_or(0);
    let scale = Scale::up_to(shown.saturating_add(shown / 10));
    let labels: Vec<String> = report.phases.iter().map(label).collect();
    let width = labels.iter().map(|label| label.chars().count() + 2).max().unwrap_or(0).max(LABEL);
    let _ = writeln!(out, "\n  {:<width$}{}", "phase", scale.axis());
    for (phase, label) in report.phases.iter().zip(&labels) {
        let _ = writeln!(out, "  {label:<width$}{}", scale.bar(phase.begins.typical_ms, phase.ends));
    }
    let _ = writeln!(out, "\n  where they come from");
    for phase in &report.phases {
        paragraph(out, &format!("{}: {}; {}", phase.name, phase.settings.join(", "), phase.why), 2, 4);
    }
}

/// A phase, with how long it takes.
fn label(phase: &Phase) -> String {
    let [min, typical, max] = [phase.takes.min_ms, phase.takes.typical_ms, phase.takes.max_ms].map(time);
    let takes = if min == max { typical } else { format!("{typical} ({min} to {max})") };
    format!("{:<41} {takes}", cut(phase.name, 41))
}

fn advice(report: &Report, out: &mut String) {
    if report.advice.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nWhat to change, what helps most first");
    for (place, step) in report.advice.iter().enumerate() {
        paragraph(out, &format!("{}. {}", place + 1, step.change), 2, 5);
        for gain in &step.gains {
            let (before, after) = (gain.before, gain.after);
            let [was, now, worst_was, worst_now] =
                [before.typical_ms, after.typical_ms, before.max_ms, after.max_ms].map(time);
            let told = match was == now {
                true => format!("{}: {worst_was} → {worst_now} at worst", gain.clock),
                false => format!("{}: {was} → {now}", gain.clock),
            };
            paragraph(out, &told, 5, 7);
        }
        paragraph(out, &format!("It costs: {}.", step.costs), 5, 7);
    }
}

fn findings(report: &Report, out: &mut String) {
    for (level, title) in [
        (Level::Fatal, "Not highly available, because"),
        (Level::Risk, "Risks"),
        (Level::Note, "Worth knowing"),
    ] {
        let of: Vec<_> = report.findings.iter().filter(|finding| finding.level == level).collect();
        if of.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{title}");
        for finding in of.iter().take(MOST) {
            paragraph(
                out,
                &format!("- {}: {}. {}.", finding.place, finding.what, capital(&finding.remedy)),
                2,
                4,
            );
        }
        more(out, of.len());
    }
    if report.highly_available {
        let _ = writeln!(out, "\nNo single failure here takes the cluster away for long.");
    } else if report.kind != Kind::Unknown && !report.judged && !report.is_fatal() {
        out.push('\n');
        let what = "Whether it is highly available can't be judged from these files: give those of etcd and of the API servers (or of k3s), \
                    of each host in a folder of its own.";
        paragraph(out, what, 0, 0);
    }
}

fn lists(report: &Report, out: &mut String) {
    let list = |out: &mut String, title: &str, lines: Vec<String>| {
        if lines.is_empty() {
            return;
        }
        let _ = writeln!(out, "\n{title}");
        lines.iter().take(MOST).for_each(|line| paragraph(out, &format!("- {line}"), 2, 4));
        more(out, lines.len());
    };
    list(out, "Taken for granted", report.assumed.clone());
    let told = report.not_understood.iter().map(|told| match told.line {
        0 => format!("{}: {}", told.file, told.what),
        line => format!("{}:{line}: {}", told.file, told.what),
    });
    list(out, "Not understood, and it may matter", told.collect());
    let told = report.unknown_files.iter().map(|unknown| format!("{}: {}", unknown.file, unknown.why));
    list(out, "Files of no use here", told.collect());
}

fn more(out: &mut String, count: usize) {
    if count > MOST {
        let _ = writeln!(out, "  and {} more", count - MOST);
    }
}

fn cut(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain("…".chars()).collect(),
        false => text.to_owned(),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    // What begins with a name of a setting stays as it is.
    match letters.next() {
        Some(first)
            if text
                .split_whitespace()
                .next()
                .is_some_and(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == ':' || c == ',')) =>
        {
            first.to_uppercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// A sentence over several lines. Whatever files say, a terminal gets text.
fn paragraph(out: &mut String, text: &str, first: usize, rest: usize) {
    let mut line = " ".repeat(first);
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(|c| !c.is_control()).collect();
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(rest);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += &word;
        is_empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
