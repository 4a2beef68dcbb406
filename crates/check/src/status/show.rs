//! How a cluster's status is shown: for people within 80 columns, for programs as an object.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Status;
use super::facts::Facts;
use super::told::HostAnswer;
use crate::finding::{Finding, Grade};
use crate::report::{coloured_as, mark, plain};

/// How wide a line of text may be.
const WIDTH: usize = 80;
/// What stands where nothing is known.
const UNKNOWN: &str = "?";

impl Status {
    /// For people: a line for each host and each address, then what there is to say. With colours for a terminal that is wanted so.
    pub fn text(&self, coloured: bool) -> String {
        let facts = &self.facts;
        let mut text =
            plain(&format!("{} (as {} tells it at {})", headline(facts), facts.cluster.asked, facts.server));
        text = format!("{}\n\n", wrapped(&text, 0));
        text += &table(
            &HEADINGS,
            &facts.names().iter().map(|name| host(facts, name).cells()).collect::<Vec<_>>(),
            coloured,
        );
        text += "\n";
        let addresses: Vec<Vec<Cell>> = addresses(facts).iter().map(|line| line.cells()).collect();
        text += &table(&["ADDRESS", "OF", "HELD BY"], &addresses, coloured);
        text += "\n";
        for Finding { grade, what, remedy, .. } in &self.findings {
            let remedy = remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "{} {}",
                mark(*grade, coloured),
                wrapped(&plain(&format!("{what}{remedy}")), 8)
            );
        }
        text
    }

    /// For programs: an object with all of it.
    pub fn json(&self) -> Value {
        let facts = &self.facts;
        json!({
            "isWell": self.is_well(),
            "time": facts.now,
            "server": facts.server,
            "asked": facts.cluster.asked,
            "leader": facts.leader(),
            "hosts": facts.names().iter().map(|name| host(facts, name).json()).collect::<Vec<_>>(),
            "addresses": addresses(facts).iter().map(Line::json).collect::<Vec<_>>(),
            "findings": self.findings,
        })
    }
}

fn headline(facts: &Facts) -> String {
    let number = facts.cluster.hosts.len();
    let hosts = format!("{number} host{}", if number == 1 { "" } else { "s" });
    let answer = facts.speakers().count();
    let led = facts.leader().map_or("nobody leads".to_owned(), |leader| format!("{leader} leads"));
    match answer == number {
        true => format!("{hosts}, {led}"),
        false => format!("{hosts}, of which {answer} answer{}; {led}", if answer == 1 { "s" } else { "" }),
    }
}

const HEADINGS: [&str; 8] = ["HOST", "STATE", "ROLE", "BEHIND", "LEASE", "FENCING", "VERSION", "ENDS IN"];

/// A host as it is shown.
struct Host<'a> {
    name: &'a str,
    state: (String, Grade),
    role: &'static str,
    behind: Option<u64>,
    caught_up_ms: Option<f64>,
    lease: Option<f64>,
    is_fenced: bool,
    fencing: Option<&'static str>,
    /// What that doesn't cover.
    fencing_lacks: Option<&'static str>,
    version: Option<&'a str>,
    /// When the first of its certificates ends, and in how many seconds.
    certificate: Option<(Timestamp, f64)>,
}

fn host<'a>(facts: &'a Facts, name: &'a str) -> Host<'a> {
    let (says, node) = (facts.says(name), facts.node(name));
    let role = match (facts.leader() == Some(name), facts.member(name)) {
        (true, _) => "leader",
        (_, Some(member)) if !member.has_joined => "awaited",
        (_, Some(member)) if member.is_learner => "learner",
        (_, Some(_)) => "member",
        (_, None) if facts.cluster.hosts.contains_key(name) => "host",
        (_, None) => "node",
    };
    let first = says.and_then(|says| says.certificates.iter().map(|certificate| certificate.until).min());
    Host {
        name,
        state: state(facts, name),
        role,
        behind: facts.behind(name),
        caught_up_ms: says.and_then(|says| says.caught_up_ms),
        lease: says.map(|says| says.lease.seconds),
        is_fenced: node.is_some_and(|node| node.fencing.is_fenced()),
        fencing: node.map(|node| node.fencing.grade.map_or("none", |grade| grade.as_str())),
        fencing_lacks: node.and_then(|node| node.fencing.grade).map(|grade| grade.lacks()),
        version: says.map(|says| says.version.as_str()),
        certificate: first.map(|until| (until, until.duration_since(facts.now).as_secs_f64())),
    }
}

/// A word for how a host is, the worst first.
fn state(facts: &Facts, name: &str) -> (String, Grade) {
    let answer = facts.cluster.hosts.get(name);
    let told = |word: &str, grade| (word.to_owned(), grade);
    match (answer, facts.node(name)) {
        (Some(HostAnswer::Silent(seconds)), _) => (format!("silent {}", time(*seconds)), Grade::Fault),
        (Some(HostAnswer::Fails(_)), _) => told("no answer", Grade::Fault),
        (_, None) if facts.nodes.is_err() => told(UNKNOWN, Grade::Unseen),
        (_, None) => told("no Node", Grade::Fault),
        (_, Some(node)) if !node.is_ready => told("not Ready", Grade::Fault),
        (_, Some(node)) if node.fencing.is_fenced() => told("fenced", Grade::Warning),
        (_, Some(node)) if !node.troubles.is_empty() => told("Ready, short", Grade::Warning),
        (_, Some(node)) if node.is_cordoned => told("cordoned", Grade::Note),
        (_, Some(_)) => told("Ready", Grade::Ok),
    }
}

impl Host<'_> {
    fn cells(&self) -> Vec<Cell> {
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
        let lease = match (self.lease, self.is_fenced) {
            (_, true) => ("fenced".to_owned(), Grade::Warning),
            (Some(seconds), _) if seconds > 0.0 => (format!("{seconds:.1} s"), Grade::Ok),
            (Some(_), _) => ("none".to_owned(), Grade::Warning),
            (None, _) => (UNKNOWN.to_owned(), Grade::Unseen),
        };
        vec![
            Cell::of(self.name),
            Cell { text: self.state.0.clone(), grade: Some(self.state.1) },
            Cell::of(self.role),
            Cell::of(or_unknown(self.behind.map(|changes| changes.to_string()))),
            Cell { text: lease.0, grade: Some(lease.1).filter(|grade| *grade != Grade::Ok) },
            Cell::of(or_unknown(self.fencing.map(str::to_owned))),
            Cell::of(or_unknown(self.version.map(str::to_owned))),
            Cell::of(or_unknown(self.certificate.map(|(_, left)| time(left)))),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "state": self.state.0,
            "role": self.role,
            "behind": self.behind,
            "caughtUpMs": self.caught_up_ms,
            "leaseSeconds": self.lease,
            "isFenced": self.is_fenced,
            "fencing": self.fencing,
            "fencingLacks": self.fencing_lacks,
            "version": self.version,
            "firstCertificateEnds": self.certificate.map(|(until, _)| until),
        })
    }
}

/// An address as it is shown.
struct Line<'a> {
    address: String,
    of: &'a str,
    holder: Option<&'a str>,
}

/// Who leads has the API's; of each other one there is a Lease.
fn addresses(facts: &Facts) -> Vec<Line<'_>> {
    let api = Line { address: facts.cluster.virtual_api.to_string(), of: "the API", holder: facts.leader() };
    let services = facts.addresses.iter().flatten().map(|lease| Line {
        address: lease.address.to_string(),
        of: lease.service.as_deref().unwrap_or("nobody"),
        holder: lease.holder.as_ref().map(|holder| holder.host.as_str()),
    });
    std::iter::once(api).chain(services).collect()
}

impl Line<'_> {
    fn cells(&self) -> Vec<Cell> {
        let holder = match self.holder {
            Some(holder) => Cell::of(holder),
            None => Cell { text: "nobody".into(), grade: Some(Grade::Warning) },
        };
        vec![Cell::of(&self.address), Cell::of(self.of), holder]
    }

    fn json(&self) -> Value {
        json!({"address": self.address, "of": self.of, "holder": self.holder})
    }
}

/// A piece of a table.
struct Cell {
    text: String,
    /// In whose colour.
    grade: Option<Grade>,
}

impl Cell {
    fn of(text: impl AsRef<str>) -> Self {
        Cell { text: plain(text.as_ref()), grade: None }
    }
}

/// Columns two spaces apart.
fn table(headings: &[&str], rows: &[Vec<Cell>], coloured: bool) -> String {
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].text.chars().count());
        cells.chain([headings[at].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let heading =
        headings.iter().map(|text| Cell { text: (*text).to_owned(), grade: Some(Grade::Note) }).collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let last = row.len() - 1;
        for (at, Cell { text: cell, grade }) in row.iter().enumerate() {
            let gap = if at == last { 0 } else { widths[at] - cell.chars().count() + 2 };
            text += &grade.map_or_else(|| cell.clone(), |grade| coloured_as(grade, cell, coloured));
            text += &" ".repeat(gap);
        }
        text.push('\n');
    }
    text
}

/// A text in lines of at most the width, those after the first indented. A word that is longer stays whole.
fn wrapped(text: &str, indent: usize) -> String {
    let (mut lines, mut length) = (String::new(), indent);
    for (at, word) in text.split(' ').enumerate() {
        let word_length = word.chars().count();
        if at > 0 && length + 1 + word_length > WIDTH {
            lines += "\n";
            lines += &" ".repeat(indent);
            length = indent;
        } else if at > 0 {
            lines.push(' ');
            length += 1;
        }
        lines += word;
        length += word_length;
    }
    lines
}

/// A time in the largest unit that tells two digits of it: `8 s`, `12 min`, `5 h`, `364 d`.
pub(super) fn time(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    for (unit, word, most) in [(1.0, "s", 120.0), (60.0, "min", 120.0), (3_600.0, "h", 48.0)] {
        if seconds / unit < most {
            return format!("{:.0} {word}", (seconds / unit).floor());
        }
    }
    format!("{:.0} d", (seconds / 86_400.0).floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_unit_that_says_something() {
        let told = [-3.0, 0.4, 8.9, 119.0, 120.0, 7_199.0, 7_200.0, 172_799.0, 172_800.0, 3.15e8].map(time);
        let expected = ["0 s", "0 s", "8 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d", "3645 d"];
        assert_eq!(told, expected);
    }

    #[test]
    fn lines_end_before_the_eightieth_column() {
        let text = "word ".repeat(40);
        let lines = wrapped(text.trim_end(), 8);
        assert!(
            lines.lines().next().is_some_and(|first| first.len() <= WIDTH - 8),
            "its mark stands before it: {lines}"
        );
        assert!(
            lines.lines().skip(1).all(|line| line.starts_with("        word") && line.len() <= WIDTH),
            "{lines}"
        );
        assert_eq!(lines.split_whitespace().count(), 40);
        assert_eq!(wrapped(&"x".repeat(100), 8).lines().count(), 1, "a long word stays whole");
    }
}
