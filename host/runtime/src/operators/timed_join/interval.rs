//! IntervalJoin: every pair of rows with equal keys where the right one's time is in [left - before, left + after].
//!
//! A row is held against the rows of the other input that are there, and kept for those that come. So a pair comes out as
//! soon as its second row is there, with the later of the two times; that row is not late, so the pair is not before the
//! horizon. A row that must come out without a partner does so once the horizon has passed the last time that a partner could
//! have; until then its time holds the output watermark.
//!
//! State. The time line is cut into slices of a quarter of the span; a cell is a key in a slice, of one input. A row looks at
//! the few slices that its partners can be in, and a slice is dropped as a whole when none of its rows can pair any
//! more: rows are kept for a quarter of the span longer than they need, and none is ever moved.

use super::pairs::{Half, Matches, Pairs, Stack};
use super::rows::{each, mark, push};
use super::{Clock, Incoming, Rule, TimedJoinPlan};
use crate::operator::Out;
use pelton_core::batch::MAX_ROWS;
use pelton_core::{Duration, Instant, Window, WindowFn};
use pelton_state::{CellKey, Cells, Clock as By, ColumnId, HoldsId, Slot, TimerTag};

const ALONE: TimerTag = TimerTag(0);
const CLOSE: TimerTag = TimerTag(1);
/// Slices that a span is cut into.
const SLICES: i64 = 4;

/// The rule and the rows of both inputs.
pub(super) struct Interval {
    slices: WindowFn,
    /// Which of the sides is `left`.
    left: usize,
    sides: [Side; 2],
}

/// The rows of one input.
struct Side {
    /// Its partners' times are from so much before a row's own.
    back: Duration,
    /// To so much after it.
    forth: Duration,
    /// Whether its rows come out without a partner.
    kept: bool,
    cells: Cells,
    rows: ColumnId,
    /// Rows without a partner so far.
    lonely: ColumnId,
    holds: HoldsId,
}

impl Interval {
    /// With no state.
    pub fn new(plan: &TimedJoinPlan, before: Duration, after: Duration) -> Interval {
        let span = before.micros().saturating_add(after.micros());
        let size = Duration::from_micros((span / SLICES).max(1));
        let side = |number: usize| {
            let (back, forth) = if number == plan.left { (before, after) } else { (after, before) };
            let mut cells = Cells::default();
            let (rows, lonely) = (cells.declare(Vec::<u8>::new()), cells.declare(0i64));
            Side { back, forth, kept: plan.sides[number].kept, holds: cells.declare_holds(), cells, rows, lonely }
        };
        Interval { slices: WindowFn::Fixed { size, offset: Duration::ZERO }, left: plan.left, sides: [side(0), side(1)] }
    }

    /// Pairs a row with those of the other input; whether there was one.
    fn meet(
        &mut self,
        clock: Clock,
        incoming: &Incoming<'_>,
        row: u32,
        time: Instant,
        matches: &mut Matches<'_>,
        out: &mut Out,
    ) -> Result<bool, String> {
        let own = &self.sides[incoming.side];
        let (from, to) = (time.saturating_sub(own.back), time.saturating_add(own.forth));
        let other = &mut self.sides[1 - incoming.side];
        let key = incoming.keys.get(row as usize);
        let mut found = false;
        let mut slice = self.slices.assign(from);
        loop {
            if let Some(slot) = other.cells.find(CellKey { key, window: slice }) {
                let mut first = Vec::new();
                for kept in each(&other.cells.column::<Vec<u8>>(other.rows)[slot as usize]) {
                    if from <= kept.time && kept.time <= to {
                        found = true;
                        matches.push(row, kept.row, time.max(kept.time), out)?;
                        if !kept.led {
                            first.push(kept.at);
                        }
                    }
                }
                other.led(clock, slot, &first, out);
            }
            let next = self.slices.assign(slice.end);
            if slice.end > to || next == slice {
                return Ok(found);
            }
            slice = next;
        }
    }
}

impl Side {
    fn add(&mut self, clock: Clock, cell: CellKey<'_>, time: Instant, led: bool, row: &[u8]) {
        let slice = cell.window;
        let (slot, new) = self.cells.entry(cell);
        if new {
            // The last time of the slice is its end less a microsecond.
            let last = Instant::from_micros_saturating(slice.end.micros() - 1).max(time);
            self.cells.set_timer(By::Event, slot, CLOSE, clock.settles(last.saturating_add(self.forth)));
        }
        let mut touched = self.cells.touch(&[slot]);
        push(&mut touched.column::<Vec<u8>>(self.rows)[slot as usize], time, led, row);
        touched.column::<i64>(self.lonely)[slot as usize] += i64::from(!led);
        if self.kept && !led {
            let due = clock.settles(time.saturating_add(self.forth));
            if self.cells.pending_timer(By::Event, slot, ALONE).is_none_or(|pending| due < pending) {
                self.cells.set_timer(By::Event, slot, ALONE, due);
                self.cells.set_hold(self.holds, slot, Some(time));
            }
        }
    }

    /// Something has come of rows of a cell, for the first time.
    fn led(&mut self, clock: Clock, slot: Slot, first: &[usize], out: &mut Out) {
        if first.is_empty() {
            return;
        }
        out.account.led += first.len() as u64;
        let mut touched = self.cells.touch(&[slot]);
        let cell = &mut touched.column::<Vec<u8>>(self.rows)[slot as usize];
        first.iter().for_each(|at| mark(cell, *at));
        touched.column::<i64>(self.lonely)[slot as usize] -= first.len() as i64;
        if self.kept {
            let cell = &self.cells.column::<Vec<u8>>(self.rows)[slot as usize];
            let earliest = each(cell).filter(|kept| !kept.led).map(|kept| kept.time).min();
            self.cells.set_hold(self.holds, slot, earliest);
            match earliest {
                Some(time) => self.cells.set_timer(By::Event, slot, ALONE, clock.settles(time.saturating_add(self.forth))),
                None => self.cells.clear_timer(By::Event, slot, ALONE),
            }
        }
    }

    /// Takes the rows of a cell that will have no partner any more.
    fn alone(&mut self, clock: Clock, slot: Slot, stack: &mut Stack, times: &mut Vec<i64>, out: &mut Out) {
        let mut first = Vec::new();
        for kept in each(&self.cells.column::<Vec<u8>>(self.rows)[slot as usize]) {
            if !kept.led && clock.is_settled(kept.time.saturating_add(self.forth)) {
                first.push(kept.at);
                stack.push(Some(kept.row));
                times.push(kept.time.micros());
            }
        }
        self.led(clock, slot, &first, out);
    }

    fn close(&mut self, slot: Slot, out: &mut Out) {
        out.account.filtered += self.cells.column::<i64>(self.lonely)[slot as usize] as u64;
        self.cells.remove(slot);
    }
}

impl Rule for Interval {
    fn rows(&mut self, pairs: &Pairs, clock: Clock, incoming: &Incoming<'_>, out: &mut Out) -> Result<(), String> {
        let mut matches = Matches::new(pairs, incoming.side, incoming.columns);
        for row in &incoming.rows {
            let number = *row as usize;
            let time = Instant::from_micros_saturating(incoming.times[number]);
            let led = self.meet(clock, incoming, *row, time, &mut matches, out)?;
            out.account.led += u64::from(led);
            let window: Window = self.slices.assign(time);
            let cell = CellKey { key: incoming.keys.get(number), window };
            self.sides[incoming.side].add(clock, cell, time, led, incoming.bytes.get(number));
        }
        matches.flush(out)
    }

    fn advance(&mut self, pairs: &Pairs, clock: Clock, out: &mut Out) -> Result<(), String> {
        for number in 0..self.sides.len() {
            let side = &mut self.sides[number];
            let (mut stack, mut times) = (Stack::default(), Vec::new());
            while let Some((_, due)) = side.cells.due_timers(By::Event, clock.watermark) {
                for (slot, tag) in due {
                    match tag {
                        ALONE => side.alone(clock, slot, &mut stack, &mut times, out),
                        _ => side.close(slot, out),
                    }
                }
                if times.len() >= MAX_ROWS {
                    pairs.give(number, Half::Kept(&std::mem::take(&mut stack)), Half::Nulls, std::mem::take(&mut times), out)?;
                }
            }
            pairs.give(number, Half::Kept(&stack), Half::Nulls, times, out)?;
        }
        Ok(())
    }

    fn hold(&self) -> Option<Instant> {
        self.sides.iter().filter_map(|side| side.cells.earliest_hold(side.holds)).min()
    }

    fn held(&self) -> u64 {
        let lonely = |side: &Side| {
            let lonely = side.cells.column::<i64>(side.lonely);
            side.cells.slots().map(|slot| lonely[slot as usize] as u64).sum::<u64>()
        };
        self.sides.iter().map(lonely).sum()
    }

    fn visit_cells(&mut self, visit: &mut dyn FnMut(&'static str, &mut Cells)) {
        for (number, side) in self.sides.iter_mut().enumerate() {
            visit(if number == self.left { "left" } else { "right" }, &mut side.cells);
        }
    }

    fn bytes(&self) -> usize {
        self.sides.iter().map(|side| side.cells.bytes()).sum()
    }
}
