//! Whether rows are aggregated before they are sent to their grouping (combiner lifting). It pays where many rows share a
//! cell; where they do not, it is work for nothing.

/// Rows between two decisions: enough to see keys come back.
pub const SPAN_ROWS: u64 = 1 << 16;
/// More partial results than this share of the rows are not worth making.
pub const MAX_PARTIALS: f64 = 0.8;
/// For how many spans rows then pass as they are, before it is tried again.
pub const REST_SPANS: u64 = 15;

/// Tries, measures, and rests while it does not pay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifting {
    /// Rows and cells of the span at hand.
    rows: u64,
    cells: u64,
    /// Rows that still pass as they are.
    rest: u64,
}

impl Lifting {
    /// Whether the next rows are worth a try; `rows` of them come.
    pub fn tries(&mut self, rows: u64) -> bool {
        let resting = self.rest > 0;
        self.rest = self.rest.saturating_sub(rows);
        !resting
    }

    /// So many rows fell into so many new cells.
    pub fn observe(&mut self, rows: u64, cells: u64) {
        self.rows += rows;
        self.cells += cells;
        if self.rows >= SPAN_ROWS {
            let pays = self.cells as f64 <= MAX_PARTIALS * self.rows as f64;
            *self = Lifting { rest: if pays { 0 } else { REST_SPANS * SPAN_ROWS }, ..Lifting::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows until it rests, in spans, and for how long.
    #[test]
    fn rests_while_it_does_not_pay() {
        for (cells, rests) in
            [(0, false), (SPAN_ROWS / 2, false), (SPAN_ROWS * 4 / 5, false), (SPAN_ROWS * 9 / 10, true), (SPAN_ROWS, true)]
        {
            let mut lifting = Lifting::default();
            assert!(lifting.tries(SPAN_ROWS));
            lifting.observe(SPAN_ROWS - 1, cells);
            assert!(lifting.tries(1), "a span is not over");
            lifting.observe(1, 0);
            for span in 0..REST_SPANS {
                assert_eq!(lifting.tries(SPAN_ROWS), !rests, "span {span} after {cells} cells");
            }
            assert!(lifting.tries(SPAN_ROWS), "it is tried again");
        }
    }
}
