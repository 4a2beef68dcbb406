//! How many seats a request takes that reads many objects: as many as its work is worth.

use store::{KeyRange, State};

/// The most seats that one request takes (upstream's `defaultMaximumListSeats`).
const MOST: usize = 10;
/// How many objects are one seat's work (upstream's `defaultObjectsPerSeat`).
const OBJECTS_A_SEAT: usize = 100;

/// The seats of a request that reads the objects in a range, `limit` of them at most. Counting ends where more objects
/// would make no difference.
pub fn seats(state: &State, range: &KeyRange, limit: usize) -> u32 {
    let count = state.range(range).take(limit.min(MOST * OBJECTS_A_SEAT)).count();
    u32::try_from(count.div_ceil(OBJECTS_A_SEAT).clamp(1, MOST)).unwrap_or(1)
}
