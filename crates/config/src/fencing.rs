//! What makes sure, beyond the lease, that a host has stopped what must not run twice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Findings;
use crate::check::is_host_name;

/// The most hosts that have agents.
const MOST_AGENTS: usize = 1000;
/// The most parameters that an agent has, and the most bytes of each.
const MOST_PARAMETERS: usize = 64;
const LONGEST_VALUE: usize = 1024;
/// How long an agent may be given.
const TIMES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// How often an agent may be asked.
const TRIES: std::ops::RangeInclusive<u32> = 1..=10;

/// The section `fencing` of a host's configuration. Without it a host stops by its lease alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fencing {
    /// The device that resets the machine unless this host feeds it, such as `/dev/watchdog`. None is opened unless it is named: an open one
    /// resets a machine whose feeder is killed, and the device may be somebody else's already (systemd's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<PathBuf>,
    /// A host that was silent for this long is switched off by its agent. Longer than a planned restart of the program takes, by default.
    #[serde(with = "humantime_serde")]
    pub silent_for: Duration,
    /// The fence agents of the hosts, by their names. They are the same on all members.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<String, FenceAgent>,
}

/// How a host is switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FenceAgent {
    /// The program, such as `/usr/sbin/fence_ipmilan`.
    pub program: PathBuf,
    /// Its parameters, besides what to do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The file with its secret parameters: lines like `password=...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets_file: Option<PathBuf>,
    /// What becomes of the machine.
    #[serde(default)]
    pub action: FenceAction,
    /// How long each run of the program may take.
    #[serde(default = "usual_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// How often it is tried to switch the machine off, and on.
    #[serde(default = "usual_tries")]
    pub tries: u32,
}

/// What becomes of a machine that an agent has switched off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FenceAction {
    /// It is switched on again once it was off for sure.
    #[default]
    Reboot,
    /// It stays off until somebody switches it on.
    Off,
}

fn usual_timeout() -> Duration {
    Duration::from_secs(20)
}

fn usual_tries() -> u32 {
    2
}

impl Default for Fencing {
    fn default() -> Self {
        Fencing { watchdog: None, silent_for: Duration::from_secs(5), agents: BTreeMap::new() }
    }
}

impl Fencing {
    pub(crate) fn is_default(&self) -> bool {
        *self == Fencing::default()
    }

    /// Looks for what makes no sense. `fenced_after` is when the others have counted a host's lease to the end.
    pub fn check(&self, fenced_after: Duration, findings: &mut Findings) {
        if let Some(path) = &self.watchdog {
            let what = format!("{} is no absolute path", path.display());
            findings.require(
                path.is_absolute(),
                "fencing.watchdog",
                what,
                "name a device like /dev/watchdog",
            );
        }
        findings.require(
            !self.silent_for.is_zero() && self.silent_for <= crate::check::LONGEST_TIME,
            "fencing.silentFor",
            "it is not above 0 and at most an hour",
            "take a time like 5s",
        );
        findings.require(
            self.agents.len() <= MOST_AGENTS,
            "fencing.agents",
            format!("{} are more than {MOST_AGENTS}", self.agents.len()),
            "name fewer",
        );
        for (host, agent) in self.agents.iter().take(MOST_AGENTS) {
            let field = format!("fencing.agents.{host}");
            findings.require(is_host_name(host), &field, "that is no host's name", "name a host");
            agent.check(&field, findings);
        }
        findings.require(
            self.agents.is_empty() || self.silent_for < fenced_after,
            "fencing.silentFor",
            format!("by then a host is fenced by its lease, after {fenced_after:?}, and no agent would ever run"),
            "give timeouts.lease.fencedAfter more than fencing.silentFor and the agent's timeout together, such as 1m",
        );
        let slowest = self.agents.values().map(|agent| agent.timeout).max();
        if slowest.is_some_and(|slowest| self.silent_for.saturating_add(slowest) > fenced_after) {
            findings.warnings.push(crate::Problem {
                field: "fencing.agents".into(),
                what: format!(
                    "with timeouts.lease.fencedAfter of {fenced_after:?} a host may be fenced by its lease before its agent is done"
                ),
                remedy: "give the lease more time than fencing.silentFor and the agent's timeout together, if the agent is to decide".into(),
            });
        }
    }
}

impl FenceAgent {
    fn check(&self, field: &str, findings: &mut Findings) {
        let paths = self.secrets_file.iter().map(|path| ("secretsFile", path));
        for (of, path) in [("program", &self.program)].into_iter().chain(paths) {
            let what = format!("{} is no absolute path", path.display());
            findings.require(path.is_absolute(), &format!("{field}.{of}"), what, "begin it with /");
        }
        findings.require(
            TIMES.contains(&self.timeout),
            &format!("{field}.timeout"),
            format!("{:?} is not between 1s and 5m", self.timeout),
            "take a time between these, such as 20s",
        );
        findings.require(
            TRIES.contains(&self.tries),
            &format!("{field}.tries"),
            format!("{} is not between 1 and 10", self.tries),
            "take a number between these",
        );
        findings.require(
            self.parameters.len() <= MOST_PARAMETERS,
            &format!("{field}.parameters"),
            format!("{} are more than {MOST_PARAMETERS}", self.parameters.len()),
            "name fewer",
        );
        for (name, value) in self.parameters.iter().take(MOST_PARAMETERS) {
            let field = format!("{field}.parameters.{name}");
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            findings.require(
                !name.is_empty() && name.bytes().all(is_word) && name != "action",
                &field,
                "no agent takes that as a parameter",
                "use the names that the agent's manual has; what it does is for the host to say",
            );
            findings.require(
                value.len() <= LONGEST_VALUE && !value.contains(['\n', '\r', '\0']),
                &field,
                format!("its value is longer than {LONGEST_VALUE} bytes, or no line"),
                "write it in one line",
            );
            findings.require(
                !["passw", "secret", "token"].iter().any(|word| name.contains(word)),
                &field,
                "everybody who may read this file would know it",
                "write it into a file that root alone may read, and name that as secretsFile",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(said: Value, fenced_after: u64) -> Findings {
        let fencing: Fencing = serde_json::from_value(said).unwrap();
        let again: Fencing = serde_json::from_value(serde_json::to_value(&fencing).unwrap()).unwrap();
        assert_eq!(again, fencing);
        let mut findings = Findings::default();
        fencing.check(Duration::from_secs(fenced_after), &mut findings);
        findings
    }

    #[test]
    fn an_agent_has_its_usual_times_and_tells_when_the_lease_is_faster() {
        let agent =
            json!({"program": "/usr/sbin/fence_ipmilan", "parameters": {"ip": "10.0.0.2", "lanplus": "1"}});
        let said = json!({"watchdog": "/dev/watchdog", "agents": {"n2": agent}});
        let fencing: Fencing = serde_json::from_value(said.clone()).unwrap();
        let n2 = &fencing.agents["n2"];
        assert_eq!((n2.action, n2.timeout.as_secs(), n2.tries), (FenceAction::Reboot, 20, 2));
        assert_eq!(checked(said.clone(), 25), Findings::default());
        let findings = checked(said.clone(), 24);
        assert_eq!((findings.problems.len(), findings.warnings.len()), (0, 1), "{findings:?}");
        let problems = checked(said, 2).problems;
        assert_eq!(problems.iter().map(|problem| &*problem.field).collect::<Vec<_>>(), ["fencing.silentFor"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with = |field: &str, value: Value| {
            let mut agent = json!({"program": "/usr/sbin/fence_dummy"});
            agent[field] = value;
            json!({"agents": {"n2": agent}})
        };
        for (said, told) in [
            (json!({"watchdog": "watchdog"}), "fencing.watchdog: "),
            (json!({"silentFor": "0s"}), "fencing.silentFor: "),
            (json!({"agents": {"N2": {"program": "/x"}}}), "fencing.agents.N2: "),
            (
                with("program", json!("fence_dummy")),
                "fencing.agents.n2.program: fence_dummy is no absolute path",
            ),
            (with("secretsFile", json!("x")), "fencing.agents.n2.secretsFile: "),
            (with("timeout", json!("6m")), "fencing.agents.n2.timeout: "),
            (with("tries", json!(0)), "fencing.agents.n2.tries: "),
            (with("parameters", json!({"action": "on"})), "fencing.agents.n2.parameters.action: "),
            (with("parameters", json!({"passwd": "x"})), "fencing.agents.n2.parameters.passwd: everybody"),
            (with("parameters", json!({"a": "b\naction=on"})), "fencing.agents.n2.parameters.a: "),
        ] {
            let problems = checked(said, 60).problems;
            let [problem] = &*problems else { panic!("{told}: {problems:?}") };
            assert!(problem.to_string().starts_with(told), "{problem}");
            assert!(!problem.to_string().contains("action=on"), "{problem}");
        }
    }
}
