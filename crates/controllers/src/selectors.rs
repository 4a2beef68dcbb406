//! Which objects select a given one, found by its labels: a pod's change asks only those that may mean it, however many
//! others select in its namespace.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use objects::{Kind, ObjectRef};

use crate::tables::Index;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// By what an object selects others of its namespace.
pub(crate) enum Selector<'a> {
    /// They have all of these labels.
    Labels(&'a Labels),
    /// They are as it says.
    Full(&'a LabelSelector),
}

/// A kind whose objects select others of their namespace.
pub(crate) trait Selects: Send + Sync + 'static {
    /// The kind.
    type Of: Kind + 'static;

    /// By what an object selects; nothing if it selects nothing at all.
    fn selector(object: &Self::Of) -> Option<Selector<'_>>;

    /// The labels that everything has that an object selects; nothing if it selects nothing at all.
    fn required(object: &Self::Of) -> Option<&Labels> {
        Self::selector(object).map(|selector| match selector {
            Selector::Labels(labels) => labels,
            Selector::Full(selector) => required(selector),
        })
    }

    /// Whether an object selects what has these labels.
    fn selects(object: &Self::Of, labels: Option<&Labels>) -> bool {
        Self::selector(object).is_some_and(|selector| match selector {
            Selector::Labels(wanted) => {
                wanted.iter().all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
            }
            Selector::Full(selector) => objects::selects(selector, labels),
        })
    }
}

/// The labels that a selector requires.
pub(crate) fn required(selector: &LabelSelector) -> &Labels {
    static NONE: Labels = BTreeMap::new();
    selector.match_labels.as_ref().unwrap_or(&NONE)
}

/// The objects that select, each under one of the labels that it requires: the one that fewest others are under.
pub(crate) struct Selectors<S: Selects> {
    filed: HashMap<String, BTreeMap<Box<str>, Arc<S::Of>>>,
    /// Under what each object is.
    under: HashMap<ObjectRef, String>,
}

impl<S: Selects> Default for Selectors<S> {
    fn default() -> Self {
        Selectors { filed: HashMap::new(), under: HashMap::new() }
    }
}

impl<S: Selects> Selectors<S> {
    /// The objects of a namespace that select what has these labels.
    pub fn of<'a>(
        &'a self,
        namespace: &'a str,
        labels: Option<&'a Labels>,
    ) -> impl Iterator<Item = &'a Arc<S::Of>> + Clone {
        let pairs = labels.into_iter().flatten().map(move |(name, value)| label(namespace, name, value));
        let filed = pairs.chain([namespace.to_owned()]).filter_map(|under| self.filed.get(&under));
        filed.flat_map(BTreeMap::values).filter(move |object| S::selects(object, labels))
    }

    /// Under what an object is filed: a label that it requires, or its namespace if it requires none.
    fn file(&self, namespace: &str, object: &S::Of) -> Option<String> {
        let required = S::required(object)?.iter().map(|(name, value)| label(namespace, name, value));
        let crowd = |under: &String| self.filed.get(under).map_or(0, BTreeMap::len);
        Some(required.min_by_key(crowd).unwrap_or_else(|| namespace.to_owned()))
    }
}

impl<S: Selects> Index for Selectors<S> {
    type Of = S::Of;

    fn take(&mut self, old: Option<&Arc<S::Of>>, new: Option<&Arc<S::Of>>) {
        if let Some(old) = old {
            let object = ObjectRef::of(old.as_ref());
            if let Some(under) = self.under.remove(&object)
                && let Some(filed) = self.filed.get_mut(&under)
            {
                filed.remove(&object.name);
                if filed.is_empty() {
                    self.filed.remove(&under);
                }
            }
        }
        if let Some(new) = new {
            let object = ObjectRef::of(new.as_ref());
            let Some(under) = self.file(&object.namespace, new) else { return };
            self.filed.entry(under.clone()).or_default().insert(object.name.clone(), new.clone());
            self.under.insert(object, under);
        }
    }
}

/// The name of a label with its value in a namespace. None of the three has a NUL in it.
pub(crate) fn label(namespace: &str, name: &str, value: &str) -> String {
    [namespace, name, value].join("\0")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::policy::v1::PodDisruptionBudget;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    struct Budget;

    impl Selects for Budget {
        type Of = PodDisruptionBudget;

        fn selector(budget: &PodDisruptionBudget) -> Option<Selector<'_>> {
            budget.spec.as_ref()?.selector.as_ref().map(Selector::Full)
        }
    }

    fn labels() -> impl Strategy<Value = Labels> {
        prop::collection::btree_map("[abc]", "[xy]", 0..3)
    }

    fn selector() -> impl Strategy<Value = Value> {
        let expression = ("[abc]", prop::sample::select(vec!["Exists", "DoesNotExist"]))
            .prop_map(|(key, operator)| json!({"key": key, "operator": operator}));
        (labels(), prop::collection::vec(expression, 0..2), prop::bool::weighted(0.9)).prop_map(
            |(labels, expressions, some)| match some {
                true => json!({"matchLabels": labels, "matchExpressions": expressions}),
                false => Value::Null,
            },
        )
    }

    proptest! {
        #[test]
        fn those_are_found_that_select_and_no_others(
            changes in prop::collection::vec(("[mn]", "[pqrs]", prop::option::of(selector())), 0..30),
            wanted in labels(),
        ) {
            let mut index = Selectors::<Budget>::default();
            let mut all: BTreeMap<(String, String), Arc<PodDisruptionBudget>> = BTreeMap::new();
            for (namespace, name, selector) in changes {
                let new = selector.map(|selector| {
                    let budget = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"selector": selector}});
                    Arc::new(serde_json::from_value::<PodDisruptionBudget>(budget).unwrap())
                });
                let place = (namespace, name);
                let old = match &new {
                    Some(new) => all.insert(place, new.clone()),
                    None => all.remove(&place),
                };
                index.take(old.as_ref(), new.as_ref());
            }
            for labels in [None, Some(&wanted)] {
                let mut found: Vec<_> = index.of("m", labels).map(|b| b.metadata.name.clone()).collect();
                found.sort();
                let there = all.values().filter(|b| b.metadata.namespace.as_deref() == Some("m"));
                let expected: Vec<_> =
                    there.filter(|b| Budget::selects(b, labels)).map(|b| b.metadata.name.clone()).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn an_object_is_asked_only_about_labels_that_few_require() {
        let mut index = Selectors::<Budget>::default();
        for n in 0..100 {
            let selector = json!({"matchLabels": {"part-of": "shop", "app": format!("a{n}")}});
            let budget = json!({"metadata": {"namespace": "n", "name": format!("b{n}")}, "spec": {"selector": selector}});
            index.take(None, Some(&Arc::new(serde_json::from_value(budget).unwrap())));
        }
        let shop = index.filed.get(&label("n", "part-of", "shop")).map_or(0, BTreeMap::len);
        assert!(shop <= 1, "{shop} under the label that all require");
    }
}
