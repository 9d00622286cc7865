//! The windows of each row: from the batch where they are fixed, from the window function where they are not.

use crate::metrics::Account;
use arrow::array::UInt32Array;
use pelton_core::batch::{PaneInfo, RowWindows};
use pelton_core::{Batch, Instant, Window, WindowFn};

/// Calls `each` with every row and each of its windows, in the order of rows. A row may be in none.
pub fn for_each(batch: &Batch, window_fn: WindowFn, mut each: impl FnMut(usize, Window)) {
    match &batch.windows {
        Some(windows) => windows.index.iter().enumerate().for_each(|(row, number)| each(row, windows.table[*number as usize])),
        None => assign_each(batch, window_fn, each),
    }
}

/// As [`for_each`], but by the window function, also where windows are fixed.
pub fn assign_each(batch: &Batch, window_fn: WindowFn, mut each: impl FnMut(usize, Window)) {
    match window_fn.is_single() {
        true => {
            // Neighbours mostly share a window: assign anew only outside the last one.
            let mut last: Option<Window> = None;
            for (row, time) in batch.times.iter().enumerate() {
                let time = Instant::from_micros_saturating(*time);
                let window = match last {
                    Some(window) if window.start <= time && time < window.end => window,
                    _ => window_fn.assign(time),
                };
                last = Some(window);
                each(row, window);
            }
        }
        false => {
            for (row, time) in batch.times.iter().enumerate() {
                window_fn.each(Instant::from_micros_saturating(*time), |window| each(row, window));
            }
        }
    }
}

/// The batch with its windows made explicit: a row in n windows becomes n rows, which the account takes note of.
pub fn fixed(batch: Batch, window_fn: WindowFn, account: &mut Account) -> Batch {
    if batch.windows.is_some() {
        return batch;
    }
    let mut table: Vec<Window> = Vec::new();
    let mut index = Vec::with_capacity(batch.num_rows());
    let mut origin = Vec::with_capacity(batch.num_rows());
    for_each(&batch, window_fn, |row, window| {
        // Search from the newest: rows come roughly in order of time.
        let number = table.iter().rev().take(MAX_SEARCH).position(|known| *known == window);
        let number = number.map(|back| table.len() - 1 - back).unwrap_or_else(|| {
            table.push(window);
            table.len() - 1
        });
        index.push(number as u32);
        origin.push(row as u32);
    });
    account.assigned(batch.num_rows(), &origin);
    let mut batch = if window_fn.is_single() || window_fn.merges() { batch } else { batch.take(&UInt32Array::from(origin)) };
    batch.windows = Some(RowWindows { index: index.into(), table: table.into(), pane: PaneInfo::UNWINDOWED });
    batch
}

/// A window may stand in the table twice; searching further would cost more than that.
const MAX_SEARCH: usize = 64;
