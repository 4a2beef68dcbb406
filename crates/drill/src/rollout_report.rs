//! What rollouts came to.

use crate::ask::Tally;
use crate::report::ms;
use crate::wording::{time, time_or_never, wording};
use crate::{Cluster, Entry};
use serde::Serialize;
use std::io::Write;

/// The report of rollouts. Its JSON is the shape that `--json` writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RolloutReport {
    /// The version of this shape.
    pub version: u32,
    /// `rollout`.
    pub scenario: &'static str,
    /// The seed that was used.
    pub seed: u64,
    /// The cluster.
    pub cluster: Cluster,
    /// Every rollout.
    pub runs: Vec<RolloutRun>,
    /// All of them together.
    pub summary: RolloutSummary,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RolloutRun {
    /// The host that was off.
    pub off: String,
    /// What was done, in order.
    pub steps: Vec<StepReport>,
    /// What happened, from the power cut on.
    pub timeline: Vec<Entry>,
}

/// What was done to the cluster, and how that went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// What was done: `power-off`, `scale-to-6`, `new-template`, `delete-a-pod`, `power-on`.
    pub what: String,
    /// Milliseconds until all was as declared, looked at ten times a second; null when it never was.
    pub took_ms: Option<u64>,
    /// What was not as declared when the time was over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The service through the virtual address.
    pub service: Asked,
    /// The service through the other hosts' own addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub survivors: Option<Asked>,
    /// The service through `kubectl proxy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubectl_proxy: Option<Asked>,
    /// The API through the virtual address.
    pub api: Asked,
}

/// The asks that were sent in a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Asks without a good answer.
    pub failed: usize,
    /// All asks.
    pub asked: usize,
    /// The longest that a good answer took.
    pub slowest_ms: u64,
}

/// All requests, but for those that were sent before the host was known to be off: what a power cut costs is the other
/// drill's to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RolloutSummary {
    /// Requests without a good answer.
    pub failed: usize,
    /// All requests.
    pub asked: usize,
}

impl From<Tally> for Asked {
    fn from(tally: Tally) -> Self {
        Asked { failed: tally.failed, asked: tally.asked, slowest_ms: ms(tally.slowest) }
    }
}

impl StepReport {
    fn clocks(&self) -> impl Iterator<Item = &Asked> {
        [&self.service, &self.api].into_iter().chain(&self.survivors).chain(&self.kubectl_proxy)
    }
}

impl RolloutSummary {
    pub(crate) fn of(runs: &[RolloutRun]) -> Self {
        let steps = runs.iter().flat_map(|run| &run.steps).filter(|step| step.what != "power-off");
        steps.flat_map(StepReport::clocks).fold(RolloutSummary::default(), |all, clock| RolloutSummary {
            failed: all.failed + clock.failed,
            asked: all.asked + clock.asked,
        })
    }
}

impl RolloutReport {
    /// Everything as JSON, ending with a line end.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// What went wrong, if anything did: a step that never came to what was declared, or requests that failed.
    pub fn failure(&self) -> Option<String> {
        let steps = self.runs.iter().flat_map(|run| &run.steps);
        let never = steps.filter(|step| step.took_ms.is_none());
        let mut why: Vec<String> = never
            .map(|step| {
                let what = wording(&step.what, None);
                format!("\"{what}\" never came to what was declared: {}", step.missing.join("; "))
            })
            .collect();
        let RolloutSummary { failed, asked } = self.summary;
        if failed > 0 {
            why.push(format!("{failed} of {asked} requests failed"));
        }
        (!why.is_empty()).then(|| why.join("; "))
    }

    /// Writes the tables for people.
    pub fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for (number, run) in self.runs.iter().enumerate() {
            let which = if self.runs.len() > 1 { format!(", run {}", number + 1) } else { String::new() };
            writeln!(out, "Rollout with {} off{which}", run.off)?;
            writeln!(out)?;
            run.print(out)?;
            writeln!(out)?;
        }
        let RolloutSummary { failed, asked } = self.summary;
        let failed = if failed == 0 { "none".to_owned() } else { failed.to_string() };
        let cluster = self.cluster.words(self.seed);
        writeln!(out, "{failed} of {asked} requests failed while the host was off or came back; {cluster}")
    }
}

impl RolloutRun {
    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        type Clock = fn(&StepReport) -> Option<Asked>;
        let clocks: [(&str, Clock); 4] = [
            ("service", |step| Some(step.service)),
            ("surviving hosts", |step| step.survivors),
            ("kubectl proxy", |step| step.kubectl_proxy),
            ("API", |step| Some(step.api)),
        ];
        let clocks =
            clocks.into_iter().filter(|(_, clock)| self.steps.iter().any(|step| clock(step).is_some()));
        let clocks: Vec<_> = clocks.collect();
        write!(out, "  {:<18}{:>10}", "failed/asked", "took")?;
        for (name, _) in &clocks {
            write!(out, "{name:>17}")?;
        }
        writeln!(out, "{:>18}", "slowest answer")?;
        for step in &self.steps {
            write!(out, "  {:<18}{:>10}", wording(&step.what, None), time_or_never(step.took_ms))?;
            for (_, clock) in &clocks {
                let Asked { failed, asked, .. } = clock(step).unwrap_or_default();
                write!(out, "{:>17}", format!("{failed}/{asked}"))?;
            }
            let slowest = step.clocks().map(|clock| clock.slowest_ms).max().unwrap_or(0);
            writeln!(out, "{:>18}", time(slowest))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> RolloutReport {
        let asked = |failed, asked| Asked { failed, asked, slowest_ms: 12 };
        let step = |what: &str, took_ms, failed| StepReport {
            what: what.into(),
            took_ms,
            missing: if took_ms.is_none() { vec!["2 pods serve, and not 6".into()] } else { Vec::new() },
            service: asked(failed, 40),
            survivors: Some(asked(0, 80)),
            kubectl_proxy: None,
            api: asked(0, 40),
        };
        let steps = vec![step("power-off", Some(1310), 3), step("scale-to-6", Some(412), 0)];
        let runs = vec![RolloutRun { off: "n3".into(), steps, timeline: Vec::new() }];
        let cluster = Cluster { nodes: 3, net: "netns".into(), runtime: "host".into(), preloaded_pods: 0 };
        let summary = RolloutSummary::of(&runs);
        RolloutReport { version: 1, scenario: "rollout", seed: 7, cluster, runs, summary }
    }

    #[test]
    fn a_table_of_steps() {
        let mut text = Vec::new();
        example().print(&mut text).unwrap();
        let expected = "\
Rollout with n3 off

  failed/asked            took          service  surviving hosts              API    slowest answer
  power off             1.31 s             3/40             0/80             0/40             12 ms
  scale to 6            412 ms             0/40             0/80             0/40             12 ms

none of 160 requests failed while the host was off or came back; 3 hosts, net netns, runtime host, seed 7
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert_eq!(example().failure(), None, "what the cut itself cost is reported, and is no failure");
    }

    #[test]
    fn what_failed_is_said_so() {
        let mut report = example();
        report.runs[0].steps[1].api.failed = 2;
        report.runs[0].steps[1].took_ms = None;
        report.runs[0].steps[1].missing = vec!["2 pods serve, and not 6".into()];
        report.summary = RolloutSummary::of(&report.runs);
        let why = "\"scale to 6\" never came to what was declared: 2 pods serve, and not 6; 2 of 160 requests failed";
        assert_eq!(report.failure().as_deref(), Some(why));
    }
}
