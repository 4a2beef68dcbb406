//! All objects of one kind, kept up to date change by change.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use store::{Event, KeyRange, KeyValue, State};

use crate::{Kind, Pool, key, kind_prefix, namespace_prefix};

/// All objects of one kind by key. It is loaded once from a state and then follows the changes, so that
/// each costs the decoding of one object, however many there are.
#[derive(Debug, Clone)]
pub struct Table<T> {
    prefix: String,
    entries: BTreeMap<Bytes, Arc<T>>,
    pool: Option<Pool<T>>,
}

/// One object before and after a change.
#[derive(Debug, Clone)]
pub struct Change<T> {
    /// The key that changed.
    pub key: Bytes,
    /// The object before, if there was one.
    pub old: Option<Arc<T>>,
    /// The object now, if there is one.
    pub new: Option<Arc<T>>,
}

impl<T: Kind> Default for Table<T> {
    /// The table of an empty state.
    fn default() -> Self {
        Table { prefix: kind_prefix(T::GROUP, T::PLURAL), entries: BTreeMap::new(), pool: None }
    }
}

impl<T: Kind> Table<T> {
    /// The table as of a state. An object that can't be decoded is left out.
    pub fn load(state: &State) -> Self {
        Table::fill(state, None)
    }

    /// The same, with objects that are decoded once for all tables of the pool.
    pub fn load_shared(state: &State, pool: &Pool<T>) -> Self {
        Table::fill(state, Some(pool.clone()))
    }

    fn fill(state: &State, pool: Option<Pool<T>>) -> Self {
        let prefix = kind_prefix(T::GROUP, T::PLURAL);
        let mut table = Table { prefix: prefix.clone(), entries: BTreeMap::new(), pool };
        let all = state.range(&KeyRange::prefix(prefix));
        table.entries = all.filter_map(|kv| Some((kv.key.clone(), table.decode(kv)?))).collect();
        table
    }

    fn decode(&self, kv: &KeyValue) -> Option<Arc<T>> {
        match &self.pool {
            Some(pool) => pool.decode(kv),
            None => crate::decode(kv).ok().map(Arc::new),
        }
    }

    /// Takes one change in; nothing if it is another kind's.
    pub fn apply(&mut self, event: &Event) -> Option<Change<T>> {
        let key = event.key();
        if !key.starts_with(self.prefix.as_bytes()) {
            return None;
        }
        let new = match event {
            Event::Put { current, .. } => self.decode(current),
            Event::Delete { .. } => {
                self.pool.iter().for_each(|pool| pool.forget(key));
                None
            }
        };
        let old = match &new {
            Some(new) => self.entries.insert(key.clone(), new.clone()),
            None => self.entries.remove(key),
        };
        Some(Change { key: key.clone(), old, new })
    }

    /// One object; `namespace` is empty for cluster-scoped ones.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.entries.get(key(T::GROUP, T::PLURAL, namespace, name).as_bytes())
    }

    /// All of them, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.entries.values()
    }

    /// All of one namespace, in the order of their names.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<T>> {
        let range = KeyRange::prefix(namespace_prefix(T::GROUP, T::PLURAL, namespace));
        let start = range.start.clone();
        self.entries.range(start..).take_while(move |(key, _)| range.contains(key)).map(|(_, object)| object)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use store::{Memory, Revision, Store, Txn};

    use super::*;

    #[tokio::test]
    async fn a_table_follows_what_happens_to_its_kind() {
        let store = Memory::default();
        let mut table = Table::<ConfigMap>::load(&store.snapshot());
        let put = |namespace: &str, name: &str| {
            let value = format!(r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}"}}}}"#);
            store.txn(Txn::put(key("", "configmaps", namespace, name), value))
        };
        put("a", "x").await.unwrap();
        put("a", "y").await.unwrap();
        put("ab", "z").await.unwrap();
        store.txn(Txn::put(key("", "secrets", "a", "s"), "{}")).await.unwrap();
        let gone = KeyRange::key(key("", "configmaps", "a", "x"));
        let delete = Txn { success: vec![store::Op::Delete(gone)], ..Txn::default() };
        store.txn(delete).await.unwrap();

        let changes: Vec<_> =
            store.snapshot().events(Revision::ZERO).filter_map(|event| table.apply(event)).collect();
        assert_eq!(changes.len(), 4, "the secret is not the table's");
        assert!(changes[3].old.is_some() && changes[3].new.is_none());
        let names: Vec<_> = table.in_namespace("a").filter_map(|o| o.metadata.name.clone()).collect();
        assert_eq!(names, ["y"], "one namespace, and not those that start like it");
        assert_eq!(table.len(), 2);
        assert!(table.get("ab", "z").is_some());
    }

    #[tokio::test]
    async fn tables_of_one_pool_share_what_they_decode() {
        let store = Memory::default();
        let pool = Pool::default();
        let put = |value: &str| {
            let value = format!(r#"{{"metadata":{{"name":"x","namespace":"a"}},"data":{{"v":"{value}"}}}}"#);
            store.txn(Txn::put(key("", "configmaps", "a", "x"), value))
        };
        put("1").await.unwrap();
        let mut one = Table::<ConfigMap>::load_shared(&store.snapshot(), &pool);
        let mut other = Table::<ConfigMap>::load_shared(&store.snapshot(), &pool);
        let seen = store.snapshot().revision().next();
        assert!(Arc::ptr_eq(one.get("a", "x").unwrap(), other.get("a", "x").unwrap()));

        put("2").await.unwrap();
        let state = store.snapshot();
        state.events(seen).for_each(|event| drop(one.apply(event)));
        let version =
            |table: &Table<ConfigMap>| table.get("a", "x").unwrap().data.as_ref().unwrap()["v"].clone();
        assert_eq!((version(&one), version(&other)), ("2".to_owned(), "1".to_owned()));
        state.events(seen).for_each(|event| drop(other.apply(event)));
        assert!(Arc::ptr_eq(one.get("a", "x").unwrap(), other.get("a", "x").unwrap()));
    }
}
