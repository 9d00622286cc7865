//! Fuzz targets of what this crate reads out of checkpoints and settings. Under `cargo test` they explore for a moment; `cargo xtask fuzz`
//! explores on.

use crate::evolution::Book;
use crate::key::{KeyEncoder, Keys};
use crate::key_decode::KeyDecoder;
use crate::pane::PaneState;
use crate::policy::{Policy, Rule, SplitWatermark};
use crate::{Instant, varint};
use arrow::datatypes::{DataType, Field, TimeUnit};
use std::sync::Arc;
use std::time::Duration;

/// Time of a target under plain `cargo test`.
const TEST_TIME: Duration = Duration::from_millis(400);

/// What was written in checkpoints: an error, or what is written again as the same.
#[test]
fn fuzz_checkpointed_values() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(256).for_each(|bytes: &[u8]| {
        for policy in [Rule::AtEnd, Rule::Adaptive { quantile: 900_000, min: crate::Duration::ZERO, max: crate::Duration::from_micros(9) }]
        {
            let policy = Policy { rule: policy, idle_timeout: None };
            for bytes in [bytes, &[&[1, 3], bytes].concat()] {
                if let Some(split) = SplitWatermark::decode(policy, bytes, Instant::MIN) {
                    let mut again = Vec::new();
                    split.encode(&mut again);
                    assert!(SplitWatermark::decode(policy, &again, Instant::MIN).is_some());
                }
            }
        }
        for bytes in [bytes, &[&[1, 7], bytes].concat()] {
            if let Ok(state) = PaneState::decode(bytes) {
                let mut again = Vec::new();
                state.encode(&mut again);
                assert_eq!(PaneState::decode(&again), Ok(state));
            }
        }
        let _ = Book::read(bytes);
        let mut rest = bytes;
        while varint::read_signed(&mut rest).is_some() {}
    });
}

/// Bytes of keys: an error, or columns whose keys are read back alike.
#[test]
fn fuzz_keys() {
    let item = |data_type: DataType| Arc::new(Field::new("item", data_type, true));
    let types = [
        DataType::Utf8,
        DataType::Int64,
        DataType::UInt64,
        DataType::Float64,
        DataType::Boolean,
        DataType::Binary,
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Decimal128(20, 2),
        DataType::List(item(DataType::Utf8)),
        DataType::Struct(vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Int64, true)].into()),
    ];
    bolero::check!().with_test_time(TEST_TIME).with_max_len(128).for_each(|bytes: &[u8]| {
        let (first, key) = bytes.split_first().unwrap_or((&0, &[]));
        let types = [types[usize::from(*first) % types.len()].clone()];
        let decoder = KeyDecoder::new(&types).expect("types of keys");
        if let Ok(columns) = decoder.decode(std::iter::once(key)) {
            let mut keys = Keys::default();
            KeyEncoder::new(&types).expect("types of keys").encode(&columns, &mut keys);
            let again = decoder.decode(std::iter::once(keys.get(0))).expect("a key that was made");
            assert_eq!(again[0].to_data(), columns[0].to_data());
        }
    });
}

/// Times and durations as users write them.
#[test]
fn fuzz_times() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(64).for_each(|bytes: &[u8]| {
        const PARTS: [&str; 20] =
            ["0", "1", "2026", "-", ":", "T", "Z", "+", ".", "s", "ms", "us", "h", "d", "99", "é", " ", "9223372036854775807", "12", "31"];
        let text: String = bytes.iter().map(|byte| PARTS[usize::from(*byte) % PARTS.len()]).collect();
        if let Ok(time) = Instant::parse_rfc3339(&text) {
            assert_eq!(Instant::parse_rfc3339(&time.to_string()), Ok(time), "{text}");
        }
        if let Ok(duration) = crate::Duration::parse(&text) {
            assert_eq!(crate::Duration::parse(&duration.to_string()), Ok(duration), "{text}");
        }
    });
}
