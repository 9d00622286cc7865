//! State that is not keyed: what a task, a split or a window of counts needs to go on, by partition.
//!
//! A barrier takes it from each task as (partition, bytes); a restart hands what all former tasks of an operator gave to each of the new
//! ones, of which there may be more or fewer. So what it means is put together here: a task's watermark is the earliest of them, because
//! rows of the one that was behind may still come.

use crate::failure::Failure;
use pelton_core::Instant;

/// The partition of what a task has.
pub const TASK: &str = "";

/// How far event time had come in a task. The bytes are microseconds, i64, little-endian.
pub fn of_watermark(watermark: Instant) -> (String, Vec<u8>) {
    (TASK.into(), watermark.micros().to_le_bytes().to_vec())
}

/// How far event time had come in all former tasks.
pub fn earliest_watermark(unkeyed: &[(String, Vec<u8>)]) -> Result<Instant, Failure> {
    Ok(watermarks(unkeyed)?.into_iter().min().unwrap_or(Instant::MIN))
}

/// How far event time had come in any former task. Of a grouping, this is what a producer that aggregates rows for it begins with
/// ([`crate::lift::Lift::passed`]): rows that it may judge are not to be hidden in partial results.
pub fn latest_watermark(unkeyed: &[(String, Vec<u8>)]) -> Result<Instant, Failure> {
    Ok(watermarks(unkeyed)?.into_iter().max().unwrap_or(Instant::MIN))
}

fn watermarks(unkeyed: &[(String, Vec<u8>)]) -> Result<Vec<Instant>, Failure> {
    let own = unkeyed.iter().filter(|(partition, _)| partition == TASK);
    own.map(|(_, bytes)| {
        let micros = bytes.as_slice().try_into().map(i64::from_le_bytes);
        micros.ok().and_then(|micros| Instant::from_micros(micros).ok()).ok_or_else(|| damaged("the watermark of a task"))
    })
    .collect()
}

/// State that cannot be read.
pub fn damaged(what: &str) -> Failure {
    Failure::Internal { transform: "restore".into(), message: format!("{what} in the checkpoint is damaged, or of a newer version") }
}
