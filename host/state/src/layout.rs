//! What a cell is made of, and its bytes.
//!
//! ```text
//! version  u8      1, or 2 of cells that keep eras
//! era      varint, in version 2: by which schema the values were written (`pelton_core::evolution`)
//! count    varint, in version 2: how many columns follow; a cell that was written before a column was declared is without it
//! columns  by number: i64 signed varint | i128 16 bytes | f64 8 bytes | bytes: varint length, bytes
//! timers   varint count, then of each, by clock and tag: clock u8 (0 event, 1 processing) | tag u8 | time
//! holds    varint count, then of each, by number: number varint | time
//! ```
//!
//! Numbers of a fixed length are little-endian; a time is 8 bytes, microseconds since the epoch; varints are those of
//! [`pelton_core::varint`]. Items are not in it: they are rows of their own.
//!
//! The bytes do not say what they are; [`Layout`] does, once for all cells of an operator, in words that a manifest keeps. Written once means
//! readable for ever: a change is a new version.

use crate::columns::{Column, ColumnId};
use crate::timers::{Clock, TimerTag};
use pelton_core::{Instant, varint};
use std::fmt;

const VERSION: u8 = 1;
/// Of a cell with an era.
const WITH_ERA: u8 = 2;

/// State that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Damaged.
    #[error("the state of a cell is damaged: {0}")]
    Damaged(&'static str),
    /// Written by a newer host.
    #[error(
        "the state of a cell has version {0}, this host reads versions up to {WITH_ERA}: restore with the host that wrote it, or a newer one"
    )]
    Version(u8),
    /// Of an operator that keeps something else.
    #[error(
        "the state was written as `{found}`, but the transform now keeps `{expected}`: restore with the configuration that wrote it, or drop this state by name"
    )]
    OtherLayout {
        /// What it keeps now.
        expected: String,
        /// What was written.
        found: String,
    },
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Signed numbers.
    I64,
    /// Decimals, unscaled.
    I128,
    /// Floating-point numbers.
    F64,
    /// Anything else.
    Bytes,
}

/// What the cells of an operator are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// By number.
    pub columns: Vec<Kind>,
    /// How many sets of holds.
    pub holds: usize,
    /// How many sets of items.
    pub items: usize,
}

/// One value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A signed number.
    I64(i64),
    /// A decimal, unscaled.
    I128(i128),
    /// A floating-point number.
    F64(f64),
    /// Anything else.
    Bytes(Vec<u8>),
}

/// A cell, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CellState {
    /// The era in which it was written, if such are kept.
    pub era: Option<u32>,
    /// By column; those that it has not got are missing at the end.
    pub values: Vec<Value>,
    /// Pending timers.
    pub timers: Vec<(Clock, TimerTag, Instant)>,
    /// Holds by number.
    pub holds: Vec<(usize, Instant)>,
}

impl CellState {
    /// The value of a column of numbers.
    pub fn number(&self, column: ColumnId) -> i64 {
        match self.values.get(column.0) {
            Some(Value::I64(number)) => *number,
            _ => 0,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{VERSION}:")?;
        for kind in &self.columns {
            let name = match kind {
                Kind::I64 => "i64",
                Kind::I128 => "i128",
                Kind::F64 => "f64",
                Kind::Bytes => "bytes",
            };
            write!(f, " {name}")?;
        }
        write!(f, "; holds {}; items {}", self.holds, self.items)
    }
}

impl Layout {
    /// Reads what `Display` wrote; `None`: it is nothing that this version writes.
    pub fn parse(text: &str) -> Option<Layout> {
        let rest = text.strip_prefix("v1:")?;
        let (columns, rest) = rest.split_once("; holds ")?;
        let (holds, items) = rest.split_once("; items ")?;
        let kind = |name: &str| match name {
            "i64" => Some(Kind::I64),
            "i128" => Some(Kind::I128),
            "f64" => Some(Kind::F64),
            "bytes" => Some(Kind::Bytes),
            _ => None,
        };
        let columns = columns.split_whitespace().map(kind).collect::<Option<Vec<Kind>>>()?;
        Some(Layout { columns, holds: holds.parse().ok()?, items: items.parse().ok()? })
    }

    /// Whether `later` is what cells of this layout become when more is declared.
    pub fn grows_to(&self, later: &Layout) -> bool {
        later.columns.starts_with(&self.columns) && self.holds <= later.holds && self.items <= later.items
    }

    /// Reads the bytes of a cell into `cell`, whose memory is used again.
    pub fn decode(&self, bytes: &[u8], cell: &mut CellState) -> Result<(), StateError> {
        let (version, mut rest) = bytes.split_first().ok_or(CUT)?;
        let rest = &mut rest;
        let columns = match *version {
            VERSION => {
                cell.era = None;
                &self.columns[..]
            }
            WITH_ERA => {
                let era = varint::read(rest).and_then(|era| u32::try_from(era).ok()).ok_or(CUT)?;
                cell.era = Some(era);
                let count = varint::read(rest).ok_or(CUT)? as usize;
                self.columns.get(..count).ok_or(StateError::Damaged("a column that nobody declared"))?
            }
            other => return Err(StateError::Version(other)),
        };
        cell.values.clear();
        for kind in columns {
            let value = match kind {
                Kind::I64 => varint::read_signed(rest).map(Value::I64),
                Kind::I128 => fixed(rest).map(|bytes| Value::I128(i128::from_le_bytes(bytes))),
                Kind::F64 => fixed(rest).map(|bytes| Value::F64(f64::from_le_bytes(bytes))),
                Kind::Bytes => read_bytes(rest).map(|bytes| Value::Bytes(bytes.to_vec())),
            };
            cell.values.push(value.ok_or(CUT)?);
        }
        cell.timers.clear();
        for _ in 0..varint::read(rest).ok_or(CUT)? {
            let [clock, tag] = fixed(rest).ok_or(CUT)?;
            let clock = Clock::ALL.get(clock as usize).ok_or(StateError::Damaged("an unknown clock"))?;
            cell.timers.push((*clock, TimerTag(tag), time(rest)?));
        }
        cell.holds.clear();
        for _ in 0..varint::read(rest).ok_or(CUT)? {
            let number = varint::read(rest).ok_or(CUT)? as usize;
            if number >= self.holds {
                return Err(StateError::Damaged("a hold that nobody declared"));
            }
            cell.holds.push((number, time(rest)?));
        }
        if rest.is_empty() { Ok(()) } else { Err(StateError::Damaged("bytes after its end")) }
    }
}

/// By which schema a cell was written; `None`: it keeps no era, or is damaged.
pub fn era(cell: &[u8]) -> Option<u32> {
    let mut rest = cell.strip_prefix(&[WITH_ERA])?;
    varint::read(&mut rest).and_then(|era| u32::try_from(era).ok())
}

const CUT: StateError = StateError::Damaged("it is cut off");

/// Appends the bytes of a cell.
pub(crate) fn encode<'a>(
    era: Option<u32>,
    columns: impl ExactSizeIterator<Item = (&'a Column, usize)>,
    timers: impl Iterator<Item = (Clock, TimerTag, Instant)> + Clone,
    holds: impl Iterator<Item = (usize, Instant)> + Clone,
    out: &mut Vec<u8>,
) {
    match era {
        None => out.push(VERSION),
        Some(era) => {
            out.push(WITH_ERA);
            varint::write(out, u64::from(era));
            varint::write(out, columns.len() as u64);
        }
    }
    for (column, slot) in columns {
        match column {
            Column::I64(values, _) => varint::write_signed(out, values[slot]),
            Column::I128(values, _) => out.extend_from_slice(&values[slot].to_le_bytes()),
            Column::F64(values, _) => out.extend_from_slice(&values[slot].to_le_bytes()),
            Column::Bytes(values, _) => {
                varint::write(out, values[slot].len() as u64);
                out.extend_from_slice(&values[slot]);
            }
        }
    }
    varint::write(out, timers.clone().count() as u64);
    for (clock, tag, at) in timers {
        out.extend_from_slice(&[clock as u8, tag.0]);
        out.extend_from_slice(&at.micros().to_le_bytes());
    }
    varint::write(out, holds.clone().count() as u64);
    for (number, at) in holds {
        varint::write(out, number as u64);
        out.extend_from_slice(&at.micros().to_le_bytes());
    }
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

fn read_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint::read(rest)?).ok()?;
    varint::read_bytes(rest, length)
}

fn time(rest: &mut &[u8]) -> Result<Instant, StateError> {
    let bytes = fixed(rest).ok_or(StateError::Damaged("it is cut off"))?;
    Instant::from_micros(i64::from_le_bytes(bytes)).map_err(|_| StateError::Damaged("a time out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Hostile bytes of a cell are an error and nothing else, whatever the operator is made of.
    #[test]
    fn fuzz_cells() {
        let kinds = [Kind::I64, Kind::I128, Kind::F64, Kind::Bytes];
        bolero::check!().with_test_time(Duration::from_millis(400)).with_max_len(512).for_each(|bytes: &[u8]| {
            let (of, bytes) = bytes.split_first().unwrap_or((&0, &[]));
            let columns: Vec<Kind> = kinds.into_iter().enumerate().filter(|(bit, _)| of >> bit & 1 == 1).map(|(_, kind)| kind).collect();
            let layout = Layout { columns, holds: usize::from(of >> 4 & 1), items: usize::from(of >> 5 & 1) };
            assert_eq!(Layout::parse(&layout.to_string()), Some(layout.clone()));
            let mut cell = CellState::default();
            for bytes in [bytes, &[&[VERSION], bytes].concat(), &[&[WITH_ERA, 1], bytes].concat()] {
                if layout.decode(bytes, &mut cell).is_ok() {
                    assert!(cell.values.len() <= layout.columns.len() && cell.timers.len() + cell.holds.len() <= bytes.len());
                }
            }
            let _ = crate::rows::read_address(bytes);
            let _ = Layout::parse(&String::from_utf8_lossy(bytes));
        });
    }

    use proptest::prelude::*;

    const ALL: [Kind; 4] = [Kind::I64, Kind::I128, Kind::F64, Kind::Bytes];

    /// These bytes lie in checkpoints: they never change.
    #[test]
    fn golden_bytes() {
        let columns =
            [Column::I64(vec![-2], 0), Column::I128(vec![1], 0), Column::F64(vec![1.0], 0.0), Column::Bytes(vec![b"ab".to_vec()], vec![])];
        let timers = [(Clock::Processing, TimerTag(3), Instant::from_micros_saturating(258))];
        let holds = [(1, Instant::from_micros_saturating(-1))];
        let mut bytes = Vec::new();
        encode(None, columns.iter().map(|column| (column, 0)), timers.iter().copied(), holds.iter().copied(), &mut bytes);
        let mut want = vec![1, 3, 1];
        want.extend([0; 15]);
        want.extend([0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 2, b'a', b'b']);
        want.extend([1, 1, 3, 2, 1, 0, 0, 0, 0, 0, 0]);
        want.extend([1, 1, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(bytes, want);
        let layout = Layout { columns: ALL.to_vec(), holds: 2, items: 1 };
        let mut cell = CellState::default();
        layout.decode(&bytes, &mut cell).expect("what was written");
        let values = vec![Value::I64(-2), Value::I128(1), Value::F64(1.0), Value::Bytes(b"ab".to_vec())];
        assert_eq!(cell, CellState { era: None, values, timers: timers.to_vec(), holds: holds.to_vec() });
        assert_eq!(layout.decode(&[3], &mut cell), Err(StateError::Version(3)));
    }

    /// With an era, and before the last column was declared: these never change either.
    #[test]
    fn golden_bytes_of_an_era() {
        let columns = [Column::Bytes(vec![b"ab".to_vec()], vec![])];
        let mut bytes = Vec::new();
        encode(Some(300), columns.iter().map(|column| (column, 0)), [].into_iter(), [].into_iter(), &mut bytes);
        assert_eq!(bytes, [2, 0xac, 2, 1, 2, b'a', b'b', 0, 0]);
        let mut cell = CellState::default();
        let (before, now) = (Layout::parse("v1: bytes; holds 0; items 1"), Layout::parse("v1: bytes i64; holds 2; items 1"));
        let (before, now) = (before.expect("a layout"), now.expect("a layout"));
        now.decode(&bytes, &mut cell).expect("what was written");
        assert_eq!(cell, CellState { era: Some(300), values: vec![Value::Bytes(b"ab".to_vec())], ..CellState::default() });
        assert!(before.grows_to(&now) && !now.grows_to(&before));
        assert!(Layout::default().decode(&bytes, &mut cell).is_err(), "it has more columns than there are");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_cell_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..60), columns in proptest::collection::vec(0usize..4, 0..4)) {
            if let Some(version) = bytes.first_mut() {
                *version = VERSION + *version % 2;
            }
            let layout = Layout { columns: columns.into_iter().map(|kind| ALL[kind]).collect(), holds: 2, items: 0 };
            let _ = layout.decode(&bytes, &mut CellState::default());
        }

        #[test]
        fn a_layout_reads_back_from_its_words(columns in proptest::collection::vec(0usize..4, 0..5), holds in 0usize..9, items in 0usize..9) {
            let layout = Layout { columns: columns.into_iter().map(|kind| ALL[kind]).collect(), holds, items };
            prop_assert_eq!(Layout::parse(&layout.to_string()), Some(layout));
        }
    }
}
