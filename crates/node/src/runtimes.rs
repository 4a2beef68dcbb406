//! All runtimes of a host as one: its own shims, and the runtime of others if it has one. A pod is in one of them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

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
    Attached, Begun, Exit, Found, Lost, Program, RunError, Runtime, Session, Shape, Streams, Trouble, Usage,
    Which,
};
use crate::shims::ShimRuntime;

/// The runtimes of a host.
#[derive(Debug)]
pub(crate) struct Runtimes {
    pub shims: ShimRuntime,
    pub foreign: ForeignRuntime,
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
    fn prepare<'a>(&'a self, uid: &'a str, wanted: Shape) -> BoxFuture<'a, Result<Vec<Namespace>, RunError>> {
        async move { self.for_pod(uid, matches!(wanted, Shape::Foreign(_)))?.prepare(uid, wanted).await }
            .boxed()
    }

    fn first_process(&self, which: &Which) -> Option<i32> {
        self.of(&which.uid).first_process(which)
    }

    fn network<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Option<OwnedFd>> {
        self.of(uid).network(uid)
    }

    fn start<'a>(
        &'a self,
        which: &'a Which,
        program: Program,
        log: PathBuf,
    ) -> BoxFuture<'a, Result<Begun, RunError>> {
        async move {
            let is_foreign = matches!(program, Program::Foreign(_));
            self.for_pod(&which.uid, is_foreign)?.start(which, program, log).await
        }
        .boxed()
    }

    fn exit<'a>(&'a self, which: &'a Which) -> BoxFuture<'a, Option<Exit>> {
        self.of(&which.uid).exit(which)
    }

    fn signal(&self, which: &Which, signal: i32) {
        self.of(&which.uid).signal(which, signal);
    }

    fn exec<'a>(
        &'a self,
        which: &'a Which,
        argv: Vec<String>,
        streams: Streams,
        limit: Option<Duration>,
    ) -> BoxFuture<'a, Result<Session, RunError>> {
        self.of(&which.uid).exec(which, argv, streams, limit)
    }

    fn attach<'a>(&'a self, which: &'a Which, wanted: (bool, bool)) -> BoxFuture<'a, Option<Attached>> {
        self.of(&which.uid).attach(which, wanted)
    }

    fn close_input(&self, which: &Which) {
        self.of(&which.uid).close_input(which);
    }

    fn log(&self, which: &Which) -> watch::Receiver<LogProgress> {
        self.of(&which.uid).log(which)
    }

    fn trouble(&self) -> BoxFuture<'_, Trouble> {
        self.shims.trouble()
    }

    fn found(&self) -> BoxFuture<'_, Vec<Found>> {
        async move {
            let (own, foreign) = tokio::join!(self.shims.found(), self.foreign.found());
            [own, foreign].concat()
        }
        .boxed()
    }

    fn found_late(&self) -> BoxFuture<'_, Vec<Found>> {
        self.foreign.found_late()
    }

    fn update_resources<'a>(
        &'a self,
        uid: &'a str,
        container: Option<&'a Which>,
        amounts: Amounts,
    ) -> BoxFuture<'a, Result<(), RunError>> {
        self.of(uid).update_resources(uid, container, amounts)
    }

    fn usage(&self) -> BoxFuture<'_, Vec<(Which, Timestamp, Usage)>> {
        async move {
            let (own, foreign) = tokio::join!(self.shims.usage(), self.foreign.usage());
            [own, foreign].concat()
        }
        .boxed()
    }

    fn memory_of_pods(&self, uids: Vec<String>) -> BoxFuture<'_, HashMap<String, Memory>> {
        async move {
            let (own, foreign) =
                tokio::join!(self.shims.memory_of_pods(uids.clone()), self.foreign.memory_of_pods(uids));
            own.into_iter().chain(foreign).collect::<HashMap<String, Memory>>()
        }
        .boxed()
    }

    fn lost(&self, uid: &str) -> Lost {
        self.of(uid).lost(uid)
    }

    /// Of a pod in the runtime of others it is known otherwise ([`Runtime::bound`]).
    fn can_stop_with_lease(&self) -> bool {
        self.shims.can_stop_with_lease()
    }

    fn bind(&self, uid: &str, epoch: Option<Epoch>) {
        self.of(uid).bind(uid, epoch);
    }

    fn bound(&self, uid: &str) -> Option<Option<Epoch>> {
        self.of(uid).bound(uid)
    }

    fn ended_with_lease(&self, uid: &str) -> bool {
        self.of(uid).ended_with_lease(uid)
    }

    fn sandboxes(&self) -> Vec<String> {
        [self.shims.sandboxes(), self.foreign.sandboxes()].concat()
    }

    fn end<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, ()> {
        async move {
            // Before the runtime of others has answered at all, what isn't here may be there: an end that is reported must be one.
            if self.foreign.has(uid) || !self.shims.has(uid) && self.foreign.may_have(uid) {
                self.foreign.end(uid).await;
            }
            // Also for a pod that was there: whether it is bound was noted here.
            self.shims.end(uid).await;
        }
        .boxed()
    }

    fn end_own<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, ()> {
        async move {
            // Its class may have had another handler when it began.
            if self.foreign.has(uid) {
                self.foreign.end(uid).await;
            }
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
