//! `/healthz`, `/livez`, `/readyz`: whether this process lives, and whether it can serve.

use http::Response;
use store::Store;

use crate::http::Body;
use crate::http::query::Query;
use crate::http::response::{no_such_path, text};

/// Answers a health endpoint, or one check of it, under upstream's names. Being ready needs a leader of the store,
/// and a server that isn't about to end.
pub(crate) fn health(
    endpoint: &str,
    check: &str,
    query: &Query,
    store: &dyn Store,
    closing: bool,
) -> Response<Body> {
    let led = store.leadership().borrow().leader.is_some();
    let mut checks = vec![("ping", true, ""), ("log", true, "")];
    if endpoint != "livez" {
        checks.push(("etcd", led, "the store has no leader"));
        checks.push(("informer-sync", true, ""));
    }
    if endpoint == "readyz" {
        checks.push(("shutdown", !closing, "process is shutting down"));
    }
    if !check.is_empty() {
        return match checks.iter().find(|(name, ..)| *name == check) {
            Some((_, true, _)) => text(200, "ok"),
            Some((_, false, why)) => text(500, format!("internal server error: {why}\n")),
            None => no_such_path(),
        };
    }
    let mut excluded: Vec<&str> = query.all("exclude").collect();
    let (mut report, mut healthy) = (String::new(), true);
    for (name, ok, why) in checks {
        let before = excluded.len();
        excluded.retain(|excluded| *excluded != name);
        if excluded.len() < before {
            report += &format!("[+]{name} excluded: ok\n");
        } else if ok {
            report += &format!("[+]{name} ok\n");
        } else {
            healthy = false;
            report += &format!("[-]{name} failed: {why}\n");
        }
    }
    if !excluded.is_empty() {
        report += &format!("warn: some health checks cannot be excluded: no matches for {excluded:?}\n");
    }
    if healthy && !query.flag("verbose") {
        return text(200, "ok");
    }
    let verdict = if healthy { "passed" } else { "failed" };
    text(if healthy { 200 } else { 500 }, format!("{report}{endpoint} check {verdict}\n"))
}
