//! Which columns each node reads and passes on, so that sources read no others.

use super::{Binder, BoundNode, OperatorPlan};
use crate::operator::MAIN;
use crate::operators::join::JoinSide;
use crate::operators::map::Column;
use crate::operators::sided::table::SidePlan;
use pelton_expr::Expression;
use pelton_pipeline::columns::{ColumnUse, Needed, Passes};
use pelton_pipeline::graph::{Node, Transform};
use pelton_plugin::Binding;
use std::collections::BTreeSet;

impl Binder<'_> {
    pub(super) fn column_use(&self, node: &Node, bound: &[BoundNode]) -> ColumnUse {
        let ColumnUse { reads, passes } = self.use_of_transform(node, bound);
        let Some(sides) = &bound[node.id].sides else { return ColumnUse { reads, passes } };
        let keys = || sides.probes.iter().flat_map(|probe| &probe.key).flat_map(|(key, _)| key.columns());
        // What is looked up is no column of the input.
        let own = |name: &String| sides.own.field_with_name(name).is_ok();
        let reads = reads.filter(|_| !self.late_is_read(node)).map(|reads| reads.into_iter().filter(own).chain(keys()).collect());
        ColumnUse { reads, passes }
    }

    fn use_of_transform(&self, node: &Node, bound: &[BoundNode]) -> ColumnUse {
        let own = &bound[node.id];
        let columns = |expressions: &mut dyn Iterator<Item = &Expression>| -> BTreeSet<String> {
            expressions.flat_map(|expression| expression.columns()).collect()
        };
        let all = ColumnUse { reads: None, passes: Passes::Nothing };
        match &own.plan {
            OperatorPlan::Source { .. }
            | OperatorPlan::Sink { .. }
            | OperatorPlan::Log { .. }
            | OperatorPlan::Strip { .. }
            | OperatorPlan::Validate { .. } => all,
            OperatorPlan::Plugin { binding, .. } => plugin(binding),
            OperatorPlan::Stateful(plan) if self.late_is_read(node) => ColumnUse { reads: None, ..plugin(&plan.binding.base) },
            OperatorPlan::Stateful(plan) => {
                let ColumnUse { reads, passes } = plugin(&plan.binding.base);
                ColumnUse { reads: reads.map(|reads| reads.into_iter().chain(columns(&mut plan.key.iter())).collect()), passes }
            }
            OperatorPlan::AssignTimestamps { timestamp, .. } => {
                ColumnUse { reads: Some(columns(&mut [timestamp].into_iter())), passes: Passes::AllBut(BTreeSet::new()) }
            }
            OperatorPlan::SetWatermark { marker, .. } => {
                ColumnUse { reads: Some(columns(&mut marker.iter())), passes: Passes::AllBut(BTreeSet::new()) }
            }
            OperatorPlan::Explode { fields, .. } => {
                let fields: BTreeSet<String> = fields.iter().cloned().collect();
                ColumnUse { reads: Some(fields.clone()), passes: Passes::AllBut(fields) }
            }
            OperatorPlan::MatchAll { column, .. } => ColumnUse { reads: Some(BTreeSet::from([column.clone()])), passes: Passes::Nothing },
            OperatorPlan::WindowInto | OperatorPlan::Flatten | OperatorPlan::Reshuffle { .. } => {
                ColumnUse { reads: Some(BTreeSet::new()), passes: Passes::AllBut(BTreeSet::new()) }
            }
            OperatorPlan::ExtractWindowingInfo { passed, .. } => {
                let added = own.schemas[MAIN].fields().iter().map(|field| field.name().clone()).filter(|name| !passed.contains(name));
                ColumnUse { reads: Some(BTreeSet::new()), passes: Passes::AllBut(added.collect()) }
            }
            OperatorPlan::Map { columns: made } => {
                let Transform::MapToFields { fields, append, drop } = &node.transform else { return all };
                let reads = columns(&mut made.iter().filter_map(|column| match column {
                    Column::Made(expression) => Some(expression),
                    Column::Passed(_) => None,
                }));
                // Dropped columns are named in the file and must be there to be dropped.
                let reads = reads.into_iter().chain(drop.iter().cloned()).collect();
                let passes = if *append { Passes::AllBut(fields.iter().map(|(name, _)| name.clone()).collect()) } else { Passes::Nothing };
                ColumnUse { reads: Some(reads), passes }
            }
            OperatorPlan::Filter { keep } => {
                ColumnUse { reads: Some(columns(&mut [keep].into_iter())), passes: Passes::AllBut(BTreeSet::new()) }
            }
            OperatorPlan::Partition { by, .. } => {
                ColumnUse { reads: Some(columns(&mut [by].into_iter())), passes: Passes::AllBut(BTreeSet::new()) }
            }
            OperatorPlan::Combine(plan) => {
                let reads = columns(&mut plan.group_by.iter().chain(plan.aggregates.iter().filter_map(|(_, value)| value.as_ref())));
                ColumnUse { reads: (!self.late_is_read(node)).then_some(reads), passes: Passes::Nothing }
            }
            OperatorPlan::Join(plan) => self.use_of_sides(node, &plan.sides),
            OperatorPlan::Lookup(plan) => {
                let names = own.schemas[MAIN].fields().iter().rev().take(plan.table.missing.len()).map(|field| field.name().clone());
                ColumnUse { reads: Some(columns(&mut plan.keys.iter())), passes: Passes::AllBut(names.collect()) }
            }
            OperatorPlan::TimedJoin(plan) => self.use_of_sides(node, &plan.sides),
        }
    }

    /// One set for both inputs: a column that only the other needs is read for nothing, which is seldom and harmless.
    fn use_of_sides(&self, node: &Node, sides: &[JoinSide; 2]) -> ColumnUse {
        let keys = sides.iter().flat_map(|side| &side.keys).flat_map(|key| key.columns());
        let reads = keys.chain(sides.iter().flat_map(|side| side.columns.iter().cloned())).collect();
        ColumnUse { reads: (!self.late_is_read(node)).then_some(reads), passes: Passes::Nothing }
    }
}

/// The columns that a node reads of each of its side inputs.
pub(super) fn of_sides(node: &BoundNode) -> Vec<Needed> {
    let read = |side: &SidePlan| Some(side.key.iter().flat_map(|key| key.columns()).chain(side.columns.iter().cloned()).collect());
    node.sides.iter().flat_map(|sides| &sides.sides).map(read).collect()
}

fn plugin(binding: &Binding) -> ColumnUse {
    let mut made = BTreeSet::new();
    let mut passes_any = false;
    for output in &binding.outputs {
        passes_any |= !output.passes.is_empty();
        made.extend(output.adds.fields().iter().map(|field| field.name().clone()));
    }
    let reads = Some(binding.reads_names().into_iter().collect());
    ColumnUse { reads, passes: if passes_any { Passes::AllBut(made) } else { Passes::Nothing } }
}
