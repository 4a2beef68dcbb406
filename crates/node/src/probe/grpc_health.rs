//! A probe by gRPC, as the kubelet makes it (KEP-2727, `pkg/probe/grpc`): the health checking protocol, without TLS, at the pod's
//! own address.

use std::net::IpAddr;
use std::time::Duration;

use grpc::{Broken, Code, Connection, Origin, Status};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, header};
use k8s_openapi::api::core::v1::GRPCAction;
use tokio::net::TcpStream;

/// An answer is a number.
const LONGEST_ANSWER: usize = 4096;

/// grpc.health.v1.HealthCheckRequest.
#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// grpc.health.v1.HealthCheckResponse.
#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(enumeration = "Health", tag = "1")]
    status: i32,
}

/// How a service is, by the protocol's own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Health {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Asks a pod's server how it is, within `limit`. An error says what is wrong.
pub(super) async fn check(action: &GRPCAction, address: IpAddr, limit: Duration) -> Result<(), String> {
    let service = action.service.clone().unwrap_or_default();
    let port = u16::try_from(action.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!("invalid port number: {}", action.port))?;
    let within = format!("{}s", limit.as_secs_f32());
    let mut connected = false;
    let asked = async {
        let unreachable =
            |error| format!("error: failed to connect service {service:?} within {within}: {error}");
        let stream = TcpStream::connect((address, port)).await.map_err(unreachable)?;
        connected = true;
        ask(stream, Question { service: service.clone() }, address, port).await
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(answered) => answered,
        Err(_) if connected => Err(format!("timeout: health rpc did not complete within {within}")),
        Err(_) => Err(format!("timeout: failed to connect service {service:?} within {within}")),
    }
}

async fn ask(stream: TcpStream, question: Question, address: IpAddr, port: u16) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| format!("error: health rpc probe failed: {why}");
    let authority: Authority =
        std::net::SocketAddr::new(address, port).to_string().parse().map_err(|why| failed(&why))?;
    let headers = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static("kube-probe/1.36"))]);
    let origin = Origin { scheme: Scheme::HTTP, authority, headers };
    let opened = Connection::open(stream, origin, None, LONGEST_ANSWER).await;
    let (connection, driver) = opened.map_err(|why| failed(&why))?;
    let mut answer = std::pin::pin!(connection.unary::<Answer>("/grpc.health.v1.Health/Check", &question));
    let answer = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // The connection may end in the same moment as the answer arrives: then the answer counts.
        _ = driver => answer.await,
    };
    match answer {
        Ok(Answer { status }) => match Health::try_from(status) {
            Ok(Health::Serving) => Ok(()),
            Ok(other) => Err(format!("service unhealthy (responded with {:?})", name(other))),
            Err(_) => Err(format!("service unhealthy (responded with \"{status}\")")),
        },
        Err(Broken::Refused(Status { code: Code::Unimplemented, message })) => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Err(broken) => Err(failed(&broken)),
    }
}

fn name(status: Health) -> &'static str {
    match status {
        Health::Unknown => "UNKNOWN",
        Health::Serving => "SERVING",
        Health::NotServing => "NOT_SERVING",
        Health::ServiceUnknown => "SERVICE_UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    use grpc::{Frames, Messages};
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one call so; its port, and which service was asked for.
    async fn serve(outcome: Result<i32, Status>) -> (GRPCAction, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (tell, mut asked) = tokio::sync::mpsc::unbounded_channel();
            let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                let (outcome, tell) = (outcome.clone(), tell.clone());
                async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(request.headers()[header::USER_AGENT], "kube-probe/1.36");
                    let mut question = Messages::question(request.into_body(), 1000);
                    tell.send(question.next::<Question>().await.unwrap().unwrap().service).unwrap();
                    let trailers = Frame::trailers(Status::trailers(outcome.clone().map(drop)));
                    let data = outcome.ok().map(|status| Frame::data(Frames::encode(&Answer { status })));
                    let frames = data.into_iter().chain([trailers]).map(Ok::<_, Infallible>);
                    let body = StreamBody::new(futures::stream::iter(frames));
                    Ok::<_, Infallible>(http::Response::new(body))
                }
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            let _ = serving.await;
            asked.recv().await.unwrap_or_default()
        });
        (GRPCAction { port: port.into(), service: Some("db".into()) }, served)
    }

    async fn found(outcome: Result<i32, Status>) -> Result<(), String> {
        let (action, served) = serve(outcome).await;
        let found = check(&action, Ipv4Addr::LOCALHOST.into(), Duration::from_secs(20)).await;
        assert_eq!(served.await.unwrap(), "db");
        found
    }

    #[tokio::test]
    async fn a_service_is_healthy_if_it_says_that_it_serves() {
        assert_eq!(found(Ok(1)).await, Ok(()));
        let unhealthy = "service unhealthy (responded with \"NOT_SERVING\")";
        assert_eq!(found(Ok(2)).await, Err(unhealthy.into()));
        assert_eq!(found(Ok(9)).await, Err("service unhealthy (responded with \"9\")".into()));
        let unknown = found(Err(Status::new(Code::NotFound, "unknown service"))).await.unwrap_err();
        assert_eq!(unknown, "error: health rpc probe failed: unknown service (NotFound)");
        let other = found(Err(Status::new(Code::Unimplemented, "unknown method"))).await.unwrap_err();
        assert!(
            other.starts_with("error: this server does not implement the grpc health protocol"),
            "{other}"
        );
    }

    #[tokio::test]
    async fn what_is_no_grpc_fails_and_never_hangs() {
        // Closed; silent; another protocol.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let action = |port: u16| GRPCAction { port: port.into(), service: None };
        let port = listener.local_addr().unwrap().port();
        let limit = Duration::from_secs(1);
        let silent = check(&action(port), Ipv4Addr::LOCALHOST.into(), limit).await.unwrap_err();
        assert_eq!(silent, "timeout: health rpc did not complete within 1s");
        let speaking = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
            }
        });
        let limit = Duration::from_secs(20);
        let other = check(&action(port), Ipv4Addr::LOCALHOST.into(), limit).await.unwrap_err();
        assert!(other.starts_with("error: health rpc probe failed: "), "{other}");
        speaking.abort();
        let _ = speaking.await;
        let closed = check(&action(port), Ipv4Addr::LOCALHOST.into(), limit).await.unwrap_err();
        assert!(closed.starts_with("error: failed to connect service \"\" within 20s: "), "{closed}");
        assert!(check(&action(0), Ipv4Addr::LOCALHOST.into(), limit).await.is_err());
    }
}
