//! A door for those who have no identity in the cluster yet: one path, behind which the program decides by what is said there
//! (a host that wants to join). All that it may cost is bounded here, before anything is believed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use machinery::Status;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::http::body::broken_off;
use crate::http::response::{error, json, too_many};
use crate::http::{Body, Connection};

/// How many may be at the door at a time, with those whose requests are still coming: their bytes are bounded by it, too.
const MOST: usize = 64;
/// How many of them may come from one address: a neighbour that sends all it can leaves room for the others.
const MOST_A_PEER: usize = 8;
/// How many places are for those alone of whose address nobody is there: some neighbours that send all they can leave room, too.
const FOR_OTHERS: usize = 16;
/// How many are answered at a time. Machines join one after another, and each is done in milliseconds.
const PLACES: usize = 2;
/// How long a request may take to come. It is sent in one piece.
const COMING: Duration = Duration::from_secs(3);
/// How long its answer may take: a commit of the store, and an election in between.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who answers behind the door.
pub trait Door: Send + Sync + 'static {
    /// Answers what somebody says whom nobody knows.
    fn answer(&self, request: Bytes) -> BoxFuture<'_, Result<Value, TurnedAway>>;
}

/// Somebody who isn't let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnedAway {
    /// The code of HTTP.
    pub code: u16,
    /// The reason in a word, as a `Status` has it.
    pub reason: &'static str,
    /// Why, and what to do.
    pub message: String,
}

/// The door where it is.
pub(crate) struct Opened {
    path: &'static str,
    largest: usize,
    crowd: Crowd,
    places: Semaphore,
    door: Arc<dyn Door>,
}

/// Who is at the door, by address: of IPv6 by the /64 that a link has, in which one machine may have any number. One that comes with
/// no connection is of no address.
#[derive(Debug, Default)]
struct Crowd(Mutex<HashMap<Option<IpAddr>, usize>>);

/// One of them, until this is dropped.
struct Guest<'a> {
    crowd: &'a Crowd,
    peer: Option<IpAddr>,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more comes, if there is room for it.
    fn enter(&self, peer: Option<IpAddr>) -> Option<Guest<'_>> {
        let peer = peer.map(counted);
        let mut peers = self.lock();
        let of_peer = peers.get(&peer).copied().unwrap_or_default();
        let most = if of_peer == 0 { MOST } else { MOST - FOR_OTHERS };
        if of_peer >= MOST_A_PEER || peers.values().sum::<usize>() >= most {
            return None;
        }
        peers.insert(peer, of_peer + 1);
        Some(Guest { crowd: self, peer })
    }
}

/// As what an address counts.
pub(super) fn counted(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(peer) => {
            let [a, b, c, d, ..] = peer.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        peer => peer,
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let mut peers = self.crowd.lock();
        match peers.get_mut(&self.peer) {
            Some(of_peer) if *of_peer > 1 => *of_peer -= 1,
            _ => {
                peers.remove(&self.peer);
            }
        }
    }
}

impl Opened {
    pub(crate) fn new(path: &'static str, largest: usize, door: Arc<dyn Door>) -> Self {
        Opened { path, largest, crowd: Crowd::default(), places: Semaphore::new(PLACES), door }
    }

    pub(crate) fn is_at(&self, path: &str) -> bool {
        self.path == path
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::POST {
            return error(&Status::method_not_allowed().about("", "", ""));
        }
        let peer = request.extensions().get::<Connection>().map(Connection::peer);
        let Some(_guest) = self.crowd.enter(peer) else {
            return error(&too_many("Too many want to come in here, please try again later"));
        };
        self.within(request).await.unwrap_or_else(|status| error(&status))
    }

    async fn within(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let body = timeout(COMING, Limited::new(request.into_body(), self.largest).collect()).await;
        let body = body.map_err(|_| {
            Status::new(408, "Timeout", "the request didn't come in time; send it in one piece")
        })?;
        let body = body.map_err(|why| match why.downcast_ref::<LengthLimitError>() {
            Some(_) => Status::too_large(format!("limit is {}", self.largest)),
            None => broken_off(why),
        })?;
        let late = |_| Status::unavailable("it took too long; try again when the cluster has a leader");
        let answer = timeout(PATIENCE, self.decided(body.to_bytes())).await.map_err(late)?;
        let answer =
            answer?.map_err(|TurnedAway { code, reason, message }| Status::new(code, reason, message))?;
        Ok(json(200, &answer))
    }

    /// What the door says, once there is a place: only now, so that one whose request comes slowly takes nobody's.
    async fn decided(&self, request: Bytes) -> Result<Result<Value, TurnedAway>, Status> {
        let place = self.places.acquire().await;
        let _place = place.map_err(|_| Status::unavailable("the server is closing"))?;
        Ok(self.door.answer(request).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_doesn_t_fill_the_door() {
        let crowd = Crowd::default();
        let address = |n: u8| Some(IpAddr::from([10, 0, 0, n]));
        let mut guests: Vec<_> = (0..MOST_A_PEER).map(|_| crowd.enter(address(1)).unwrap()).collect();
        assert!(crowd.enter(address(1)).is_none());
        let other = crowd.enter(address(2)).unwrap();
        drop(guests.pop());
        guests.push(crowd.enter(address(1)).unwrap());
        drop(other);
        for n in 2..=8 {
            guests.extend((0..MOST_A_PEER).map_while(|_| crowd.enter(address(n))));
        }
        assert!(guests.len() >= MOST - FOR_OTHERS && guests.len() < MOST, "{}", guests.len());
        for n in 9.. {
            let Some(other) = crowd.enter(address(n)) else { break };
            guests.push(other);
            assert!(crowd.enter(address(n)).is_none(), "those come one by one");
        }
        assert_eq!(guests.len(), MOST, "there was room for others");
        drop(guests);
        assert!(crowd.lock().is_empty(), "nothing is left of them");
    }

    #[test]
    fn one_link_of_ipv6_is_one_neighbour() {
        let crowd = Crowd::default();
        let address = |text: &str| Some(text.parse().unwrap());
        let _guests: Vec<_> =
            (0..MOST_A_PEER).map(|n| crowd.enter(address(&format!("2001:db8:1:2::{n}"))).unwrap()).collect();
        assert!(crowd.enter(address("2001:db8:1:2:ffff::1")).is_none());
        assert!(crowd.enter(address("2001:db8:1:3::1")).is_some());
        assert!(
            crowd.enter(address("::ffff:10.0.0.1")).is_some() && crowd.enter(address("10.0.0.2")).is_some()
        );
    }
}
