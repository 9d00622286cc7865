//! The output `late`: rows that came after their window had closed, each with the window it missed and the watermark it met.

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use pelton_core::{Batch, Instant, Window};
use std::sync::Arc;

/// Columns of the output: the row's, then its window and the watermark that had passed it.
pub fn late_schema(input: &Schema) -> SchemaRef {
    let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let added = ["window_start", "window_end", "watermark"].map(|name| Field::new(name, instant(), false));
    let kept =
        input.fields().iter().filter(|field| !added.iter().any(|new| new.name() == field.name())).map(|field| field.as_ref().clone());
    Arc::new(Schema::new(kept.chain(added.clone()).collect::<Vec<_>>()))
}

/// The rows of `batch` that were late, one for each window missed.
pub fn late_batch(batch: &Batch, rows: &[(u32, Window)], watermark: Instant, schema: &SchemaRef) -> Batch {
    let numbers = UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row));
    let late = batch.take(&numbers);
    let instants = |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) };
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "window_start" => instants(rows.iter().map(|(_, window)| window.start.micros()).collect()),
        "window_end" => instants(rows.iter().map(|(_, window)| window.end.micros()).collect()),
        "watermark" => instants(vec![watermark.micros(); rows.len()]),
        name => late.rows.column_by_name(name).expect("the late schema has the input's columns").clone(),
    });
    let made = RecordBatch::try_new(schema.clone(), columns.collect()).expect("columns follow the late schema");
    late.with_columns(made)
}
