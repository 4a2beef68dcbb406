//! `/holdfast/status`: how the hosts are. What there is to tell the program knows; what the question may cost is bounded here.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Response;
use machinery::Status;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::http::Body;
use crate::http::response::json;

/// How many answers about all hosts are made at a time: each asks every host.
const PLACES: usize = 2;
/// How long one may take, the wait for its place included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who knows how the hosts are.
pub trait Overview: Send + Sync + 'static {
    /// How this host is.
    fn host(&self) -> BoxFuture<'_, Value>;

    /// How all hosts are, by what they say when they are asked now.
    fn cluster(&self) -> BoxFuture<'_, Value>;
}

/// Of which hosts it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Host,
    Cluster,
}

/// The overview, and who is looking.
pub(crate) struct Shown {
    overview: Arc<dyn Overview>,
    places: Semaphore,
}

impl Shown {
    pub(crate) fn new(overview: Arc<dyn Overview>) -> Self {
        Shown { overview, places: Semaphore::new(PLACES) }
    }

    pub(crate) async fn answer(&self, whose: Whose) -> Result<Response<Body>, Status> {
        let answer = timeout(PATIENCE, async {
            let _place = match whose {
                // Asks nobody, and those who look at all hosts wait for it.
                Whose::Host => return Ok(self.overview.host().await),
                Whose::Cluster => self.places.acquire().await,
            }
            .map_err(|_| Status::unavailable("the server is closing"))?;
            Ok(self.overview.cluster().await)
        });
        let late = || Err(Status::unavailable("the hosts took too long to tell how they are; try again"));
        Ok(json(200, &answer.await.unwrap_or_else(|_| late())?))
    }
}
