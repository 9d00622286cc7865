//! Row errors: rows that a transform refused, and the error output that they become.
//!
//! The columns are Beam's `element`, `msg`, `stack`, and ours: `transform`, `plugin`, `position`.

use crate::batch::Batch;
use arrow::array::{Array, ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use std::sync::Arc;

/// One refused row of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Number of the row in the batch that was being processed.
    pub row: u32,
    /// One sentence.
    pub message: String,
    /// A stack trace or other detail; may be empty.
    pub stack: String,
}

/// What a text that could not be decoded is called: it has no columns yet, so its bytes are the element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// The record as it was read, cut at [`MAX_ELEMENT_BYTES`].
    pub element: Vec<u8>,
    /// One sentence.
    pub message: String,
    /// Offset of the record in its split.
    pub offset: i64,
    /// Event time in microseconds, where the record has one beside its text.
    pub time: Option<i64>,
}

/// Raw elements in an error output are cut here: a dead letter must not be larger than a row may be.
pub const MAX_ELEMENT_BYTES: usize = 64 * 1024;

/// Columns of the position: file path or topic, Kafka partition, byte or record offset, line (files; from 1).
pub fn position_fields() -> Fields {
    Fields::from(vec![
        Field::new("source", DataType::Utf8, true),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        Field::new("line", DataType::Int64, true),
    ])
}

/// Schema of an error output: `element` as the transform saw it.
pub fn error_schema(element: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("element", element, true),
        Field::new("msg", DataType::Utf8, false),
        Field::new("stack", DataType::Utf8, false),
        Field::new("transform", DataType::Utf8, false),
        Field::new("plugin", DataType::Utf8, true),
        Field::new("position", DataType::Struct(position_fields()), true),
    ]))
}

/// The type of `element` for a transform with this input.
pub fn element_type(input: &Schema) -> DataType {
    DataType::Struct(input.fields().clone())
}

/// Who refused the rows.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Full name of the transform.
    pub transform: &'a str,
    /// `sha256:…` of the plugin, for plugins.
    pub plugin: Option<&'a str>,
}

/// The error rows of a batch: `element` is the refused row as a struct. Event times and windows are the rows' own.
/// `line` finds the line of an offset in a file (it is counted only now, when an error is written).
pub fn error_batch(input: &Batch, errors: &[RowError], origin: Origin<'_>, line: &mut dyn FnMut(&str, i64) -> Option<i64>) -> Batch {
    let rows = UInt32Array::from_iter_values(errors.iter().map(|error| error.row));
    let refused = StructArray::from(input.rows.clone());
    let element = take(&refused, &rows, None).expect("errors name rows of the batch");
    let columns = finish(
        element,
        errors.iter().map(|error| (error.message.as_str(), error.stack.as_str())).collect(),
        origin,
        errors.iter().map(|error| input.position(error.row as usize).map(|(split, offset)| (&**split, offset))).collect(),
        line,
    );
    input.pick(columns, rows.values())
}

/// The error rows of records that could not be decoded: `element` is their text where it is UTF-8, else their bytes.
pub fn format_error_rows(
    errors: &[FormatError],
    split: &crate::Split,
    origin: Origin<'_>,
    line: &mut dyn FnMut(&str, i64) -> Option<i64>,
) -> RecordBatch {
    let element = BinaryArray::from_iter_values(errors.iter().map(|error| error.element.as_slice()));
    finish(
        Arc::new(element),
        errors.iter().map(|error| (error.message.as_str(), "")).collect(),
        origin,
        errors.iter().map(|error| Some((split, error.offset))).collect(),
        line,
    )
}

fn finish(
    element: ArrayRef,
    texts: Vec<(&str, &str)>,
    origin: Origin<'_>,
    positions: Vec<Option<(&crate::Split, i64)>>,
    line: &mut dyn FnMut(&str, i64) -> Option<i64>,
) -> RecordBatch {
    use crate::Split;
    let source = StringArray::from_iter(positions.iter().map(|position| {
        position.map(|(split, _)| match split {
            Split::File { path, .. } => path.clone(),
            Split::Kafka { topic, .. } => topic.clone(),
            Split::Generated { name, .. } => name.clone(),
        })
    }));
    let partition = Int32Array::from_iter(positions.iter().map(|position| match position {
        Some((Split::Kafka { partition, .. }, _)) => Some(*partition),
        Some((Split::Generated { part, .. }, _)) => Some(*part as i32),
        _ => None,
    }));
    let offset = Int64Array::from_iter(positions.iter().map(|position| position.map(|(_, offset)| offset)));
    let lines = Int64Array::from_iter(positions.iter().map(|position| match position {
        Some((Split::File { path, .. }, offset)) => line(path, *offset),
        _ => None,
    }));
    let known = positions.iter().map(Option::is_some).collect::<Vec<_>>();
    let position = StructArray::new(
        position_fields(),
        vec![Arc::new(source), Arc::new(partition), Arc::new(offset), Arc::new(lines)],
        Some(known.into()),
    );
    let rows = texts.len();
    let schema = error_schema(element.data_type().clone());
    RecordBatch::try_new(
        schema,
        vec![
            element,
            Arc::new(StringArray::from_iter_values(texts.iter().map(|(message, _)| *message))),
            Arc::new(StringArray::from_iter_values(texts.iter().map(|(_, stack)| *stack))),
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(origin.transform, rows))),
            Arc::new(StringArray::from_iter(std::iter::repeat_n(origin.plugin, rows))),
            Arc::new(position),
        ],
    )
    .expect("the columns follow error_schema")
}
