//! What a caller sees: compile a text against a schema, evaluate it on a batch.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use pelton_core::RowError;

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
    data_type: DataType,
    nullable: bool,
    columns: Vec<String>,
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

impl Expression {
    /// Checks `text` against the columns of `input`.
    pub fn compile(_language: Language, _text: &str, _input: &SchemaRef) -> Result<Expression, ExpressionError> {
        Err(ExpressionError { message: "expressions are not compiled yet".into(), help: None, offset: None })
    }

    /// Type of the values.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether a value may be null. (A row that fails is null in the result whatever this says.)
    pub fn nullable(&self) -> bool {
        self.nullable
    }

    /// Names of the input columns that are read, in the order of the input.
    pub fn columns(&self) -> Vec<String> {
        self.columns.clone()
    }

    /// The value of each row. Columns are found by name, so a pruned batch works.
    pub fn evaluate(&self, rows: &RecordBatch) -> Evaluated {
        Evaluated { array: arrow::array::new_null_array(&self.data_type, rows.num_rows()), errors: Vec::new() }
    }
}

/// Checks the grammar alone, and names the columns that the text mentions.
pub fn check_syntax(_language: Language, _text: &str) -> Result<Vec<String>, ExpressionError> {
    Ok(Vec::new())
}
