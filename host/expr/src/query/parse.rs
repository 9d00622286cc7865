//! Text of a query to a syntax tree that asks for nothing a stream cannot give.

use crate::expression::ExpressionError;
use crate::sql::{check_node, free_reserved_name, offset, position, syntax_error};
use arrow::datatypes::SchemaRef;
use datafusion_sql::sqlparser::ast::{self, Expr as Syntax, Ident, Spanned, visit_expressions, visit_expressions_mut, visit_relations};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Span, Token};
use std::ops::ControlFlow;

/// What a query may be, for messages.
const SUPPORTED: &str =
    "a query is SELECT … FROM … [JOIN … ON …] [WHERE …] [GROUP BY …] [HAVING …], UNION ALL of such, and subqueries in FROM";

pub(super) fn query(text: &str, inputs: &[(String, SchemaRef)]) -> Result<Box<ast::Query>, ExpressionError> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(text).map_err(|error| syntax_error(text, &error))?;
    let first = parser.peek_token();
    if !matches!(&first.token, Token::Word(word) if matches!(word.value.to_uppercase().as_str(), "SELECT" | "WITH"))
        && first.token != Token::LParen
    {
        let at = offset(text, first.span.start.line, first.span.start.column);
        return Err(ExpressionError::new(format!("a query begins with SELECT, not with `{}`", first.token)).help(SUPPORTED).at(at));
    }
    let mut query = parser.parse_query().map_err(|error| syntax_error(text, &error))?;
    while parser.consume_token(&Token::SemiColon) {}
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        let at = offset(text, rest.span.start.line, rest.span.start.column);
        return Err(ExpressionError::new(format!("`{}` is not expected after the end of the query", rest.token)).at(at));
    }
    let at = |span: Span| offset(text, span.start.line, span.start.column);
    check_query(&query).map_err(|(message, span)| ExpressionError::new(message).help(SUPPORTED).at(span.and_then(at)))?;
    let _ = visit_expressions_mut(&mut query, |node| {
        free_reserved_name(node);
        ControlFlow::<()>::Continue(())
    });
    let checked = visit_expressions(&query, |node| match check_node(node, true) {
        Ok(()) => ControlFlow::Continue(()),
        Err((error, span)) => {
            let span = span.and_then(|name| position(text, name)).or_else(|| at(node.span()));
            ControlFlow::Break(error.at(span))
        }
    });
    if let ControlFlow::Break(error) = checked {
        return Err(error);
    }
    check_relations(text, &query, inputs)?;
    spell(&mut query, inputs);
    Ok(query)
}

/// What a query and those inside it ask for beyond rows: an order, a number of rows, and the like.
fn check_query(query: &ast::Query) -> Result<(), (String, Option<Span>)> {
    if let Some(order) = &query.order_by {
        return Err(("ORDER BY: rows of a stream have no order".into(), Some(order.span())));
    }
    if let Some(limit) = &query.limit_clause {
        return Err((
            "LIMIT: a stream does not end after some rows; keep the best of a group with an aggregate".into(),
            Some(limit.span()),
        ));
    }
    if query.fetch.is_some() || !query.locks.is_empty() || query.for_clause.is_some() {
        return Err(("FETCH and FOR have no meaning for a stream".into(), None));
    }
    if let Some(with) = &query.with {
        if with.recursive {
            return Err(("WITH RECURSIVE is not available".into(), Some(with.span())));
        }
        with.cte_tables.iter().try_for_each(|cte| check_query(&cte.query))?;
    }
    check_body(&query.body)
}

fn check_body(body: &ast::SetExpr) -> Result<(), (String, Option<Span>)> {
    match body {
        ast::SetExpr::Select(select) => check_select(select),
        ast::SetExpr::Query(query) => check_query(query),
        ast::SetExpr::SetOperation { op: ast::SetOperator::Union, left, right, .. } => {
            check_body(left)?;
            check_body(right)
        }
        ast::SetExpr::SetOperation { op, .. } => Err((format!("{op} is not available"), Some(body.span()))),
        other => Err(("this is no SELECT".into(), Some(other.span()))),
    }
}

fn check_select(select: &ast::Select) -> Result<(), (String, Option<Span>)> {
    let span = Some(select.span());
    if select.from.is_empty() {
        return Err(("SELECT needs FROM: name an input".into(), span));
    }
    let unavailable = [
        (matches!(select.distinct, Some(ast::Distinct::On(_))), "DISTINCT ON"),
        (select.top.is_some(), "TOP"),
        (select.into.is_some(), "INTO"),
        (select.qualify.is_some(), "QUALIFY"),
        (!select.named_window.is_empty(), "WINDOW"),
        (!select.lateral_views.is_empty(), "LATERAL VIEW"),
        (select.prewhere.is_some(), "PREWHERE"),
        (!select.cluster_by.is_empty() || !select.distribute_by.is_empty() || !select.sort_by.is_empty(), "SORT BY"),
    ];
    if let Some((_, what)) = unavailable.iter().find(|(found, _)| *found) {
        return Err((format!("{what} is not available"), span));
    }
    for from in &select.from {
        for relation in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
            check_relation(relation)?;
        }
    }
    Ok(())
}

fn check_relation(relation: &ast::TableFactor) -> Result<(), (String, Option<Span>)> {
    match relation {
        ast::TableFactor::Table { args: None, sample: None, .. } => Ok(()),
        ast::TableFactor::Derived { lateral: false, subquery, .. } => check_query(subquery),
        ast::TableFactor::NestedJoin { table_with_joins, .. } => {
            let joined = table_with_joins.joins.iter().map(|join| &join.relation);
            std::iter::once(&table_with_joins.relation).chain(joined).try_for_each(check_relation)
        }
        other => Err(("this cannot stand in FROM".into(), Some(other.span()))),
    }
}

/// Inputs by name, with a place for a wrong one. Names that WITH gives are known too.
fn check_relations(text: &str, query: &ast::Query, inputs: &[(String, SchemaRef)]) -> Result<(), ExpressionError> {
    let with = query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| cte.alias.name.value.clone());
    let known: Vec<String> = with.chain(inputs.iter().map(|(name, _)| name.clone())).collect();
    // Queries in FROM may have a WITH of their own: then the planner says what is wrong.
    let nested = text.to_uppercase().matches("WITH ").count() > usize::from(query.with.is_some());
    let wrong = visit_relations(query, |name| match name.0.last().and_then(|part| part.as_ident()) {
        Some(ident) if !nested && !known.contains(&ident.value) => ControlFlow::Break(ident.clone()),
        _ => ControlFlow::Continue(()),
    });
    let ControlFlow::Break(ident) = wrong else { return Ok(()) };
    let help = match pelton_core::catalog::nearest(&ident.value, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("its inputs are {}", known.join(", ")),
    };
    Err(ExpressionError::new(format!("there is no input `{}`", ident.value)).help(help).at(position(text, &ident)))
}

/// Gives names that are not quoted the spelling of the only column that they can mean, as expressions have it.
fn spell(query: &mut ast::Query, inputs: &[(String, SchemaRef)]) {
    let columns: Vec<&String> = inputs.iter().flat_map(|(_, schema)| schema.fields().iter().map(|field| field.name())).collect();
    let aliases = aliases(query);
    let _ = visit_expressions_mut(query, |node| {
        let name: Option<&mut Ident> = match node {
            Syntax::Identifier(name) => Some(name),
            Syntax::CompoundIdentifier(path) => path.get_mut(1),
            _ => None,
        };
        if let Some(name) = name
            && name.quote_style.is_none()
            && !aliases.contains(&name.value)
            && !columns.contains(&&name.value)
        {
            let mut alike: Vec<&&String> = columns.iter().filter(|column| column.to_lowercase() == name.value.to_lowercase()).collect();
            alike.sort();
            alike.dedup();
            if let [one] = alike.as_slice() {
                name.value = one.to_string();
            }
        }
        ControlFlow::<()>::Continue(())
    });
}

/// Names that the query itself gives, of columns and of tables.
fn aliases(query: &ast::Query) -> Vec<String> {
    let mut found = Vec::new();
    let mut bodies = vec![&query.body];
    let mut queries: Vec<&ast::Query> = query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| cte.query.as_ref()).collect();
    while let Some(body) = bodies.pop().or_else(|| queries.pop().map(|query| &query.body)) {
        match body.as_ref() {
            ast::SetExpr::Select(select) => {
                for item in &select.projection {
                    if let ast::SelectItem::ExprWithAlias { alias, .. } = item {
                        found.push(alias.value.clone());
                    }
                }
                for from in &select.from {
                    for relation in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
                        if let ast::TableFactor::Derived { subquery, .. } = relation {
                            bodies.push(&subquery.body);
                        }
                    }
                }
            }
            ast::SetExpr::Query(query) => bodies.push(&query.body),
            ast::SetExpr::SetOperation { left, right, .. } => bodies.extend([left, right]),
            _ => {}
        }
    }
    found
}
