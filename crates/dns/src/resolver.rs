//! Answers to requests: what the records don't have is asked of others.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use ipnet::IpNet;

use crate::cache::Question;
use crate::message::{Reply, Request, Unread};
use crate::metrics::{Metrics, Way};
use crate::plan::{Plan, follow, led, plan};
use crate::records::Records;
use crate::upstream::Upstream;

/// What all servers of this host answer from.
#[derive(Debug)]
pub(crate) struct Resolver {
    records: RwLock<Records>,
    /// The search domains of this host.
    searches: RwLock<Arc<[Name]>>,
    /// Who may ask.
    callers: Vec<IpNet>,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
    turn: AtomicUsize,
}

/// What comes of a message.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing is said.
    Nothing,
    /// This is said.
    Answer(Vec<u8>),
    /// It takes others: [`Resolver::later`].
    Later(Box<Request>, Plan),
}

impl Resolver {
    pub fn new(
        records: Records,
        callers: Vec<IpNet>,
        upstream: Arc<Upstream>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (searches, turn) = (RwLock::new([].into()), AtomicUsize::new(0));
        Resolver { records: RwLock::new(records), searches, callers, upstream, metrics, turn }
    }

    pub fn records(&self) -> RwLockReadGuard<'_, Records> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn change_records(&self) -> RwLockWriteGuard<'_, Records> {
        self.records.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_searches(&self, searches: Vec<Name>) {
        *self.searches.write().unwrap_or_else(PoisonError::into_inner) = searches.into();
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// What comes of a message without waiting for anybody.
    pub fn at_once(&self, bytes: &[u8], from: IpAddr, way: Way) -> Outcome {
        let request = match Request::read(bytes) {
            Ok(request) => request,
            Err(Unread::Ignored) => return Outcome::Nothing,
            Err(Unread::Answer(answer)) => {
                self.metrics.answer(ResponseCode::FormErr);
                return Outcome::Answer(answer);
            }
        };
        self.metrics.question(way, request.kind());
        // An answer as long as the question helps nobody who asks in another's name.
        let is_stranger = !self.callers.iter().any(|network| network.contains(&from));
        let refusal = if is_stranger { Some(ResponseCode::Refused) } else { request.refusal() };
        if let Some(code) = refusal {
            return Outcome::Answer(self.written(&request, Reply::of(code), way));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let asked = (request.name(), request.kind());
        let plan = plan(&self.records(), &self.searches(), asked, from, turn);
        match plan {
            Plan::Answer(reply) => Outcome::Answer(self.written(&request, reply, way)),
            Plan::Walked(reply) => {
                self.metrics.shortcut();
                Outcome::Answer(self.written(&request, reply, way))
            }
            // Others are asked for those who want it alone; the rest ask servers, and this isn't one of that name.
            _ if !request.recursion_desired => {
                Outcome::Answer(self.written(&request, Reply::of(ResponseCode::Refused), way))
            }
            plan => Outcome::Later(Box::new(request), plan),
        }
    }

    /// What others say.
    pub async fn later(&self, request: &Request, plan: Plan, way: Way) -> Vec<u8> {
        let reply = self.resolved(request, request.name(), plan).await;
        self.metrics.kept(self.upstream.kept());
        self.written(request, reply, way)
    }

    /// That there is no time or room for a request.
    pub fn too_much(&self, request: &Request, way: Way) -> Vec<u8> {
        self.written(request, Reply::of(ResponseCode::ServFail), way)
    }

    async fn resolved(&self, request: &Request, name: &Name, plan: Plan) -> Reply {
        match plan {
            Plan::Answer(reply) | Plan::Walked(reply) => reply,
            Plan::Others => self.others(request, name).await,
            Plan::Alias(mut aliases, target) => {
                let mut reply = self.others(request, &target).await;
                aliases.append(&mut reply.answers);
                Reply { answers: aliases, ..reply }
            }
            Plan::Path(path, otherwise) => self.walk(request, path, otherwise).await,
        }
    }

    async fn walk(&self, request: &Request, path: Vec<Name>, otherwise: Reply) -> Reply {
        for candidate in path {
            // What is the cluster's is asked of nobody else, whatever the search domains are.
            let turn = self.turn.load(Ordering::Relaxed);
            let plan = follow(&self.records(), &candidate, request.kind(), turn);
            let reply = match plan {
                Plan::Alias(..) => Box::pin(self.resolved(request, &candidate, plan)).await,
                Plan::Answer(reply) => reply,
                _ => self.others(request, &candidate).await,
            };
            match reply.code {
                ResponseCode::NoError => {
                    self.metrics.shortcut();
                    return led(request.name(), &candidate, reply);
                }
                ResponseCode::NXDomain => {}
                // The caller walks on by itself, and hears from the name itself how it stands.
                _ => return otherwise,
            }
        }
        otherwise
    }

    async fn others(&self, request: &Request, name: &Name) -> Reply {
        let question = Question {
            name: name.clone(),
            kind: request.kind(),
            dnssec_ok: request.edns.is_some_and(|caller| caller.dnssec_ok),
            checking_disabled: request.checking_disabled,
        };
        self.upstream.answer(question).await
    }

    fn written(&self, request: &Request, reply: Reply, way: Way) -> Vec<u8> {
        self.metrics.answer(reply.code);
        let longest = match way {
            Way::Udp => request.datagram(),
            Way::Tcp => crate::message::LARGEST,
        };
        request.answer(reply, longest)
    }

    fn searches(&self) -> Arc<[Name]> {
        self.searches.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
