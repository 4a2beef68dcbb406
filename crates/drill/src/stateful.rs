//! The workload's StatefulSet in a run: each of its identities is asked through the API, as a user would; and each process that has it also by
//! itself, where the site lets that, since the API knows only one of two.

use crate::clock::Clock;
use crate::instance::{Signed, UNSIGNED, ran_twice};
use crate::probe::{EVERY, Series, fresh};
use crate::sight::{Change, Watched, text};
use crate::steady::Picture;
use crate::workload::Stateful;
use crate::{Error, Moment};
use client::{Client, Kubeconfig};
use serde_json::Value;
use std::collections::BTreeMap;

/// An identity: a name, which one pod has at a time.
pub(crate) struct Identity {
    pub(crate) name: String,
    /// Where its pod ran before the fault.
    pub(crate) host: String,
    pub(crate) series: Series,
}

impl Identity {
    /// The identities of a cluster at rest, each asked through the API.
    pub(crate) fn all(clock: Clock, client: &Client, stateful: &Stateful, rest: &Picture) -> Vec<Self> {
        let identity = |pod: &Value| {
            let series = Series::start(clock, EVERY, fresh(client, stateful.pod_path(pod)?));
            let (name, host) =
                (text(pod, "/metadata/name").to_owned(), text(pod, "/spec/nodeName").to_owned());
            Some(Identity { name, host, series })
        };
        rest.stateful_pods.iter().filter_map(identity).collect()
    }
}

/// Every pod that has had one of the identities in this run, asked by itself to the end of the run.
pub(crate) struct Processes {
    clock: Clock,
    stateful: Option<Stateful>,
    /// By the pods' uids.
    pods: BTreeMap<String, Series>,
}

impl Processes {
    /// Asks the pods of a cluster at rest.
    pub(crate) fn of(clock: Clock, stateful: Option<&Stateful>, rest: &Picture) -> Result<Self, Error> {
        let mut processes = Processes { clock, stateful: stateful.cloned(), pods: BTreeMap::new() };
        for pod in &rest.stateful_pods {
            processes.ask(pod)?;
        }
        Ok(processes)
    }

    /// Looks at a change that was seen: a pod that is new is asked from now on, and one that is gone goes on being asked.
    pub(crate) fn look(&mut self, change: &Change) -> Result<(), Error> {
        match (change.kind, &change.new) {
            (Watched::StatefulPods, Some(pod)) => self.ask(pod),
            _ => Ok(()),
        }
    }

    fn ask(&mut self, pod: &Value) -> Result<(), Error> {
        let uid = text(pod, "/metadata/uid");
        if let Some(stateful) = self.stateful.as_ref().filter(|_| !self.pods.contains_key(uid))
            && let Some(url) = stateful.pod_url(pod)
        {
            let client = Client::new(&Kubeconfig::anonymous(url))?;
            self.pods.insert(uid.to_owned(), Series::start(self.clock, EVERY, fresh(&client, "/".into())));
        }
        Ok(())
    }

    /// How many identities answered from two hosts at once. Answers count for the name that they say: a pod's address may be given to another one.
    ///
    /// # Errors
    /// Why that can't be said.
    pub(crate) fn double_runs(&self, identities: &[Identity]) -> Result<usize, String> {
        if self.stateful.is_none() {
            return Err("pods can't be asked by themselves here, and the API asks only one of two".into());
        }
        let through_api = identities.iter().flat_map(|identity| identity.series.signed());
        let mut answers: BTreeMap<String, Vec<Signed>> = BTreeMap::new();
        for answer in self.pods.values().flat_map(Series::signed).chain(through_api) {
            answers.entry(answer.by.name.clone()).or_default().push(answer);
        }
        let of_identities: Vec<&Vec<Signed>> =
            identities.iter().filter_map(|identity| answers.get(&identity.name)).collect();
        match of_identities.len() < identities.len() || identities.is_empty() {
            true => Err(UNSIGNED.into()),
            false => Ok(of_identities.into_iter().filter(|answers| ran_twice(answers)).count()),
        }
    }
}

/// How long the host's identities were away: the longest of them, and which it was. None where one never came back.
///
/// # Errors
/// Why that can't be said.
pub(crate) fn answered<'a>(
    identities: &'a [Identity],
    target: &str,
    away: impl Fn(&'a Series) -> Option<Moment>,
) -> Result<Option<(Moment, &'a str)>, String> {
    let lost: Vec<&Identity> = identities.iter().filter(|identity| identity.host == target).collect();
    if lost.is_empty() {
        return Err(format!("no pod of the StatefulSet ran on {target}"));
    }
    let times = lost.iter().map(|identity| Some((away(&identity.series)?, identity.name.as_str())));
    Ok(times.collect::<Option<Vec<_>>>().and_then(|times| times.into_iter().max()))
}
