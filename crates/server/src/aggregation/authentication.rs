//! What servers of aggregated APIs need so that they know which clients to believe: a ConfigMap in `kube-system`, which the role
//! `extension-apiserver-authentication-reader` lets them read.

use serde_json::{Value, json};

use super::{FRONT_PROXY, FrontProxy};

/// The ConfigMap `extension-apiserver-authentication`.
pub(super) fn config_map(front_proxy: &FrontProxy) -> Value {
    let list = |name: &str| json!([name]).to_string();
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": front_proxy.clients.pem(),
            "requestheader-client-ca-file": front_proxy.trust.pem(),
            // The authority signs hosts also: so only a certificate with this name is believed.
            "requestheader-allowed-names": list(FRONT_PROXY),
            "requestheader-username-headers": list("X-Remote-User"),
            "requestheader-uid-headers": list("X-Remote-Uid"),
            "requestheader-group-headers": list("X-Remote-Group"),
            "requestheader-extra-headers-prefix": list("X-Remote-Extra-"),
        },
    })
}
