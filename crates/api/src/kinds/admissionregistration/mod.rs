//! `admissionregistration.k8s.io`.

mod binding;
mod matching;
mod policy;
mod webhook;

pub(crate) use binding::{MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBinding};
pub(crate) use policy::{MutatingAdmissionPolicy, ValidatingAdmissionPolicy};
pub(crate) use webhook::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
