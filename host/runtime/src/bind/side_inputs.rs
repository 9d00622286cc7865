//! Side inputs: what a transform's rows get of them, as columns that its expressions or its plugin read like any other.

use super::join::comparable;
use super::{Binder, Site};
use crate::failure::Failure;
use crate::operator::MAIN;
use crate::operators::late::late_schema;
use crate::operators::sided::table::{Shape, SidePlan, Wanted, item};
use crate::operators::sided::waiting::kept_types;
use crate::operators::sided::{Probe, SidedPlan};
use arrow::array::{Array, ArrayRef, ListArray, new_empty_array, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pelton_core::WindowingStrategy;
use pelton_core::batch::SIDE_INPUT;
use pelton_core::key::KeyEncoder;
use pelton_expr::Expression;
use pelton_pipeline::graph::{self, JoinField, Place, SideInput, SideKind, SideLookup, Transform};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

impl Binder<'_> {
    /// The side inputs of a node, if it has any. Of what a plugin may read, `only` these columns.
    pub(super) fn side_inputs(&self, site: &Site<'_>, only: Option<&BTreeSet<String>>) -> Result<Option<SidedPlan>, Failure> {
        if site.node.sides.is_empty() {
            return Ok(None);
        }
        KeyEncoder::for_rows(&kept_types(&site.input)).map_err(|message| {
            let help = Some("leave the column out before, or convert it".to_string());
            self.wrong(site.node, site.node.place, format!("{message}, nor be kept until the side inputs are ready"), help)
        })?;
        let mut fields: Vec<Field> = site.input.fields().iter().map(|field| field.as_ref().clone()).collect();
        let (mut sides, mut probes) = (Vec::new(), Vec::new());
        for (number, side) in site.node.sides.iter().enumerate() {
            let schema = &site.inputs[number + 1];
            let mut bound =
                BoundSide { plan: self.side_plan(site, number, side, schema)?, schema, number, probes: Vec::new(), by_key: HashMap::new() };
            self.check_default(site, side, schema)?;
            for lookup in self.lookups(site, side, schema, only)? {
                self.look_up(site, side, &lookup, &mut bound)?;
            }
            KeyEncoder::for_rows(&bound.plan.types).map_err(|message| {
                let help = Some("convert the column before, or do not read it".to_string());
                self.wrong(site.node, side.place, format!("the side input `{}`: {message}, nor be kept to be looked up", side.tag), help)
            })?;
            for (probe, added) in bound.probes {
                probes.push(probe);
                fields.extend(added);
            }
            sides.push(bound.plan);
        }
        for (at, field) in fields.iter().enumerate().skip(site.input.fields().len()) {
            if fields[..at].iter().any(|other| other.name() == field.name()) {
                let message = format!("the input has a column `{}`, which is what a side input's is called", field.name());
                return Err(self.wrong(site.node, site.node.place, message, Some("rename one of them".to_string())));
            }
        }
        Ok(Some(SidedPlan {
            sides,
            probes,
            own: site.input.clone(),
            schema: Arc::new(Schema::new(fields)),
            key: Vec::new(),
            key_types: Vec::new(),
            window_fn: site.strategy.window_fn,
            allowed_lateness: site.strategy.allowed_lateness,
            gives_own: matches!(site.node.transform, Transform::Filter { .. }),
            late_schema: late_schema(&site.input),
            late_port: MAIN,
            state_limit: self.state_limit / self.parallelism.max(1),
        }))
    }

    fn side_plan(&self, site: &Site<'_>, number: usize, side: &SideInput, schema: &SchemaRef) -> Result<SidePlan, Failure> {
        let input = &site.node.inputs[number + 1];
        let strategy = self.graph.nodes[input.node].windowing_of(&input.output).unwrap_or_else(WindowingStrategy::global);
        let (mut key, mut key_types) = (Vec::new(), Vec::new());
        if let SideKind::Dict { key: column } = &side.kind {
            self.side_column(site, side, schema, &column.text, column.place)?;
            let compiled = self.compile(site.node, column, schema)?;
            KeyEncoder::new(std::slice::from_ref(compiled.data_type()))
                .map_err(|message| self.wrong(site.node, column.place, format!("`{}`: {message}", column.text), None))?;
            key_types.push(compiled.data_type().clone());
            key.push(compiled);
        }
        let shape = match side.kind {
            SideKind::Singleton => Shape::Singleton { required: side.default.is_empty() },
            SideKind::Iterable => Shape::Iterable,
            SideKind::Dict { .. } => Shape::Dict,
        };
        Ok(SidePlan {
            tag: side.tag.clone(),
            shape,
            key,
            key_types,
            columns: Vec::new(),
            types: Vec::new(),
            window_fn: strategy.window_fn,
            allowed_lateness: strategy.allowed_lateness.max(site.strategy.allowed_lateness),
            from_first_row: side.from_first_row,
            refresh: side.refresh,
        })
    }

    /// What is looked up: what expressions say, or, for a plugin, every column by the key of the same name.
    fn lookups(
        &self,
        site: &Site<'_>,
        side: &SideInput,
        schema: &SchemaRef,
        only: Option<&BTreeSet<String>>,
    ) -> Result<Vec<SideLookup>, Failure> {
        if let Some(lookups) = &side.lookups {
            return Ok(lookups.clone());
        }
        let key = match &side.kind {
            SideKind::Dict { key } => {
                if site.input.field_with_name(&key.text).is_err() {
                    let names = site.input.fields().iter().map(|field| field.name().as_str());
                    let near =
                        pelton_core::catalog::nearest(&key.text, names).map(|near| format!(" (it has `{near}`)")).unwrap_or_default();
                    let message = format!("the input `main` has no column `{}` to look up in the side input `{}`", key.text, side.tag);
                    let help = format!("both need a column of this name{near}: rename one with `MapToFields`");
                    return Err(self.wrong(site.node, key.place, message, Some(help)));
                }
                Some(key.clone())
            }
            _ => None,
        };
        let place = side.place;
        let all = schema.fields().iter().map(|field| SideLookup {
            key: key.clone(),
            column: field.name().clone(),
            name: format!("{}.{}", side.tag, field.name()),
            place,
        });
        let read: Vec<SideLookup> = all.filter(|lookup| only.is_none_or(|only| only.contains(&lookup.name))).collect();
        if read.is_empty() && only.is_some() {
            let names: Vec<String> = schema.fields().iter().map(|field| format!("`{}.{}`", side.tag, field.name())).collect();
            let message = format!("the plugin reads no column of the side input `{}`", side.tag);
            let help = format!("it finds them under the names {}; or take the side input away", names.join(", "));
            return Err(self.wrong(site.node, place, message, Some(help)));
        }
        Ok(read)
    }

    fn look_up(&self, site: &Site<'_>, side: &SideInput, lookup: &SideLookup, bound: &mut BoundSide<'_>) -> Result<(), Failure> {
        let data_type = self.side_column(site, side, bound.schema, &lookup.column, lookup.place)?.data_type().clone();
        let nullable = bound.schema.field_with_name(&lookup.column).is_ok_and(Field::is_nullable);
        let BoundSide { plan, .. } = bound;
        let column = plan.columns.iter().position(|name| *name == lookup.column).unwrap_or_else(|| {
            plan.columns.push(lookup.column.clone());
            plan.types.push(data_type.clone());
            plan.columns.len() - 1
        });
        let default = side.default.iter().find(|(field, _)| field.name == lookup.column);
        let default = default.map(|(field, value)| self.one(site, field, value, &data_type)).transpose()?;
        let (missing, field): (ArrayRef, Field) = match plan.shape {
            Shape::Iterable => (empty_list(&data_type), Field::new(&lookup.name, DataType::List(Arc::new(item(&data_type))), false)),
            shape => {
                let missing = default.unwrap_or_else(|| new_null_array(&data_type, 1));
                let always = shape == (Shape::Singleton { required: true });
                let nullable = nullable || (!always && missing.logical_null_count() > 0);
                (missing, Field::new(&lookup.name, data_type, nullable))
            }
        };
        let field = field.with_metadata(HashMap::from([(SIDE_INPUT.to_string(), side.tag.clone())]));
        let probe = self.probe(site, side, lookup, bound)?;
        let (probe, added) = &mut bound.probes[probe];
        probe.wanted.push(Wanted { column, missing });
        added.push(field);
        Ok(())
    }

    /// The number of the probe with the key of a lookup.
    fn probe(&self, site: &Site<'_>, side: &SideInput, lookup: &SideLookup, bound: &mut BoundSide<'_>) -> Result<usize, Failure> {
        let text = lookup.key.as_ref().map(|key| key.text.clone());
        if let Some(number) = bound.by_key.get(&text) {
            return Ok(*number);
        }
        let key = lookup.key.as_ref().map(|key| self.looked_up(site, side, key, &bound.plan.key_types)).transpose()?;
        bound.by_key.insert(text, bound.probes.len());
        bound.probes.push((Probe { side: bound.number, key, wanted: Vec::new() }, Vec::new()));
        Ok(bound.probes.len() - 1)
    }

    fn looked_up(
        &self,
        site: &Site<'_>,
        side: &SideInput,
        key: &graph::Expression,
        key_types: &[DataType],
    ) -> Result<(Expression, DataType), Failure> {
        let compiled = self.compile(site.node, key, &site.input)?;
        let own = compiled.data_type().clone();
        KeyEncoder::new(std::slice::from_ref(&own))
            .map_err(|message| self.wrong(site.node, key.place, format!("`{}`: {message}", key.text), None))?;
        if let Some(other) = key_types.first().filter(|other| !comparable(&own, other)) {
            let message =
                format!("`{}` is {own} and the key of the side input `{}` is {other}, so nothing would be found", key.text, side.tag);
            let help = "convert one of them, for example with `CAST(… AS …)`".to_string();
            return Err(self.wrong(site.node, key.place, message, Some(help)));
        }
        Ok((compiled, own))
    }

    fn check_default(&self, site: &Site<'_>, side: &SideInput, schema: &SchemaRef) -> Result<(), Failure> {
        let of = |field: &JoinField| self.side_column(site, side, schema, &field.name, field.place).map(drop);
        side.default.iter().try_for_each(|(field, _)| of(field))
    }

    fn side_column<'s>(
        &self,
        site: &Site<'_>,
        side: &SideInput,
        schema: &'s SchemaRef,
        name: &str,
        place: Place,
    ) -> Result<&'s Field, Failure> {
        schema.field_with_name(name).map_err(|_| {
            let names = || schema.fields().iter().map(|field| field.name().as_str());
            let help = match pelton_core::catalog::nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its columns are {}", names().collect::<Vec<_>>().join(", ")),
            };
            self.wrong(site.node, place, format!("the side input `{}` has no column `{name}`", side.tag), Some(help))
        })
    }
}

/// A side input that is being bound.
struct BoundSide<'s> {
    plan: SidePlan,
    schema: &'s SchemaRef,
    number: usize,
    /// With the columns that they add.
    probes: Vec<(Probe, Vec<Field>)>,
    by_key: HashMap<Option<String>, usize>,
}

/// One empty list.
fn empty_list(data_type: &DataType) -> ArrayRef {
    let offsets = OffsetBuffer::new(vec![0, 0].into());
    Arc::new(ListArray::new(Arc::new(item(data_type)), offsets, new_empty_array(data_type), None))
}
