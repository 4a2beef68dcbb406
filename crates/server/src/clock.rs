//! The server's edge to the outside: the clock and the source of randomness.

use jiff::Timestamp;
pub(crate) use objects::rfc3339 as text;
use rand::Rng;

/// The time, in whole seconds as the API writes it.
#[allow(clippy::disallowed_methods, reason = "requests are stamped here, at the driver's edge")]
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A new uid.
pub(crate) fn uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A number below `bound` (0 for 0).
#[allow(clippy::disallowed_methods, reason = "requests get their randomness here, at the driver's edge")]
pub(crate) fn below(bound: u32) -> u32 {
    if bound == 0 { 0 } else { rand::rng().random_range(0..bound) }
}

/// Any number.
#[allow(clippy::disallowed_methods, reason = "requests get their randomness here, at the driver's edge")]
pub(crate) fn random() -> u32 {
    rand::rng().random()
}

/// A moment, for how long things take.
#[allow(clippy::disallowed_methods, reason = "requests are timed here, at the driver's edge")]
pub(crate) fn instant() -> std::time::Instant {
    // The clock of the runtime: a test may hold it.
    tokio::time::Instant::now().into_std()
}
