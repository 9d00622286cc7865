//! The state of a cell, and its bytes.
//!
//! ```text
//! version  u8    1
//! flags    u8    1 finished, 2 has rows since its last pane, 4 has a hold
//! index    varint, panes so far
//! on time  varint, panes so far that were not early
//! hold     8 bytes, little endian, µs since the epoch; only with flag 4
//! words    varint each, to the end: what the trigger remembers, in the order of its parts
//! ```
//! Varints are those of [`crate::varint`]. Written once means readable for ever: a change is a new version.

use crate::time::Instant;
use crate::varint;

const VERSION: u8 = 1;
const FINISHED: u8 = 1;
const HAS_ROWS: u8 = 2;
const HAS_HOLD: u8 = 4;

/// What the rule remembers of a cell. A new cell is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaneState {
    /// The window is over.
    pub(super) finished: bool,
    /// Rows have come since the last pane.
    pub(super) has_rows: bool,
    /// Panes so far.
    pub(super) index: i64,
    /// Panes so far that were not early.
    pub(super) nonspeculative: i64,
    /// The event time of the next pane, as far as its rows ask for one.
    pub(super) hold: Option<Instant>,
    /// What the trigger remembers; empty before the first row.
    pub(super) words: Vec<u64>,
}

/// Bytes that are no state of a cell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaneStateError {
    /// Written by a newer host.
    #[error(
        "the state of a window has version {0}, this host reads version {VERSION}: restore with the host that wrote it, or a newer one"
    )]
    Version(u8),
    /// Damaged.
    #[error("the state of a window is damaged: {0}")]
    Damaged(&'static str),
    /// Of another trigger.
    #[error(
        "the state of a window is of another trigger ({words} values, the pipeline's trigger has {expected}): restore with the trigger that wrote it"
    )]
    OtherTrigger {
        /// Values in the state.
        words: usize,
        /// Values of the trigger.
        expected: usize,
    },
}

impl PaneState {
    /// Whether the window is over, so that its rows are dropped.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Appends the state.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.finished, FINISHED) | flag(self.has_rows, HAS_ROWS) | flag(self.hold.is_some(), HAS_HOLD);
        out.extend([VERSION, flags]);
        varint::write(out, self.index.unsigned_abs());
        varint::write(out, self.nonspeculative.unsigned_abs());
        if let Some(hold) = self.hold {
            out.extend(hold.micros().to_le_bytes());
        }
        self.words.iter().for_each(|word| varint::write(out, *word));
    }

    /// Reads a state that takes up all the bytes. [`super::PaneRule::decode`] also checks that it is of the rule's trigger.
    pub fn decode(bytes: &[u8]) -> Result<PaneState, PaneStateError> {
        let (&[version, flags], mut rest) = bytes.split_first_chunk::<2>().ok_or(PaneStateError::Damaged("it is cut off"))?;
        if version != VERSION {
            return Err(PaneStateError::Version(version));
        }
        if flags & !(FINISHED | HAS_ROWS | HAS_HOLD) != 0 {
            return Err(PaneStateError::Damaged("unknown flags"));
        }
        let index = read_count(&mut rest)?;
        let nonspeculative = read_count(&mut rest)?;
        let hold = if flags & HAS_HOLD != 0 {
            let (micros, after) = rest.split_first_chunk::<8>().ok_or(PaneStateError::Damaged("it is cut off"))?;
            rest = after;
            let hold = Instant::from_micros(i64::from_le_bytes(*micros));
            Some(hold.map_err(|_| PaneStateError::Damaged("a time out of range"))?)
        } else {
            None
        };
        let mut words = Vec::new();
        while !rest.is_empty() {
            words.push(read_varint(&mut rest)?);
        }
        Ok(PaneState { finished: flags & FINISHED != 0, has_rows: flags & HAS_ROWS != 0, index, nonspeculative, hold, words })
    }
}

fn read_varint(rest: &mut &[u8]) -> Result<u64, PaneStateError> {
    varint::read(rest).ok_or(PaneStateError::Damaged("a number is cut off or too large"))
}

fn read_count(rest: &mut &[u8]) -> Result<i64, PaneStateError> {
    i64::try_from(read_varint(rest)?).map_err(|_| PaneStateError::Damaged("a number is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// These bytes lie in checkpoints: they never change.
    #[test]
    fn golden_bytes() {
        let at = |micros| Some(Instant::from_micros_saturating(micros));
        for (state, bytes) in [
            (PaneState::default(), &[1u8, 0, 0, 0][..]),
            (PaneState { finished: true, index: 3, nonspeculative: 1, ..PaneState::default() }, &[1, 1, 3, 1]),
            (
                PaneState { has_rows: true, hold: at(-2), words: vec![0, 300], ..PaneState::default() },
                &[1, 6, 0, 0, 254, 255, 255, 255, 255, 255, 255, 255, 0, 172, 2],
            ),
            (
                PaneState { index: 128, words: vec![u64::MAX], ..PaneState::default() },
                &[1, 0, 128, 1, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            ),
        ] {
            let mut got = Vec::new();
            state.encode(&mut got);
            assert_eq!(got, bytes, "{state:?}");
            assert_eq!(PaneState::decode(bytes), Ok(state));
        }
        assert_eq!(PaneState::decode(&[2, 0, 0, 0]), Err(PaneStateError::Version(2)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_state_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(state) = PaneState::decode(&bytes) {
                let mut again = Vec::new();
                state.encode(&mut again);
                prop_assert_eq!(PaneState::decode(&again), Ok(state));
            }
        }
    }
}
