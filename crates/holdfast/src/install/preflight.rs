//! What must be right with a machine before it becomes a host: what `holdfast check --pre` finds at fault.

use std::io::Write;

use anyhow::Context;
use check::{Finding, Grade, Report, Wish};
use config::HostConfig;

use crate::tell::say;

/// The word that leaves all faults aside.
const ALL: &str = "all";
/// The finding about who has the virtual address.
const VIRTUAL_ADDRESS: &str = "virtual-address";

/// What a machine is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The first host of a cluster: nobody may have its virtual address.
    First,
    /// One more host: the leader has that address.
    Another,
}

/// Refuses a machine with faults, but for those whose names are in `ignored`, and says what to be careful of.
pub async fn preflight(config: &HostConfig, aim: Aim, ignored: &[String]) -> anyhow::Result<()> {
    refuse_problems(config)?;
    let mut file = tempfile::NamedTempFile::new().context("can't write a temporary file")?;
    file.write_all(&config.text()).context("can't write a temporary file")?;
    let wish = Wish { pre: true, config: Some(file.path().to_owned()), administrator: None };
    let report = Report::make(&wish).await;
    let (faults, told) = judge(&report.findings, aim, ignored);
    told.iter().for_each(|finding| say!("{}", line(finding)));
    anyhow::ensure!(
        faults.is_empty(),
        "this machine can't be a host:\n{}\nMend that (`holdfast check --pre` tells more), or leave it aside with --ignore NAME",
        faults.iter().map(|fault| line(fault)).collect::<Vec<_>>().join("\n"),
    );
    Ok(())
}

/// What a configuration that isn't written yet can't be.
fn refuse_problems(config: &HostConfig) -> anyhow::Result<()> {
    let problems: Vec<String> = config.check().problems.iter().map(ToString::to_string).collect();
    anyhow::ensure!(problems.is_empty(), "the host's configuration can't be so: {}", problems.join("\n  "));
    Ok(())
}

/// The faults that count, and what is only told: warnings, and faults that are left aside.
fn judge<'a>(findings: &'a [Finding], aim: Aim, ignored: &[String]) -> (Vec<&'a Finding>, Vec<&'a Finding>) {
    let is_ignored = |finding: &Finding| ignored.iter().any(|name| name == ALL || name == finding.check);
    let is_taken = |finding: &Finding| finding.check == VIRTUAL_ADDRESS && finding.grade == Grade::Warning;
    let told = findings.iter().filter(|finding| finding.grade >= Grade::Warning);
    let told = told.filter(|finding| aim == Aim::First || !is_taken(finding));
    told.partition(|finding| (finding.grade == Grade::Fault || is_taken(finding)) && !is_ignored(finding))
}

fn line(finding: &Finding) -> String {
    let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
    format!("{} {}: {}{remedy}", finding.grade.word(), finding.check, finding.what)
}

#[cfg(test)]
mod tests {
    use check::Group;

    use super::*;

    #[test]
    fn faults_count_but_for_those_that_are_left_aside() {
        let finding = |check, grade| Finding {
            group: Group::Kernel,
            check,
            grade,
            what: "it is so".into(),
            remedy: Some("mend it".into()),
        };
        let findings = [
            finding("version", Grade::Ok),
            finding("overlayfs", Grade::Fault),
            finding("swap", Grade::Warning),
            finding("syncs", Grade::Fault),
        ];
        let names = |ignored: &[&str]| {
            let ignored: Vec<String> = ignored.iter().map(|name| (*name).to_owned()).collect();
            let (faults, told) = judge(&findings, Aim::Another, &ignored);
            let names = |list: Vec<&Finding>| list.iter().map(|finding| finding.check).collect::<Vec<_>>();
            (names(faults), names(told))
        };
        assert_eq!(names(&[]), (vec!["overlayfs", "syncs"], vec!["swap"]));
        assert_eq!(names(&["syncs", "swap"]), (vec!["overlayfs"], vec!["swap", "syncs"]));
        assert_eq!(names(&["all"]).0, Vec::<&str>::new());
        let taken = [finding(VIRTUAL_ADDRESS, Grade::Warning)];
        assert_eq!(judge(&taken, Aim::First, &[]).0.len(), 1, "nobody may have it before there is a cluster");
        assert_eq!(judge(&taken, Aim::First, &[VIRTUAL_ADDRESS.into()]).1.len(), 1);
        assert_eq!(judge(&taken, Aim::Another, &[]), (vec![], vec![]), "the leader has it");
        assert_eq!(line(&findings[1]), "fault overlayfs: it is so; mend it");
    }
}
