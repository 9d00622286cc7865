//! Merging segments, so that a restart reads few of them and nothing that is superseded.
//!
//! Segments that lie next to each other in age are merged when [`FAN_IN`] of them are of about one size; all of them are merged into one base when what came since
//! the base is as large as it. So every byte is written again about once per power of [`FAN_IN`] between the size of an epoch and the size of the state, however
//! long the pipeline runs, and the files take up at most a few times the state.

use super::StoreError;
use super::checkpoints::{Checkpoints, StoredEpoch};
use super::manifest::SegmentEntry;
use super::merge::Removals;
use super::segment::SegmentWriter;
use super::snapshot::write_merged;
use pelton_core::failpoint;
use std::ops::Range;

/// Segments of one size that become one.
pub const FAN_IN: usize = 4;
/// Sizes below this are one size: opening a file costs about as much as reading it.
const SMALL_BYTES: u64 = 64 << 10;

/// A merged segment and those that it stands for.
#[derive(Clone, Debug)]
pub(super) struct Replacement {
    /// Their names, from old to new.
    pub of: Vec<String>,
    /// What stands for them.
    pub with: SegmentEntry,
}

impl Replacement {
    /// Puts it in its place. False: those that it stands for are not there.
    pub fn apply(&self, segments: &mut Vec<SegmentEntry>) -> bool {
        let found = segments.windows(self.of.len()).position(|window| window.iter().map(|entry| &entry.name).eq(&self.of));
        let Some(at) = found else { return false };
        segments.splice(at..at + self.of.len(), [self.with.clone()]);
        true
    }
}

/// What a merge has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that were merged.
    pub segments: usize,
    /// Bytes that were read.
    pub read: u64,
    /// Bytes that were written.
    pub written: u64,
}

impl Checkpoints {
    /// Merges what is due among the segments of an epoch, which should be decided; the next manifest names the result. `None`: nothing is due.
    /// It may run beside the epochs that follow, but one at a time.
    pub async fn compact(&self, prepared: &StoredEpoch) -> Result<Option<Compacted>, StoreError> {
        if self.current().replacement.is_some() {
            return Ok(None);
        }
        let segments = &prepared.manifest.segments;
        let sizes: Vec<u64> = segments.iter().map(|entry| entry.bytes).collect();
        let Some(range) = due(&sizes) else { return Ok(None) };
        let merged = &segments[range.clone()];
        let (Some(oldest), Some(newest)) = (merged.first(), merged.last()) else { return Ok(None) };
        failpoint::hit("compact.begin");
        let snapshot = self.snapshot(prepared);
        let open = &snapshot.segments().await?[range.clone()];
        let removals = if range.start == 0 { Removals::Drop } else { Removals::Keep };
        let mut writer = SegmentWriter::create(&*self.storage, self.segment_name(oldest.first, newest.last)).await?;
        write_merged(open, &prepared.manifest, |_| true, removals, "compact.half", &mut writer).await?;
        let file = writer.finish().await?;
        failpoint::hit("compact.finished");
        let with =
            SegmentEntry { name: file.name, bytes: file.bytes, hash: file.hash, rows: file.rows, first: oldest.first, last: newest.last };
        let compacted = Compacted { segments: merged.len(), read: merged.iter().map(|entry| entry.bytes).sum(), written: with.bytes };
        self.current().replacement = Some(Replacement { of: merged.iter().map(|entry| entry.name.clone()).collect(), with });
        Ok(Some(compacted))
    }
}

/// Which of the segments, given by size from old to new, should be merged.
fn due(sizes: &[u64]) -> Option<Range<usize>> {
    let (base, since) = sizes.split_first()?;
    if since.len() + 1 >= FAN_IN && since.iter().sum::<u64>() >= *base {
        return Some(0..sizes.len());
    }
    // A small segment older than a larger one counts as large as that: they would be merged together anyway.
    let level = |bytes: u64| (bytes / SMALL_BYTES + 1).ilog(FAN_IN as u64);
    let mut levels: Vec<u32> = sizes.iter().map(|bytes| level(*bytes)).collect();
    for at in (1..levels.len()).rev() {
        levels[at - 1] = levels[at - 1].max(levels[at]);
    }
    // The largest first: it makes smaller merges needless.
    let mut from = 0;
    while from < levels.len() {
        let to = from + levels[from..].iter().take_while(|level| **level == levels[from]).count();
        if to - from >= FAN_IN {
            return Some(from..to);
        }
        from = to;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_due() {
        let check = |sizes: &[u64], want: Option<Range<usize>>| assert_eq!(due(sizes), want, "{sizes:?}");
        check(&[], None);
        check(&[1, 1, 1], None);
        check(&[1, 1, 1, 1], Some(0..4));
        // A base and some changes: nothing; four of a size: they; as much as the base: all.
        check(&[900 * MIB, MIB, MIB, MIB], None);
        check(&[900 * MIB, MIB, MIB, MIB, MIB], Some(1..5));
        check(&[900 * MIB, 300 * MIB, 300 * MIB, 300 * MIB], Some(0..4));
        // Small ones between large ones count as large.
        check(&[900 * MIB, 1, 1, 1, 100 * MIB, 1], Some(1..5));
        // Larger merges first.
        check(&[900 * MIB, 30 * MIB, 30 * MIB, 30 * MIB, 30 * MIB, 1, 1, 1, 1], Some(1..5));
    }

    /// Epochs of one size on a base that stays as large as it is: bytes written again for each byte of changes, and segments to open.
    #[test]
    fn merges_are_few_and_segments_too() {
        let (base, epoch) = (1 << 30, MIB);
        let mut sizes: Vec<u64> = vec![base];
        let (mut written, mut most) = (0, 0);
        const EPOCHS: u64 = 20_000;
        for _ in 0..EPOCHS {
            sizes.push(epoch);
            most = most.max(sizes.len());
            if let Some(range) = due(&sizes) {
                let sum: u64 = sizes[range.clone()].iter().sum();
                // Every change replaces something in the base.
                let merged = if range.start == 0 { base } else { sum };
                sizes.splice(range, [merged]);
                written += merged;
            }
        }
        let again = written as f64 / (EPOCHS * epoch) as f64;
        println!("each byte is written {again:.1} times more, and at most {most} segments are open");
        assert!(again < 7.0 && most < 24, "{again} times, {most} segments");
    }
}
