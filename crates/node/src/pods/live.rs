//! The containers that run, for those who come to them from outside: to see their output, write their input, or
//! run a command beside them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::runtime::Which;

/// The containers that run, by pod uid and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveContainers(Arc<Mutex<ByName>>);

type ByName = HashMap<(String, String), Arc<Live>>;

impl LiveContainers {
    /// A container that runs.
    pub(crate) fn get(&self, uid: &str, container: &str) -> Option<Arc<Live>> {
        self.lock().get(&(uid.to_owned(), container.to_owned())).cloned()
    }

    /// All that run.
    pub(crate) fn list(&self) -> Vec<Arc<Live>> {
        self.lock().values().cloned().collect()
    }

    /// How many containers run, of how many pods.
    pub(crate) fn count(&self) -> (usize, usize) {
        let all = self.lock();
        let pods: std::collections::HashSet<&String> = all.keys().map(|(uid, _)| uid).collect();
        (all.len(), pods.len())
    }

    /// Lists a container for as long as what is answered lives.
    pub(super) fn begin(&self, live: Live) -> Listed {
        let key = (live.which.uid.clone(), live.which.container.clone());
        let live = Arc::new(live);
        self.lock().insert(key.clone(), live.clone());
        Listed { running: self.clone(), key, live }
    }

    fn lock(&self) -> MutexGuard<'_, ByName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A container among those that run. Dropped, it counts as ended.
#[derive(Debug)]
pub(super) struct Listed {
    running: LiveContainers,
    key: (String, String),
    live: Arc<Live>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut all = self.running.lock();
        if all.get(&self.key).is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
            all.remove(&self.key);
        }
    }
}

/// A container that runs, or ran a moment ago.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) which: Which,
    /// Its pod's namespace.
    pub(crate) namespace: String,
    /// Its pod's name.
    pub(crate) pod: String,
    /// Whether it reads anything.
    pub(crate) reads: bool,
    /// Whether its input ends with the first caller that wrote (`stdinOnce`).
    pub(crate) once: bool,
    /// Whether its streams are a terminal.
    pub(crate) terminal: bool,
}
