//! A gRPC server at a unix socket, for tests: the path and the question of each call go to one function, and its answer back.

use std::convert::Infallible;
use std::path::Path;

use bytes::Bytes;
use grpc::Status;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// What a server says to one call: an encoded message, or why there is none.
pub type Answer = Result<Vec<u8>, Status>;

/// Serves until the task is aborted; then the socket is there and nobody listens.
pub fn serve<F, A>(socket: &Path, answer: F) -> JoinHandle<()>
where
    F: Fn(String, Bytes) -> A + Clone + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let question = request.into_body().collect().await.unwrap().to_bytes();
                    // A flag and the length stand before the message.
                    let answer = answer(path, question.slice(5..)).await;
                    let trailers = Frame::trailers(Status::trailers(answer.clone().map(drop)));
                    let data = answer.ok().map(|message| Frame::data(framed(&message)));
                    let frames = data.into_iter().chain([trailers]).map(Ok::<_, Infallible>);
                    Ok::<_, Infallible>(http::Response::new(StreamBody::new(futures::stream::iter(frames))))
                }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    })
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat().into()
}
