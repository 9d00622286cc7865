//! Stored items, brought from another version of their type by the plugin itself.
//!
//! Invariant: an answer has an entry for each that was sent, and each entry is within the limits of a row.

use super::StatefulInstance;
use crate::bytes::{Bytes, BytesBuilder};
use crate::caller::Called;
use crate::contract::stateful_do_fn::{StateItemsParam, StateItemsResult};
use crate::meters::Breach;
use crate::migrate::{MigrateError, answered_wrongly, halve};

/// What a state holds: of a map a key and a value, else a value alone.
pub type Item = (Option<Vec<u8>>, Vec<u8>);

impl StatefulInstance {
    /// By item: what it becomes; `None`: the plugin drops it. When a call fails, halves are called until the item that fails is known.
    pub async fn migrate(&mut self, state: &str, version: u32, items: &[Item]) -> Result<Vec<Option<Item>>, MigrateError> {
        let plugin = self.caller.binding.plugin().digest().to_owned();
        halve(plugin, items.len(), async |part| self.migrate_part(state, version, &items[part]).await).await
    }

    async fn migrate_part(&mut self, state: &str, version: u32, items: &[Item]) -> Called<Vec<Option<Item>>> {
        let (mut keys, mut values) = (BytesBuilder::default(), BytesBuilder::default());
        for (key, value) in items {
            if let Some(key) = key {
                keys.push(Some(key));
            }
            values.push(Some(value));
        }
        let mut guest = self.caller.take()?;
        let sent = StateItemsParam { keys: keys.param(), values: values.param() };
        let limits = &self.caller.binding.limits;
        let answer = match guest.migrate(state, version, sent, limits).await {
            Ok(answer) => answer,
            Err(fault) => return Ok(Err(fault)),
        };
        let read = read(answer, items.len(), keys.len());
        let read = read.map_err(|why| self.caller.binding.broken(answered_wrongly(&format!("the state `{state}`"), &why)))?;
        let largest = read.iter().flatten().map(|(key, value)| key.as_ref().map_or(0, Vec::len) + value.len()).max();
        if largest.is_some_and(|largest| largest > limits.max_row_bytes) {
            let message = format!("a value that it gave is larger than {} bytes (limits.max_row_bytes)", limits.max_row_bytes);
            return Ok(Err(guest.fail(Breach::Row, message)));
        }
        self.caller.give_back(guest);
        Ok(Ok(read))
    }
}

fn read(answer: StateItemsResult, items: usize, keys: usize) -> Result<Vec<Option<Item>>, String> {
    let values = Bytes::check(answer.values, items).map_err(|why| format!("values: {why}"))?;
    let told = Bytes::check(answer.keys, keys).map_err(|why| format!("keys: {why}"))?;
    (0..items)
        .map(|number| {
            let Some(value) = values.get(number) else { return Ok(None) };
            let key = match keys {
                0 => None,
                _ => Some(told.get(number).ok_or_else(|| format!("the key of entry {number} is absent, but not its value"))?.to_vec()),
            };
            Ok(Some((key, value.to_vec())))
        })
        .collect()
}
