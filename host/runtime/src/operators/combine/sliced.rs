//! Sliding windows with the default trigger, at a cost per row that does not grow with size / period.
//!
//! Event time is cut into slices on which every window starts and ends (their length is the greatest common divisor of size
//! and period). A row is added once, to the cell of its key and slice. A window is put together from three parts:
//!
//! ```text
//!   slices  | suffixes: each slice holds itself and all later ones before the pivot | prefix: slices from the pivot on |
//!           start of the window                                                  pivot                               end
//! ```
//!
//! so that it takes two merges, not one for each slice. When a window starts at or after the pivot, the pivot moves to its
//! end and the suffixes are made anew, from the last slice to the first: one merge a slice, once in its life. The prefix lies
//! in the key's *head*, a cell with an empty window; so does what must be known to go on.
//!
//! A row some of whose windows have fired is added to each of the others apart (the cell of key and window, into which the
//! parts are merged when it fires), or gives a late pane, or goes to `late`: that costs a step for each window, and is rare.
//!
//! Rows that have their window already, since a grouping gave them out, are added to the cell of key and window too.
//!
//! Invariants: slices before `covered` are in suffixes or in the prefix, slices from it on in neither; a head exists while a
//! slice of its key is covered and in a window to come; each (key, window) fires once at its end.

use super::core::{Core, Incoming};
use super::plain::Plain;
use super::way::{CLOSE, FIRE, SEAL, Way};
use crate::failure::Failure;
use crate::operator::Out;
use crate::windows;
use arrow::array::UInt32Array;
use async_trait::async_trait;
use pelton_core::batch::PaneTiming;
use pelton_core::watermark::{Lateness, closes_at, lateness};
use pelton_core::{Duration, Instant, Window, WindowFn};
use pelton_state::{CellKey, Clock, ColumnId, Slot};
use std::collections::BTreeMap;

/// With more slices in a window than this, looking for them costs more than it saves.
const MAX_SLICES: i64 = 4_096;
/// The window of a key's head: no row has it.
const HEAD: Window = Window { start: Instant::MIN, end: Instant::MIN };

/// The way.
pub struct Sliced {
    size: i64,
    period: i64,
    offset: i64,
    slice: i64,
    window_fn: WindowFn,
    /// Fires and closes whole windows.
    plain: Plain,
    /// Of a head: where suffixes end and the prefix begins.
    pivot: ColumnId,
    /// Of a head: the first slice with a suffix, or the pivot.
    suffix: ColumnId,
    /// Of a head: the last covered slice.
    last: ColumnId,
    /// Of a slice that is covered: the rows that came into it. Until then the cell's rows are those; then a suffix has later ones too.
    own: ColumnId,
}

/// A key whose window is due.
struct Due {
    head: Slot,
    /// The cell of key and window, where the parts come together.
    whole: Slot,
}

impl Sliced {
    /// Whether windows are worth cutting.
    pub fn fits(size: Duration, period: Duration) -> bool {
        let slice = gcd(size.micros(), period.micros());
        size.micros() > period.micros() && size.micros() / slice <= MAX_SLICES
    }

    /// Declares its columns.
    pub fn new(core: &mut Core, size: Duration, period: Duration, offset: Duration) -> Sliced {
        Sliced {
            size: size.micros(),
            period: period.micros(),
            offset: offset.micros(),
            slice: gcd(size.micros(), period.micros()),
            window_fn: WindowFn::Sliding { size, period, offset },
            plain: Plain::new(core),
            pivot: core.cells.declare(0i64),
            suffix: core.cells.declare(0i64),
            last: core.cells.declare(i64::MIN),
            own: core.cells.declare(0i64),
        }
    }

    /// The slice of a time.
    fn slice_of(&self, time: i64) -> Window {
        self.slice_from(floor(time, self.slice, self.offset))
    }

    fn slice_from(&self, start: i64) -> Window {
        Window { start: Instant::from_micros_saturating(start), end: Instant::from_micros_saturating(start.saturating_add(self.slice)) }
    }

    /// The end of the first window that a time is in, and how many it is in.
    fn windows_of(&self, time: i64) -> (Instant, u64) {
        // Starts of windows that hold it: in (time - size, time].
        let last = floor(time, self.period, self.offset);
        let before = floor(time.saturating_sub(self.size), self.period, self.offset);
        let end = before.saturating_add(self.period).saturating_add(self.size);
        (Instant::from_micros_saturating(end), ((last - before) / self.period) as u64)
    }

    /// (Row, window) pairs of a cell whose window has not fired.
    fn pairs(&self, core: &Core, window: Window, value: &dyn Fn(ColumnId) -> i64) -> u64 {
        let rows = value(core.rows) as u64;
        if window == HEAD {
            return 0;
        }
        if window.end.micros().saturating_sub(window.start.micros()) != self.slice {
            return rows;
        }
        let (first, count) = self.windows_of(window.start.micros());
        if core.watermark < first {
            return rows * count;
        }
        let fired = (core.watermark.micros().saturating_sub(first.micros()) / self.period) as u64 + 1;
        value(self.own) as u64 * count.saturating_sub(fired)
    }

    /// A slice of the key of `of`, if it has one.
    fn find(&self, core: &mut Core, of: Slot, start: i64) -> Option<Slot> {
        core.cells.find_beside(of, self.slice_from(start))
    }

    /// Fires all windows that end at `end`: those of the keys of `sealed` slices, of `heads` and of `wholes`.
    async fn fire(
        &mut self,
        core: &mut Core,
        end: Instant,
        sealed: Vec<Slot>,
        heads: Vec<Slot>,
        wholes: Vec<Slot>,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let (to, from) = (end.micros(), end.micros().saturating_sub(self.size));
        let window = Window { start: Instant::from_micros_saturating(from), end };
        let mut due: BTreeMap<Slot, Slot> = BTreeMap::new();
        let mut key = Vec::new();
        for slot in sealed.iter().chain(&heads).chain(&wholes) {
            key.clear();
            key.extend_from_slice(core.cells.key(*slot).key);
            let (head, new) = core.cells.entry(CellKey { key: &key, window: HEAD });
            if new {
                // Nothing is covered, so the first window turns.
                core.cells.write::<i64>(self.pivot, &[head])[head as usize] = from;
                core.cells.write::<i64>(self.suffix, &[head])[head as usize] = from;
            }
            if let std::collections::btree_map::Entry::Vacant(entry) = due.entry(head) {
                entry.insert(core.cells.entry(CellKey { key: &key, window }).0);
            }
        }
        let due: Vec<Due> = due.into_iter().map(|(head, whole)| Due { head, whole }).collect();
        self.cover(core, sealed).await?;
        self.turn(core, &due, from, to).await?;
        self.join(core, &due).await?;
        let wholes: Vec<Slot> = due.iter().map(|due| due.whole).collect();
        self.plain.fire(core, &wholes, PaneTiming::OnTime, out).await?;
        let close = closes_at(window, core.plan.strategy.allowed_lateness);
        for whole in wholes {
            match close > end {
                true => core.cells.set_timer(Clock::Event, whole, CLOSE, close),
                false => core.cells.remove(whole),
            }
        }
        self.leave_behind(core, &due, from, to);
        Ok(())
    }

    /// Adds complete slices to the prefixes of their keys, in order of time: what comes of them does not depend on their slots.
    async fn cover(&self, core: &mut Core, mut sealed: Vec<Slot>) -> Result<(), Failure> {
        let start = |slot: &Slot| core.cells.key(*slot).window.start;
        if !sealed.is_sorted_by_key(start) {
            sealed.sort_by_key(start);
        }
        let mut heads = Vec::with_capacity(sealed.len());
        for slot in &sealed {
            let start = core.cells.key(*slot).window.start.micros();
            let head = core.cells.find_beside(*slot, HEAD);
            let head = head.ok_or_else(|| core.internal("a slice without a head"))?;
            let last = &mut core.cells.write::<i64>(self.last, &[head])[head as usize];
            *last = (*last).max(start);
            let rows = core.cells.column::<i64>(core.rows)[*slot as usize];
            core.cells.write::<i64>(self.own, &[*slot])[*slot as usize] = rows;
            heads.push(head);
        }
        core.merge(&heads, &sealed).await
    }

    /// Where the window begins at or after the pivot: makes suffixes of all its slices and empties the prefix.
    async fn turn(&self, core: &mut Core, due: &[Due], from: i64, to: i64) -> Result<(), Failure> {
        let pivots = core.cells.column::<i64>(self.pivot);
        let turning: Vec<Slot> = due.iter().map(|due| due.head).filter(|head| pivots[*head as usize] <= from).collect();
        if turning.is_empty() {
            return Ok(());
        }
        // The slice that each key's suffixes have come to.
        let mut reached: Vec<Option<(Slot, i64)>> = vec![None; turning.len()];
        let mut start = to - self.slice;
        while start >= from {
            let (mut into, mut added) = (Vec::new(), Vec::new());
            for (number, head) in turning.iter().enumerate() {
                let Some(slice) = self.find(core, *head, start) else { continue };
                if let Some((later, _)) = reached[number] {
                    into.push(slice);
                    added.push(later);
                }
                reached[number] = Some((slice, start));
            }
            core.merge(&into, &added).await?;
            start -= self.slice;
        }
        core.clear(&turning);
        for (head, reached) in turning.iter().zip(reached) {
            core.cells.write::<i64>(self.pivot, &[*head])[*head as usize] = to;
            core.cells.write::<i64>(self.suffix, &[*head])[*head as usize] = reached.map_or(to, |(_, start)| start);
        }
        Ok(())
    }

    /// Puts windows together: a suffix, the prefix, and what the cell of the window holds already.
    async fn join(&self, core: &mut Core, due: &[Due]) -> Result<(), Failure> {
        let (mut into, mut parts) = (Vec::new(), Vec::new());
        for due in due {
            let (suffix, pivot) =
                (core.cells.column::<i64>(self.suffix)[due.head as usize], core.cells.column::<i64>(self.pivot)[due.head as usize]);
            if suffix < pivot {
                into.push(due.whole);
                parts.push(self.find(core, due.head, suffix).ok_or_else(|| core.internal("a suffix is missing"))?);
            }
            if core.cells.column::<i64>(core.rows)[due.head as usize] > 0 {
                into.push(due.whole);
                parts.push(due.head);
            }
        }
        core.merge(&into, &parts).await
    }

    /// Drops the slices that no later window has, and the heads that have no slice left; the others fire a period later.
    fn leave_behind(&self, core: &mut Core, due: &[Due], from: i64, to: i64) {
        let next = from + self.period;
        for due in due {
            let mut start = from;
            while start < next {
                if let Some(slice) = self.find(core, due.head, start) {
                    core.cells.remove(slice);
                }
                start += self.slice;
            }
            if core.cells.column::<i64>(self.last)[due.head as usize] < next {
                core.cells.remove(due.head);
                continue;
            }
            let pivot = core.cells.column::<i64>(self.pivot)[due.head as usize];
            let mut suffix = core.cells.column::<i64>(self.suffix)[due.head as usize].max(next.min(pivot));
            while suffix < pivot && self.find(core, due.head, suffix).is_none() {
                suffix += self.slice;
            }
            core.cells.write::<i64>(self.suffix, &[due.head])[due.head as usize] = suffix;
            core.cells.set_timer(Clock::Event, due.head, FIRE, Instant::from_micros_saturating(to + self.period));
        }
    }

    /// A row some of whose windows have fired.
    async fn straggler(
        &mut self,
        core: &mut Core,
        incoming: &Incoming,
        row: u32,
        late: &mut Vec<(u32, Window)>,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let mut windows = Vec::new();
        self.window_fn.each(Instant::from_micros_saturating(incoming.batch.times[row as usize]), |window| windows.push(window));
        for window in windows {
            match lateness(window, core.plan.strategy.allowed_lateness, core.watermark) {
                Lateness::Dropped => late.push((row, window)),
                Lateness::Allowed => self.plain.late_pane(core, incoming, row, window, out).await?,
                Lateness::OnTime => {
                    let (slot, new) = core.cell(row as usize, window);
                    if new {
                        core.cells.set_timer(Clock::Event, slot, FIRE, window.end);
                    }
                    core.add(&[slot], incoming, Some(&UInt32Array::from(vec![row]))).await?;
                }
            }
        }
        Ok(())
    }

    /// Rows that a grouping gave out: each is in the one window that it came from, whatever its time.
    async fn fixed_rows(&mut self, core: &mut Core, incoming: &Incoming, out: &mut Out) -> Result<(), Failure> {
        let mut assigned: Vec<(u32, Window)> = Vec::with_capacity(incoming.batch.num_rows());
        windows::for_each(&incoming.batch, self.window_fn, |row, window| assigned.push((row as u32, window)));
        let (mut slots, mut picked, mut late) = (Vec::new(), Vec::new(), Vec::new());
        for (row, window) in assigned {
            match lateness(window, core.plan.strategy.allowed_lateness, core.watermark) {
                Lateness::Dropped => late.push((row, window)),
                Lateness::Allowed => self.plain.late_pane(core, incoming, row, window, out).await?,
                Lateness::OnTime => {
                    let (slot, new) = core.cell(row as usize, window);
                    if new {
                        core.cells.set_timer(Clock::Event, slot, FIRE, window.end);
                    }
                    slots.push(slot);
                    picked.push(row);
                }
            }
        }
        core.add(&slots, incoming, Some(&UInt32Array::from(picked))).await?;
        core.late(&incoming.batch, &late, out);
        Ok(())
    }
}

#[async_trait(?Send)]
impl Way for Sliced {
    async fn rows(&mut self, core: &mut Core, incoming: &Incoming, out: &mut Out) -> Result<(), Failure> {
        if incoming.batch.windows.is_some() {
            return self.fixed_rows(core, incoming, out).await;
        }
        let times = &incoming.batch.times;
        let (mut placed, mut table, mut stragglers) = (Vec::with_capacity(times.len()), Vec::new(), Vec::new());
        // Neighbours mostly share a slice.
        let mut known: Option<(Window, Instant, u64)> = None;
        for (row, time) in times.iter().enumerate() {
            let (slice, first_end, count) = match known {
                Some(known) if known.0.start.micros() <= *time && *time < known.0.end.micros() => known,
                _ => {
                    let slice = self.slice_of(*time);
                    // All times of a slice are in the same windows.
                    let (end, count) = self.windows_of(slice.start.micros());
                    *known.insert((slice, end, count))
                }
            };
            out.account.copies += count - 1;
            if first_end <= core.watermark {
                stragglers.push(row as u32);
                continue;
            }
            if table.last() != Some(&slice) {
                table.push(slice);
            }
            placed.push((row as u32, table.len() as u32 - 1));
        }
        let (slots, new) = core.cells_of(&placed, &table);
        for slot in new {
            let (end, _) = self.windows_of(core.cells.key(slot).window.start.micros());
            core.cells.set_timer(Clock::Event, slot, SEAL, end);
        }
        if stragglers.is_empty() {
            return core.add(&slots, incoming, None).await;
        }
        let picked = UInt32Array::from_iter_values(placed.iter().map(|(row, _)| *row));
        core.add(&slots, incoming, Some(&picked)).await?;
        let mut late = Vec::new();
        for row in stragglers {
            self.straggler(core, incoming, row, &mut late, out).await?;
        }
        core.late(&incoming.batch, &late, out);
        Ok(())
    }

    async fn step(&mut self, core: &mut Core, out: &mut Out) -> Result<bool, Failure> {
        let Some((at, due)) = core.due()? else { return Ok(false) };
        let (mut sealed, mut heads, mut wholes) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, tag) in due {
            match tag {
                SEAL => sealed.push(slot),
                CLOSE => {
                    core.cells.remove(slot);
                }
                _ if core.cells.key(slot).window == HEAD => heads.push(slot),
                _ => wholes.push(slot),
            }
        }
        if !(sealed.is_empty() && heads.is_empty() && wholes.is_empty()) {
            self.fire(core, at, sealed, heads, wholes, out).await?;
        }
        Ok(true)
    }

    fn hold(&self, _core: &Core) -> Option<Instant> {
        None
    }

    fn held(&self, core: &Core) -> u64 {
        core.sum(|window, value| self.pairs(core, window, value))
    }
}

/// The largest `k * step + offset` that is at most `time`.
fn floor(time: i64, step: i64, offset: i64) -> i64 {
    let steps = (i128::from(time) - i128::from(offset)).div_euclid(i128::from(step));
    (steps * i128::from(step) + i128::from(offset)).max(i128::from(i64::MIN)) as i64
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
