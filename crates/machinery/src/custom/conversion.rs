//! How objects get from one version of a custom resource into another.

use serde::Deserialize;
use serde_json::Value;

/// `spec.conversion` of a definition.
#[derive(Debug, Clone, PartialEq)]
pub enum Conversion {
    /// The versions have the same form.
    None,
    /// A webhook converts: its `clientConfig`, and the versions of ConversionReview that it takes.
    Webhook {
        /// Where it is.
        client: Value,
        /// `conversionReviewVersions`.
        review_versions: Vec<String>,
    },
}

#[derive(Deserialize)]
pub(super) struct Given {
    strategy: String,
    webhook: Option<GivenWebhook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct GivenWebhook {
    client_config: Value,
    conversion_review_versions: Vec<String>,
}

impl Conversion {
    pub(super) fn read(given: Option<Given>) -> Self {
        match given {
            Some(Given { strategy, webhook: Some(webhook) }) if strategy == "Webhook" => {
                let GivenWebhook { client_config: client, conversion_review_versions: review_versions } =
                    webhook;
                Conversion::Webhook { client, review_versions }
            }
            _ => Conversion::None,
        }
    }
}
