//! What servers of aggregated APIs need to know whom to believe: a ConfigMap in `kube-system`, which the role
//! `extension-apiserver-authentication-reader` lets them read.

use serde_json::{Value, json};

use super::{FRONT_PROXY, FrontProxy};

/// The ConfigMap `extension-apiserver-authentication`.
pub(crate) fn config_map(front_proxy: &FrontProxy) -> Value {
    let authority = front_proxy.trust.pem();
    let list = |name: &str| json!([name]).to_string();
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": authority,
            "requestheader-client-ca-file": authority,
            // One authority signs both: so nobody is believed but who has this name.
            "requestheader-allowed-names": list(FRONT_PROXY),
            "requestheader-username-headers": list("X-Remote-User"),
            "requestheader-uid-headers": list("X-Remote-Uid"),
            "requestheader-group-headers": list("X-Remote-Group"),
            "requestheader-extra-headers-prefix": list("X-Remote-Extra-"),
        },
    })
}
