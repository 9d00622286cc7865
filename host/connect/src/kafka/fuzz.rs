//! Fuzz target of the one place where librdkafka's memory is read directly: the headers of a record.

use super::block::{append_list, header_builder};
use arrow::array::{Array, AsArray};
use rdkafka::bindings as native;
use std::time::Duration;

/// Time of a target under plain `cargo test`.
const TEST_TIME: Duration = Duration::from_millis(400);

type Header = (Vec<u8>, Option<Vec<u8>>);

/// A list of the client's own, freed when it is dropped.
struct List(*mut native::rd_kafka_headers_t);

impl List {
    fn of(headers: &[Header]) -> List {
        // SAFETY: the client makes a list; it is freed once, below.
        let list = List(unsafe { native::rd_kafka_headers_new(headers.len()) });
        for (name, value) in headers {
            let (bytes, length) = value.as_ref().map_or((std::ptr::null(), 0), |value| (value.as_ptr(), value.len()));
            // SAFETY: the list lives, and name and value have the lengths that are told; the client copies both.
            let error =
                unsafe { native::rd_kafka_header_add(list.0, name.as_ptr().cast(), name.len() as isize, bytes.cast(), length as isize) };
            assert_eq!(error, native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
        }
        list
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_headers_new`, and nobody has it any more.
        unsafe { native::rd_kafka_headers_destroy(self.0) };
    }
}

/// Whatever producers put into names and values: the rows are what the standard library makes of the same bytes.
#[test]
fn fuzz_headers_of_any_bytes() {
    bolero::check!().with_test_time(TEST_TIME).with_type::<Vec<Vec<Header>>>().for_each(|records: &Vec<Vec<Header>>| {
        let mut builder = header_builder();
        let mut expected = Vec::new();
        for record in records {
            let list = List::of(record);
            // SAFETY: the list lives until the end of this round.
            let valid = unsafe { append_list(list.0, &mut builder) };
            let read: Vec<Option<(String, Option<Vec<u8>>)>> =
                record.iter().map(|(name, value)| Some((text(name)?, value.clone()))).collect();
            assert_eq!(valid, read.iter().all(Option::is_some));
            // Cut before the first name that is no text.
            expected.push(read.into_iter().map_while(|header| header).collect::<Vec<_>>());
        }
        let column = builder.finish();
        column.to_data().validate_full().expect("valid");
        let found: Vec<Vec<(String, Option<Vec<u8>>)>> = column
            .iter()
            .map(|list| {
                let list = list.expect("never null");
                let (names, values) = (list.as_struct().column(0).as_string::<i32>(), list.as_struct().column(1).as_binary::<i32>());
                names.iter().zip(values).map(|(name, value)| (name.unwrap_or_default().to_owned(), value.map(<[u8]>::to_vec))).collect()
            })
            .collect();
        assert_eq!(found, expected);
    });
}

/// A name ends at its first zero byte, since it crosses as a C string.
fn text(name: &[u8]) -> Option<String> {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    std::str::from_utf8(&name[..end]).ok().map(str::to_owned)
}
