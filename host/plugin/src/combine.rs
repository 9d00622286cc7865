//! Aggregations of plugins (CombineFns): accumulators are bytes that the caller keeps, and go through the guest to be added to, merged and
//! extracted.
//!
//! A batch of rows that fails is tried again and halved as for transforms; what was added before is kept. A merge or an extraction that
//! fails is tried once more on a fresh instance, and then stops the pipeline: no row is to blame.

use crate::binding::Binding;
use crate::bytes::{Bytes, BytesBuilder};
use crate::caller::{Called, Caller};
use crate::contract::bytes::BytesColumnResult;
use crate::contract::{Input, data};
use crate::descriptor::{self, StateSpec};
use crate::error::PluginError;
use crate::flatten::{bytes_of, flatten};
use crate::guest::{Fault, Guest};
use crate::instance::Processed;
use crate::meters::Breach;
use crate::migrate::{MigrateError, answered_wrongly, halve};
use crate::outcome::{Committed, MetricUpdate, metrics, row_errors};
use crate::unflatten::unflatten;
use arrow::array::{Array, ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pelton_core::evolution;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Name of the one column that an aggregation in a `Combine` is given.
pub const VALUE: &str = "value";

/// An aggregation, opened with a config for values of a type.
#[derive(Clone)]
pub struct CombineBinding {
    /// What crosses; its output is what is extracted.
    pub base: Binding,
    /// What its accumulator is, if that was told.
    accumulator: Option<StateSpec>,
}

/// An opened aggregation. It belongs to one task.
pub struct CombineInstance {
    caller: Caller,
    /// The empty accumulator, once it was asked for.
    created: Option<Vec<u8>>,
}

/// The schema of values of a type. They are never null: nulls are skipped, as by every aggregate.
pub(crate) fn input_of(value: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(VALUE, value.clone(), true)]))
}

impl CombineBinding {
    pub(crate) fn check(base: Binding, accumulator: Option<StateSpec>) -> Result<CombineBinding, PluginError> {
        match base.outputs.as_slice() {
            [output] if output.passes.is_empty() && !output.adds.fields().is_empty() => Ok(CombineBinding { base, accumulator }),
            _ => Err(base.broken("an aggregation has one output, which passes nothing and adds at least a column".into())),
        }
    }

    /// The type of what is extracted: the one column's, or a struct of several.
    pub fn output_type(&self) -> DataType {
        let fields = self.base.outputs[0].adds.fields();
        if fields.len() == 1 { fields[0].data_type().clone() } else { DataType::Struct(fields.clone()) }
    }

    /// What its accumulator is, by a name of the caller's, to be compared with what is stored.
    pub fn declared(&self, name: &str) -> evolution::State {
        descriptor::accumulator(name, self.accumulator.as_ref())
    }

    /// A new instance, opened as at `bind`.
    pub fn open(&self) -> Result<CombineInstance, PluginError> {
        Ok(CombineInstance { caller: Caller::new(Arc::new(self.base.clone()), self.base.open_guest()?), created: None })
    }
}

impl CombineInstance {
    /// Adds each value to the accumulator of its group; `groups` are places in `accumulators`, of which `None` is the empty one. Nothing of
    /// a value that was refused ([`Processed::errors`]) is in an accumulator.
    ///
    /// # Errors
    /// Those that stop a pipeline; what was added before is in the accumulators then.
    pub async fn add(&mut self, values: &ArrayRef, groups: &[u32], accumulators: &mut [Option<Vec<u8>>]) -> Result<Processed, PluginError> {
        self.caller.run(values.len() as u32, async |caller, rows| add_part(caller, values, groups, accumulators, rows).await).await
    }

    /// Merges accumulators that share a group into one each: `count` groups, each of at least one accumulator.
    pub async fn merge(&mut self, accumulators: &[&[u8]], groups: &[u32], count: u32) -> Result<Vec<Vec<u8>>, PluginError> {
        let mut column = BytesBuilder::default();
        accumulators.iter().for_each(|accumulator| column.push(Some(accumulator)));
        let merged = twice(&mut self.caller, async |caller| {
            let mut guest = caller.take()?;
            let merged = match guest.merge(column.param(), bytes_of(groups), count, &caller.binding.limits).await {
                Ok(merged) => merged,
                Err(fault) => return Ok(Err(fault)),
            };
            let broken = |why: String| caller.binding.broken(format!("merged accumulators: {why}"));
            let merged = owned(merged, count as usize).map_err(broken)?;
            if let Err(fault) = fits(&merged, &caller.binding, &guest) {
                return Ok(Err(fault));
            }
            caller.give_back(guest);
            Ok(Ok(merged))
        });
        merged.await
    }

    /// One value an accumulator, in order; `None` is the empty one.
    pub async fn extract(&mut self, accumulators: &[Option<&[u8]>]) -> Result<ArrayRef, PluginError> {
        if accumulators.iter().any(Option::is_none) && self.created.is_none() {
            self.created = Some(self.create().await?);
        }
        let mut column = BytesBuilder::default();
        accumulators.iter().for_each(|accumulator| column.push(Some(accumulator.or(self.created.as_deref()).unwrap_or_default())));
        let extracted = twice(&mut self.caller, async |caller| {
            let mut guest = caller.take()?;
            let extracted = match guest.extract(column.param(), &caller.binding.limits).await {
                Ok(extracted) => extracted,
                Err(fault) => return Ok(Err(fault)),
            };
            caller.give_back(guest);
            Ok(Ok(extracted))
        });
        let columns = extracted.await?;
        let binding = &self.caller.binding;
        let broken = |why: String| binding.broken(format!("what it extracted: {why}"));
        let fields = binding.outputs[0].adds.fields();
        if columns.rows as usize != accumulators.len() {
            return Err(broken(format!("it has {} rows for {} accumulators", columns.rows, accumulators.len())));
        }
        let mut arrays =
            unflatten(fields, accumulators.len(), &columns.nodes, columns.buffers, binding.limits.call_bytes()).map_err(broken)?;
        match arrays.len() {
            1 => Ok(arrays.remove(0)),
            _ => Ok(Arc::new(StructArray::new(fields.clone(), arrays, None))),
        }
    }

    /// Brings accumulators of another version to today's; `None`: the plugin begins anew. When a call fails, halves are called until the one that fails is known.
    pub async fn migrate(&mut self, version: u32, accumulators: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, MigrateError> {
        let plugin = self.caller.binding.plugin().digest().to_owned();
        halve(plugin, accumulators.len(), async |part| self.migrate_part(version, &accumulators[part]).await).await
    }

    async fn migrate_part(&mut self, version: u32, accumulators: &[Vec<u8>]) -> Called<Vec<Option<Vec<u8>>>> {
        let mut column = BytesBuilder::default();
        accumulators.iter().for_each(|accumulator| column.push(Some(accumulator)));
        let mut guest = self.caller.take()?;
        let binding = &self.caller.binding;
        let answer = match guest.migrate_accumulators(version, column.param(), &binding.limits).await {
            Ok(answer) => answer,
            Err(fault) => return Ok(Err(fault)),
        };
        let read = Bytes::check(answer, accumulators.len());
        let read = read.map_err(|why| binding.broken(answered_wrongly("accumulators", &why)))?;
        let new: Vec<Option<Vec<u8>>> = (0..accumulators.len()).map(|entry| read.get(entry).map(<[u8]>::to_vec)).collect();
        if let Err(fault) = fits(new.iter().flatten(), binding, &guest) {
            return Ok(Err(fault));
        }
        self.caller.give_back(guest);
        Ok(Ok(new))
    }

    /// Ends the instance; the guest may say its farewell.
    pub async fn close(self) {
        self.caller.close();
    }

    async fn create(&mut self) -> Result<Vec<u8>, PluginError> {
        twice(&mut self.caller, async |caller| {
            let mut guest = caller.take()?;
            let created = match guest.create(&caller.binding.limits).await {
                Ok(created) => created,
                Err(fault) => return Ok(Err(fault)),
            };
            if let Err(fault) = fits(std::slice::from_ref(&created), &caller.binding, &guest) {
                return Ok(Err(fault));
            }
            caller.give_back(guest);
            Ok(Ok(created))
        })
        .await
    }
}

/// Entries of a column, none of which is absent.
fn owned(told: BytesColumnResult, entries: usize) -> Result<Vec<Vec<u8>>, String> {
    let column = Bytes::check(told, entries)?;
    let entry = |number| column.get(number).map(<[u8]>::to_vec).ok_or_else(|| format!("entry {number} is absent"));
    (0..entries).map(entry).collect()
}

/// Accumulators are as large as rows may be.
fn fits<'a>(accumulators: impl IntoIterator<Item = &'a Vec<u8>>, binding: &Binding, guest: &Guest) -> Result<(), Fault> {
    let limit = binding.limits.max_row_bytes;
    match accumulators.into_iter().map(Vec::len).max().filter(|largest| *largest > limit) {
        None => Ok(()),
        Some(largest) => {
            let message = format!("its accumulator has {largest} bytes, more than the {limit} of limits.max_row_bytes");
            Err(guest.fail(Breach::Row, message))
        }
    }
}

/// One call with some of the values. Its accumulators are put back only when all of its answer has passed.
async fn add_part(
    caller: &mut Caller,
    values: &ArrayRef,
    groups: &[u32],
    accumulators: &mut [Option<Vec<u8>>],
    rows: Range<u32>,
) -> Called<Committed> {
    let range = rows.start as usize..rows.end as usize;
    let values = values.slice(range.start, range.len());
    // Groups of this call, numbered anew in the order of their first rows.
    let (mut numbers, mut of) = (HashMap::new(), Vec::new());
    let dense: Vec<u32> = groups[range]
        .iter()
        .map(|group| {
            *numbers.entry(*group).or_insert_with(|| {
                of.push(*group as usize);
                of.len() as u32 - 1
            })
        })
        .collect();
    let mut column = BytesBuilder::default();
    of.iter().for_each(|group| column.push(accumulators[*group].as_deref()));
    let mut guest = caller.take()?;
    let binding = caller.binding.clone();
    let flat = flatten(binding.reads.iter().map(|_| &values as &dyn Array));
    let buffers: Vec<&[u8]> = flat.buffers.iter().map(|buffer| &**buffer).collect();
    let columns = data::ColumnsParam { rows: values.len() as u32, nodes: &flat.nodes, buffers: &buffers };
    let added = match guest.add(Input { columns, context: None }, bytes_of(&dense), column.param(), &binding.limits).await {
        Ok(added) => added,
        Err(fault) => return Ok(Err(fault)),
    };
    let broken = |why: String| binding.broken(why);
    let errors = row_errors(&added.errors, values.len()).map_err(|why| broken(format!("row errors: {why}")))?;
    let metrics: Vec<MetricUpdate> = metrics(&binding, added.metrics).map_err(broken)?;
    let new = owned(added.accumulators, of.len()).map_err(|why| broken(format!("accumulators: {why}")))?;
    if let Err(fault) = fits(&new, &binding, &guest) {
        return Ok(Err(fault));
    }
    of.into_iter().zip(new).for_each(|(group, new)| accumulators[group] = Some(new));
    caller.give_back(guest);
    let led_to_output = values.len() - errors.len();
    Ok(Ok(Committed { outputs: vec![], errors, metrics, led_to_output }))
}

/// Calls, and once more on a fresh instance when that fails.
async fn twice<T>(caller: &mut Caller, call: impl AsyncFn(&mut Caller) -> Called<T>) -> Result<T, PluginError> {
    // A call that failed has not given its sandbox back, so the second has another.
    if let Ok(answer) = call(caller).await? {
        return Ok(answer);
    }
    let binding = caller.binding.clone();
    call(caller).await?.map_err(|fault| PluginError::Failed {
        plugin: binding.plugin.digest().into(),
        transform: binding.transform.clone(),
        message: fault.message,
        stack: fault.stack,
    })
}
