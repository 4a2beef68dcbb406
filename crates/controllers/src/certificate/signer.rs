//! What each signer of `kubernetes.io` signs (`pkg/apis/certificates/helpers.go` and `pkg/controller/certificates/signer`).

use pki::{CertificateRequest, Usage};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const NODE_SERVER: &str = "kubernetes.io/kubelet-serving";

/// Whether a signer is one of those in here.
pub(super) fn is_ours(signer: &str) -> bool {
    [CLIENT, NODE_CLIENT, NODE_SERVER].contains(&signer)
}

/// What the certificate may be used for.
///
/// # Errors
/// Which rule of the signer a request breaks.
pub(super) fn granted(
    signer: &str,
    asked: &CertificateRequest,
    usages: &[String],
) -> Result<Vec<Usage>, String> {
    match signer {
        CLIENT => {
            of_client(usages)?;
            if asked.common_name.is_empty() {
                return Err("subject has no common name".to_owned());
            }
            if asked.organizations.iter().any(|group| group == "system:masters") {
                return Err(format!("use of {CLIENT} signer with system:masters group is not allowed"));
            }
            // The API wouldn't believe it.
            let groups = asked.organizations.iter().map(String::as_str);
            if let Some(name) = pki::reserved_name(&asked.common_name, groups) {
                return Err(format!("subject has a name of the cluster's own parts: {name}"));
            }
        }
        NODE_CLIENT => {
            of_node(asked)?;
            none(&asked.names, "DNS subjectAltNames are not allowed")?;
            none(&asked.emails, "Email subjectAltNames are not allowed")?;
            none(&asked.addresses, "IP subjectAltNames are not allowed")?;
            none(&asked.uris, "URI subjectAltNames are not allowed")?;
            exactly(usages, "client auth")?;
        }
        NODE_SERVER => {
            of_node(asked)?;
            if asked.names.is_empty() && asked.addresses.is_empty() {
                return Err("DNS or IP subjectAltName is required".to_owned());
            }
            none(&asked.emails, "Email subjectAltNames are not allowed")?;
            none(&asked.uris, "URI subjectAltNames are not allowed")?;
            exactly(usages, "server auth")?;
        }
        _ => return Err(format!("{signer} is not signed here")),
    }
    Ok(usages.iter().filter_map(|name| usage(name)).collect())
}

fn usage(name: &str) -> Option<Usage> {
    Some(match name {
        "digital signature" => Usage::DigitalSignature,
        "key encipherment" => Usage::KeyEncipherment,
        "client auth" => Usage::ClientAuth,
        "server auth" => Usage::ServerAuth,
        _ => return None,
    })
}

fn of_client(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|name| !allowed.contains(&name.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    let has = usages.iter().any(|name| name == "client auth");
    has.then_some(()).ok_or_else(|| "missing required usage for client certificate: client auth".to_owned())
}

fn of_node(asked: &CertificateRequest) -> Result<(), String> {
    if asked.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".to_owned());
    }
    match asked.common_name.strip_prefix("system:node:") {
        Some(_) => Ok(()),
        None => Err("subject common name does not begin with system:node: ".to_owned()),
    }
}

fn none<T>(names: &[T], why: &str) -> Result<(), String> {
    if names.is_empty() { Ok(()) } else { Err(why.to_owned()) }
}

/// These uses and a signature, with or without the one that only keys of RSA have.
fn exactly(usages: &[String], purpose: &str) -> Result<(), String> {
    let mut wanted = vec!["digital signature", "key encipherment", purpose];
    let is = |wanted: &[&str]| {
        wanted.iter().all(|name| usages.iter().any(|usage| usage == name))
            && usages.iter().all(|usage| wanted.contains(&usage.as_str()))
    };
    if is(&wanted) || is(&[wanted[0], purpose]) {
        return Ok(());
    }
    wanted.sort_unstable();
    Err(format!("usages did not match {wanted:?}"))
}

#[cfg(test)]
mod tests {
    use pki::CertificateRequest;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn asked(name: &str, group: &str, alternatives: Vec<SanType>) -> CertificateRequest {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, text) in [(DnType::CommonName, name), (DnType::OrganizationName, group)] {
            if !text.is_empty() {
                params.distinguished_name.push(kind, text);
            }
        }
        params.subject_alt_names = alternatives;
        let key = KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        CertificateRequest::from_pem(pem.as_bytes()).unwrap()
    }

    fn judged(signer: &str, asked: &CertificateRequest, usages: &[&str]) -> String {
        let usages: Vec<String> = usages.iter().map(|usage| (*usage).to_owned()).collect();
        granted(signer, asked, &usages).err().unwrap_or_default()
    }

    const SIGN: &str = "digital signature";
    const ENCRYPT: &str = "key encipherment";

    #[test]
    fn clients_are_anybody_but_masters() {
        let jane = asked("jane", "dev", Vec::new());
        let uses = granted(CLIENT, &jane, &["client auth".into(), SIGN.into()]).unwrap();
        assert_eq!(uses, [Usage::ClientAuth, Usage::DigitalSignature]);
        assert!(judged(CLIENT, &jane, &[SIGN]).contains("missing required usage"));
        assert!(judged(CLIENT, &jane, &["client auth", "server auth"]).contains("invalid usage"));
        let master = asked("jane", "system:masters", Vec::new());
        assert!(judged(CLIENT, &master, &["client auth"]).contains("system:masters"));
        for (name, group) in [("system:kube-scheduler", ""), ("jane", "system:nodes")] {
            let part = asked(name, group, Vec::new());
            assert!(judged(CLIENT, &part, &["client auth"]).contains("the cluster's own parts"), "{name}");
        }
        assert!(judged(CLIENT, &asked("", "dev", Vec::new()), &["client auth"]).contains("no common name"));
    }

    #[test]
    fn hosts_are_clients_without_names_and_servers_with_them() {
        let node = |alternatives| asked("system:node:n9", "system:nodes", alternatives);
        let name = || vec![SanType::DnsName("n9".try_into().unwrap())];
        let address = || vec![SanType::IpAddress([10, 0, 0, 9].into())];
        let uri = || vec![SanType::URI("https://n9".try_into().unwrap()), address().remove(0)];
        for uses in [&["client auth", SIGN][..], &[SIGN, ENCRYPT, "client auth"]] {
            assert_eq!(judged(NODE_CLIENT, &node(Vec::new()), uses), "");
            assert!(judged(NODE_CLIENT, &node(name()), uses).contains("DNS"));
            assert!(judged(NODE_CLIENT, &node(address()), uses).contains("IP"));
            assert!(judged(NODE_SERVER, &node(name()), uses).contains("usages did not match"));
        }
        for uses in [&["server auth", SIGN][..], &[SIGN, ENCRYPT, "server auth"]] {
            assert_eq!(judged(NODE_SERVER, &node(name()), uses), "");
            assert_eq!(judged(NODE_SERVER, &node(address()), uses), "");
            assert!(judged(NODE_SERVER, &node(Vec::new()), uses).contains("required"));
            assert!(judged(NODE_SERVER, &node(uri()), uses).contains("URI"));
            assert!(judged(NODE_CLIENT, &node(Vec::new()), uses).contains("usages did not match"));
        }
        let uses = ["client auth", SIGN];
        assert!(
            judged(NODE_CLIENT, &asked("jane", "system:nodes", Vec::new()), &uses).contains("system:node:")
        );
        assert!(
            judged(NODE_CLIENT, &asked("system:node:n9", "dev", Vec::new()), &uses).contains("organization")
        );
        assert!(!is_ours("kubernetes.io/legacy-unknown"));
    }
}
