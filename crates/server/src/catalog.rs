//! The definitions in the store as they are known here, and the catalog that follows from them: kept up to date
//! with the state that is asked about, so that a client that sees a definition established can use its kind.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use api::Catalog;
use bytes::Bytes;
use machinery::Definition;
use store::{KeyRange, Revision, State};

/// What is known of definitions.
#[derive(Debug, Default)]
pub(crate) struct Known(RwLock<Arc<Definitions>>);

/// The definitions of a state.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    /// They are as of this revision, and of each until something changes them.
    seen: Revision,
    by_key: Arc<BTreeMap<Bytes, Arc<Definition>>>,
    catalog: Arc<Catalog>,
}

fn prefix() -> String {
    objects::kind_prefix("apiextensions.k8s.io", "customresourcedefinitions")
}

impl Definitions {
    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> + Clone {
        self.by_key.values()
    }

    /// The revision that they are known to be as of.
    pub(crate) fn seen(&self) -> Revision {
        self.seen
    }

    /// Whether nothing changed between the two.
    pub(crate) fn is_same(&self, other: &Definitions) -> bool {
        Arc::ptr_eq(&self.by_key, &other.by_key)
    }

    /// What is served.
    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The definition of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Definition>> {
        self.by_key.get(format!("{}{name}", prefix()).as_bytes())
    }

    fn follows(&self, state: &State, prefix: &[u8]) -> bool {
        // The very first time there is nothing to follow from.
        self.seen > Revision::ZERO
            && state.check_history(self.seen.next()).is_ok()
            && !state.events(self.seen.next()).any(|event| event.key().starts_with(prefix))
    }

    fn read(&self, state: &State) -> Self {
        let mut by_key = BTreeMap::new();
        for kv in state.range(&KeyRange::prefix(prefix())) {
            let before = self.by_key.get(&kv.key);
            let same = before.filter(|before| before.revision() == kv.mod_revision.0).cloned();
            let before = before.map(Arc::as_ref);
            let definition = match same {
                Some(definition) => definition,
                None => match Definition::parse(kv.value.bytes(), kv.mod_revision.0, before) {
                    Ok(definition) => Arc::new(definition),
                    Err(error) => {
                        let key = String::from_utf8_lossy(&kv.key);
                        tracing::warn!(%key, %error, "a stored definition can't be read; its kind is not served");
                        continue;
                    }
                },
            };
            by_key.insert(kv.key.clone(), definition);
        }
        let catalog = Arc::new(Catalog::new(by_key.values(), &self.catalog));
        Definitions { seen: state.revision(), by_key: Arc::new(by_key), catalog }
    }
}

impl Known {
    /// The definitions as of `state`, or of a newer one that was asked about before.
    pub(crate) fn at(&self, state: &State) -> Arc<Definitions> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if known.seen >= state.revision() {
            return known;
        }
        let prefix = prefix();
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if place.seen < state.revision() {
            *place = Arc::new(if place.follows(state, prefix.as_bytes()) {
                let Definitions { by_key, catalog, .. } = &**place;
                Definitions { seen: state.revision(), by_key: by_key.clone(), catalog: catalog.clone() }
            } else {
                place.read(state)
            });
        }
        place.clone()
    }
}
