//! The system's allocator, counting what is allocated and not given back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

/// An allocator for tests of how much memory something takes.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: testing::CountingAllocator = testing::CountingAllocator::new();
///
/// let before = ALLOCATOR.live();
/// let bytes = vec![0_u8; 1000];
/// assert!(ALLOCATOR.live() - before >= 1000);
/// drop(bytes);
/// ```
#[derive(Debug, Default)]
pub struct CountingAllocator {
    live: AtomicIsize,
}

impl CountingAllocator {
    /// One that has counted nothing yet.
    pub const fn new() -> Self {
        CountingAllocator { live: AtomicIsize::new(0) }
    }

    /// How many bytes are allocated now.
    pub fn live(&self) -> isize {
        self.live.load(Ordering::Relaxed)
    }
}

// SAFETY: each call goes to the system's allocator as it came; counting touches no memory that is allocated.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.live.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.live.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}
