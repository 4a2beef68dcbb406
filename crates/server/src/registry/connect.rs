//! Streams into pods and proxies: nothing is written, but those outside may have a say.

use access::UserInfo;
use machinery::{Object, Status};
use objects::Named;
use serde_json::Value;

use super::{Freshness, Registry};
use crate::admission::{AdmissionRequest, Operation};

impl Registry {
    /// Asks policies and webhooks about a stream or a proxy with these options, such as `PodExecOptions`; the answer is
    /// the options as they made them.
    pub(crate) async fn connect(
        &self,
        who: &UserInfo,
        named: Named<'_>,
        subresource: &str,
        options: Object,
    ) -> Result<Object, Status> {
        let state = self.state(Freshness::Any).await?;
        let operation = Operation::Connect;
        let request = AdmissionRequest {
            who,
            named,
            subresource,
            operation,
            dry_run: false,
            options: Value::Null,
            state: &state,
            edge: &*self.edge,
        };
        self.admission.connect(&request, options).await.map_err(|refused| refused.status)
    }
}
