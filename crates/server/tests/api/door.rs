//! The door for those whom nobody knows yet.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::future::{BoxFuture, pending};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use server::{Door, TurnedAway};

use crate::house::House;

/// Lets in who says the word.
struct Word;

impl Door for Word {
    fn answer(&self, request: Bytes) -> BoxFuture<'_, Result<Value, TurnedAway>> {
        let outcome = match &request[..] {
            b"please" => Ok(json!({"let": "in"})),
            _ => Err(TurnedAway { code: 403, reason: "Forbidden", message: "say please".into() }),
        };
        Box::pin(std::future::ready(outcome))
    }
}

async fn ask(house: &House, method: &str, path: &str, body: &str) -> (u16, Value) {
    let body = Full::new(Bytes::from(body.to_owned())).map_err(|never| match never {}).boxed_unsync();
    let request = Request::builder().method(method).uri(path).body(body).unwrap();
    let response = house.server.handle(request, None).await;
    let code = response.status().as_u16();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&text).unwrap_or_default())
}

#[tokio::test]
async fn strangers_are_heard_at_the_door_alone_and_within_bounds() {
    const PATH: &str = "/holdfast/join";
    let house = House::new().await;
    let (code, _) = ask(&house, "POST", PATH, "please").await;
    assert_eq!(code, 401, "there is no door yet");
    house.server.open_door(PATH, 100, Arc::new(Word));
    assert_eq!(ask(&house, "POST", PATH, "please").await, (200, json!({"let": "in"})));
    let (code, status) = ask(&house, "POST", PATH, "now").await;
    assert_eq!((code, &status["message"]), (403, &json!("say please")));
    let (code, status) = ask(&house, "POST", PATH, &"x".repeat(101)).await;
    assert_eq!((code, &status["kind"]), (413, &json!("Status")));
    assert_eq!(ask(&house, "GET", PATH, "").await.0, 405);
    assert_eq!(ask(&house, "POST", "/holdfast/joins", "please").await.0, 401);
}

/// Decides about nobody.
struct Closed;

impl Door for Closed {
    fn answer(&self, _: Bytes) -> BoxFuture<'_, Result<Value, TurnedAway>> {
        Box::pin(pending())
    }
}

#[tokio::test]
async fn who_waits_at_the_door_takes_no_more_room_than_there_is_for_one_address() {
    let house = House::new().await;
    house.server.open_door("/holdfast/join", 100, Arc::new(Closed));
    let ask = || Box::pin(ask(&house, "POST", "/holdfast/join", "please"));
    let mut waiting = Vec::new();
    let refused = loop {
        let mut one = ask();
        match futures::poll!(&mut one) {
            Poll::Pending => waiting.push(one),
            Poll::Ready((code, status)) => break (code, status["details"]["retryAfterSeconds"].clone()),
        }
        assert!(waiting.len() < 100, "there is no end");
    };
    assert_eq!((refused, waiting.len()), ((429, json!(1)), 8));
    waiting.pop();
    assert!(futures::poll!(ask()).is_pending(), "its place is free again");
}
