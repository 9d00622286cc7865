//! SQL queries over named inputs: parsed and planned by DataFusion, handed on as a small plan of ours.
//!
//! - [`mod@parse`]: text to a syntax tree that asks for nothing a stream cannot give.
//! - [`lower`]: DataFusion's plan to a [`Query`].
//! - [`mod@prune`]: no join keeps a column that nobody reads.
//! - [`aggregates`]: which aggregates there are, and what they become.
//!
//! Why texts and not compiled expressions: the plan becomes transforms like those that a user writes, which are drawn, explained
//! and compiled against the columns of their input as any other. Names of columns between two steps are unique; those that the
//! user cannot have written begin with `$`.

pub mod aggregates;
mod lower;
mod parse;
mod prune;

use crate::expression::ExpressionError;
use crate::planner::{Context, options};
use crate::program::sentence;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_sql::planner::SqlToRel;
use datafusion_sql::sqlparser::ast::Statement;

/// Rows, and how they come to be. Texts are SQL expressions over the columns of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The rows of the input with this number.
    Input(usize),
    /// New columns from old.
    Project { input: Box<Query>, columns: Vec<Named> },
    /// The rows for which a text is true.
    Filter { input: Box<Query>, keep: String },
    /// One row a group; without aggregates the different rows.
    Aggregate { input: Box<Query>, group_by: Vec<Named>, aggregates: Vec<Aggregate> },
    /// Rows side by side.
    Join(Box<Join>),
    /// All rows of all, which have the same columns.
    Union(Vec<Query>),
}

/// A column and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is called.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// An aggregate of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// What its column is called.
    pub name: String,
    /// Which.
    pub function: aggregates::Function,
    /// Of what; a count of rows has none.
    pub value: Option<String>,
}

/// A join of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The inputs.
    pub sides: [Query; 2],
    /// Whose rows stay without a partner.
    pub kept: [bool; 2],
    /// Texts over the left and the right input that are equal; none: every row with every row.
    pub equalities: Vec<(String, String)>,
    /// Columns of each side (new name, column).
    pub columns: [Vec<Named>; 2],
}

/// Plans a query over inputs of these names and columns.
pub fn plan_query(text: &str, inputs: &[(String, SchemaRef)]) -> Result<Query, ExpressionError> {
    let query = parse::query(text, inputs)?;
    let context = Context::for_queries(inputs);
    let plan = SqlToRel::new_with_options(&context, options()).sql_statement_to_plan(Statement::Query(query));
    let plan = plan.map_err(|error| {
        let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
        ExpressionError::new(sentence(&error)).at(span.and_then(|span| crate::sql::offset(text, span.start.line, span.start.column)))
    })?;
    let mut query = lower::lower(&plan, inputs)?;
    prune::prune(&mut query, None);
    Ok(query)
}

/// Checks the grammar of a query, and that it asks for nothing that a stream cannot give, over inputs of these names.
pub fn check_query(text: &str, inputs: &[String]) -> Result<(), ExpressionError> {
    let inputs: Vec<(String, SchemaRef)> = inputs.iter().map(|name| (name.clone(), SchemaRef::new(Schema::empty()))).collect();
    parse::query(text, &inputs).map(drop)
}

#[cfg(test)]
mod tests;
