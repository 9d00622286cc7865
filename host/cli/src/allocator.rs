//! How the process gives memory back.
//!
//! Checkpoints, batches and flushes take a few MiB at a time, for a moment, on several threads. The allocator of glibc by default keeps such blocks for later, for each
//! thread its own: a budget of 8 MiB for state then cost 325 MiB, and 160 with these settings.

/// Larger blocks are the kernel's, and go back to it when they are freed.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: i32 = 1 << 20;

/// To be called before any thread is started.
#[cfg(target_env = "gnu")]
pub fn set_up() {
    for setting in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: mallopt takes two numbers and has no other precondition; nothing else of this process runs yet.
        unsafe { libc::mallopt(setting, LARGE_BYTES) };
    }
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn set_up() {}
