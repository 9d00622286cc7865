//! The share of the processor that a pipeline gets where pipelines want more of it than there is.
//!
//! A weight from 1 to 100 becomes a nice value of the pipeline's threads: each step of it is worth a quarter, as the kernel has it, so that a
//! pipeline of weight 50 gets about half of what one of weight 100 gets. Nothing is taken from anybody while the processor is idle.
//! Threads begin with the nice value of the thread that starts them, so one call at the beginning is enough.

/// The weight of a pipeline that does not say.
pub const DEFAULT_WEIGHT: u32 = 100;
/// What a step of the nice value is worth.
const STEP: f64 = 1.25;
/// The last nice value.
const LAST: f64 = 19.0;

/// Gives the calling thread, and all that it starts from now on, the share of this weight.
pub fn apply(weight: Option<u32>) {
    let nice = nice(weight.unwrap_or(DEFAULT_WEIGHT));
    if nice == 0 {
        return;
    }
    // To Linux a process is a thread here, and 0 the calling one.
    // SAFETY: three numbers, and no memory of ours.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS as _, 0, nice) };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, nice, "the pipeline's weight has no effect: the system does not let its threads be nice");
    }
}

fn nice(weight: u32) -> i32 {
    let weight = f64::from(weight.clamp(1, DEFAULT_WEIGHT));
    (f64::from(DEFAULT_WEIGHT) / weight).log(STEP).round().min(LAST) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_weight_is_three_steps() {
        let table = [(100, 0), (80, 1), (50, 3), (25, 6), (10, 10), (1, 19), (0, 19), (1_000, 0)];
        for (weight, expected) in table {
            assert_eq!(nice(weight), expected, "{weight}");
        }
    }
}
