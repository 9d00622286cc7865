//! MatchAll: the files that the pattern in each row matches, with their sizes and ages.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out, Refusals};
use arrow::array::{Array, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use pelton_connect::{MatchedFile, match_files};
use pelton_core::{Batch, RowError};
use pelton_pipeline::graph::EmptyMatch;
use std::path::PathBuf;
use std::sync::Arc;

/// The operator.
pub struct MatchAll {
    /// The column with the patterns.
    pub column: String,
    /// What a pattern without files is.
    pub empty: EmptyMatch,
    /// Relative patterns start here.
    pub base_dir: PathBuf,
    /// For looking at the disk, which a worker must not wait for.
    pub io: tokio::runtime::Handle,
    /// What becomes of rows whose pattern cannot be looked up.
    pub refusals: Refusals,
}

/// Columns of the output, as in Beam.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("size_in_bytes", DataType::Int64, false),
        Field::new("last_updated_in_seconds", DataType::Float64, true),
    ]))
}

/// The column with the patterns: the one that is named, or the only one.
pub fn pattern_column(input: &Schema, named: Option<&str>) -> Result<String, String> {
    let field = match (named, input.fields().as_ref()) {
        (Some(name), _) => input.field_with_name(name).map_err(|_| {
            let near = pelton_core::catalog::nearest(name, input.fields().iter().map(|field| field.name().as_str()));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            format!("`file_pattern` names `{name}`, which is no column of the input{near}")
        })?,
        (None, [only]) => only,
        (None, fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            return Err(format!("say with `file_pattern` which column has the patterns: {}", names.join(", ")));
        }
    };
    match field.data_type() {
        DataType::Utf8 | DataType::Null => Ok(field.name().clone()),
        other => Err(format!("the patterns in `{}` must be strings, and are {other}", field.name())),
    }
}

#[async_trait(?Send)]
impl Operator for MatchAll {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let patterns = batch.rows.column_by_name(&self.column).expect("the column was there when the plan was bound").clone();
        let (mut origin, mut files, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..batch.num_rows() as u32 {
            let pattern = patterns.as_string_opt::<i32>().filter(|patterns| patterns.is_valid(row as usize));
            match self.matches(pattern.map(|patterns| patterns.value(row as usize))).await {
                Ok(found) if found.is_empty() => out.account.filtered += 1,
                Ok(found) => {
                    out.account.led += 1;
                    origin.extend(std::iter::repeat_n(row, found.len()));
                    files.extend(found);
                }
                Err(message) => errors.push(RowError { row, message, stack: String::new() }),
            }
        }
        self.refusals.refuse(&batch, &errors, out)?;
        out.rows(MAIN, batch.pick(rows(&files), &origin));
        Ok(())
    }
}

impl MatchAll {
    async fn matches(&self, pattern: Option<&str>) -> Result<Vec<MatchedFile>, String> {
        let pattern = pattern.ok_or_else(|| format!("the pattern in `{}` is null", self.column))?.to_string();
        let (base_dir, wildcard) = (self.base_dir.clone(), pattern.contains('*'));
        let looked = pattern.clone();
        let found = self.io.spawn_blocking(move || match_files(&base_dir, &looked)).await;
        let found = found.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        match (found.is_empty(), self.empty) {
            (true, EmptyMatch::Disallow) => Err(format!("no file matches {pattern}")),
            (true, EmptyMatch::AllowIfWildcard) if !wildcard => Err(format!("no file matches {pattern}")),
            _ => Ok(found),
        }
    }
}

fn rows(files: &[MatchedFile]) -> RecordBatch {
    let paths = StringArray::from_iter_values(files.iter().map(|file| &file.path));
    let sizes = Int64Array::from_iter_values(files.iter().map(|file| file.bytes as i64));
    let updated = Float64Array::from_iter(files.iter().map(|file| file.updated_seconds));
    RecordBatch::try_new(schema(), vec![Arc::new(paths), Arc::new(sizes), Arc::new(updated)]).expect("the columns follow the schema")
}
