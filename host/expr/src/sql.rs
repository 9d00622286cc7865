//! Text of SQL to a checked syntax tree, and on to DataFusion's logical expression.
//!
//! Names: a column is found by its exact name, else, unless the name is quoted, by its name in any case if only one column has it.
//! What needs more than one row (subqueries, aggregates, window functions) and what depends on the clock or on chance is
//! refused before planning, with a message of ours. `docs/reference/sql-expressions.md` lists the rules of values.

use crate::expression::ExpressionError;
use crate::functions;
use crate::planner::{Context, options};
use crate::program::{Program, sentence};
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion_common::DFSchema;
use datafusion_sql::planner::{PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{self, Expr as Syntax, Ident, visit_expressions, visit_expressions_mut};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;
use std::ops::ControlFlow;

pub(crate) fn compile(text: &str, input: &SchemaRef) -> std::result::Result<Program, ExpressionError> {
    let mut syntax = parse(text)?;
    let resolved = visit_expressions_mut(&mut syntax, |node| {
        let first = match node {
            Syntax::Identifier(name) => Some(name),
            Syntax::CompoundIdentifier(path) => path.first_mut(),
            _ => None,
        };
        match first.map(|name| resolve(text, name, input)) {
            Some(Err(error)) => ControlFlow::Break(error),
            _ => ControlFlow::Continue(()),
        }
    });
    if let ControlFlow::Break(error) = resolved {
        return Err(error);
    }
    let schema = DFSchema::try_from(input.clone()).map_err(|error| ExpressionError::new(sentence(&error)))?;
    let context = Context::for_expressions();
    let expr = SqlToRel::new_with_options(&context, options())
        .sql_to_expr(syntax, &schema, &mut PlannerContext::new())
        .map_err(|error| ExpressionError::new(sentence(&error)))?;
    Program::of(expr, input, None)
}

pub(crate) fn check_syntax(text: &str) -> std::result::Result<Vec<String>, ExpressionError> {
    let mut names: Vec<String> = Vec::new();
    let _ = visit_expressions(&parse(text)?, |node| {
        let name = match node {
            Syntax::Identifier(name) => Some(name),
            Syntax::CompoundIdentifier(path) => path.first(),
            _ => None,
        };
        if let Some(name) = name
            && !names.contains(&name.value)
        {
            names.push(name.value.clone());
        }
        ControlFlow::<()>::Continue(())
    });
    Ok(names)
}

/// The syntax tree of one expression that calls nothing it must not.
fn parse(text: &str) -> std::result::Result<Syntax, ExpressionError> {
    let syntax = parse_unchecked(text)?;
    let checked = visit_expressions(&syntax, |node| match check_node(node, false) {
        Ok(()) => ControlFlow::Continue(()),
        Err((error, span)) => ControlFlow::Break(error.at(span.and_then(|name| position(text, name)))),
    });
    match checked {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(syntax),
    }
}

/// The syntax tree of one expression, whatever it calls.
pub(crate) fn parse_unchecked(text: &str) -> std::result::Result<Syntax, ExpressionError> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(text).map_err(|error| syntax_error(text, &error))?;
    let mut syntax = parser.parse_expr().map_err(|error| syntax_error(text, &error))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        let at = offset(text, rest.span.start.line, rest.span.start.column);
        return Err(ExpressionError::new(format!("`{}` is not expected after the end of the expression", rest.token)).at(at));
    }
    let _ = visit_expressions_mut(&mut syntax, |node| {
        free_reserved_name(node);
        ControlFlow::<()>::Continue(())
    });
    Ok(syntax)
}

/// `user` and its like are functions without parentheses to the parser, and there is no such function here: they are
/// columns, and what follows their dot is a path. (Inner nodes are visited before the nodes around them.)
pub(crate) fn free_reserved_name(node: &mut Syntax) {
    match node {
        Syntax::Function(ast::Function { name, args: ast::FunctionArguments::None, over: None, .. }) => {
            let reserved = ["user", "current_user", "session_user", "current_catalog", "current_role", "current_schema"];
            if let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_slice()
                && reserved.contains(&ident.value.to_lowercase().as_str())
            {
                *node = Syntax::Identifier(ident.clone());
            }
        }
        Syntax::CompoundFieldAccess { root, access_chain } => {
            let Syntax::Identifier(first) = root.as_ref() else { return };
            let rest = access_chain.iter().map(|access| match access {
                ast::AccessExpr::Dot(Syntax::Identifier(name)) => Some(name.clone()),
                _ => None,
            });
            if let Some(path) = std::iter::once(Some(first.clone())).chain(rest).collect() {
                *node = Syntax::CompoundIdentifier(path);
            }
        }
        _ => {}
    }
}

/// Whether a node may stand in an expression, or in a query.
pub(crate) fn check_node(node: &Syntax, in_query: bool) -> std::result::Result<(), (ExpressionError, Option<&Ident>)> {
    match node {
        Syntax::Subquery(_) | Syntax::Exists { .. } | Syntax::InSubquery { .. } => Err((
            ExpressionError::new("a subquery cannot be part of an expression, which sees one row at a time").help(if in_query {
                "bring other rows in with JOIN"
            } else {
                "bring other rows in with the transform `Join`"
            }),
            None,
        )),
        Syntax::Function(function) => {
            let name = function.name.0.last().and_then(|part| part.as_ident());
            functions::check_call(&function.name.to_string(), function.over.is_some(), in_query).map_err(|error| (error, name))
        }
        _ => Ok(()),
    }
}

/// Gives `name` the spelling of the column that it means.
fn resolve(text: &str, name: &mut Ident, input: &SchemaRef) -> std::result::Result<(), ExpressionError> {
    if input.field_with_name(&name.value).is_ok() {
        return Ok(());
    }
    let same = |field: &&FieldRef| field.name().to_lowercase() == name.value.to_lowercase();
    let alike: Vec<&str> = match name.quote_style {
        None => input.fields().iter().filter(same).map(|field| field.name().as_str()).collect(),
        Some(_) => Vec::new(),
    };
    match alike.as_slice() {
        [one] => {
            name.value = one.to_string();
            Ok(())
        }
        [] => Err(ExpressionError::no_column(&name.value, input).at(position(text, name))),
        many => Err(ExpressionError::new(format!("`{}` may be any of the fields {}", name.value, many.join(", ")))
            .help("write the name as the field is spelled")
            .at(position(text, name))),
    }
}

pub(crate) fn position(text: &str, name: &Ident) -> Option<usize> {
    offset(text, name.span.start.line, name.span.start.column)
}

/// Byte of a place that is given as line and column in characters, both from 1.
pub(crate) fn offset(text: &str, line: u64, column: u64) -> Option<usize> {
    let mut start = 0;
    for _ in 1..line {
        start += text[start..].find('\n')? + 1;
    }
    let column = usize::try_from(column.checked_sub(1)?).ok()?;
    Some(start + text[start..].char_indices().nth(column).map_or(text.len() - start, |(at, _)| at))
}

/// The parser writes places into its messages; they are taken out again.
pub(crate) fn syntax_error(text: &str, error: &ParserError) -> ExpressionError {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.as_str(),
        ParserError::RecursionLimitExceeded => return ExpressionError::new("the expression is nested too deeply"),
    };
    let Some((message, place)) = message.rsplit_once(" at Line: ") else {
        return ExpressionError::new(message);
    };
    let place = place.split_once(", Column: ").and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)));
    ExpressionError::new(message).at(place.and_then(|(line, column)| offset(text, line, column)))
}
