//! How a command beside a container ended, as reported to its caller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Value, json};

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With this exit code.
    Exited(i32),
    /// Not at all: it could not be done.
    Failed(String),
}

impl Outcome {
    /// What such a `Status` says.
    pub(crate) fn of_status(text: &[u8]) -> Self {
        let Ok(status) = serde_json::from_slice::<Status>(text) else {
            return Outcome::Failed("the container's runtime doesn't say how it ended".into());
        };
        if status.status.as_deref() == Some("Success") {
            return Outcome::Exited(0);
        }
        let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
        let mut codes = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
        let code = codes.find_map(|cause| cause.message.as_deref()?.parse().ok());
        match code.filter(|_| status.reason.as_deref() == Some("NonZeroExitCode")) {
            Some(code) => Outcome::Exited(code),
            None => Outcome::Failed(status.message.unwrap_or_default()),
        }
    }

    /// The `Status` that goes over the error channel.
    pub(crate) fn status(&self) -> Value {
        match self {
            Outcome::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Outcome::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Outcome::Failed(why) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {why}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": why}]},
                "code": 500,
            }),
        }
    }
}
