//! DataFusion's logical plan to ours.
//!
//! DataFusion tells columns apart by table and name, we by name alone: every step keeps what each column of DataFusion's schema is
//! called in ours, by position.

use super::aggregates::{self, Function};
use super::{Aggregate, Join, Named, Query};
use crate::expression::ExpressionError;
use crate::program::sentence;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, DataFusionError, JoinConstraint, JoinType, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, Alias};
use datafusion_expr::logical_plan::{self, LogicalPlan};
use datafusion_expr::type_coercion::binary::comparison_coercion;
use datafusion_expr::utils::{conjunction, find_valid_equijoin_key_pair, split_conjunction_owned};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, Operator, lit, when};
use datafusion_sql::unparser::Unparser;
use datafusion_sql::unparser::dialect::CustomDialectBuilder;

type Outcome<T> = Result<T, ExpressionError>;

/// A step, and what each column of DataFusion's is called in it.
struct Step {
    query: Query,
    names: Vec<String>,
}

pub(super) fn lower(plan: &LogicalPlan, inputs: &[(String, SchemaRef)]) -> Outcome<Query> {
    Ok(Lowering { inputs }.step(plan)?.query)
}

struct Lowering<'a> {
    inputs: &'a [(String, SchemaRef)],
}

impl Lowering<'_> {
    fn step(&self, plan: &LogicalPlan) -> Outcome<Step> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let name = scan.table_name.table();
                let number = self.inputs.iter().position(|(known, _)| known == name);
                let number = number.ok_or_else(|| ExpressionError::new(format!("there is no input `{name}`")))?;
                let names = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
                Ok(Step { query: Query::Input(number), names })
            }
            LogicalPlan::SubqueryAlias(alias) => self.step(&alias.input),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(logical_plan::Distinct::All(input)) => {
                let Step { query, names } = self.step(input)?;
                let group_by = names.iter().map(|name| Named { name: name.clone(), text: quoted(name) }).collect();
                Ok(Step { query: Query::Aggregate { input: Box::new(query), group_by, aggregates: Vec::new() }, names })
            }
            LogicalPlan::Join(join) => self.join(join, Vec::new()),
            LogicalPlan::Union(union) => self.union(union),
            other => {
                let what = other.display().to_string();
                let what = what.split([':', ' ']).next().unwrap_or_default().to_string();
                Err(ExpressionError::new(format!("this query needs the step `{what}`, which is not available")))
            }
        }
    }

    fn projection(&self, projection: &logical_plan::Projection) -> Outcome<Step> {
        let input = self.step(&projection.input)?;
        let schema = projection.input.schema();
        let mut columns: Vec<Named> = Vec::with_capacity(projection.expr.len());
        for (number, expr) in projection.expr.iter().enumerate() {
            let text = input.text(expr, schema)?;
            let wanted = match expr {
                Expr::Alias(alias) => alias.name.clone(),
                // What an aggregate or a computed group is called in a plan is no name that a user has written.
                Expr::Column(column) if !input.name(column, schema)?.starts_with('$') => column.name.clone(),
                _ => format!("EXPR${number}"),
            };
            columns.push(Named { name: free(&wanted, |name| columns.iter().any(|other| other.name == name)), text });
        }
        let names = columns.iter().map(|column| column.name.clone()).collect();
        Ok(Step { query: Query::Project { input: Box::new(input.query), columns }, names })
    }

    fn filter(&self, filter: &logical_plan::Filter) -> Outcome<Step> {
        let conjuncts = split_conjunction_owned(filter.predicate.clone());
        match filter.input.as_ref() {
            // `FROM a, b WHERE a.x = b.x` is a join by that equality.
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => self.join(join, conjuncts),
            input => self.step(input)?.keep(conjuncts, input.schema()),
        }
    }

    fn aggregate(&self, aggregate: &logical_plan::Aggregate) -> Outcome<Step> {
        let input = self.step(&aggregate.input)?;
        let schema = aggregate.input.schema();
        let mut names: Vec<String> = Vec::new();
        let mut group_by = Vec::new();
        for expr in &aggregate.group_expr {
            if matches!(expr, Expr::GroupingSet(_)) {
                return Err(ExpressionError::new("ROLLUP, CUBE and GROUPING SETS are not available").help("write one query for each set"));
            }
            let wanted = match expr {
                Expr::Column(column) => input.name(column, schema)?,
                _ => format!("$group{}", group_by.len()),
            };
            let name = free(&wanted, |name| names.iter().any(|other| other == name));
            group_by.push(Named { name: name.clone(), text: input.text(expr, schema)? });
            names.push(name);
        }
        let mut aggregates = Vec::new();
        for expr in &aggregate.aggr_expr {
            let (function, value) = call(expr, schema)?;
            let value = value.map(|value| input.text(&value, schema)).transpose()?;
            let name = format!("$aggregate{}", aggregates.len());
            names.push(name.clone());
            aggregates.push(Aggregate { name, function, value });
        }
        Ok(Step { query: Query::Aggregate { input: Box::new(input.query), group_by, aggregates }, names })
    }

    /// A join, and conditions on what comes of it. Equalities among those are moved down to where they join.
    fn join(&self, join: &logical_plan::Join, conditions: Vec<Expr>) -> Outcome<Step> {
        let (kind, inner) = (join.join_type, join.join_type == JoinType::Inner);
        let kept = match kind {
            JoinType::Inner => [false, false],
            JoinType::Left => [true, false],
            JoinType::Right => [false, true],
            JoinType::Full => [true, true],
            other => return Err(ExpressionError::new(format!("{other} joins are not available"))),
        };
        if join.join_constraint == JoinConstraint::Using && kept[1] {
            let help = "write ON, and COALESCE of both columns where either may be absent";
            return Err(ExpressionError::new(format!("USING and NATURAL with {kind} joins are not available")).help(help));
        }
        let (left, right) = (join.left.schema(), join.right.schema());
        let mut equalities: Vec<(Expr, Expr)> = join.on.clone();
        let (mut below, mut above): ([Vec<Expr>; 2], Vec<Expr>) = Default::default();
        let own = join.filter.iter().cloned().flat_map(split_conjunction_owned).map(|condition| (condition, true));
        for (condition, on) in own.chain(conditions.into_iter().map(|condition| (condition, false))) {
            let side = side_of(&condition, left, right);
            match key_pair(&condition, left, right)? {
                Some(pair) => equalities.push(pair),
                None if inner && side.is_some_and(|side| is_equality(&condition) && is_inner_join([&join.left, &join.right][side])) => {
                    below[side.expect("matched just now")].push(condition);
                }
                None if inner => above.push(condition),
                // Rows of the side that is not kept may as well be left out before.
                None if on && side.is_some_and(|side| !kept[side]) => below[side.expect("matched just now")].push(condition),
                None => {
                    let help =
                        "the ON of an outer join can have equalities of both sides, and conditions on the side whose rows need not stay";
                    return Err(ExpressionError::new("this condition of an outer join is not available").help(help));
                }
            }
        }
        let [below_left, below_right] = below;
        let sides = [self.side(&join.left, below_left)?, self.side(&join.right, below_right)?];
        let mut texts = Vec::with_capacity(equalities.len());
        for (a, b) in equalities {
            let (a, b) = comparable(a, b, left, right)?;
            texts.push((sides[0].text(&a, left)?, sides[1].text(&b, right)?));
        }
        let mut names: Vec<String> = Vec::new();
        let [left_columns, right_columns] = [&sides[0], &sides[1]].map(|side| {
            let renamed = side.names.iter().map(|column| {
                let name = free(column, |name| names.iter().any(|other| other == name));
                names.push(name.clone());
                Named { name, text: column.clone() }
            });
            renamed.collect::<Vec<_>>()
        });
        let [a, b] = sides;
        let query =
            Query::Join(Box::new(Join { sides: [a.query, b.query], kept, equalities: texts, columns: [left_columns, right_columns] }));
        Step { query, names }.keep(above, &join.schema)
    }

    fn side(&self, plan: &LogicalPlan, conditions: Vec<Expr>) -> Outcome<Step> {
        match plan {
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => self.join(join, conditions),
            plan => self.step(plan)?.keep(conditions, plan.schema()),
        }
    }

    fn union(&self, union: &logical_plan::Union) -> Outcome<Step> {
        let mut queries = Vec::with_capacity(union.inputs.len());
        let mut names: Vec<String> = Vec::new();
        for input in &union.inputs {
            let step = self.step(input)?;
            if names.is_empty() {
                names.clone_from(&step.names);
            }
            // The first names the columns; the others have theirs by position, in the type that all have together.
            let fields = input.schema().fields().iter().zip(union.schema.fields());
            let columns = step.names.iter().zip(&names).zip(fields).map(|((own, name), (field, wanted))| {
                let own = Expr::Column(Column::new_unqualified(own));
                let same = field.data_type() == wanted.data_type();
                let expr = if same { own } else { datafusion_expr::cast(own, wanted.data_type().clone()) };
                Ok(Named { name: name.clone(), text: unparse(&expr)? })
            });
            let columns = columns.collect::<Outcome<Vec<_>>>()?;
            queries.push(match columns.iter().all(|column| column.text == quoted(&column.name)) {
                true => step.query,
                false => Query::Project { input: Box::new(step.query), columns },
            });
        }
        Ok(Step { query: Query::Union(queries), names })
    }
}

impl Step {
    /// The rows for which all conditions are true.
    fn keep(self, conditions: Vec<Expr>, schema: &DFSchema) -> Outcome<Step> {
        let Some(all) = conjunction(conditions) else { return Ok(self) };
        let keep = self.text(&all, schema)?;
        Ok(Step { query: Query::Filter { input: Box::new(self.query), keep }, names: self.names })
    }

    fn name(&self, column: &Column, schema: &DFSchema) -> Outcome<String> {
        let index = schema.index_of_column(column).map_err(|error| ExpressionError::new(sentence(&error)))?;
        Ok(self.names[index].clone())
    }

    /// An expression over DataFusion's columns as a text over ours.
    fn text(&self, expr: &Expr, schema: &DFSchema) -> Outcome<String> {
        let renamed = expr.clone().transform_up(|node| match node {
            Expr::Column(column) => {
                let name = self.name(&column, schema).map_err(|error| DataFusionError::Plan(error.message))?;
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name))))
            }
            Expr::Alias(Alias { expr, .. }) => Ok(Transformed::yes(*expr)),
            node => Ok(Transformed::no(node)),
        });
        unparse(&renamed.map_err(|error| ExpressionError::new(sentence(&error)))?.data)
    }
}

fn unparse(expr: &Expr) -> Outcome<String> {
    let dialect = CustomDialectBuilder::new().with_identifier_quote_style('"').build();
    let syntax = Unparser::new(&dialect).expr_to_sql(expr).map_err(|error| ExpressionError::new(sentence(&error)))?;
    Ok(syntax.to_string())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name that is not taken: with a number if it must be, as Calcite does it.
fn free(wanted: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(wanted) {
        return wanted.to_string();
    }
    (0..).map(|number| format!("{wanted}{number}")).find(|name| !taken(name)).expect("numbers do not end")
}

/// Which aggregate is called, and of what.
fn call(expr: &Expr, schema: &DFSchema) -> Outcome<(Function, Option<Expr>)> {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr.clone().unalias() else {
        return Err(ExpressionError::new("this aggregate is not available"));
    };
    let name = func.name().to_string();
    let function = aggregates::function(&name).ok_or_else(|| ExpressionError::new(format!("there is no aggregate `{name}`")))?;
    if !params.order_by.is_empty() || params.null_treatment.is_some() {
        return Err(ExpressionError::new(format!("`{name}` cannot have an order or a treatment of nulls")));
    }
    let filter = params.filter.map(|filter| *filter);
    let value = params.args.into_iter().next();
    let when = |condition: Expr, then: Expr, otherwise: Option<Expr>| -> Outcome<Expr> {
        let mut case = when(condition, then);
        let made = match otherwise {
            Some(otherwise) => case.otherwise(otherwise),
            None => case.end(),
        };
        made.map_err(|error| ExpressionError::new(sentence(&error)))
    };
    // A row that the filter leaves out counts as one without a value.
    let given = |value: Expr| filter.clone().map_or(Ok(value.clone()), |filter| when(filter, value, None));
    let nullable = |value: &Expr| !matches!(value, Expr::Literal(value, _) if !value.is_null()) && value.nullable(schema).unwrap_or(true);
    match (function, value) {
        (Function::Rows, Some(value)) if params.distinct => Ok((Function::CountDistinct, Some(given(value)?))),
        (Function::Rows, value) if value.as_ref().is_none_or(is_star) => match filter {
            None => Ok((Function::Rows, None)),
            Some(filter) => Ok((Function::Sum, Some(when(filter, lit(1i64), Some(lit(0i64)))?))),
        },
        (Function::Rows, Some(value)) if filter.is_none() && !nullable(&value) => Ok((Function::Rows, None)),
        (Function::Rows, Some(value)) => Ok((Function::Sum, Some(when(given(value)?.is_null(), lit(0i64), Some(lit(1i64)))?))),
        // The smallest and the largest of different values are those of all.
        (function, Some(value))
            if !params.distinct || matches!(function, Function::Min | Function::Max | Function::All | Function::Any) =>
        {
            Ok((function, Some(given(value)?)))
        }
        (_, Some(_)) => {
            Err(ExpressionError::new(format!("{name}(DISTINCT …) is not available")).help("group by the value in a subquery first"))
        }
        (_, None) => Err(ExpressionError::new(format!("`{name}` needs a value"))),
    }
}

#[allow(deprecated, reason = "the planner still writes COUNT(*) so")]
fn is_star(expr: &Expr) -> bool {
    matches!(expr, Expr::Wildcard { .. })
}

fn is_equality(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }))
}

fn is_inner_join(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(join) if join.join_type == JoinType::Inner)
}

/// The only side whose columns a condition reads.
fn side_of(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Option<usize> {
    let columns = condition.column_refs();
    let all = |schema: &DFSchema| !columns.is_empty() && columns.iter().all(|column| schema.maybe_index_of_column(column).is_some());
    if all(left) {
        Some(0)
    } else if all(right) {
        Some(1)
    } else {
        None
    }
}

/// An equality of something of the left with something of the right.
fn key_pair(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Outcome<Option<(Expr, Expr)>> {
    let Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Eq, right: b }) = condition else { return Ok(None) };
    find_valid_equijoin_key_pair(a, b, left, right).map_err(|error| ExpressionError::new(sentence(&error)))
}

/// Both sides of an equality in a type that compares them.
fn comparable(a: Expr, b: Expr, left: &DFSchema, right: &DFSchema) -> Outcome<(Expr, Expr)> {
    let data_type = |expr: &Expr, schema: &DFSchema| expr.get_type(schema).map_err(|error| ExpressionError::new(sentence(&error)));
    let (of_a, of_b) = (data_type(&a, left)?, data_type(&b, right)?);
    if of_a == of_b || (of_a.is_integer() && of_b.is_integer()) {
        return Ok((a, b));
    }
    let Some(common) = comparison_coercion(&of_a, &of_b) else {
        return Err(ExpressionError::new(format!("{of_a} and {of_b} cannot be compared")).help("convert one of them with CAST"));
    };
    let to = |expr: Expr, from: &DataType| {
        if *from == common || *from == DataType::Null { expr } else { datafusion_expr::cast(expr, common.clone()) }
    };
    debug_assert!(ScalarValue::try_from(&common).is_ok());
    Ok((to(a, &of_a), to(b, &of_b)))
}
