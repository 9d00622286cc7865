//! AsOfJoin: each row of `left` with the newest row of `right` of its key that is not newer than it, nor older by more than
//! `tolerance`. The rows of `right` are versions of what is known of a key.
//!
//! A left row waits until the horizon has passed it: then every version that it could mean is there, so the answer does not
//! depend on what came first. It comes out with its own event time, which is not before the horizon that was given out last.
//! Of versions of one time the one with the largest bytes counts (`KeyEncoder::for_rows`, over the columns that come out).
//!
//! State. A cell is a key and holds its left rows that wait and its versions, in the order in which they came. It is looked at when
//! the horizon passes a row of it, and then drops every version that is superseded: of those at or before the horizon only the
//! newest can still be meant, and that only until it is older than `tolerance`.

use super::pairs::{Half, Pairs, Stack};
use super::rows::{each, push};
use super::{Clock, Incoming, Rule, TimedJoinPlan};
use crate::operator::Out;
use pelton_core::batch::MAX_ROWS;
use pelton_core::{Duration, Instant, Window};
use pelton_state::{CellKey, Cells, Clock as By, ColumnId, Slot, TimerTag};

const LOOK: TimerTag = TimerTag(0);

/// The rule and its rows.
pub(super) struct AsOf {
    left: usize,
    tolerance: Duration,
    /// Whether left rows come out without a partner.
    kept: bool,
    cells: Cells,
    /// Left rows that wait.
    waiting: ColumnId,
    /// Versions.
    versions: ColumnId,
    /// Rows of both that have led to nothing yet.
    held: ColumnId,
}

/// A version of a key.
struct Version {
    time: Instant,
    led: bool,
    row: Vec<u8>,
}

/// Left rows with their partners, on their way out.
#[derive(Default)]
struct Found {
    lefts: Stack,
    rights: Stack,
    times: Vec<i64>,
}

impl AsOf {
    /// With no state.
    pub fn new(plan: &TimedJoinPlan, tolerance: Duration) -> AsOf {
        let mut cells = Cells::default();
        let (waiting, versions, held) = (cells.declare(Vec::<u8>::new()), cells.declare(Vec::<u8>::new()), cells.declare(0i64));
        let kept = plan.sides[plan.left].kept;
        AsOf { left: plan.left, tolerance, kept, cells, waiting, versions, held }
    }

    fn look_at(&mut self, slot: Slot, at: Instant) {
        if self.cells.pending_timer(By::Event, slot, LOOK).is_none_or(|pending| at < pending) {
            self.cells.set_timer(By::Event, slot, LOOK, at);
        }
    }

    /// The versions of a cell by time, one for each time.
    fn versions(&self, slot: Slot, out: &mut Out) -> Vec<Version> {
        let cell = &self.cells.column::<Vec<u8>>(self.versions)[slot as usize];
        let mut versions: Vec<Version> =
            each(cell).map(|kept| Version { time: kept.time, led: kept.led, row: kept.row.to_vec() }).collect();
        versions.sort_by(|a, b| (a.time, &b.row).cmp(&(b.time, &a.row)));
        let all = versions.len();
        versions.dedup_by(|next, first| next.time == first.time);
        // Those that were dropped have never been looked at: a time is looked at when all its versions have come.
        out.account.filtered += (all - versions.len()) as u64;
        versions
    }

    /// Gives out the left rows of a cell that are settled, and drops what nobody can mean any more.
    fn look(&mut self, clock: Clock, slot: Slot, found: &mut Found, out: &mut Out) {
        let mut versions = self.versions(slot, out);
        let mut waiting = Vec::new();
        let mut next = Instant::MAX;
        for left in each(&self.cells.column::<Vec<u8>>(self.waiting)[slot as usize]) {
            if !clock.is_settled(left.time) {
                next = next.min(clock.settles(left.time));
                push(&mut waiting, left.time, false, left.row);
                continue;
            }
            let newest = versions.partition_point(|version| version.time <= left.time).checked_sub(1);
            let partner = newest.map(|at| &mut versions[at]).filter(|version| version.time >= left.time.saturating_sub(self.tolerance));
            if partner.is_none() && !self.kept {
                out.account.filtered += 1;
                continue;
            }
            out.account.led += 1;
            found.lefts.push(Some(left.row));
            found.times.push(left.time.micros());
            match partner {
                Some(version) => {
                    out.account.led += u64::from(!std::mem::replace(&mut version.led, true));
                    found.rights.push(Some(&version.row));
                }
                None => found.rights.push(None),
            }
        }
        self.drop_superseded(clock, &mut versions, out);
        if let Some(oldest) = versions.first() {
            next = next.min(clock.settles(oldest.time.saturating_add(self.tolerance)));
        }
        if let Some(second) = versions.get(1) {
            next = next.min(clock.settles(second.time));
        }
        self.keep(slot, waiting, &versions, next);
    }

    /// Only times from the horizon on will be asked for.
    fn drop_superseded(&self, clock: Clock, versions: &mut Vec<Version>, out: &mut Out) {
        let horizon = clock.horizon();
        let mut gone = versions.partition_point(|version| version.time <= horizon).saturating_sub(1);
        if versions.get(gone).is_some_and(|version| clock.is_settled(version.time.saturating_add(self.tolerance))) {
            gone += 1;
        }
        out.account.filtered += versions.drain(..gone).filter(|version| !version.led).count() as u64;
    }

    fn keep(&mut self, slot: Slot, waiting: Vec<u8>, versions: &[Version], next: Instant) {
        if waiting.is_empty() && versions.is_empty() {
            self.cells.remove(slot);
            return;
        }
        let held = each(&waiting).count() + versions.iter().filter(|version| !version.led).count();
        let mut bytes = Vec::new();
        versions.iter().for_each(|version| push(&mut bytes, version.time, version.led, &version.row));
        let mut touched = self.cells.touch(&[slot]);
        touched.column::<Vec<u8>>(self.waiting)[slot as usize] = waiting;
        touched.column::<Vec<u8>>(self.versions)[slot as usize] = bytes;
        touched.column::<i64>(self.held)[slot as usize] = held as i64;
        self.cells.set_timer(By::Event, slot, LOOK, next);
    }
}

impl Found {
    fn flush(&mut self, left: usize, pairs: &Pairs, out: &mut Out) -> Result<(), String> {
        let Found { lefts, rights, times } = std::mem::take(self);
        pairs.give(left, Half::Kept(&lefts), Half::Kept(&rights), times, out)
    }
}

impl Rule for AsOf {
    fn rows(&mut self, _pairs: &Pairs, clock: Clock, incoming: &Incoming<'_>, _out: &mut Out) -> Result<(), String> {
        let column = if incoming.side == self.left { self.waiting } else { self.versions };
        for row in &incoming.rows {
            let number = *row as usize;
            let time = Instant::from_micros_saturating(incoming.times[number]);
            let (slot, _) = self.cells.entry(CellKey { key: incoming.keys.get(number), window: Window::GLOBAL });
            let mut touched = self.cells.touch(&[slot]);
            push(&mut touched.column::<Vec<u8>>(column)[slot as usize], time, false, incoming.bytes.get(number));
            touched.column::<i64>(self.held)[slot as usize] += 1;
            self.look_at(slot, clock.settles(time));
        }
        Ok(())
    }

    fn advance(&mut self, pairs: &Pairs, clock: Clock, out: &mut Out) -> Result<(), String> {
        let mut found = Found::default();
        while let Some((_, due)) = self.cells.due_timers(By::Event, clock.watermark) {
            for (slot, _) in due {
                self.look(clock, slot, &mut found, out);
                if found.times.len() >= MAX_ROWS {
                    found.flush(self.left, pairs, out)?;
                }
            }
        }
        found.flush(self.left, pairs, out)
    }

    /// A left row that waits is not before the horizon.
    fn hold(&self) -> Option<Instant> {
        None
    }

    fn held(&self) -> u64 {
        let held = self.cells.column::<i64>(self.held);
        self.cells.slots().map(|slot| held[slot as usize] as u64).sum()
    }

    fn visit_cells(&mut self, visit: &mut dyn FnMut(&'static str, &mut Cells)) {
        visit("cells", &mut self.cells);
    }

    fn bytes(&self) -> usize {
        self.cells.bytes()
    }
}
