//! Who asks, and what they may: identities from certificates and tokens, and the authorizer that decides by roles and
//! by what a host's pods use. It knows nothing of HTTP; the time comes from outside.
//!
//! A user ([`UserInfo`]) wants something ([`Wanted`]), and the [`Authorizer`] says whether it may, as of a state of the store.
//! [`Tokens`] makes the tokens of service accounts and tells whose one is, [`Revocations`] which certificates were taken back.

mod attributes;
mod authority;
mod authorizer;
mod node;
mod privilege;
mod review;
mod revocation;
mod roles;
mod rule;
mod shown;
mod tokens;
mod user_info;
mod uses;

pub use attributes::{Attributes, Wanted};
pub use authority::ClusterAuthority;
pub use authorizer::{Authorizer, Reason};
pub use privilege::Decided;
pub use revocation::{RevocationList, Revocations, entry_key};
pub use roles::Grant;
pub use rule::Rule;
pub use shown::ShownCertificate;
pub use tokens::{
    Authenticated, Bound, Issued, Stamp, TokenError, TokenRequest, Tokens, asked_token, openid_configuration,
    outside_answer, outside_question, reviewed,
};
pub use user_info::{AUTHENTICATED, MASTERS, NODE_PREFIX, NODES, UNAUTHENTICATED, UserInfo};
