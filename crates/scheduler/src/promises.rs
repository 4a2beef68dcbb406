//! Volumes that were promised to pods, for as long as the state doesn't show it: what upstream's assume caches are for.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

/// What a claim gets where its pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Promise {
    /// The volume of this name.
    Volume(String),
    /// One that is made for the node of this name.
    MadeFor(String),
}

/// What was promised. Claims are named `NAMESPACE/NAME`, pods by their keys.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    /// What each claim gets, and the pods that wait for it.
    claims: HashMap<String, (Promise, BTreeSet<Bytes>)>,
    /// The claim that gets each volume.
    volumes: HashMap<String, String>,
    /// The claims of each pod.
    pods: HashMap<Bytes, Vec<String>>,
}

impl Promises {
    /// What was promised to a claim.
    pub fn to(&self, claim: &str) -> Option<&Promise> {
        self.claims.get(claim).map(|(promise, _)| promise)
    }

    /// Whether a volume was promised to another claim.
    pub fn keeps_from(&self, volume: &str, claim: &str) -> bool {
        self.volumes.get(volume).is_some_and(|other| other != claim)
    }

    /// Promises something to a claim for a pod. What the claim was promised for another pod stays.
    pub fn make(&mut self, pod: &Bytes, claim: String, promise: Promise) {
        let (promise, pods) = self.claims.entry(claim.clone()).or_insert_with(|| (promise, BTreeSet::new()));
        if let Promise::Volume(volume) = promise {
            self.volumes.insert(volume.clone(), claim.clone());
        }
        if pods.insert(pod.clone()) {
            self.pods.entry(pod.clone()).or_default().push(claim);
        }
    }

    /// Nothing is promised for a pod any more. True if something was.
    pub fn take_back(&mut self, pod: &Bytes) -> bool {
        let Some(claims) = self.pods.remove(pod) else { return false };
        for claim in claims {
            let Some((promise, pods)) = self.claims.get_mut(&claim) else { continue };
            pods.remove(pod);
            if pods.is_empty() {
                if let Promise::Volume(volume) = promise {
                    self.volumes.remove(volume);
                }
                self.claims.remove(&claim);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    #[test]
    fn a_promise_holds_until_the_last_pod_that_waits_for_it_is_done() {
        let mut promises = Promises::default();
        promises.make(&pod("a"), "d/c".into(), Promise::Volume("v".into()));
        promises.make(&pod("b"), "d/c".into(), Promise::Volume("v".into()));
        promises.make(&pod("b"), "d/e".into(), Promise::MadeFor("n".into()));
        assert!(promises.keeps_from("v", "d/other") && !promises.keeps_from("v", "d/c"));
        assert!(promises.take_back(&pod("a")));
        assert_eq!(promises.to("d/c"), Some(&Promise::Volume("v".into())));
        assert!(promises.take_back(&pod("b")));
        assert!(!promises.take_back(&pod("b")));
        assert_eq!((promises.to("d/c"), promises.to("d/e")), (None, None));
        assert!(!promises.keeps_from("v", "d/other"));
    }
}
