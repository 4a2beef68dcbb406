//! `/holdfast/backup`: the whole store at one revision as a file. Only for administrators: every Secret is in it.

use std::convert::Infallible;

use access::{MASTERS, UserInfo};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use machinery::Status;
use store::{BackupFile, Store};

use crate::http::Body;

/// Answers with a file that [`store::Backup`] reads, made as fast as the client takes it.
pub(crate) async fn backup(who: &UserInfo, store: &dyn Store) -> Result<Response<Body>, Status> {
    if !who.is_in(MASTERS) {
        let why = format!("forbidden: User {:?} cannot get path \"/holdfast/backup\"", who.user);
        return Err(Status::new(403, "Forbidden", why));
    }
    let state = store.read().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let pieces = BackupFile::new(state).map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let body = StreamBody::new(futures::stream::iter(pieces));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}
