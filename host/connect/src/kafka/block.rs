//! Records of one partition on their way from the poll thread to the reader: copied once, into Arrow's buffers.
//!
//! A block closes at the size of a batch, so that a block becomes a batch; a record larger than that travels alone.

use super::configs::RecordColumns;
use arrow::array::{Array, ArrayRef, BinaryArray, BinaryBuilder, ListBuilder, StringBuilder, StructBuilder};
use arrow::datatypes::{DataType, Field, Fields};
use pelton_core::batch::{MAX_ROWS, TARGET_BYTES};
use rdkafka::bindings as native;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Timestamp};
use std::ffi::CStr;
use std::sync::Arc;

/// Time of a record that has none: records of formats before Kafka 0.10.
pub const NO_TIME: i64 = i64::MIN;

/// Counted for a record beside its bytes: offset, time, ends of its cells.
const ROW_BYTES: usize = 32;

/// Records of one partition in order.
#[derive(Debug)]
pub struct Block {
    /// The partition.
    pub partition: i32,
    /// Offset of each record.
    pub offsets: Vec<i64>,
    /// Timestamp of each record in milliseconds, or [`NO_TIME`].
    pub times: Vec<i64>,
    /// Values; null for tombstones.
    pub values: BinaryArray,
    /// Keys, where wanted.
    pub keys: Option<BinaryArray>,
    /// Headers, where wanted.
    pub headers: Option<ArrayRef>,
    /// Records with a header whose name is not UTF-8.
    pub bad_headers: Vec<u32>,
    /// Bytes of the records.
    pub bytes: usize,
    /// Where reading goes on after it. Behind the last record there may be markers of transactions, and gaps.
    pub next: i64,
    /// The client had no more records of this partition when the block was closed.
    pub caught_up: bool,
    /// No more records come from this partition.
    pub ended: bool,
}

/// Type of one header: name and value.
pub fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

/// Type of a column of headers.
pub fn headers_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(header_fields()), true)))
}

pub(super) type HeaderBuilder = ListBuilder<StructBuilder>;

pub(super) fn header_builder() -> HeaderBuilder {
    ListBuilder::new(StructBuilder::from_fields(header_fields(), 0))
}

/// Collects a block.
#[derive(Debug)]
pub struct BlockBuilder {
    partition: i32,
    offsets: Vec<i64>,
    times: Vec<i64>,
    values: BinaryBuilder,
    keys: Option<BinaryBuilder>,
    headers: Option<HeaderBuilder>,
    bad_headers: Vec<u32>,
    bytes: usize,
}

impl BlockBuilder {
    /// An empty block of a partition.
    pub fn new(partition: i32, wanted: &RecordColumns) -> BlockBuilder {
        BlockBuilder {
            partition,
            offsets: Vec::new(),
            times: Vec::new(),
            values: BinaryBuilder::new(),
            keys: wanted.key.as_ref().map(|_| BinaryBuilder::new()),
            headers: wanted.headers.as_ref().map(|_| header_builder()),
            bad_headers: Vec::new(),
            bytes: 0,
        }
    }

    /// Bytes collected.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing collected.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Whether a record of this size belongs into the next block.
    pub fn is_full_for(&self, size: usize) -> bool {
        !self.is_empty() && (self.offsets.len() >= MAX_ROWS || self.bytes + size > TARGET_BYTES)
    }

    /// Adds a record.
    pub fn push(&mut self, message: &BorrowedMessage<'_>) {
        self.offsets.push(message.offset());
        self.times.push(match message.timestamp() {
            Timestamp::CreateTime(millis) | Timestamp::LogAppendTime(millis) => millis,
            Timestamp::NotAvailable => NO_TIME,
        });
        self.values.append_option(message.payload());
        if let Some(keys) = &mut self.keys {
            keys.append_option(message.key());
        }
        if let Some(headers) = &mut self.headers
            && !append_headers(message, headers)
        {
            self.bad_headers.push((self.offsets.len() - 1) as u32);
        }
        self.bytes += size(message);
    }

    /// The block; the builder is empty again.
    pub fn finish(&mut self, next: i64) -> Block {
        Block {
            partition: self.partition,
            offsets: std::mem::take(&mut self.offsets),
            times: std::mem::take(&mut self.times),
            values: self.values.finish(),
            keys: self.keys.as_mut().map(BinaryBuilder::finish),
            headers: self.headers.as_mut().map(|headers| Arc::new(headers.finish()) as ArrayRef),
            bad_headers: std::mem::take(&mut self.bad_headers),
            bytes: std::mem::take(&mut self.bytes),
            next,
            caught_up: false,
            ended: false,
        }
    }
}

impl Block {
    /// What the block counts in the budget of its queue.
    pub fn weight(&self) -> usize {
        self.bytes + self.values.get_buffer_memory_size() / 8
    }
}

/// Bytes that a record counts.
pub fn size(message: &BorrowedMessage<'_>) -> usize {
    message.payload_len() + message.key_len() + ROW_BYTES
}

/// Adds the record's headers as one list; false if a name is not UTF-8 (the list is then cut before it).
/// The binding's own reader panics on such a name, and any producer may send one, so the client is asked directly.
fn append_headers(message: &BorrowedMessage<'_>, headers: &mut HeaderBuilder) -> bool {
    let mut list = std::ptr::null_mut();
    // SAFETY: the message is alive while it is borrowed, and `list` is a valid place for the pointer.
    let found = unsafe { native::rd_kafka_message_headers(message.ptr(), &mut list) };
    if found != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        headers.append(true);
        return true;
    }
    // SAFETY: `list` was set by the call above and belongs to the message, which is borrowed for longer than this call.
    unsafe { append_list(list, headers) }
}

/// Adds a list of librdkafka's as one list of ours; false if a name is not UTF-8.
///
/// # Safety
/// `list` is a list of headers that lives, unchanged, until this returns.
pub(super) unsafe fn append_list(list: *const native::rd_kafka_headers_t, headers: &mut HeaderBuilder) -> bool {
    let mut valid = true;
    let mut index = 0;
    loop {
        let (mut name, mut value, mut length) = (std::ptr::null(), std::ptr::null(), 0usize);
        // SAFETY: the caller says that `list` lives; the three places are valid.
        let error = unsafe { native::rd_kafka_header_get_all(list, index, &mut name, &mut value, &mut length) };
        if error != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            break;
        }
        // SAFETY: librdkafka ends names with a zero byte, and they live as long as the list.
        let Ok(name) = unsafe { CStr::from_ptr(name) }.to_str() else {
            valid = false;
            break;
        };
        // SAFETY: a value that is not null has `length` bytes, which live as long as the list.
        let value = (!value.is_null()).then(|| unsafe { std::slice::from_raw_parts(value.cast::<u8>(), length) });
        let header = headers.values();
        header.field_builder::<StringBuilder>(0).expect("a header's first field is its name").append_value(name);
        header.field_builder::<BinaryBuilder>(1).expect("a header's second field is its value").append_option(value);
        header.append(true);
        index += 1;
    }
    headers.append(true);
    valid
}
