//! Times as objects have them.

use jiff::Timestamp;

/// A time as `Time` of meta/v1: RFC 3339, UTC, whole seconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
