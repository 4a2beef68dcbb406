//! Authorities and certificates.
//!
//! One [`Authority`] a cluster signs one [`Identity`] a host and one for the administrator. A host keeps its
//! identity (a [`LiveIdentity`], which is renewed while it is in use), the certificates that it trusts ([`Trust`]), the [`HeartbeatKey`] and
//! the [`TokenKey`]; the authority's own
//! key stays where the cluster was made, and with those who joined it as members. What users ask for ([`CertificateRequest`]) is signed by a second authority,
//! whose key every host has. Everything speaks TLS by rustls with ring's cryptography, chosen here
//! once. Times are arguments.

mod about;
mod anyone;
mod authority;
mod believed;
mod error;
mod folder;
mod heartbeat;
mod hosts;
mod identity;
mod judged;
mod key_hash;
mod live;
mod own_key;
mod pinned;
mod request;
mod reserved;
mod revoked;
mod roles;
mod seal_keys;
mod secret;
mod sign;
mod tls;
mod token_key;
mod user_request;
mod validity;

pub use about::About;
pub use anyone::client_config_for_anyone;
pub use authority::{Authority, Subject};
pub use error::Error;
pub use heartbeat::HeartbeatKey;
pub use identity::Identity;
pub use key_hash::{KeyHash, NoHash};
pub use live::LiveIdentity;
pub use own_key::OwnKey;
pub use pinned::OtherAuthority;
pub use request::CertificateRequest;
pub use reserved::reserved_name;
pub use revoked::RevokedKeys;
pub use roles::{FRONT_PROXY, HostNames, Renewal, admin_subject, front_proxy_subject};
pub use seal_keys::SealKeys;
pub use secret::SecretText;
pub use sign::Usage;
pub use tls::{ClientAuth, Trust};
pub use token_key::TokenKey;
pub use validity::{Validity, valid_until};
