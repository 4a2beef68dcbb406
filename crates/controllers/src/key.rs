//! What can be reconciled.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use objects::ObjectRef;

use crate::controller::{Controller, Due, Moment, Part, Urgency};
use crate::list::{CONTROLLERS, controllers};
use crate::plan::Plan;
use crate::queue::Urgent;
use crate::touched::Touched;
use crate::view::View;

/// One thing to reconcile: an object or a name, and the controller that looks after it. The order is the order of
/// urgency: what brings a service back comes first.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    controller: usize,
    object: ObjectRef,
}

impl Key {
    /// The key of the controller at a place of the list.
    pub(crate) fn at(controller: usize, namespace: &str, name: &str) -> Self {
        Key { controller, object: ObjectRef::new(namespace, name) }
    }

    /// A key of the controller with this name; nothing if there is none.
    pub fn of(controller: &str, namespace: &str, name: &str) -> Option<Self> {
        let at = CONTROLLERS.iter().position(|known| known.name() == controller)?;
        Some(Key::at(at, namespace, name))
    }

    fn controller(&self) -> &'static dyn Controller {
        CONTROLLERS[self.controller]
    }

    /// Whether it is of a controller of this part.
    pub(crate) fn is_of(&self, part: Part) -> bool {
        part == Part::All || self.controller().stays()
    }

    /// The namespace, empty for what lies in none.
    pub fn namespace(&self) -> &str {
        &self.object.namespace
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.object.name
    }

    /// The controller's name in Events.
    pub fn component(&self) -> &'static str {
        self.controller().component()
    }

    /// The account in whose name it asks the API.
    pub(crate) fn account(&self) -> String {
        format!("system:serviceaccount:kube-system:{}", self.component())
    }

    /// Decides what to do about this key.
    pub fn reconcile(&self, view: &View, moment: &Moment<'_>) -> Plan {
        self.controller().reconcile(view, self, moment)
    }

    /// Everything there is to reconcile in a view.
    pub fn all(view: &View, mut each: impl FnMut(Key, Duration)) {
        for (at, controller) in controllers(view.part()) {
            controller.all(view, &mut Due::new(at, &mut each));
        }
    }

    /// What a change makes worth reconciling, and after which time.
    pub fn touched(view: &View, change: &Touched, mut each: impl FnMut(Key, Duration)) {
        for (at, controller) in controllers(view.part()) {
            controller.touched(view, change, &mut Due::new(at, &mut each));
        }
    }

    /// What it makes worth reconciling that a host fell silent or is heard again.
    pub fn heard(host: &str, mut each: impl FnMut(Key, Duration)) {
        for (at, controller) in CONTROLLERS.iter().enumerate() {
            controller.heard(host, &mut Due::new(at, &mut each));
        }
    }
}

impl Urgent for Key {
    fn urgency(&self) -> Urgency {
        self.controller().urgency()
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |key: &Key| (key.urgency(), key.controller);
        order(self).cmp(&order(other)).then_with(|| self.object.cmp(&other.object))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.controller().name(), self.object)
    }
}
