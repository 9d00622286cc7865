//! Flatten: all rows of all inputs. Inputs may differ in columns: the output has the union of them, absent values null.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StringArray, StructArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use pelton_connect::format::json_write::write_row;
use pelton_core::Batch;
use pelton_core::fault::error_schema;
use std::sync::Arc;

/// The operator.
pub struct Flatten {
    /// Columns of the output.
    pub schema: SchemaRef,
}

#[async_trait(?Send)]
impl Operator for Flatten {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        out.account.led += batch.num_rows() as u64;
        let rows = align(&batch.rows, &self.schema);
        out.rows(MAIN, batch.with_columns(rows));
        Ok(())
    }
}

/// The rows with the columns of a union of schemas.
pub fn align(rows: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    if rows.schema_ref() == schema {
        return rows.clone();
    }
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) => convert(column, field.data_type()),
        None => new_null_array(field.data_type(), rows.num_rows()),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect(), &options).expect("the union schema has every column, nullable")
}

/// A column as a type that [`unify`] gave for its own.
fn convert(column: &ArrayRef, to: &DataType) -> ArrayRef {
    match (column.data_type(), to) {
        (from, to) if from == to => column.clone(),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let from = column.as_struct();
            let converted = fields.iter().map(|field| match from.column_by_name(field.name()) {
                Some(column) => convert(column, field.data_type()),
                None => new_null_array(field.data_type(), from.len()),
            });
            Arc::new(StructArray::new(fields.clone(), converted.collect(), from.nulls().cloned()))
        }
        (DataType::List(_), DataType::List(item)) => {
            let from = column.as_list::<i32>();
            let values = convert(from.values(), item.data_type());
            Arc::new(ListArray::new(item.clone(), from.offsets().clone(), values, from.nulls().cloned()))
        }
        (DataType::Struct(_) | DataType::List(_), DataType::Utf8) => Arc::new(json_texts(column)),
        (_, to) => arrow::compute::cast(column, to).expect("only casts that always succeed are planned"),
    }
}

fn json_texts(column: &ArrayRef) -> StringArray {
    let field = Field::new("v", column.data_type().clone(), true);
    let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column.clone()]).expect("one column of its own type");
    let text = |row: usize| {
        let mut text = Vec::new();
        // What JSON cannot say is left out of a dead letter rather than to stop the pipeline.
        write_row(&rows, row, &mut text).ok().filter(|()| column.is_valid(row))?;
        let text = String::from_utf8(text).ok()?;
        Some(text.strip_prefix("{\"v\":")?.strip_suffix('}')?.to_string())
    };
    (0..column.len()).map(text).collect()
}

/// The union of schemas, in the order of first appearance. A column of two types is widened where that loses nothing. The elements
/// of error outputs, which are what different transforms have refused, may differ in any way: what cannot be widened is text there.
pub fn union(inputs: &[SchemaRef]) -> Result<SchemaRef, String> {
    if inputs.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(inputs[0].clone());
    }
    let errors = inputs.iter().all(|schema| is_error_schema(schema));
    let mut fields: Vec<Field> = Vec::new();
    for schema in inputs {
        for field in schema.fields() {
            match fields.iter_mut().find(|known| known.name() == field.name()) {
                None => fields.push(field.as_ref().clone().with_nullable(true)),
                Some(known) => {
                    let (a, b) = (known.data_type(), field.data_type());
                    let wide = unify(a, b, errors && field.name() == "element");
                    let wide = wide.ok_or_else(|| format!("column `{}` is {a} in one input and {b} in another", field.name()))?;
                    *known = Field::new(known.name(), wide, true);
                }
            }
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn is_error_schema(schema: &Schema) -> bool {
    let names = |schema: &Schema| -> Vec<String> { schema.fields().iter().map(|field| field.name().clone()).collect() };
    names(schema) == names(&error_schema(DataType::Null))
}

/// A type that holds the values of both; `as_text`: if need be, as texts.
fn unify(a: &DataType, b: &DataType, as_text: bool) -> Option<DataType> {
    match (a, b) {
        (DataType::Struct(a), DataType::Struct(b)) => {
            let mut fields: Vec<Field> = a.iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
            for field in b {
                match fields.iter_mut().find(|known| known.name() == field.name()) {
                    None => fields.push(field.as_ref().clone().with_nullable(true)),
                    Some(known) => *known = Field::new(known.name(), unify(known.data_type(), field.data_type(), as_text)?, true),
                }
            }
            Some(DataType::Struct(fields.into()))
        }
        (DataType::List(a), DataType::List(b)) => {
            Some(DataType::List(Arc::new(Field::new_list_field(unify(a.data_type(), b.data_type(), as_text)?, true))))
        }
        (a, b) => widen(a, b).or_else(|| as_text.then_some(DataType::Utf8)),
    }
}

fn widen(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    let rank = |t: &DataType| [Int8, Int16, Int32, Int64].iter().position(|other| other == t);
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (Null, other) | (other, Null) => Some(other.clone()),
        (Float32, Float64) | (Float64, Float32) => Some(Float64),
        (a, b) => match (rank(a), rank(b)) {
            (Some(x), Some(y)) => Some(if x > y { a.clone() } else { b.clone() }),
            // Nothing larger than 2^31 is in these, so that a double holds them exactly.
            (Some(x), None) if x < 3 && *b == Float64 => Some(Float64),
            (None, Some(y)) if y < 3 && *a == Float64 => Some(Float64),
            _ => None,
        },
    }
}
