//! Join. By now every join has two inputs and names the columns that come out (`expand`).

use super::{Binder, Made, OperatorPlan, Site};
use crate::failure::Failure;
use crate::operator::MAIN;
use crate::operators::flatten;
use crate::operators::join::{JoinPlan, JoinSide, LATE_COLUMNS};
use crate::operators::timed_join::{LATE_COLUMN, TimedJoinPlan};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use pelton_core::key::KeyEncoder;
use pelton_pipeline::graph::{self, JoinFields, JoinKind, LATE};
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn join(&self, site: &Site<'_>, join: &graph::Join) -> Result<Made, Failure> {
        let BoundJoin { sides, output, schema } = self.sides(site, join)?;
        let plan = JoinPlan {
            sides,
            output,
            schema: schema.clone(),
            late_schema: self.late_of_join(site, &LATE_COLUMNS)?,
            late_port: MAIN,
            window_fn: site.strategy.window_fn,
            allowed_lateness: site.strategy.allowed_lateness,
            state_limit: self.state_of_task(),
        };
        Ok(site.made(OperatorPlan::Join(Box::new(plan)), schema))
    }

    pub(super) fn timed_join(&self, site: &Site<'_>, timed: &graph::TimedJoin) -> Result<Made, Failure> {
        let BoundJoin { sides, output, schema } = self.sides(site, &timed.join)?;
        let plan = TimedJoinPlan {
            sides,
            left: timed.left,
            rule: timed.rule,
            output,
            schema: schema.clone(),
            late_schema: self.late_of_join(site, &[LATE_COLUMN])?,
            late_port: MAIN,
            allowed_lateness: timed.allowed_lateness,
            state_limit: self.state_of_task(),
        };
        Ok(site.made(OperatorPlan::TimedJoin(Box::new(plan)), schema))
    }

    /// `state_limit` is for all tasks together; keys spread evenly enough.
    fn state_of_task(&self) -> usize {
        self.state_limit / self.parallelism.max(1)
    }

    /// Keys and columns, of inputs and output.
    fn sides(&self, site: &Site<'_>, join: &graph::Join) -> Result<BoundJoin, Failure> {
        let kept = match join.kinds[0] {
            JoinKind::Inner => [false, false],
            JoinKind::Left => [true, false],
            JoinKind::Right => [false, true],
            JoinKind::Outer => [true, true],
        };
        let side = |kept| JoinSide { keys: vec![], key_types: vec![], columns: vec![], types: vec![], kept };
        let mut sides = kept.map(side);
        for equality in &join.equalities {
            self.equality(site, join, equality, &mut sides)?;
        }
        let (mut output, mut fields) = (Vec::new(), Vec::new());
        for (number, listed) in &join.fields {
            let JoinFields::Listed(listed) = listed else { unreachable!("joins name their columns before they are bound") };
            for wanted in listed {
                let Ok(found) = site.inputs[*number].field_with_name(&wanted.column) else {
                    return Err(self.no_column(site, join, *number, wanted));
                };
                let side = &mut sides[*number];
                let column = side.columns.iter().position(|name| *name == wanted.column).unwrap_or_else(|| {
                    side.columns.push(wanted.column.clone());
                    side.types.push(found.data_type().clone());
                    side.columns.len() - 1
                });
                output.push((*number, column));
                // Absent where only the other input's rows are kept.
                fields.push(Field::new(&wanted.name, found.data_type().clone(), found.is_nullable() || kept[1 - *number]));
            }
        }
        for side in &sides {
            KeyEncoder::for_rows(&side.types).map_err(|message| {
                let help = Some("leave the column out with `fields`, or convert it before".to_string());
                self.wrong(site.node, site.node.place, format!("{message}, nor be kept until its partner comes"), help)
            })?;
        }
        Ok(BoundJoin { sides, output, schema: Arc::new(Schema::new(fields)) })
    }

    fn equality(&self, site: &Site<'_>, join: &graph::Join, equality: &graph::Equality, sides: &mut [JoinSide; 2]) -> Result<(), Failure> {
        let pair = [&equality.left, &equality.right];
        let mut types: Vec<DataType> = Vec::new();
        for (number, expression) in pair {
            let compiled = self.compile(site.node, expression, &site.inputs[*number])?;
            let data_type = compiled.data_type().clone();
            KeyEncoder::new(std::slice::from_ref(&data_type))
                .map_err(|message| self.wrong(site.node, expression.place, format!("`{}`: {message}", expression.text), None))?;
            types.push(data_type.clone());
            sides[*number].keys.push(compiled);
            sides[*number].key_types.push(data_type);
        }
        if comparable(&types[0], &types[1]) {
            return Ok(());
        }
        let name = |at: usize| format!("`{}.{}`", join.inputs[pair[at].0], pair[at].1.text);
        let message = format!("{} is {} and {} is {}, so no two rows would be equal", name(0), types[0], name(1), types[1]);
        let help = "convert one of them before the join, with `MapToFields` in `language: sql` and `CAST(… AS …)`".to_string();
        Err(self.wrong(site.node, pair[1].1.place, message, Some(help)))
    }

    fn no_column(&self, site: &Site<'_>, join: &graph::Join, number: usize, wanted: &graph::JoinField) -> Failure {
        let names = site.inputs[number].fields().iter().map(|field| field.name().as_str());
        let help = match pelton_core::catalog::nearest(&wanted.column, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("its columns are {}", names.collect::<Vec<_>>().join(", ")),
        };
        let message = format!("the input `{}` has no column `{}`", join.inputs[number], wanted.column);
        self.wrong(site.node, wanted.place, message, Some(help))
    }

    /// Late rows of both inputs go to one output, so it has the columns of both.
    fn late_of_join(&self, site: &Site<'_>, added: &[&str]) -> Result<Option<SchemaRef>, Failure> {
        if !self.late_is_read(site.node) {
            return Ok(None);
        }
        let union = flatten::union(&site.inputs).map_err(|message| {
            let help = Some("rename the column in one of the inputs, so that late rows of both can go to one output".to_string());
            self.wrong(site.node, site.node.place, message, help)
        })?;
        let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let kept = union.fields().iter().filter(|field| !added.contains(&field.name().as_str()));
        let added = added.iter().map(|name| Field::new(*name, instant(), false));
        let fields: Vec<Field> = kept.map(|field| field.as_ref().clone().with_nullable(true)).chain(added).collect();
        Ok(Some(Arc::new(Schema::new(fields))))
    }

    /// Whether anybody reads the late rows of a node. While the graph is being expanded its readers are not there yet, so the
    /// pipeline as written is asked; the node that gives out late rows keeps its name.
    pub(super) fn late_is_read(&self, node: &graph::Node) -> bool {
        let nodes = &self.written.nodes;
        let read = |written: &graph::Node| written.inputs.iter().any(|input| input.output == LATE && nodes[input.node].name == node.name);
        nodes.iter().any(read)
    }
}

/// What both kinds of joins are bound to.
struct BoundJoin {
    sides: [JoinSide; 2],
    /// Where each column of the output comes from: an input, and a number among its columns.
    output: Vec<(usize, usize)>,
    schema: SchemaRef,
}

/// Whether values of two types have the same key bytes when they are equal.
pub(super) fn comparable(a: &DataType, b: &DataType) -> bool {
    let decimal = |t: &DataType| matches!(t, DataType::Decimal128(..));
    a == b
        || (a.is_integer() && b.is_integer())
        || (a.is_floating() && b.is_floating())
        || (decimal(a) && decimal(b))
        || [a, b].contains(&&DataType::Null)
}
