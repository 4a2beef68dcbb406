//! What a controller is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use objects::{Change, Kind, Meta};

use crate::autoscaler::Answers;
use crate::key::Key;
use crate::notes::Notes;
use crate::plan::Plan;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// Hosts that are silent, each with the time when it was last heard.
pub type Silence = BTreeMap<String, Instant>;

/// Hosts whose leases are over for sure.
pub type Ended = BTreeMap<String, LeaseEnd>;

/// Up to which epoch a host's leases are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseEnd {
    /// Of this epoch and of all before it nothing runs any more that stops with a lease.
    pub epoch: u64,
    /// The host has been heard in a later one.
    pub is_back: bool,
    /// Since when this is known here.
    pub since: Instant,
}

/// What time it is, for those who time things by the clock on the wall and for those who measure.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The clock on the wall.
    pub wall: Timestamp,
    /// The clock that only moves on.
    pub instant: Instant,
}

/// How urgent the work of a controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// It decides who gets a service's traffic: dead hosts, endpoints.
    Traffic,
    /// It makes the pods that serve.
    Workload,
    /// Somebody waits for it, and no service does.
    Upkeep,
    /// It tidies up.
    Background,
}

/// What a reconciliation may read beside the view and the key.
pub struct Moment<'a> {
    /// What time it is.
    pub now: Now,
    /// Which hosts are silent.
    pub silence: &'a Silence,
    /// When the leases of nodes that send no heartbeats were last seen to be renewed.
    pub leases: &'a Silence,
    /// Whose leases are over.
    pub ended: &'a Ended,
    /// What was answered to what the key's plan asked, unless it was read already.
    pub answers: Option<&'a Answers>,
    /// What the key remembers.
    pub notes: Option<&'a Notes>,
}

/// Which controllers run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// All of them.
    #[default]
    All,
    /// Those whose work upstream's kube-controller-manager doesn't do, which runs beside them.
    Own,
}

/// A controller: what it looks at, what makes a key of its due, and what it decides about one. It keeps nothing: a
/// decision is a function of view, key and moment.
pub(crate) trait Controller: Sync {
    /// Its name in keys and figures, which no other has.
    fn name(&self) -> &'static str;

    /// Its name in Events.
    fn component(&self) -> &'static str;

    /// How urgent its work is.
    fn urgency(&self) -> Urgency;

    /// Whether it runs beside upstream's kube-controller-manager too: what it does is done by upstream's API server, or by nobody
    /// else.
    fn stays(&self) -> bool {
        false
    }

    /// Declares the kinds that it looks at, and by what it finds their objects.
    fn watches(&self, watches: &mut Watches<'_>);

    /// Makes due whatever there is to look after in a view.
    fn all(&self, view: &View, due: &mut Due<'_>);

    /// Makes due what a change of the state may ask for.
    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>);

    /// Makes due what is to be looked at if a host falls silent or is heard again, or its lease is over.
    fn heard(&self, _host: &str, _due: &mut Due<'_>) {}

    /// Decides what to do about one key.
    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan;
}

/// Where a controller says which of its keys are due, and after which time.
pub(crate) struct Due<'a> {
    controller: usize,
    each: &'a mut dyn FnMut(Key, Duration),
}

impl<'a> Due<'a> {
    /// For the controller at a place of the list.
    pub fn new(controller: usize, each: &'a mut dyn FnMut(Key, Duration)) -> Self {
        Due { controller, each }
    }

    /// A key is due now; `namespace` is empty for what lies in none.
    pub fn now(&mut self, namespace: &str, name: &str) {
        self.later(namespace, name, Duration::ZERO);
    }

    /// A key is due after a while.
    pub fn later(&mut self, namespace: &str, name: &str, wait: Duration) {
        (self.each)(Key::at(self.controller, namespace, name), wait);
    }

    /// The key named like an object is due now.
    pub fn object<T: Kind>(&mut self, object: &T) {
        let metadata = object.metadata();
        self.now(metadata.namespace(), metadata.name());
    }

    /// The keys named like objects are due now.
    pub fn objects<'o, T: Kind + 'o>(&mut self, objects: impl IntoIterator<Item = &'o Arc<T>>) {
        objects.into_iter().for_each(|object| self.object(object.as_ref()));
    }

    /// The key named like the object that changed is due now, if the change is of that kind.
    pub fn changed<T: Kind + 'static>(&mut self, change: &Touched) {
        self.objects(change.of::<T>().and_then(latest));
    }
}

/// The object of a change as it is, or as it was last.
pub(crate) fn latest<T>(change: &Change<T>) -> Option<&Arc<T>> {
    change.new.as_ref().or(change.old.as_ref())
}

/// The object of a change as it was and as it is.
pub(crate) fn both<T>(change: &Change<T>) -> impl Iterator<Item = &Arc<T>> {
    [&change.old, &change.new].into_iter().flatten()
}
