//! A door for those who have no identity in the cluster yet: one path, behind which the program decides by what is said there
//! (a host that wants to join). All that it may cost is bounded here, before anything is believed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use machinery::Status;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::http::Body;
use crate::http::body::broken_off;
use crate::http::response::{error, json};

/// How many are answered at a time. Machines join one after another, and each is done in milliseconds.
const PLACES: usize = 2;
/// How long one may take from its first byte to its answer: a commit of the store, and an election in between.
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
    places: Semaphore,
    door: Arc<dyn Door>,
}

impl Opened {
    pub(crate) fn new(path: &'static str, largest: usize, door: Arc<dyn Door>) -> Self {
        Opened { path, largest, places: Semaphore::new(PLACES), door }
    }

    pub(crate) fn is_at(&self, path: &str) -> bool {
        self.path == path
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::POST {
            return error(&Status::method_not_allowed().about("", "", ""));
        }
        let answer = timeout(PATIENCE, self.within(request)).await;
        let late = || Err(Status::unavailable("it took too long; try again when the cluster has a leader"));
        answer.unwrap_or_else(|_| late()).unwrap_or_else(|status| error(&status))
    }

    async fn within(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let body = Limited::new(request.into_body(), self.largest).collect().await;
        let body = body.map_err(|why| match why.downcast_ref::<LengthLimitError>() {
            Some(_) => Status::too_large(format!("limit is {}", self.largest)),
            None => broken_off(why),
        })?;
        // Only now: one whose request comes slowly takes nobody's place.
        let place = self.places.acquire().await;
        let _place = place.map_err(|_| Status::unavailable("the server is closing"))?;
        let answer = self.door.answer(body.to_bytes()).await;
        let answer =
            answer.map_err(|TurnedAway { code, reason, message }| Status::new(code, reason, message))?;
        Ok(json(200, &answer))
    }
}
