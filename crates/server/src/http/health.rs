//! `/healthz`, `/livez`, `/readyz`: whether this process lives, and whether it can serve.

use http::Response;
use store::Store;

use super::Body;
use super::query::Query;
use super::response::{no_such_path, text};

/// Answers a health endpoint, or one check of it. Being ready needs a leader of the store.
pub(crate) fn health(endpoint: &str, check: &str, query: &Query, store: &dyn Store) -> Response<Body> {
    let led = store.leadership().borrow().leader.is_some();
    let mut checks = vec![("ping", true)];
    if endpoint != "livez" {
        checks.push(("store", led));
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    checks.retain(|(name, _)| !excluded.contains(name));
    if !check.is_empty() {
        return match checks.iter().find(|(name, _)| *name == check) {
            Some((_, true)) => text(200, "ok"),
            Some((name, false)) => text(500, format!("internal server error: {name} failed\n")),
            None => no_such_path(),
        };
    }
    let healthy = checks.iter().all(|(_, ok)| *ok);
    if healthy && !query.flag("verbose") {
        return text(200, "ok");
    }
    let mut report = String::new();
    for (name, ok) in checks {
        report += &if ok {
            format!("[+]{name} ok\n")
        } else {
            format!("[-]{name} failed: the store has no leader\n")
        };
    }
    let verdict = if healthy { "passed" } else { "failed" };
    text(if healthy { 200 } else { 500 }, format!("{report}{endpoint} check {verdict}\n"))
}
