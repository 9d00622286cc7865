//! What a caller sees: compile a text against a schema, evaluate it on a batch.

use crate::program::Program;
use crate::{generic, sql};
use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, SchemaRef};
use pelton_core::RowError;
use std::sync::Arc;

/// The language of an expression's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Beam's: a field, a literal, or one comparison of two of those.
    Generic,
    /// SQL scalar expressions.
    Sql,
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    program: Arc<Program>,
}

/// Values of an expression, one a row of the batch.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// Of the expression's type; null in rows that failed.
    pub array: ArrayRef,
    /// Rows that failed, in order.
    pub errors: Vec<RowError>,
}

/// Why a text is no expression over its input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// One sentence.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
    /// The place in the text, in bytes from its start.
    pub offset: Option<usize>,
}

impl ExpressionError {
    pub(crate) fn new(message: impl Into<String>) -> ExpressionError {
        ExpressionError { message: message.into(), help: None, offset: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> ExpressionError {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn at(mut self, offset: Option<usize>) -> ExpressionError {
        self.offset = offset;
        self
    }

    /// A name that no column has.
    pub(crate) fn no_column(name: &str, input: &SchemaRef) -> ExpressionError {
        let names: Vec<&str> = input.fields().iter().map(|field| field.name().as_str()).collect();
        let error = ExpressionError::new(format!("the input has no field `{name}`"));
        match pelton_core::catalog::nearest(name, names.iter().copied()) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None if names.is_empty() => error.help("the input has no fields"),
            None => error.help(format!("its fields are {}", names.join(", "))),
        }
    }
}

impl Expression {
    /// Checks `text` against the columns of `input`.
    pub fn compile(language: Language, text: &str, input: &SchemaRef) -> Result<Expression, ExpressionError> {
        let program = match language {
            Language::Generic => generic::compile(text, input)?,
            Language::Sql => sql::compile(text, input)?,
        };
        Ok(Expression { program: Arc::new(program) })
    }

    /// Type of the values.
    pub fn data_type(&self) -> &DataType {
        self.program.data_type()
    }

    /// Whether a value may be null. (A row that fails is null in the result whatever this says.)
    pub fn nullable(&self) -> bool {
        self.program.nullable()
    }

    /// Names of the input columns that are read, in the order of the input.
    pub fn columns(&self) -> Vec<String> {
        self.program.columns()
    }

    /// The value of each row. Columns are found by name, so a pruned batch works.
    pub fn evaluate(&self, rows: &RecordBatch) -> Evaluated {
        let count = rows.num_rows();
        let pruned = match self.program.prune(rows) {
            Ok(pruned) => pruned,
            Err(message) => return self.all_fail(count, &message),
        };
        let mut pieces = Vec::new();
        let mut errors = Vec::new();
        self.evaluate_or_halve(&pruned, 0, &mut pieces, &mut errors);
        let array = match pieces.as_slice() {
            [one] => one.clone(),
            many => {
                let pieces: Vec<&dyn Array> = many.iter().map(AsRef::as_ref).collect();
                match concat(&pieces) {
                    Ok(array) => array,
                    // Offsets of 32 bits may overflow: no row alone is to blame.
                    Err(error) => return self.all_fail(count, &error.to_string()),
                }
            }
        };
        Evaluated { array, errors }
    }

    /// The engine fails as a whole and does not say where, so a failing batch is halved down to the rows that fail alone.
    fn evaluate_or_halve(&self, rows: &RecordBatch, first: usize, pieces: &mut Vec<ArrayRef>, errors: &mut Vec<RowError>) {
        let count = rows.num_rows();
        match self.program.run(rows) {
            Ok(array) => {
                if let Some(message) = self.program.null_fails() {
                    let failed = (0..count).filter(|row| array.is_null(*row));
                    errors.extend(failed.map(|row| row_error(first + row, message)));
                }
                pieces.push(array);
            }
            Err(message) if count <= 1 => {
                errors.extend((0..count).map(|row| row_error(first + row, &message)));
                pieces.push(new_null_array(self.data_type(), count));
            }
            Err(_) => {
                let half = count / 2;
                self.evaluate_or_halve(&rows.slice(0, half), first, pieces, errors);
                self.evaluate_or_halve(&rows.slice(half, count - half), first + half, pieces, errors);
            }
        }
    }

    fn all_fail(&self, count: usize, message: &str) -> Evaluated {
        Evaluated { array: new_null_array(self.data_type(), count), errors: (0..count).map(|row| row_error(row, message)).collect() }
    }
}

fn row_error(row: usize, message: &str) -> RowError {
    RowError { row: row as u32, message: message.to_string(), stack: String::new() }
}

/// Checks the grammar and the functions alone, and names the columns that the text mentions, as they are written, in order, once each.
pub fn check_syntax(language: Language, text: &str) -> Result<Vec<String>, ExpressionError> {
    match language {
        Language::Generic => generic::check_syntax(text),
        Language::Sql => sql::check_syntax(text),
    }
}

#[cfg(test)]
mod tests;
