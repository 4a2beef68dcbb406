//! All runtimes of a host as one: its own shims, and the runtime of others if it has one. A pod is in one of them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use membership::lease::Epoch;
use tokio::sync::watch;

use crate::container::LogProgress;
use crate::container::cgroup::{Amounts, Memory};
use crate::foreign::ForeignRuntime;
use crate::oci::Namespace;
use crate::runtime::{
    Attached, Begun, Exec, Exit, Found, Lost, Program, RunError, Runtime, Session, Shape, Tried, Trouble,
    Usage, Which,
};
use crate::shims::ShimRuntime;

/// The runtimes of a host.
#[derive(Debug)]
pub(crate) struct Runtimes {
    pub shims: ShimRuntime,
    pub foreign: ForeignRuntime,
}

/// What a question is about: a pod, or a container of one.
trait OfPod {
    /// The pod.
    fn pod(&self) -> &str;
}

impl OfPod for str {
    fn pod(&self) -> &str {
        self
    }
}

impl OfPod for Which {
    fn pod(&self) -> &str {
        &self.uid
    }
}

/// Questions that the runtime answers which has the pod, at once.
macro_rules! told_by_its_own {
    ($($name:ident($pod:ident: &$kind:ty $(, $more:ident: $of:ty)*) -> $answer:ty;)*) => {$(
        fn $name(&self, $pod: &$kind $(, $more: $of)*) -> $answer {
            self.of($pod.pod()).$name($pod $(, $more)*)
        }
    )*};
}

/// Likewise, in time.
macro_rules! awaited_of_its_own {
    ($($name:ident($pod:ident: &$kind:ty $(, $more:ident: $of:ty)*) -> $answer:ty;)*) => {$(
        fn $name<'a>(&'a self, $pod: &'a $kind $(, $more: $of)*) -> BoxFuture<'a, $answer> {
            self.of($pod.pod()).$name($pod $(, $more)*)
        }
    )*};
}

/// Questions that all runtimes answer.
macro_rules! asked_of_all {
    ($($name:ident() -> Vec<$answer:ty>;)*) => {$(
        fn $name(&self) -> BoxFuture<'_, Vec<$answer>> {
            async move {
                let (own, foreign) = tokio::join!(self.shims.$name(), self.foreign.$name());
                [own, foreign].concat()
            }
            .boxed()
        }
    )*};
}

impl Runtimes {
    /// The one that has a pod.
    fn of(&self, uid: &str) -> &dyn Runtime {
        if self.foreign.has(uid) { &self.foreign } else { &self.shims }
    }

    /// The one that is to have it. A pod stays where it is: the host's configuration may have changed since it began.
    fn for_pod(&self, uid: &str, is_foreign: bool) -> Result<&dyn Runtime, RunError> {
        let (wanted, other): (&dyn Runtime, _) = if is_foreign {
            (&self.foreign, self.shims.has(uid))
        } else {
            (&self.shims, self.foreign.has(uid))
        };
        let elsewhere = "the pod began in another runtime of this host: delete it, so that it begins anew";
        if other { Err(RunError::Config(elsewhere.into())) } else { Ok(wanted) }
    }
}

impl Runtime for Runtimes {
    told_by_its_own! {
        first_process(which: &Which) -> Option<i32>;
        signal(which: &Which, signal: i32) -> ();
        close_input(which: &Which) -> ();
        log(which: &Which) -> watch::Receiver<LogProgress>;
        lost(uid: &str) -> Lost;
        bind(uid: &str, epoch: Option<Epoch>) -> ();
        bound(uid: &str) -> Option<Option<Epoch>>;
        ended_with_lease(uid: &str) -> bool;
    }

    awaited_of_its_own! {
        network(uid: &str) -> Option<OwnedFd>;
        exit(which: &Which) -> Option<Exit>;
        exec(which: &Which, asked: Exec) -> Result<Session, RunError>;
        attach(which: &Which, wanted: (bool, bool)) -> Option<Attached>;
        update_resources(uid: &str, of: Option<&'a Which>, to: Amounts) -> Result<(), RunError>;
    }

    asked_of_all! {
        found() -> Vec<Found>;
        usage() -> Vec<(Which, Timestamp, Usage)>;
    }

    fn prepare<'a>(&'a self, uid: &'a str, wanted: Shape) -> Tried<'a, Vec<Namespace>> {
        async move { self.for_pod(uid, matches!(wanted, Shape::Foreign(_)))?.prepare(uid, wanted).await }
            .boxed()
    }

    fn start<'a>(&'a self, which: &'a Which, program: Program, log: PathBuf) -> Tried<'a, Begun> {
        async move {
            let is_foreign = matches!(program, Program::Foreign(_));
            self.for_pod(&which.uid, is_foreign)?.start(which, program, log).await
        }
        .boxed()
    }

    fn trouble(&self) -> BoxFuture<'_, Trouble> {
        self.shims.trouble()
    }

    fn found_late(&self) -> BoxFuture<'_, Vec<Found>> {
        self.foreign.found_late()
    }

    fn is_awaited(&self) -> bool {
        self.foreign.is_awaited()
    }

    fn memory_of_pods(&self, uids: Vec<String>) -> BoxFuture<'_, HashMap<String, Memory>> {
        async move {
            let (own, foreign) =
                tokio::join!(self.shims.memory_of_pods(uids.clone()), self.foreign.memory_of_pods(uids));
            own.into_iter().chain(foreign).collect::<HashMap<String, Memory>>()
        }
        .boxed()
    }

    /// Of a pod in the runtime of others it is known otherwise ([`Runtime::bound`]).
    fn can_stop_with_lease(&self) -> bool {
        self.shims.can_stop_with_lease()
    }

    fn sandboxes(&self) -> Vec<String> {
        [self.shims.sandboxes(), self.foreign.sandboxes()].concat()
    }

    fn end<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, ()> {
        async move {
            // Before the runtime of others has answered at all, what isn't here may be there: an end that is reported must be one.
            if !self.foreign.has(uid) && !self.shims.has(uid) && self.foreign.may_have(uid) {
                self.foreign.end(uid).await;
            }
            self.end_own(uid).await;
        }
        .boxed()
    }

    fn end_own<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, ()> {
        async move {
            // Its class may have had another handler when it began.
            if self.foreign.has(uid) {
                self.foreign.end(uid).await;
            }
            // Also for a pod that was there: whether it is bound was noted here.
            self.shims.end(uid).await;
        }
        .boxed()
    }

    fn end_all(&self) -> BoxFuture<'_, ()> {
        async move {
            tokio::join!(self.shims.end_all(), self.foreign.end_all());
        }
        .boxed()
    }
}
