//! Rollouts: with one host off, the workload is scaled, given a new template and robbed of a pod, while it is asked all the time.

use crate::ask::{Ask, tally};
use crate::drill::{Drill, Probes};
use crate::fault::{Act, Fault};
use crate::probe::{Series, TIMEOUT};
use crate::report::ms;
use crate::rollout_report::{RolloutReport, RolloutRun, RolloutSummary, StepReport};
use crate::sight::{is_true, ready_endpoints, text};
use crate::steady::{Picture, move_pod};
use crate::timeline::merge;
use crate::{Error, Moment, Options, Site};
use client::{Content, Kubeconfig};
use serde_json::{Value, json};
use std::io::Write;
use std::ops::Range;
use std::time::Duration;

/// Between two looks at whether a step has come to what was declared.
const LOOK: Duration = Duration::from_millis(100);
/// The annotation of the pod template whose value makes a new template of it.
const MARK: &str = "/metadata/annotations/drill.holdfast.dev~1rollout";

/// What is done to the cluster, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    PowerOff,
    Scale(u64),
    NewTemplate,
    DeletePod,
    PowerOn,
}

const STEPS: [Step; 7] = [
    Step::PowerOff,
    Step::Scale(6),
    Step::Scale(12),
    Step::Scale(3),
    Step::NewTemplate,
    Step::DeletePod,
    Step::PowerOn,
];

impl Step {
    fn name(self) -> String {
        match self {
            Step::PowerOff => "power-off".into(),
            Step::Scale(replicas) => format!("scale-to-{replicas}"),
            Step::NewTemplate => "new-template".into(),
            Step::DeletePod => "delete-a-pod".into(),
            Step::PowerOn => "power-on".into(),
        }
    }
}

/// Holds a drill: as many rollouts as the options say, each with a host off that doesn't lead. Progress goes to `progress`, a
/// line at a time. Dropping the future ends every probe and every child; the workload then stays.
pub async fn rollout(
    site: &dyn Site,
    kubeconfig: &Kubeconfig,
    options: &Options,
    progress: &mut (dyn Write + Send),
) -> Result<RolloutReport, Error> {
    let mut drill = Drill::new(site, kubeconfig, options, progress)?;
    let runs = drill.all_rollouts().await;
    drill.clean_up().await;
    let runs = runs?;
    let (scenario, summary) = ("rollout", RolloutSummary::of(&runs));
    Ok(RolloutReport { version: 1, scenario, seed: options.seed, cluster: drill.cluster(), runs, summary })
}

/// What was declared, of which the cluster is to come to be.
struct Declared {
    /// The hosts that are on.
    hosts: Vec<String>,
    /// The host that is off.
    off: Option<String>,
    replicas: u64,
    /// The mark of the template; empty before the first.
    mark: String,
    /// The pod that was deleted.
    deleted: Option<Value>,
}

impl Declared {
    /// What is not as declared.
    fn missing(&self, picture: &Picture) -> Vec<String> {
        let mut missing = picture.unready(&self.hosts);
        let (wanted, replicas) = (picture.wanted(), self.replicas);
        if wanted != replicas {
            missing.push(format!("{wanted} replicas are asked for, and not {replicas}"));
        }
        let is_on = |host: &str| self.hosts.iter().any(|on| on == host);
        // For a moment the silent host's pods and endpoints look as before.
        if let Some(off) = &self.off
            && picture.nodes.iter().any(|node| text(node, "/metadata/name") == off && is_true(node, "Ready"))
        {
            missing.push(format!("the node {off} still looks Ready"));
        }
        let serving = picture.serving();
        let serving: Vec<&&Value> =
            serving.iter().filter(|(host, _)| is_on(host)).flat_map(|(_, pods)| pods).collect();
        if serving.len() as u64 != replicas {
            missing.push(format!("{} pods serve, and not {replicas}", serving.len()));
        }
        let old = serving.iter().filter(|pod| text(pod, MARK) != self.mark).count();
        if old > 0 {
            missing.push(format!("{old} pods are of another template"));
        }
        let endpoints = picture.slices.iter().flat_map(ready_endpoints);
        let lost = endpoints.filter(|(_, host)| !is_on(host)).count();
        if lost > 0 {
            missing.push(format!("{lost} endpoints are on hosts that are off"));
        }
        let uid = |pod: &Value| text(pod, "/metadata/uid").to_owned();
        if let Some(deleted) = &self.deleted
            && picture.pods.iter().any(|pod| uid(pod) == uid(deleted))
        {
            missing.push(format!("the pod {} is still there", text(deleted, "/metadata/name")));
        }
        missing
    }
}

/// One step as it went.
struct Done {
    step: Step,
    began: Moment,
    took: Option<Duration>,
    missing: Vec<String>,
}

impl Drill<'_> {
    async fn all_rollouts(&mut self) -> Result<Vec<RolloutRun>, Error> {
        self.set_up().await?;
        let mut runs = Vec::new();
        for number in 1..=self.options.runs {
            self.begin_run(number)?;
            runs.push(self.roll_out(number).await?);
        }
        Ok(runs)
    }

    /// One rollout, from rest to rest.
    async fn roll_out(&mut self, number: usize) -> Result<RolloutRun, Error> {
        let rest = self.come_to_rest().await?;
        let leader = self.leader().await?;
        let target = self.bystander(&rest, &leader)?;
        self.stage.progress.say(&format!("the power of {target} will be cut, and the workload changed"))?;
        let (observer, probes, _) = self.watch(&target, &rest).await?;
        let mut declared = Declared {
            hosts: self.site.hosts(),
            off: None,
            replicas: rest.wanted(),
            mark: text(&rest.deployment, &format!("/spec/template{MARK}")).to_owned(),
            deleted: None,
        };
        let mut done = Vec::new();
        for step in STEPS {
            let began = self.begin(step, &target, number, &mut declared).await?;
            if self.stage.since.is_none() {
                self.stage.since = Some(began);
            }
            self.stage.note(began, &step.name(), Some(target.as_str()).filter(|_| is_power(step)), None)?;
            if step == Step::PowerOn {
                observer.begin_anew();
            }
            done.push(self.settle(step, began, &declared).await?);
            // What fails late belongs to the step that it came of.
            self.wait(TIMEOUT.min(self.options.quiet)).await?;
        }
        let end = self.clock.now();
        while probes.all().any(|series| series.asks().1 < end) {
            self.stage.step().await?;
        }
        for (name, series) in [("API", &probes.api), ("service", &probes.service)] {
            for (reason, count) in series.reasons().into_iter().take(1) {
                self.stage.progress.say(&format!("  {name}: {count} asks failed with: {reason}"))?;
            }
        }
        let cut = self.stage.since.take().unwrap_or_default();
        let timeline = merge(&self.stage.events, cut, &self.workload.namespace, &target);
        let ends = done.iter().skip(1).map(|next| next.began).chain([end]);
        let steps = done.iter().zip(ends).map(|(done, end)| report(done, done.began..end, &probes)).collect();
        Ok(RolloutRun { off: target, steps, timeline })
    }

    /// Does a step. Returns when.
    async fn begin(
        &mut self,
        step: Step,
        target: &str,
        number: usize,
        declared: &mut Declared,
    ) -> Result<Moment, Error> {
        let now = self.clock.now();
        declared.deleted = None;
        match step {
            Step::PowerOff => {
                let at = self.act(Act::Break, Fault::PowerOff, target).await?;
                declared.hosts.retain(|host| host != target);
                declared.off = Some(target.to_owned());
                return Ok(at);
            }
            Step::PowerOn => {
                let at = self.act(Act::Mend, Fault::PowerOff, target).await?;
                declared.hosts = self.site.hosts();
                declared.off = None;
                return Ok(at);
            }
            Step::Scale(replicas) => {
                declared.replicas = replicas;
                self.change(&json!({"spec": {"replicas": replicas}})).await?;
            }
            Step::NewTemplate => {
                declared.mark = format!("{:x}-{number}", self.options.seed);
                let marked = json!({"drill.holdfast.dev/rollout": declared.mark});
                self.change(&json!({"spec": {"template": {"metadata": {"annotations": marked}}}})).await?;
            }
            Step::DeletePod => {
                declared.deleted = self.delete_one(&declared.hosts).await?;
            }
        }
        Ok(now)
    }

    async fn change(&mut self, patch: &Value) -> Result<(), Error> {
        let crate::workload::Workload { namespace, deployment, .. } = &self.workload;
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}");
        let until = self.clock.now() + self.options.limit;
        // The API may be moving to another host. To say the same twice does no harm.
        while let Err(error) = self.client.patch(&path, Content::MergePatch, patch).await {
            self.again(error.into(), until).await?;
        }
        Ok(())
    }

    /// Waits before something is tried again that failed.
    ///
    /// # Errors
    /// What failed, if the API said no to it or it is too late.
    async fn again(&mut self, error: Error, until: Moment) -> Result<(), Error> {
        let code = if let Error::Client(error) = &error { error.code() } else { None };
        let is_no = code.is_some_and(|code| (400..500).contains(&code) && ![408, 409, 429].contains(&code));
        if is_no || self.clock.now() > until {
            return Err(error);
        }
        self.client.forget_connections();
        self.wait(LOOK).await
    }

    /// Deletes a pod that serves on one of these hosts. None is there to delete where the step before came to nothing.
    async fn delete_one(&mut self, hosts: &[String]) -> Result<Option<Value>, Error> {
        let until = self.clock.now() + self.options.limit;
        loop {
            let error = match self.try_to_delete_one(hosts).await {
                Ok(deleted) => return Ok(deleted),
                Err(error) => error,
            };
            self.again(error, until).await?;
        }
    }

    async fn try_to_delete_one(&self, hosts: &[String]) -> Result<Option<Value>, Error> {
        let picture = Picture::take(&self.client, &self.workload).await?;
        let on = picture.serving().into_iter().filter(|(host, _)| hosts.contains(host));
        let Some(pod) = on.flat_map(|(_, pods)| pods).next() else { return Ok(None) };
        move_pod(&self.client, pod).await?;
        Ok(Some(pod.clone()))
    }

    /// Waits until the cluster is as declared, or the limit is over.
    async fn settle(&mut self, step: Step, began: Moment, declared: &Declared) -> Result<Done, Error> {
        loop {
            let missing = match Picture::take(&self.client, &self.workload).await {
                Ok(picture) => declared.missing(&picture),
                Err(error) => {
                    self.client.forget_connections();
                    vec![error.to_string()]
                }
            };
            let now = self.clock.now();
            if missing.is_empty() {
                self.stage.note(now, "as-declared", None, None)?;
                return Ok(Done { step, began, took: Some(now - began), missing });
            }
            if now > began + self.options.limit {
                return Ok(Done { step, began, took: None, missing });
            }
            self.wait(LOOK).await?;
        }
    }
}

fn is_power(step: Step) -> bool {
    matches!(step, Step::PowerOff | Step::PowerOn)
}

fn report(done: &Done, time: Range<Moment>, probes: &Probes) -> StepReport {
    let of = |series: &[&Series]| {
        let asks: Vec<Ask> = series.iter().flat_map(|series| series.asks().0).collect();
        tally(&asks, time.clone()).into()
    };
    let survivors: Vec<&Series> = probes.survivors.iter().collect();
    StepReport {
        what: done.step.name(),
        took_ms: done.took.map(ms),
        missing: done.missing.clone(),
        service: of(&[&probes.service]),
        survivors: (!survivors.is_empty()).then(|| of(&survivors)),
        kubectl_proxy: probes.kubectl_proxy.as_ref().map(|series| of(&[series])),
        api: of(&[&probes.api]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, host: &str, mark: &str) -> Value {
        json!({"metadata": {"name": name, "uid": name, "annotations": {"drill.holdfast.dev/rollout": mark}},
               "spec": {"nodeName": host},
               "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    }

    fn picture() -> Picture {
        let node = |name: &str, ready: &str| json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let endpoint = |at: &str, host: &str| json!({"addresses": [at], "nodeName": host, "conditions": {"ready": true}});
        Picture {
            nodes: vec![node("n1", "True"), node("n2", "Unknown")],
            deployment: json!({"metadata": {"name": "web"}, "spec": {"replicas": 2}, "status": {"readyReplicas": 2}}),
            pods: vec![pod("a", "n1", "1"), pod("b", "n1", "1")],
            slices: vec![json!({"endpoints": [endpoint("a", "n1"), endpoint("b", "n1")]})],
            ..Picture::default()
        }
    }

    #[test]
    fn says_what_is_not_as_declared() {
        let declared = Declared {
            hosts: vec!["n1".into()],
            off: Some("n2".into()),
            replicas: 2,
            mark: "1".into(),
            deleted: Some(pod("former", "n1", "1")),
        };
        assert_eq!(declared.missing(&picture()), Vec::<String>::new());
        type Break = fn(&mut Picture);
        let cases: [(Break, &str); 6] = [
            (|p| p.deployment["spec"]["replicas"] = json!(3), "3 replicas are asked for, and not 2"),
            (
                |p| p.nodes[1]["status"]["conditions"][0]["status"] = json!("True"),
                "the node n2 still looks Ready",
            ),
            (|p| p.pods[1] = pod("b", "n2", "1"), "1 pods serve, and not 2"),
            (|p| p.pods[1] = pod("b", "n1", ""), "1 pods are of another template"),
            (
                |p| p.slices[0]["endpoints"][1]["nodeName"] = json!("n2"),
                "1 endpoints are on hosts that are off",
            ),
            (|p| p.pods[1] = pod("former", "n1", "1"), "the pod former is still there"),
        ];
        for (wreck, says) in cases {
            let mut picture = picture();
            wreck(&mut picture);
            let missing = declared.missing(&picture);
            assert!(missing.iter().any(|why| why == says), "{says}: {missing:?}");
        }
    }
}
