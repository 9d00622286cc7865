//! Hot keys: which keys have so many rows that the task that owns them is what a grouping waits for.
//!
//! A sample of the rows goes into a space-saving sketch; partial results (`crate::lift`) go in with the number of their rows.

use arrow::array::AsArray;
use arrow::array::BinaryArray;
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use pelton_core::heavy::SpaceSaving;
use pelton_core::key::{Keys, key_hash};
use pelton_core::key_decode::KeyDecoder;

/// Counters of the sketch: a key of more than 1/64 of a task's rows is never missed.
const COUNTERS: usize = 64;
/// One row in so many is looked at. A prime, so that a pattern in the input is not likely to hide a key.
const SAMPLE: usize = 61;
/// The share of a task's rows from which a key is reported; its share of all rows is less or the same.
const SHARE: f64 = 0.1;

/// The heaviest keys of one task.
pub struct HotKeys {
    sketch: SpaceSaving,
    /// Rows until the next of the sample.
    skip: usize,
    decoder: KeyDecoder,
    /// Without a key there is nothing to find.
    keyed: bool,
}

impl HotKeys {
    /// None yet, of keys of these types.
    pub fn new(types: &[DataType]) -> Result<HotKeys, String> {
        Ok(HotKeys { sketch: SpaceSaving::new(COUNTERS), skip: 0, decoder: KeyDecoder::new(types)?, keyed: !types.is_empty() })
    }

    /// Rows came.
    pub fn rows(&mut self, keys: &Keys) {
        if !self.keyed {
            return;
        }
        let mut row = self.skip;
        while row < keys.len() {
            let key = keys.get(row);
            self.sketch.offer(key, key_hash(key), SAMPLE as u64);
            row += SAMPLE;
        }
        self.skip = row - keys.len();
    }

    /// Partial results came: `counts[i]` rows of key `i`.
    pub fn partial(&mut self, keys: &BinaryArray, counts: &[i64]) {
        if self.keyed {
            for (key, count) in keys.iter().flatten().zip(counts) {
                self.sketch.offer(key, key_hash(key), *count as u64);
            }
        }
    }

    /// Keys in words, and how many rows they have at least, about.
    pub fn heaviest(&self) -> Vec<(String, u64)> {
        let heavy = self.sketch.above(SHARE);
        let Ok(columns) = self.decoder.decode(heavy.iter().map(|heavy| heavy.key.as_slice())) else { return Vec::new() };
        let shown = |row: usize| {
            let values = columns.iter().map(|column| match column.is_null(row) {
                true => "null".to_string(),
                false => match column.as_string_opt::<i32>() {
                    Some(texts) => format!("{:?}", texts.value(row)),
                    None => array_value_to_string(column, row).unwrap_or_default(),
                },
            });
            values.collect::<Vec<_>>().join(", ")
        };
        heavy.iter().enumerate().map(|(row, heavy)| (shown(row), heavy.at_least)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use pelton_core::key::KeyEncoder;
    use std::sync::Arc;

    /// One key in three rows, among many others, by rows and by partial results.
    #[test]
    fn a_heavy_key_is_named() {
        let types = [DataType::Utf8, DataType::Int64];
        let mut hot = HotKeys::new(&types).expect("types of keys");
        let encoder = KeyEncoder::new(&types).expect("types of keys");
        let mut keys = Keys::default();
        for batch in 0..100i64 {
            let numbers: Vec<i64> = (0..600).map(|row| if row % 3 == 0 { -1 } else { batch * 600 + row }).collect();
            let texts: ArrayRef =
                Arc::new(StringArray::from_iter_values(numbers.iter().map(|number| if *number < 0 { "hot" } else { "x" })));
            encoder.encode(&[texts, Arc::new(Int64Array::from(numbers))], &mut keys);
            hot.rows(&keys);
        }
        let [(key, rows)] = hot.heaviest().try_into().expect("one key");
        assert_eq!(key, "\"hot\", -1");
        assert!((16_000..=21_000).contains(&rows), "{rows} of 60000 rows, a third of them");
        let partial = BinaryArray::from_iter_values([keys.get(1)]);
        hot.partial(&partial, &[100_000]);
        assert_eq!(hot.heaviest().len(), 2);
    }
}
