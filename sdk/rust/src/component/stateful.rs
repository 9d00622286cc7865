//! The export `stateful-do-fn` and the import `state`.

use std::rc::Rc;

use super::bindings::exports::pelton::plugin::stateful_do_fn as contract;
use super::bindings::pelton::plugin::bytes;
use super::bindings::pelton::plugin::state;
use super::{
    Component, INSTANCE, Served, columns_in, errors_out, failure, input_in, not_open, open_request, opened_out, output_out, update_out,
};
use crate::keyed::{self, BytesColumn, Found, Items, Reads, StateWrites};
use crate::transform::{Opener, Plugin, wrong_role};
use crate::wire::StateKind;

impl<P: Plugin> contract::Guest for Component<P> {
    fn open(request: contract::KeyedOpenRequest) -> Result<contract::Opened, contract::Failure> {
        let request = keyed::KeyedOpenRequest { base: open_request(request.base), key: request.key };
        let name = &request.base.transform;
        let Opener::Stateful(open) = P::opener(name).map_err(failure)? else { return Err(failure(wrong_role(name))) };
        let (opened, instance) = open(&request).map_err(failure)?;
        INSTANCE.set(Some(Served::Stateful(instance)));
        Ok(opened_out(opened))
    }

    fn process(rows: contract::KeyedInput) -> Result<contract::KeyedOutcome, contract::Failure> {
        let mut input = keyed_in(rows);
        INSTANCE.with_borrow(|instance| match instance {
            Some(Served::Stateful(instance)) => {
                let kinds = instance.kinds();
                Ok(outcome_out(instance.process(&mut input, Rc::new(Imports)), &kinds))
            }
            _ => Err(not_open()),
        })
    }

    fn migrate(state: String, version: u32, items: contract::StateItems) -> Result<contract::StateItems, contract::Failure> {
        let items = keyed::StateItems { keys: bytes_in(items.keys), values: bytes_in(items.values) };
        INSTANCE.with_borrow(|instance| match instance {
            Some(Served::Stateful(instance)) => {
                let migrated = instance.migrate(&state, version, &items).map_err(failure)?;
                Ok(contract::StateItems { keys: bytes_out(migrated.keys), values: bytes_out(migrated.values) })
            }
            _ => Err(not_open()),
        })
    }

    fn close() {
        INSTANCE.set(None);
    }
}

/// State by the host's imports.
struct Imports;

impl Reads for Imports {
    fn read(&self, state: u32, groups: &[u32], max_bytes: u32) -> Items {
        let items = state::read(state, &numbers(groups), max_bytes);
        Items { starts: items.starts, keys: bytes_in(items.keys), values: bytes_in(items.values), expires: items.expires }
    }

    fn get(&self, state: u32, groups: &[u32], keys: &BytesColumn) -> Found {
        let found = state::get(state, &numbers(groups), &bytes_out(keys.clone()));
        Found { values: bytes_in(found.values), expires: found.expires }
    }
}

fn numbers(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(super) fn bytes_in(column: bytes::BytesColumn) -> BytesColumn {
    BytesColumn { validity: column.validity, offsets: column.offsets, data: column.data }
}

pub(super) fn bytes_out(column: BytesColumn) -> bytes::BytesColumn {
    bytes::BytesColumn { validity: column.validity, offsets: column.offsets, data: column.data }
}

fn keyed_in(input: contract::KeyedInput) -> keyed::KeyedInput {
    let value = |column: contract::ValueColumn| keyed::ValueColumn { values: bytes_in(column.values), expires: column.expires };
    keyed::KeyedInput {
        rows: input_in(input.rows),
        groups: keyed::Groups { row_starts: input.groups.row_starts, windows: input.groups.windows, keys: columns_in(input.groups.keys) },
        fired: keyed::FiredTimers {
            groups: input.fired.groups,
            timers: input.fired.timers,
            times: input.fired.times,
            output_times: input.fired.output_times,
        },
        values: input.values.into_iter().map(value).collect(),
        watermark: input.watermark,
        now: input.now,
    }
}

fn outcome_out(outcome: keyed::KeyedOutcome, kinds: &[StateKind]) -> contract::KeyedOutcome {
    let (mut values, mut lists, mut maps) = (vec![], vec![], vec![]);
    for StateWrites { state, cleared, groups, keys, values: written, expires } in outcome.states {
        let written = bytes_out(written);
        match kinds[state as usize] {
            StateKind::Value => values.push(contract::ValueWrites { state, groups, values: written, expires }),
            StateKind::List => lists.push(contract::ListWrites { state, cleared, groups, items: written, expires }),
            StateKind::Map => maps.push(contract::MapWrites { state, cleared, groups, keys: bytes_out(keys), values: written, expires }),
        }
    }
    let timer = |writes: keyed::TimerWrites| contract::TimerWrites {
        timer: writes.timer,
        groups: writes.groups,
        times: writes.times,
        output_times: writes.output_times,
    };
    contract::KeyedOutcome {
        outputs: outcome.outputs.into_iter().map(output_out).collect(),
        errors: errors_out(outcome.errors),
        metrics: outcome.metrics.into_iter().map(update_out).collect(),
        values,
        lists,
        maps,
        timers: outcome.timers.into_iter().map(timer).collect(),
    }
}
