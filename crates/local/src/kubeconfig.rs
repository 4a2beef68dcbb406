//! The administrator's kubeconfig.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The text of a kubeconfig with the administrator's identity inline.
pub fn kubeconfig(name: &str, server: &str, authority: &str, admin: &pki::Identity) -> String {
    let authority = STANDARD.encode(authority);
    let certificate = STANDARD.encode(admin.certificate_pem());
    let key = STANDARD.encode(admin.key_pem().expose());
    format!(
        "apiVersion: v1
kind: Config
current-context: {name}
clusters:
- name: {name}
  cluster:
    server: {server}
    certificate-authority-data: {authority}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: kubernetes-admin
users:
- name: kubernetes-admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}
