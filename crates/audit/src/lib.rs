//! What requests did, for those who look later: which of them a policy records, in how much detail, and the events that say so, as
//! Kubernetes has it (`audit.k8s.io/v1`). No I/O: time comes in with the events, and where they go is a [`Sink`].
//!
//! ```
//! use audit::{About, Asked, Level, Policy};
//!
//! let policy = Policy::parse(
//!     b"apiVersion: audit.k8s.io/v1
//! kind: Policy
//! rules:
//! - {level: Metadata, resources: [{resources: [secrets]}]}
//! - {level: None}",
//! )?;
//! let about = About::Objects { group: "", resource: "secrets", subresource: "", namespace: "shop", name: "key" };
//! let asked = Asked { user: Some("jane"), groups: &[], verb: "get", about };
//! assert_eq!(policy.decide(&asked).level, Level::Metadata);
//! # Ok::<(), audit::PolicyError>(())
//! ```

mod auditor;
mod event;
mod level;
mod policy;
mod rule;

pub use auditor::{Auditor, Sink};
pub use event::{Event, ObjectReference, without_managed_fields};
pub use level::{Level, Stage};
pub use policy::{Decision, Policy, PolicyError};
pub use rule::{About, Asked};
