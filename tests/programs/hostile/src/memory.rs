//! An allocator that a transform can make hostile: the host allocates in the guest to hand rows over, and frees what it has taken.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What happens to allocations of a kibibyte and more: 0 as it should, 1 they lie beyond the memory, 2 freeing traps, 3 they overlap.
pub static MALICE: AtomicU32 = AtomicU32::new(0);
const LARGE: usize = 1_024;

struct Hostile;

#[global_allocator]
static ALLOCATOR: Hostile = Hostile;

// SAFETY: as `System`, until a test asks for an allocator that is not safe at all.
unsafe impl GlobalAlloc for Hostile {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match MALICE.load(Relaxed) {
            1 if layout.size() >= LARGE => (u32::MAX as usize & !(layout.align() - 1)) as *mut u8,
            3 if layout.size() >= LARGE => (1 << 16) as *mut u8,
            // SAFETY: the caller's promises.
            _ => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match MALICE.load(Relaxed) {
            2 if layout.size() >= LARGE => std::process::abort(),
            0 => {
                // SAFETY: the caller's promises.
                unsafe { System.dealloc(pointer, layout) }
            }
            _ => {}
        }
    }
}
