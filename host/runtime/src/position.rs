//! Rows and positions in the words of a message.

use pelton_core::{Batch, Split};

/// An element in a message is cut here.
const MAX_SHOWN: usize = 400;

/// `file:line (byte offset)` or `topic t partition p offset o`.
pub fn describe(split: &Split, offset: i64) -> String {
    match split {
        Split::File { path, .. } => match pelton_connect::line_of(path, offset) {
            Some(line) => format!("{path}:{line} (byte {offset})"),
            None => format!("{path} byte {offset}"),
        },
        Split::Kafka { .. } => format!("{split} offset {offset}"),
        Split::Generated { .. } => format!("{split} row {offset}"),
    }
}

/// A row as JSON, cut to a readable length.
pub fn element(batch: &Batch, row: usize) -> String {
    let mut text = Vec::new();
    let shown = match pelton_connect::format::json_write::write_row(&batch.rows, row, &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => format!("{:?}", batch.rows.slice(row, 1).columns()),
    };
    cut(shown)
}

/// Cuts a text for a message, at a character.
pub fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
