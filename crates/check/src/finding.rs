//! What there is to say about one thing that was looked at.

use serde::Serialize;

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Neither good nor bad, and good to know.
    Note,
    /// It couldn't be looked at, with the reason.
    Unseen,
    /// Works, and won't do so always or as well as it could.
    Warning,
    /// Doesn't work, or soon won't.
    Fault,
}

impl Grade {
    /// The word by which reports call it.
    pub fn word(self) -> &'static str {
        match self {
            Grade::Ok => "ok",
            Grade::Note => "note",
            Grade::Unseen => "unseen",
            Grade::Warning => "warning",
            Grade::Fault => "fault",
        }
    }
}

/// What findings are about, in the order of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// The host's file of settings.
    Configuration,
    /// What the kernel can do.
    Kernel,
    /// How it is set.
    Settings,
    /// Processors, memory, limits.
    Resources,
    /// Where the state lies.
    Disk,
    /// The time.
    Clock,
    /// Where the host listens.
    Ports,
    /// Links, addresses, ranges, filters.
    Network,
    /// How names are resolved.
    Names,
    /// Logs, and what else of the system holds a host back or up.
    System,
    /// What another Kubernetes left behind.
    Leftovers,
    /// Keys and certificates.
    Certificates,
    /// The hosts together.
    Cluster,
}

impl Group {
    /// The heading of its findings.
    pub fn heading(self) -> &'static str {
        match self {
            Group::Configuration => "configuration",
            Group::Kernel => "kernel",
            Group::Settings => "kernel settings",
            Group::Resources => "processors, memory, limits",
            Group::Disk => "disk",
            Group::Clock => "clock",
            Group::Ports => "ports",
            Group::Network => "network",
            Group::Names => "names",
            Group::System => "system",
            Group::Leftovers => "another Kubernetes",
            Group::Certificates => "certificates",
            Group::Cluster => "cluster",
        }
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub group: Group,
    /// The name of what was looked at, for programs: it stays the same from version to version.
    pub check: &'static str,
    /// How it is.
    pub grade: Grade,
    /// What was found, and what comes of it.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Findings of one group, as they are made.
#[derive(Debug)]
pub(crate) struct Section {
    group: Group,
    pub(crate) findings: Vec<Finding>,
}

impl Section {
    pub(crate) fn new(group: Group) -> Self {
        Section { group, findings: Vec::new() }
    }

    pub(crate) fn ok(&mut self, check: &'static str, what: impl Into<String>) {
        self.add(check, Grade::Ok, what.into(), None);
    }

    pub(crate) fn note(&mut self, check: &'static str, what: impl Into<String>) {
        self.add(check, Grade::Note, what.into(), None);
    }

    pub(crate) fn unseen(&mut self, check: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Grade::Unseen, what.into(), Some(remedy.into()));
    }

    pub(crate) fn warning(
        &mut self,
        check: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(check, Grade::Warning, what.into(), Some(remedy.into()));
    }

    pub(crate) fn fault(&mut self, check: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Grade::Fault, what.into(), Some(remedy.into()));
    }

    fn add(&mut self, check: &'static str, grade: Grade, what: String, remedy: Option<String>) {
        self.findings.push(Finding { group: self.group, check, grade, what, remedy });
    }
}
