//! How the hosts are: who may ask, and about whom.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use server::{Overview, UserInfo};

use crate::house::{House, admin, node};

struct Hosts;

impl Overview for Hosts {
    fn host(&self) -> BoxFuture<'_, Value> {
        Box::pin(std::future::ready(json!({"name": "n1"})))
    }

    fn cluster(&self) -> BoxFuture<'_, Value> {
        Box::pin(std::future::ready(json!({"hosts": ["n1", "n2"]})))
    }
}

#[tokio::test]
async fn administrators_see_all_hosts_and_a_host_asks_another_about_itself_alone() {
    const ALL: &str = "/holdfast/status";
    const OWN: &str = "/holdfast/status/host";
    let house = House::new().await;
    assert_eq!(house.ask_as(admin(), "GET", ALL, None).await.0, 404, "nothing is shown yet");
    house.server.show(Arc::new(Hosts));
    let jane = || UserInfo::new("jane", ["people"]);
    for (who, path, expected) in [
        (admin(), ALL, Some(json!({"hosts": ["n1", "n2"]}))),
        (admin(), OWN, Some(json!({"name": "n1"}))),
        (node("n2"), OWN, Some(json!({"name": "n1"}))),
        (node("n2"), ALL, None),
        (node("n2"), "/holdfast/backup", None),
        (jane(), ALL, None),
        (jane(), OWN, None),
    ] {
        let name = who.user.clone();
        let (code, answer) = house.ask_as(who, "GET", path, None).await;
        match expected {
            Some(expected) => assert_eq!((code, answer), (200, expected), "{name} {path}"),
            None => assert_eq!(code, 403, "{name} {path}: {answer}"),
        }
    }
    assert_eq!(house.ask_as(admin(), "POST", ALL, Some(json!({}))).await.0, 405);
}
