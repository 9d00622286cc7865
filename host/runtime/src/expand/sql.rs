//! A query to the transforms that do what it says: MapToFields, Filter, Combine, Join and Flatten.
//!
//! Each step is a node; the last one has the name of the transform, the others `Name/1`, `Name/2`, … in the order in which they
//! come.

use super::Site;
use crate::failure::Failure;
use pelton_core::strategy::{Accumulation, Trigger};
use pelton_expr::query::aggregates::Function;
use pelton_expr::query::{Join, Named, Query};
use pelton_pipeline::graph::{
    self, Aggregate, AggregateFunction, Equality, Expression, Input, JoinField, JoinFields, JoinKind, Language, Node, Transform,
};

/// What the only input of a query is called, as in Beam.
const ONLY: &str = "PCOLLECTION";

pub(super) fn expand(site: &Site<'_>, tags: &[String], query: &Expression) -> Result<Vec<Node>, Failure> {
    let mut tables: Vec<_> = tags.iter().cloned().zip(site.schemas.iter().cloned()).collect();
    if let ([_], [schema]) = (tags, site.schemas) {
        tables.push((ONLY.to_string(), schema.clone()));
    }
    let plan = pelton_expr::plan_query(&query.text, &tables).map_err(|error| {
        let at = error.offset.map(|offset| place(&query.text, offset)).unwrap_or_default();
        site.binder.wrong(site.node, query.place, format!("{}{at}", error.message), error.help)
    })?;
    let mut steps = Steps { site, query, nodes: Vec::new() };
    steps.step(&plan)?;
    let mut nodes = steps.nodes;
    let last = nodes.pop().expect("a query selects something");
    nodes.push(Node { transform: last.transform, inputs: last.inputs, ..site.node.clone() });
    Ok(nodes)
}

/// A place in a query, counted from 1.
fn place(text: &str, offset: usize) -> String {
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    match text.contains('\n') {
        true => format!(" (line {line}, column {column} of the query)"),
        false => format!(" (column {column} of the query)"),
    }
}

struct Steps<'a> {
    site: &'a Site<'a>,
    query: &'a Expression,
    nodes: Vec<Node>,
}

impl Steps<'_> {
    /// Adds the nodes of a plan and says where its rows are.
    fn step(&mut self, plan: &Query) -> Result<Input, Failure> {
        let (inputs, transform) = match plan {
            // The last table may be the first under another name.
            Query::Input(number) => return Ok(self.site.node.inputs[*number % self.site.node.inputs.len()].clone()),
            Query::Project { input, columns } => {
                let fields = columns.iter().map(|column| (column.name.clone(), self.sql(&column.text))).collect();
                (vec![self.step(input)?], Transform::MapToFields { fields, append: false, drop: Vec::new() })
            }
            Query::Filter { input, keep } => (vec![self.step(input)?], Transform::Filter { keep: self.sql(keep) }),
            Query::Aggregate { input, group_by, aggregates } => {
                let group_by = group_by.iter().map(|column| (column.name.clone(), self.sql(&column.text))).collect();
                let combine = aggregates.iter().map(|aggregate| {
                    let value = aggregate.value.as_ref().map(|value| self.sql(value));
                    Aggregate { name: aggregate.name.clone(), function: function(aggregate.function), value }
                });
                let combine = combine.collect();
                (vec![self.step(input)?], Transform::Combine { group_by, combine, fanout: None })
            }
            Query::Join(join) => {
                self.check_trigger()?;
                (vec![self.step(&join.sides[0])?, self.step(&join.sides[1])?], Transform::Join(Box::new(self.join(join))))
            }
            Query::Union(all) => (all.iter().map(|query| self.step(query)).collect::<Result<_, _>>()?, Transform::Flatten),
        };
        let suffix = (self.nodes.len() + 1).to_string();
        self.nodes.push(self.site.inner(&suffix, inputs, transform));
        Ok(Site::main(self.site.first + self.nodes.len() - 1))
    }

    fn join(&self, join: &Join) -> graph::Join {
        let kind = match join.kept {
            [false, false] => JoinKind::Inner,
            [true, false] => JoinKind::Left,
            [false, true] => JoinKind::Right,
            [true, true] => JoinKind::Outer,
        };
        let equality = |(left, right): &(String, String)| Equality { left: (0, self.sql(left)), right: (1, self.sql(right)) };
        let listed = |columns: &[Named]| {
            let field = |column: &Named| JoinField { name: column.name.clone(), column: column.text.clone(), place: self.query.place };
            JoinFields::Listed(columns.iter().map(field).collect())
        };
        graph::Join {
            inputs: vec!["left".into(), "right".into()],
            equalities: join.equalities.iter().map(equality).collect(),
            kinds: vec![kind],
            fields: vec![(0, listed(&join.columns[0])), (1, listed(&join.columns[1]))],
        }
    }

    /// As for the transform `Join`, which the front end checks itself.
    fn check_trigger(&self) -> Result<(), Failure> {
        let Some(strategy) = &self.site.node.windowing else { return Ok(()) };
        let node = self.site.node;
        if strategy.trigger != Trigger::Default || strategy.accumulation != Accumulation::Discarding {
            let help = Some("window the inputs of the query without a trigger".to_string());
            return Err(self.site.binder.wrong(node, node.place, "JOIN gives each window out once, at its end", help));
        }
        Ok(())
    }

    fn sql(&self, text: &str) -> Expression {
        Expression { language: Language::Sql, text: text.to_string(), place: self.query.place, output_type: None }
    }
}

fn function(function: Function) -> AggregateFunction {
    match function {
        Function::Rows => AggregateFunction::Count,
        Function::CountDistinct => AggregateFunction::CountDistinct,
        Function::Sum => AggregateFunction::Sum,
        Function::Min => AggregateFunction::Min,
        Function::Max => AggregateFunction::Max,
        Function::Mean => AggregateFunction::Mean,
        Function::All => AggregateFunction::All,
        Function::Any => AggregateFunction::Any,
        Function::Variance { population } => AggregateFunction::Variance { population },
        Function::StdDev { population } => AggregateFunction::StdDev { population },
    }
}
