//! What reading an input costs: the bytes that this thread asks its allocator for, and the time that a processor spends on
//! it. The first is the same in every run; the second doesn't count what other processes do meanwhile.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

/// What a piece of work cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// How many bytes were allocated, whether they were given back or not: a buffer that grows counts at each size.
    pub bytes: u64,
    /// How long a processor was busy with it.
    pub time: Duration,
}

thread_local! {
    /// Needs neither an allocation nor a destructor, so that the allocator may use it at any time.
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    // A thread that ends may allocate after its counter is gone.
    let _ = BYTES.try_with(|counted| counted.set(counted.get().wrapping_add(bytes as u64)));
}

// SAFETY: each call goes to the system's allocator as it came; counting touches no memory that is allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How long this thread has kept a processor busy so far.
pub(crate) fn busy() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a time that outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "Linux has a clock for each thread");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Does work, and says what it cost this thread.
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let (bytes, time) = (BYTES.get(), busy());
    let result = work();
    (result, Cost { bytes: BYTES.get().wrapping_sub(bytes), time: busy() - time })
}

/// The same for work that waits, which must never leave this thread.
pub(crate) async fn of_waiting<T>(work: impl Future<Output = T>) -> (T, Cost) {
    let (bytes, time) = (BYTES.get(), busy());
    let result = work.await;
    (result, Cost { bytes: BYTES.get().wrapping_sub(bytes), time: busy() - time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_allocated_counts_and_nothing_else() {
        assert_eq!(of(|| 1 + 1).1.bytes, 0);
        let (kept, cost) = of(|| vec![1_u8; 1000]);
        assert_eq!((kept.len(), cost.bytes), (1000, 1000));
        let (_, cost) = of(|| drop(Vec::<u64>::with_capacity(100)));
        assert_eq!(cost.bytes, 800, "what is given back was work too");
        let (_, cost) = of(|| std::thread::spawn(|| drop(vec![0_u8; 1 << 20])).join());
        assert!(cost.bytes < 1 << 20, "other threads count for themselves");
    }
}
