//! `certificates.k8s.io`.

use machinery::{Resource, Subresource};

use super::{ALL, PARTLY};
use crate::kinds::certificate_signing_request;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[Resource {
    group: "certificates.k8s.io",
    version: "v1",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    namespaced: false,
    short_names: &["csr"],
    categories: &[],
    verbs: ALL,
    subresources: &[
        Subresource {
            name: "approval",
            group: "",
            version: "",
            kind: "CertificateSigningRequest",
            verbs: PARTLY,
        },
        Subresource {
            name: "status",
            group: "",
            version: "",
            kind: "CertificateSigningRequest",
            verbs: PARTLY,
        },
    ],
    storage_version_hash: "95fRKMXA+00=",
    keeps_generation: false,
    schema: published("io.k8s.api.certificates.v1.CertificateSigningRequest"),
    rules: &certificate_signing_request::CertificateSigningRequest,
    custom: None,
}];
