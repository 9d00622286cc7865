//! The window of each row: from the batch where it is fixed, from the window function where it is not.

use pelton_core::batch::{PaneInfo, RowWindows};
use pelton_core::{Batch, Instant, Window, WindowFn};

/// Calls `each` with every row and its window, in order.
pub fn for_each(batch: &Batch, window_fn: WindowFn, mut each: impl FnMut(usize, Window)) {
    match &batch.windows {
        Some(windows) => windows.index.iter().enumerate().for_each(|(row, number)| each(row, windows.table[*number as usize])),
        None => {
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
    }
}

/// The windows of a batch, made explicit.
pub fn fixed(batch: &Batch, window_fn: WindowFn) -> RowWindows {
    if let Some(windows) = &batch.windows {
        return windows.clone();
    }
    let mut table: Vec<Window> = Vec::new();
    let mut index = Vec::with_capacity(batch.num_rows());
    for_each(batch, window_fn, |_, window| {
        // Search from the newest: rows come roughly in order of time.
        let number = table.iter().rposition(|known| *known == window).unwrap_or_else(|| {
            table.push(window);
            table.len() - 1
        });
        index.push(number as u32);
    });
    RowWindows { index: index.into(), table: table.into(), pane: PaneInfo::UNWINDOWED }
}
