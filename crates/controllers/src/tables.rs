//! The objects that controllers look at: a table for each kind that one of them declares, and what is kept about it.
//!
//! A table is found by its type, and so is what is kept about it: a controller that wants another kind or another
//! index declares it in its own file, and nothing else changes.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use objects::{Change, Kind, Pod, Pool, Table};
use store::{Event, State};

/// Something that is kept about the objects of one kind, change by change.
pub(crate) trait Index: Default + Send + Sync + 'static {
    /// The kind that it is about.
    type Of: Kind + 'static;

    /// Takes one object in, as it was and as it is.
    fn take(&mut self, old: Option<&Arc<Self::Of>>, new: Option<&Arc<Self::Of>>);
}

/// Something that is kept of the objects as they are stored, change by change, of whatever kinds: for what needs no table.
pub(crate) trait Account: Any + Send + Sync {
    /// The account of a state.
    fn open(state: &State) -> Self
    where
        Self: Sized;

    /// Takes one change in.
    fn take(&mut self, event: &Event);

    /// All changes up to a state have been taken in.
    fn settle(&mut self, _: &State) {}
}

/// All tables, each with what is kept about it; and what is kept beside them.
#[derive(Default)]
pub(crate) struct Tables {
    kinds: HashMap<TypeId, Box<dyn Follow>>,
    accounts: HashMap<TypeId, Box<dyn Account>>,
}

/// By what controllers declare what they look at.
pub(crate) struct Watches<'a> {
    tables: &'a mut Tables,
    state: &'a State,
    pods: &'a Pool<Pod>,
}

impl Tables {
    /// The tables of a state that `declare` asks for, with pods of a pool.
    pub fn load(state: &State, pods: &Pool<Pod>, declare: impl FnOnce(&mut Watches<'_>)) -> Self {
        let mut tables = Tables::default();
        declare(&mut Watches { tables: &mut tables, state, pods });
        tables
    }

    /// Takes one change in: the [`Change`] of the kind that it is about, if somebody looks at that.
    pub fn apply(&mut self, event: &Event) -> Option<Box<dyn Any + Send>> {
        self.accounts.values_mut().for_each(|account| account.take(event));
        self.kinds.values_mut().find_map(|kind| kind.apply(event))
    }

    /// All changes up to a state have been taken in.
    pub fn settle(&mut self, state: &State) {
        self.accounts.values_mut().for_each(|account| account.settle(state));
    }

    fn kind<T: Kind + 'static>(&self) -> Option<&Followed<T>> {
        let kind = self.kinds.get(&TypeId::of::<T>());
        debug_assert!(kind.is_some(), "no controller declares that it looks at {}", T::PLURAL);
        (&**kind? as &dyn Any).downcast_ref()
    }

    /// The objects of one kind.
    pub fn table<T: Kind + 'static>(&self) -> Rows<'_, T> {
        Rows(self.kind().map(|kind| &kind.table))
    }

    /// What is kept about one kind; nothing if no controller declares it.
    pub fn index<I: Index>(&self) -> Option<&I> {
        let index = self.kind::<I::Of>()?.indexes.get(&TypeId::of::<I>());
        debug_assert!(index.is_some(), "no controller declares {}", std::any::type_name::<I>());
        (&**index? as &dyn Any).downcast_ref()
    }

    /// An account; nothing if no controller declares it.
    pub fn account<A: Account>(&self) -> Option<&A> {
        let account = self.accounts.get(&TypeId::of::<A>());
        debug_assert!(account.is_some(), "no controller declares {}", std::any::type_name::<A>());
        (&**account? as &dyn Any).downcast_ref()
    }
}

impl Watches<'_> {
    /// Objects of this kind are looked at.
    pub fn table<T: Kind + 'static>(&mut self) {
        let (state, pods) = (self.state, self.pods);
        self.tables.kinds.entry(TypeId::of::<T>()).or_insert_with(|| {
            let table = match (pods as &dyn Any).downcast_ref::<Pool<T>>() {
                Some(pool) => Table::load_shared(state, pool),
                None => Table::load(state),
            };
            Box::new(Followed::<T> { table, indexes: HashMap::new() })
        });
    }

    /// This is kept of the objects as they are stored.
    pub fn account<A: Account>(&mut self) {
        let state = self.state;
        self.tables.accounts.entry(TypeId::of::<A>()).or_insert_with(|| Box::new(A::open(state)));
    }

    /// This is kept about the objects of its kind.
    pub fn index<I: Index>(&mut self) {
        self.table::<I::Of>();
        let kind = self.tables.kinds.get_mut(&TypeId::of::<I::Of>());
        let Some(kind) =
            kind.and_then(|kind| (&mut **kind as &mut dyn Any).downcast_mut::<Followed<I::Of>>())
        else {
            return;
        };
        kind.indexes.entry(TypeId::of::<I>()).or_insert_with(|| {
            let mut index = I::default();
            kind.table.iter().for_each(|object| index.take(None, Some(object)));
            Box::new(index)
        });
    }
}

/// The objects of one kind.
pub(crate) struct Rows<'a, T>(Option<&'a Table<T>>);

impl<T> Clone for Rows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rows<'_, T> {}

impl<'a, T: Kind> Rows<'a, T> {
    /// One object; `namespace` is empty for cluster-scoped ones.
    pub fn get(self, namespace: &str, name: &str) -> Option<&'a Arc<T>> {
        self.0?.get(namespace, name)
    }

    /// All of them, in the order of their keys.
    pub fn iter(self) -> impl Iterator<Item = &'a Arc<T>> {
        self.0.into_iter().flat_map(Table::iter)
    }

    /// All of one namespace, in the order of their names.
    pub fn in_namespace(self, namespace: &str) -> impl Iterator<Item = &'a Arc<T>> {
        self.0.into_iter().flat_map(move |table| table.in_namespace(namespace))
    }
}

/// A table with what is kept about it, whatever its kind.
trait Follow: Any + Send + Sync {
    fn apply(&mut self, event: &Event) -> Option<Box<dyn Any + Send>>;
}

struct Followed<T> {
    table: Table<T>,
    indexes: HashMap<TypeId, Box<dyn Take<T>>>,
}

impl<T: Kind + 'static> Follow for Followed<T> {
    fn apply(&mut self, event: &Event) -> Option<Box<dyn Any + Send>> {
        let change: Change<T> = self.table.apply(event)?;
        for index in self.indexes.values_mut() {
            index.take_in(change.old.as_ref(), change.new.as_ref());
        }
        Some(Box::new(change))
    }
}

/// An [`Index`], whatever it keeps.
trait Take<T>: Any + Send + Sync {
    fn take_in(&mut self, old: Option<&Arc<T>>, new: Option<&Arc<T>>);
}

impl<I: Index> Take<I::Of> for I {
    fn take_in(&mut self, old: Option<&Arc<I::Of>>, new: Option<&Arc<I::Of>>) {
        self.take(old, new);
    }
}
