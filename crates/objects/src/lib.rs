//! The Kubernetes objects in the store: where each lies, how to read them typed from a snapshot, and how
//! a part of the cluster asks for a change. Reading needs no server and no network; changing goes through
//! a [`Writer`], which is the API's own write path.

mod address;
mod address_pool;
mod bound;
mod copies;
mod fencing;
mod followed;
mod key;
mod local_path;
mod metadata;
mod mirror;
mod named;
mod object_ref;
mod pod;
mod pod_status;
mod pool;
mod quota;
mod reader;
mod recorder;
mod selector;
mod stored;
mod table;
mod time;
mod volumes;
mod write;

/// The annotation by which a Node says on which port its host hears heartbeats. Nodes without it are not of this program,
/// and beat for nobody.
pub const HEARTBEATS: &str = "holdfast.dev/heartbeats";

pub use address::{ADDRESS_NAMESPACE, AddressHolder, AddressLease, may_change_address, may_make_of_address};
pub use address_pool::{AddressPool, NoPool, TAKES_ADDRESSES};
pub use bound::node_of;
pub use copies::{shared_labels, shared_owners, shared_text};
pub use fencing::{FENCED_EPOCH, FENCING, Fencing, Grade, LEASE_EPOCH, STOPS_WITH_LEASE, SWITCH_ON_EPOCH};
pub use followed::Followed;
pub use key::{ObjectKey, key, kind_prefix, namespace_prefix, parse};
pub use local_path::{
    HOSTNAME, LOCAL_PATH, PROVISIONED_BY, VOLUMES, awaits_folder, awaits_folder_of, host_of, is_local_path,
    waits_for,
};
pub use metadata::{Annotations, Labels, Meta, Metadata, NoAnnotations, metadata};
pub use mirror::{MANIFEST_HASH, MANIFEST_SOURCE, MIRROR, used_of_api};
pub use named::Named;
pub use object_ref::{ObjectRef, Uid};
pub use pod::{
    COMPLETION_INDEX, Condition, Container, DELETION_COST, DEVICES_FINALIZER, INDEX_FAILURES,
    INDEX_IGNORED_FAILURES, Pod, PodSpec, PodStatus, REBALANCE,
};
pub use pod_status::{DISRUPTION_TARGET, disruption_target, merge_pod_status};
pub use pool::Pool;
pub use quota::quota_usage;
pub use reader::{Kind, Reader, STAMP, decode, put_stamped, stamped};
pub use recorder::{Occurrence, Recorder, Reporter};
pub use selector::{node_meets, selects, selects_node, tolerates};
pub use stored::{encode, load, look, put_list_items, stamped_at};
pub use table::{Change, Table};
pub use time::rfc3339;
pub use volumes::{
    BETA_CLASS, BIND_COMPLETED, BOUND_BY_CONTROLLER, PersistentVolume, PersistentVolumeClaim, SELECTED_NODE,
    ephemeral_claim,
};
pub use write::{Asker, Delete, Propagation, Question, TokenRequest, TypedRef, Write, Writer};
