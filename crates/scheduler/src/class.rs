//! Pods that are alike: for every other pod it makes no difference which of them is on a node, only how many.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use objects::{Labels, Meta, Pod};

use crate::affinity::{self, Term};

/// What other pods' rules look at, and what it says of others: the rules by which it keeps them away, and those that it would have
/// near it. All pods of one ReplicaSet are of one class.
#[derive(Debug, PartialEq)]
pub(crate) struct Class {
    pub namespace: Arc<str>,
    pub labels: Option<Arc<Labels>>,
    /// The uid of the pods' controller.
    pub owner: Option<String>,
    /// The required anti-affinities.
    pub apart: Vec<Term>,
    /// By what weight it would have others near it.
    pub draws: Vec<(Term, i64)>,
}

impl Eq for Class {}

impl Hash for Class {
    // The anti-affinities of pods of one owner with the same labels seldom differ.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.namespace, &self.labels, &self.owner).hash(state);
    }
}

impl Class {
    fn of(pod: &Pod) -> Self {
        let mut owners = pod.metadata.owners().iter();
        Class {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone(),
            owner: owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()),
            draws: affinity::draws(pod),
            apart: affinity::anti_affinity(pod)
                .iter()
                .flat_map(|t| t.iter())
                .map(|t| Term::of(t, pod))
                .collect(),
        }
    }

    /// Whether pods of two classes do the same work: those of the same controller, or for pods without one those
    /// with the same labels. Replicas stay apart even where nobody asked for it.
    pub fn is_sibling(&self, other: &Class) -> bool {
        let alike = match &self.owner {
            Some(_) => self.owner == other.owner,
            None => self.labels.as_ref().is_some_and(|l| !l.is_empty()) && self.labels == other.labels,
        };
        alike && self.namespace == other.namespace
    }
}

/// One copy of each class that some pod has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Classes {
    known: HashSet<Arc<Class>>,
    /// How many there were when those without a pod were last thrown away.
    kept: usize,
    /// The pod that was asked about last: one that gets a place is asked about for the decision and then to be put there.
    last: Option<(Arc<Pod>, Arc<Class>)>,
    #[cfg(test)]
    built: usize,
}

impl Classes {
    /// The class of a pod.
    pub fn of(&mut self, pod: &Arc<Pod>) -> Arc<Class> {
        if let Some((last, class)) = &self.last
            && Arc::ptr_eq(last, pod)
        {
            return class.clone();
        }
        let class = self.find(pod);
        self.last = Some((pod.clone(), class.clone()));
        class
    }

    /// How many pods were looked at so far.
    #[cfg(test)]
    pub fn built(&self) -> usize {
        self.built
    }

    /// How many classes there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    fn find(&mut self, pod: &Pod) -> Arc<Class> {
        #[cfg(test)]
        {
            self.built += 1;
        }
        let class = Class::of(pod);
        if let Some(known) = self.known.get(&class) {
            return known.clone();
        }
        // Twice as many as there were: throwing away costs each new class a constant.
        if self.known.len() > 2 * self.kept + 64 {
            self.known.retain(|class| Arc::strong_count(class) > 1);
            self.kept = self.known.len();
        }
        let class = Arc::new(class);
        self.known.insert(class.clone());
        class
    }
}
