//! The findings, and how they are shown.

use std::fmt::Write;
use std::path::PathBuf;

use client::Kubeconfig;
use config::HostConfig;
use serde_json::json;

use crate::finding::{Finding, Grade};
use crate::plan::Plan;
use crate::{gather, judge};

/// What is to be looked at.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// A machine that is no host yet.
    pub pre: bool,
    /// The host's configuration; none for the defaults, on a machine that is no host yet.
    pub config: Option<PathBuf>,
    /// An administrator, who may see what the host itself may not.
    pub administrator: Option<Kubeconfig>,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they are shown.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Looks at this machine, and asks the hosts of its configuration where it is one. Takes up to some ten seconds. A configuration that
    /// can't be used is a finding.
    pub async fn make(wish: &Wish) -> Self {
        let (config, refused) = match wish.config.as_deref().map(HostConfig::load) {
            None => (None, None),
            Some(Ok(config)) => (Some(config), None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        let plan = Plan { pre: wish.pre, config, refused };
        let facts = gather::gather(plan, wish.administrator.as_ref()).await;
        Report { findings: judge::judge(&facts) }
    }

    /// How many findings are of a grade.
    pub fn count(&self, grade: Grade) -> usize {
        self.findings.iter().filter(|finding| finding.grade == grade).count()
    }

    /// For people: a heading for each group, a line for each finding, and how many there are of each grade. With colours for a
    /// terminal that is wanted so.
    pub fn text(&self, coloured: bool) -> String {
        let mut text = String::new();
        let mut group = None;
        for finding in &self.findings {
            if group.replace(finding.group) != Some(finding.group) {
                let gap = if text.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}{}", finding.group.heading());
            }
            let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
            let mark = mark(finding.grade, coloured);
            let _ = writeln!(text, "  {mark} {}", plain(&format!("{}{remedy}", finding.what)));
        }
        let many =
            |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        let faults = many(self.count(Grade::Fault), "fault");
        let warnings = many(self.count(Grade::Warning), "warning");
        let (all, unseen) = (many(self.findings.len(), "finding"), self.count(Grade::Unseen));
        let _ = writeln!(text, "\n{all}: {faults}, {warnings}, {unseen} unseen");
        text
    }

    /// For programs: an object with all findings and how many faults and warnings there are.
    pub fn json(&self) -> String {
        let report = json!({
            "faults": self.count(Grade::Fault),
            "warnings": self.count(Grade::Warning),
            "findings": self.findings,
        });
        format!("{report:#}\n")
    }
}

pub(crate) fn mark(grade: Grade, coloured: bool) -> String {
    coloured_as(grade, &format!("{:<7}", grade.word()), coloured)
}

/// A text in the colour of a grade, where colours are wanted.
pub(crate) fn coloured_as(grade: Grade, text: &str, coloured: bool) -> String {
    // Green, faint, yellow and red (ECMA-48, SGR).
    let colour = match grade {
        Grade::Ok => "32",
        Grade::Note | Grade::Unseen => "2",
        Grade::Warning => "33",
        Grade::Fault => "31",
    };
    if coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

/// One line: what other programs and hosts are called and say may hold anything, commands to a terminal among it.
pub(crate) fn plain(text: &str) -> String {
    let visible = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Group, Section};

    fn report() -> Report {
        let mut kernel = Section::new(Group::Kernel);
        kernel.ok("version", "Linux 6.1");
        kernel.fault("overlayfs", "overlayfs is missing", "modprobe overlay");
        let mut ports = Section::new(Group::Ports);
        ports.warning("ports", "held by \x1b[2Jevil\nnc", "stop it");
        Report { findings: [kernel.findings, ports.findings].concat() }
    }

    #[test]
    fn one_line_each_beneath_its_heading() {
        let expected = "kernel
  ok      Linux 6.1
  fault   overlayfs is missing; modprobe overlay

ports
  warning held by [2Jevil nc; stop it

3 findings: 1 fault, 1 warning, 0 unseen
";
        assert_eq!(report().text(false), expected);
        let coloured = report().text(true);
        assert!(coloured.contains("  \x1b[31mfault  \x1b[0m overlayfs"), "{coloured:?}");
        assert_eq!(coloured.matches("\x1b[").count(), 6, "{coloured:?}");
    }

    #[test]
    fn programs_read_json() {
        let report: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!((&report["faults"], &report["warnings"]), (&1.into(), &1.into()));
        let expected = json!({"group": "kernel", "check": "overlayfs", "grade": "fault",
            "what": "overlayfs is missing", "remedy": "modprobe overlay"});
        assert_eq!(report["findings"][1], expected);
    }

    #[tokio::test]
    async fn this_machine_is_looked_at_whole() {
        let report = Report::make(&Wish { pre: true, ..Wish::default() }).await;
        for group in [
            Group::Kernel,
            Group::Settings,
            Group::Resources,
            Group::Disk,
            Group::Clock,
            Group::Ports,
            Group::Network,
            Group::Names,
            Group::System,
            Group::Leftovers,
        ] {
            assert!(report.findings.iter().any(|finding| finding.group == group), "{group:?}: {report:#?}");
        }
        let wish = Wish { config: Some("/nowhere/config.yaml".into()), ..Wish::default() };
        let report = Report::make(&wish).await;
        let first = &report.findings[0];
        assert_eq!((first.group, first.grade), (Group::Configuration, Grade::Fault), "{first:?}");
        assert!(first.what.contains("/nowhere/config.yaml"), "{first:?}");
    }
}
