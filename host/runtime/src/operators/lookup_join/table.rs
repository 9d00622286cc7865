//! A table in memory: the rows of one reading of a source that ends, by key.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use pelton_connect::format::json_write::write_row;
use pelton_connect::{ConnectError, Source};
use pelton_core::Duration;
use pelton_core::key::{KeyEncoder, Keys};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// How a table is read.
#[derive(Clone)]
pub struct TablePlan {
    /// Type of its source.
    pub kind: String,
    /// Its config.
    pub config: Value,
    /// Columns of the source that are needed: the keys, then those that are added.
    pub names: Vec<String>,
    /// Their types.
    pub types: Vec<DataType>,
    /// How many of them are keys.
    pub keys: usize,
    /// One value for each column that is added: what stands there for a row without a partner.
    pub missing: Vec<ArrayRef>,
    /// How often it is read again.
    pub refresh: Option<Duration>,
    /// Bytes that it may take.
    pub limit: usize,
}

/// Why there is no reading.
#[derive(Debug)]
pub enum Fault {
    /// The table cannot be joined with.
    Stop(ConnectError),
    /// It could not be read; the last reading is as good as it was.
    Keep(ConnectError),
}

impl Fault {
    /// What is wrong.
    pub fn into_error(self) -> ConnectError {
        match self {
            Fault::Stop(error) | Fault::Keep(error) => error,
        }
    }
}

impl From<ConnectError> for Fault {
    fn from(error: ConnectError) -> Fault {
        Fault::Keep(error)
    }
}

/// One reading.
pub struct Rows {
    /// By key: the number of the row.
    index: HashMap<Box<[u8]>, u32>,
    /// The columns that are added, with what stands for a missing row at their end.
    pub columns: Vec<ArrayRef>,
    missing: u32,
}

impl Rows {
    /// The row of a key.
    pub fn find(&self, key: &[u8]) -> Option<u32> {
        self.index.get(key).copied()
    }

    /// The row that stands for none.
    pub fn missing(&self) -> u32 {
        self.missing
    }
}

impl TablePlan {
    /// Reads all rows of a source that has just been opened.
    pub async fn read(&self, mut source: Box<dyn Source>) -> Result<Rows, Fault> {
        let schema = self.schema_in(&source.schema())?;
        source.project(&self.names);
        let mut batches: Vec<RecordBatch> = Vec::new();
        let mut bytes = 0;
        for mut reader in source.readers(1)? {
            while let Some(batch) = reader.next().await? {
                if let Some(error) = batch.errors.first() {
                    let message = format!("a record of the table cannot be read: {}", error.message);
                    return Err(ConnectError::Data { message }.into());
                }
                let columns: Vec<ArrayRef> = self.names.iter().filter_map(|name| batch.rows.column_by_name(name).cloned()).collect();
                let rows = RecordBatch::try_new(schema.clone(), columns).map_err(|error| ConnectError::internal(error.to_string()))?;
                bytes += rows.columns().iter().map(|column| column.get_array_memory_size()).sum::<usize>();
                if bytes > self.limit {
                    let message = format!("the table takes more than the {} MiB that state may take", self.limit >> 20);
                    return Err(ConnectError::user(message, "raise `options.pelton.memory`, or name fewer columns in `fields`").into());
                }
                batches.push(rows);
            }
        }
        let rows = concat_batches(&schema, &batches).map_err(|error| ConnectError::internal(error.to_string()))?;
        self.index(&rows)
    }

    /// The rows of a reading by key; there is one of each at most.
    pub fn index(&self, rows: &RecordBatch) -> Result<Rows, Fault> {
        let encoder = KeyEncoder::new(&self.types[..self.keys]).map_err(ConnectError::internal)?;
        let keys: Vec<ArrayRef> = rows.columns()[..self.keys].to_vec();
        let nulls: Vec<_> = keys.iter().filter_map(|key| key.logical_nulls()).collect();
        let mut bytes = Keys::default();
        encoder.encode(&keys, &mut bytes);
        let mut index: HashMap<Box<[u8]>, u32> = HashMap::with_capacity(rows.num_rows());
        for row in (0..rows.num_rows()).filter(|row| !nulls.iter().any(|nulls| nulls.is_null(*row))) {
            if let Some(first) = index.insert(bytes.get(row).into(), row as u32) {
                return Err(Fault::Stop(two_rows(rows, first as usize, row)));
            }
        }
        let added = rows.columns()[self.keys..].iter().zip(&self.missing);
        let columns = added.map(|(column, missing)| concat(&[column, missing])).collect::<Result<Vec<ArrayRef>, _>>();
        let columns = columns.map_err(|error| ConnectError::internal(error.to_string()))?;
        Ok(Rows { index, columns, missing: rows.num_rows() as u32 })
    }

    /// The needed columns, if the table still has them as they were.
    fn schema_in(&self, schema: &Schema) -> Result<SchemaRef, ConnectError> {
        let mut fields = Vec::with_capacity(self.names.len());
        for (name, data_type) in self.names.iter().zip(&self.types) {
            match schema.field_with_name(name) {
                Ok(field) if field.data_type() == data_type => fields.push(field.clone().with_nullable(true)),
                Ok(field) => {
                    let message = format!("the column `{name}` of the table has become {}, and was {data_type}", field.data_type());
                    return Err(ConnectError::Data { message });
                }
                Err(_) => return Err(ConnectError::Data { message: format!("the table has lost its column `{name}`") }),
            }
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

fn two_rows(rows: &RecordBatch, first: usize, second: usize) -> ConnectError {
    let shown = |row: usize| {
        let mut text = Vec::new();
        match write_row(rows, row, &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(message) => format!("row {} ({message})", row + 1),
        }
    };
    let message = format!("the table has two rows of one key: {} and {}", shown(first), shown(second));
    ConnectError::Data { message }
}
