//! `TokenReview`: the question whose a token is, as others ask it here and as it is asked of somebody else.

use std::collections::BTreeMap;

use machinery::{Object, Status};
use serde_json::{Value, json};

use super::{Authenticated, ISSUER};
use crate::{AUTHENTICATED, UserInfo};

/// What the names begin with of those who are a part of the cluster, or its administrators.
const OWN: &str = "system:";
/// The most that somebody else may say of a user, in bytes of JSON.
const LARGEST: usize = 64 << 10;

/// The token that a `TokenReview` asks about, and the audiences that it is shown to; none for the API itself.
///
/// # Errors
/// 400 if it names no token.
pub fn asked_token(review: &Object) -> Result<(String, Vec<String>), Status> {
    let spec = review.0.get("spec").unwrap_or(&Value::Null);
    match spec["token"].as_str().unwrap_or_default() {
        "" => Err(Status::bad_request("token is required for TokenReview in authentication")),
        token => Ok((token.to_owned(), texts(&spec["audiences"]))),
    }
}

/// A `TokenReview` with its answer: whose the token is, or that it is nobody's.
pub fn reviewed(mut review: Object, found: Option<Authenticated>) -> Object {
    let status = match found {
        Some(found) => json!({
            "authenticated": true,
            "user": found.who.authenticated().user_info(),
            "audiences": found.audiences,
        }),
        None => json!({"user": {}, "error": "invalid bearer token"}),
    };
    review.0.insert("status".into(), status);
    review
}

/// The `TokenReview` that asks somebody else about a token, which is shown to `audiences` (the API itself, if there is none).
pub fn outside_question(token: &str, audiences: &[String]) -> Value {
    json!({
        "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
        "spec": {"token": token, "audiences": shown_to(audiences)},
    })
}

/// Whose the token of such a question is, by the answer: nobody's, if it doesn't say that it knows the user, or the token isn't for
/// whom it is shown to. One that names no audiences is taken for the API's, as upstream does.
///
/// Nobody outside makes a part of the cluster or an administrator: an answer with a user or a group of `system:` is nobody's.
pub fn outside_answer(answer: &Value, audiences: &[String]) -> Option<Authenticated> {
    let status = &answer["status"];
    if status["authenticated"] != true || status["user"].to_string().len() > LARGEST {
        return None;
    }
    let listed = match texts(&status["audiences"]) {
        none if none.is_empty() => vec![ISSUER.to_owned()],
        listed => listed,
    };
    let meant: Vec<String> =
        shown_to(audiences).into_iter().filter(|audience| listed.contains(audience)).collect();
    let user = status["user"]["username"].as_str().unwrap_or_default();
    let groups = texts(&status["user"]["groups"]);
    let is_ours = |name: &str| name.starts_with(OWN) && name != AUTHENTICATED;
    if meant.is_empty() || user.is_empty() || is_ours(user) || groups.iter().any(|group| is_ours(group)) {
        return None;
    }
    let told = status["user"]["extra"].as_object().into_iter().flatten();
    let extra: BTreeMap<String, Vec<String>> =
        told.map(|(key, values)| (key.clone(), texts(values))).collect();
    let uid = status["user"]["uid"].as_str().unwrap_or_default().to_owned();
    Some(Authenticated { who: UserInfo { uid, extra, ..UserInfo::new(user, groups) }, audiences: meant })
}

fn shown_to(audiences: &[String]) -> Vec<String> {
    if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences.to_vec() }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_somebody_else_names_is_no_part_of_the_cluster_and_is_meant_for_it() {
        let vault = ["vault".to_owned()];
        let user = |name: &str, groups: Value| json!({"username": name, "uid": "7", "groups": groups, "extra": {"a": ["b"]}});
        let answer = |user: Value, audiences: Value| json!({"status": {"authenticated": true, "user": user, "audiences": audiences}});
        let jane = || user("jane", json!(["devs", AUTHENTICATED]));
        let found = outside_answer(&answer(jane(), Value::Null), &[]).unwrap();
        assert_eq!((found.who.user.as_str(), found.who.uid.as_str()), ("jane", "7"));
        assert_eq!((found.who.groups.len(), &found.who.extra["a"]), (2, &vec!["b".to_owned()]));
        assert_eq!(found.audiences, [ISSUER]);
        assert!(outside_answer(&answer(jane(), json!([ISSUER, "vault"])), &[]).is_some());
        assert_eq!(outside_answer(&answer(jane(), json!(["vault"])), &vault).unwrap().audiences, vault);
        for (wrong, audiences) in [
            (answer(jane(), json!(["vault"])), &[][..]),
            (answer(jane(), Value::Null), &vault[..]),
            (answer(user("", json!([])), Value::Null), &[][..]),
            (answer(user("system:node:n1", json!([])), Value::Null), &[][..]),
            (answer(user("jane", json!(["system:masters"])), Value::Null), &[][..]),
            (answer(user("jane", json!(["x".repeat(LARGEST)])), Value::Null), &[][..]),
            (json!({"status": {"authenticated": false, "user": jane()}}), &[][..]),
            (json!({"status": {"user": jane()}}), &[][..]),
            (json!([]), &[][..]),
        ] {
            assert_eq!(outside_answer(&wrong, audiences), None, "{wrong}");
        }
        assert_eq!(outside_question("t", &[])["spec"], json!({"token": "t", "audiences": [ISSUER]}));
    }
}
