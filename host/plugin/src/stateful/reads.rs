//! The imported interface `state`: a guest reads lists and maps of its call's cells while it runs.
//!
//! Everything that a guest asks for is checked; what is wrong traps, and so fails the call.

use super::{KeyedState, Stored};
use crate::bytes::{Bytes, BytesBuilder};
use crate::contract::bytes::BytesColumnResult;
use crate::contract::state::{Found, Host, Items};
use crate::descriptor::{StateKind, StateSpec};
use crate::outcome::u32s;
use crate::sandbox::Sandbox;
use std::sync::{Arc, Mutex, MutexGuard};
use wasmtime::{Error, Result};

/// What the current call may read.
pub(crate) struct Reads {
    pub(crate) states: Arc<Mutex<dyn KeyedState>>,
    pub(crate) specs: Arc<[StateSpec]>,
    /// The keeper's number of each group.
    pub(crate) cells: Vec<u32>,
    /// Bytes of one answer.
    pub(crate) limit: usize,
}

/// An answer on its way.
#[derive(Default)]
struct Answer {
    starts: Vec<u8>,
    keys: BytesBuilder,
    values: BytesBuilder,
    expires: Vec<u8>,
}

impl Host for Sandbox {
    fn read(&mut self, state: u32, groups: Vec<u8>, max_bytes: u32) -> Result<Items> {
        let reads = self.reads()?;
        let spec = reads.spec(state, None)?;
        let groups = reads.groups(&groups)?;
        let states = reads.lock();
        let mut answer = Answer::default();
        let (mut answered, mut whole) = (0, true);
        for cell in groups {
            // A group that does not fit is told of by its absence; the first always fits, up to the host's own limit.
            let before = answer.keys.bytes() + answer.values.bytes();
            let bound = if answered == 0 { reads.limit } else { reads.limit.min(max_bytes as usize) };
            let mut part = Answer::default();
            states.items(state as usize, cell, None, &mut |key, stored| {
                whole = before + part.push(key, stored, spec) <= bound;
                whole
            });
            if !whole {
                if answered == 0 {
                    return Err(told(format!(
                        "a group of the state `{}` has more than {} bytes: read it by `page`",
                        spec.name, reads.limit
                    )));
                }
                break;
            }
            answer.append(part);
            answered += 1;
        }
        answer.start();
        Ok(answer.items())
    }

    fn get(&mut self, state: u32, groups: Vec<u8>, keys: BytesColumnResult) -> Result<Found> {
        let reads = self.reads()?;
        let spec = reads.spec(state, Some(StateKind::Map))?;
        let groups = reads.groups(&groups)?;
        let keys = Bytes::check(keys, groups.len()).map_err(|why| told(format!("a column of keys: {why}")))?;
        let states = reads.lock();
        let mut answer = Answer::default();
        for (entry, cell) in groups.into_iter().enumerate() {
            let key = keys.get(entry).ok_or_else(|| told("a key is absent".into()))?;
            match states.item(state as usize, cell, key) {
                Some(stored) => {
                    answer.push(&[], stored, spec);
                }
                None => answer.push_absent(spec),
            }
        }
        Ok(Found { values: answer.values.result(), expires: answer.expires })
    }

    fn page(&mut self, state: u32, group: u32, after: Option<Vec<u8>>, max_bytes: u32) -> Result<Items> {
        let reads = self.reads()?;
        let spec = reads.spec(state, None)?;
        let cell = reads.groups(&group.to_le_bytes())?[0];
        let mut answer = Answer::default();
        answer.start();
        let bound = reads.limit.min(max_bytes as usize);
        reads.lock().items(state as usize, cell, after.as_deref(), &mut |key, stored| {
            let more = answer.keys.bytes() + answer.values.bytes() + key.len() + stored.0.len() <= bound || answer.keys.len() == 0;
            if more {
                answer.push(key, stored, spec);
            }
            more
        });
        answer.start();
        Ok(answer.items())
    }
}

impl Sandbox {
    fn reads(&self) -> Result<&Reads> {
        self.reads.as_ref().ok_or_else(|| told("state can be read only inside `process` of a stateful transform".into()))
    }
}

impl Reads {
    fn lock(&self) -> MutexGuard<'_, dyn KeyedState + 'static> {
        self.states.lock().expect("no holder of this lock panics")
    }

    fn spec(&self, state: u32, kind: Option<StateKind>) -> Result<&StateSpec> {
        let spec =
            self.specs.get(state as usize).ok_or_else(|| told(format!("it has {} states, none numbered {state}", self.specs.len())))?;
        if spec.kind == StateKind::Value || kind.is_some_and(|kind| kind != spec.kind) {
            return Err(told(format!("the state `{}` cannot be read like that: it is of the kind {:?}", spec.name, spec.kind)));
        }
        Ok(spec)
    }

    fn groups(&self, groups: &[u8]) -> Result<Vec<u32>> {
        let groups = u32s(groups).ok_or_else(|| told("the groups are no list of u32".into()))?;
        let cell = |group: u32| self.cells.get(group as usize).copied();
        groups.into_iter().map(|group| cell(group).ok_or_else(|| told(format!("this call has no group {group}")))).collect()
    }
}

impl Answer {
    /// The bytes of keys and values so far.
    fn push(&mut self, key: &[u8], stored: Stored<'_>, spec: &StateSpec) -> usize {
        self.keys.push(Some(key));
        self.values.push(Some(stored.0));
        if spec.ttl.is_some() {
            self.expires.extend(stored.1.micros().to_le_bytes());
        }
        self.keys.bytes() + self.values.bytes()
    }

    fn push_absent(&mut self, spec: &StateSpec) {
        self.values.push(None);
        if spec.ttl.is_some() {
            self.expires.extend([0; 8]);
        }
    }

    /// A group starts, or the last one has ended.
    fn start(&mut self) {
        self.starts.extend((self.keys.len() as u32).to_le_bytes());
    }

    fn append(&mut self, group: Answer) {
        self.start();
        self.keys.append(&group.keys);
        self.values.append(&group.values);
        self.expires.extend(group.expires);
    }

    fn items(self) -> Items {
        Items { starts: self.starts, keys: self.keys.result(), values: self.values.result(), expires: self.expires }
    }
}

fn told(message: String) -> Error {
    Error::msg(format!("it read state wrongly: {message}"))
}
