//! What a row does to a table: the reserved column `row_kind`.
//!
//! Rows are inserts unless their batch has the column. Numbers are those of the reference, and never change.

/// Name of the reserved column, of integers.
pub const ROW_KIND: &str = "row_kind";

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// A new row: 0.
    Insert,
    /// What a row was before a change; a row with what it has become follows: 1.
    UpdateBefore,
    /// What a row has become: 2.
    UpdateAfter,
    /// The row is no more: 3.
    Delete,
}

impl RowKind {
    /// From the column's number; `None` for any other.
    pub fn from_number(number: i64) -> Option<RowKind> {
        Some(match number {
            0 => RowKind::Insert,
            1 => RowKind::UpdateBefore,
            2 => RowKind::UpdateAfter,
            3 => RowKind::Delete,
            _ => return None,
        })
    }

    /// Whether a table that holds one row a key has no row for this key after it.
    pub fn removes(self) -> bool {
        matches!(self, RowKind::UpdateBefore | RowKind::Delete)
    }
}
