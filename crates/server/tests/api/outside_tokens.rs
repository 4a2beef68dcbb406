//! Tokens that the cluster didn't make: who is asked, how often, and what they may say.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Request;
use serde_json::{Value, json};
use server::TokenReviewer;

use crate::house::{House, body_of};

const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Knows the tokens of jane's and of one who says that he administers, and fails at what begins with `fail`.
#[derive(Default)]
struct Reviewer(Mutex<Vec<String>>);

impl TokenReviewer for Reviewer {
    fn review<'a>(&'a self, question: &'a Value) -> BoxFuture<'a, Result<Value, String>> {
        let token = question["spec"]["token"].as_str().unwrap();
        self.0.lock().unwrap().push(token.to_owned());
        let answer = match token {
            "janes" => {
                Ok(json!({"status": {"authenticated": true, "user": {"username": "jane", "groups": ["devs"]},
                "audiences": question["spec"]["audiences"]}}))
            }
            "masters" => Ok(
                json!({"status": {"authenticated": true, "user": {"username": "eve", "groups": ["system:masters"]}}}),
            ),
            token if token.starts_with("fail") => Err("it is away".to_owned()),
            _ => Ok(json!({"status": {"authenticated": false}})),
        };
        Box::pin(async move { answer })
    }
}

async fn house(kept_for: Duration) -> (House, Arc<Reviewer>) {
    let (house, reviewer) = (House::new().await, Arc::new(Reviewer::default()));
    house.server.review_tokens_by(reviewer.clone(), kept_for);
    (house, reviewer)
}

/// The code of the answer to who shows a token, at a path that all may ask whom somebody knows.
async fn shows(house: &House, token: &str) -> u16 {
    let question = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let request = Request::post(SELF)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    house.server.handle(request.body(body_of(question.to_string())).unwrap(), None).await.status().as_u16()
}

#[tokio::test]
async fn somebody_outside_says_whose_a_token_is_and_is_asked_once_in_a_while() {
    let (house, reviewer) = house(Duration::from_secs(3600)).await;
    for (token, code) in [("janes", 201), ("unknown", 401), ("masters", 401), ("fail", 401)] {
        for _ in 0..2 {
            assert_eq!(shows(&house, token).await, code, "{token}");
        }
    }
    let asked = std::mem::take(&mut *reviewer.0.lock().unwrap());
    assert_eq!(asked, ["janes", "unknown", "masters", "fail", "fail"], "no answer is no answer to keep");

    let review = async |token: &str, audiences: Value| {
        let review = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
            "spec": {"token": token, "audiences": audiences}});
        house.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", Some(review)).await.1["status"]
            .clone()
    };
    let status = review("janes", json!(["vault"])).await;
    assert_eq!((&status["user"]["username"], &status["audiences"]), (&json!("jane"), &json!(["vault"])));
    assert_eq!(review("unknown", Value::Null).await["error"], "invalid bearer token");
}

#[tokio::test]
async fn what_the_cluster_made_is_shown_to_nobody_outside() {
    let (house, reviewer) = house(Duration::ZERO).await;
    let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "spec": {"audiences": ["vault"]}});
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let (code, answer) = house.ask("POST", path, Some(request)).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(
        shows(&house, answer["status"]["token"].as_str().unwrap()).await,
        401,
        "it is for another audience"
    );
    assert!(reviewer.0.lock().unwrap().is_empty());
    for _ in 0..2 {
        assert_eq!(shows(&house, "janes").await, 201);
    }
    assert_eq!(reviewer.0.lock().unwrap().len(), 2, "nothing is kept");
}
