//! The state and timer writes of a call, checked before any of them is applied.

use super::{CellRef, KeyedState, StateWrite, Stored};
use crate::bytes::Bytes;
use crate::contract::bytes::BytesColumnResult;
use crate::contract::stateful_do_fn::{ListWrites, MapWrites, TimerWrites, ValueWrites};
use crate::descriptor::{StateKind, StateSpec, TimeDomain, TimerSpec};
use crate::outcome::u32s;
use pelton_core::Instant;

/// Writes that keep the contract, by numbers of the call's groups.
pub(crate) struct Writes {
    states: Vec<Entries>,
    timers: Vec<Timers>,
}

/// The writes of one record.
struct Entries {
    state: usize,
    kind: StateKind,
    cleared: Vec<u32>,
    groups: Vec<u32>,
    /// Of a map.
    keys: Option<Bytes>,
    values: Bytes,
    expires: Option<Vec<i64>>,
}

struct Timers {
    timer: usize,
    groups: Vec<u32>,
    times: Vec<i64>,
    output_times: Vec<i64>,
}

impl Writes {
    pub(crate) fn check(
        specs: &[StateSpec],
        timers: &[TimerSpec],
        groups: usize,
        values: Vec<ValueWrites>,
        lists: Vec<ListWrites>,
        maps: Vec<MapWrites>,
        timer_writes: Vec<TimerWrites>,
    ) -> Result<Writes, String> {
        let checker = Checker { specs, groups };
        let mut written: Vec<Vec<bool>> = specs.iter().map(|_| vec![]).collect();
        let mut states = vec![];
        for told in values {
            let entries = checker.entries(told.state, StateKind::Value, vec![], told.groups, None, told.values, told.expires)?;
            let once = &mut written[entries.state];
            once.resize(groups, false);
            if let Some(twice) = entries.groups.iter().find(|group| std::mem::replace(&mut once[**group as usize], true)) {
                return Err(format!("it writes the value of the state `{}` twice for group {twice}", specs[entries.state].name));
            }
            states.push(entries);
        }
        for told in lists {
            let entries = checker.entries(told.state, StateKind::List, told.cleared, told.groups, None, told.items, told.expires)?;
            if let Some(item) = entries.values.absent() {
                return Err(format!("item {item} that it appends to the state `{}` is absent", specs[entries.state].name));
            }
            states.push(entries);
        }
        for told in maps {
            states.push(checker.entries(
                told.state,
                StateKind::Map,
                told.cleared,
                told.groups,
                Some(told.keys),
                told.values,
                told.expires,
            )?);
        }
        let timers = timer_writes.into_iter().map(|told| checker.timers(timers, told)).collect::<Result<_, _>>()?;
        Ok(Writes { states, timers })
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.states.iter().map(|entries| entries.values.bytes() + entries.keys.as_ref().map_or(0, Bytes::bytes)).sum()
    }

    /// A sentence on a value that is larger than the largest row.
    pub(crate) fn larger_than(&self, limit: usize) -> Option<String> {
        let sizes = self.states.iter().flat_map(|entries| {
            (0..entries.values.len()).map(|entry| {
                let key = entries.keys.as_ref().and_then(|keys| keys.get(entry)).map_or(0, <[u8]>::len);
                key + entries.values.get(entry).map_or(0, <[u8]>::len)
            })
        });
        let largest = sizes.max().filter(|largest| *largest > limit)?;
        Some(format!(
            "it wrote a state value of {largest} bytes, more than the {limit} of limits.max_row_bytes; spread it over a list or a map"
        ))
    }

    pub(crate) fn apply(&self, cells: &[CellRef], states: &mut dyn KeyedState) {
        let cell = |group: u32| cells[group as usize].id;
        for entries in &self.states {
            let state = entries.state;
            entries.cleared.iter().for_each(|group| states.apply(StateWrite::Clear { state, cell: cell(*group) }));
            for (entry, group) in entries.groups.iter().enumerate() {
                let cell = cell(*group);
                let value: Option<Stored<'_>> = entries.values.get(entry).map(|bytes| (bytes, entries.expires(entry)));
                match (entries.kind, &entries.keys, value) {
                    (StateKind::Value, _, value) => states.apply(StateWrite::Value { state, cell, value }),
                    (_, Some(keys), value) => {
                        let key = keys.get(entry).expect("checked: no key is absent");
                        states.apply(StateWrite::Put { state, cell, key, value });
                    }
                    (_, None, Some(item)) => states.apply(StateWrite::Append { state, cell, item }),
                    (_, None, None) => unreachable!("checked: no item is absent"),
                }
            }
        }
        for set in &self.timers {
            for ((group, time), output) in set.groups.iter().zip(&set.times).zip(&set.output_times) {
                let at = (*time != i64::MAX).then(|| (Instant::from_micros_saturating(*time), Instant::from_micros_saturating(*output)));
                states.apply(StateWrite::Timer { timer: set.timer, cell: cell(*group), at });
            }
        }
    }
}

impl Entries {
    fn expires(&self, entry: usize) -> Instant {
        self.expires.as_ref().map_or(Instant::MAX, |expires| Instant::from_micros_saturating(expires[entry]))
    }
}

struct Checker<'a> {
    specs: &'a [StateSpec],
    groups: usize,
}

impl Checker<'_> {
    #[allow(clippy::too_many_arguments, reason = "the fields of three records of the contract that differ in little")]
    fn entries(
        &self,
        state: u32,
        kind: StateKind,
        cleared: Vec<u8>,
        groups: Vec<u8>,
        keys: Option<BytesColumnResult>,
        values: BytesColumnResult,
        expires: Vec<u8>,
    ) -> Result<Entries, String> {
        let spec = self.specs.get(state as usize).ok_or_else(|| format!("it writes state {state} of {}", self.specs.len()))?;
        let about = |why: String| format!("a write of the state `{}`: {why}", spec.name);
        if spec.kind != kind {
            return Err(about(format!("it is of the kind {:?} and written as {kind:?}", spec.kind)));
        }
        let (cleared, groups) = (self.numbers(&cleared).map_err(about)?, self.numbers(&groups).map_err(about)?);
        let keys =
            keys.map(|keys| Bytes::check(keys, groups.len())).transpose().map_err(|why| about(format!("the column of keys: {why}")))?;
        if let Some(entry) = keys.as_ref().and_then(Bytes::absent) {
            return Err(about(format!("its key {entry} is absent")));
        }
        let values = Bytes::check(values, groups.len()).map_err(|why| about(format!("the column of values: {why}")))?;
        let expires = match (spec.ttl, expires.is_empty()) {
            (None, true) => None,
            (None, false) => return Err(about("it says when values expire, but the state has no TTL".into())),
            (Some(_), _) => Some(i64s(&expires, groups.len()).map_err(about)?),
        };
        Ok(Entries { state: state as usize, kind, cleared, groups, keys, values, expires })
    }

    fn timers(&self, specs: &[TimerSpec], told: TimerWrites) -> Result<Timers, String> {
        let timer = told.timer as usize;
        let spec = specs.get(timer).ok_or_else(|| format!("it sets timer {timer} of {}", specs.len()))?;
        let about = |why: String| format!("the timer `{}`: {why}", spec.name);
        let groups = self.numbers(&told.groups).map_err(about)?;
        let times = i64s(&told.times, groups.len()).map_err(about)?;
        let output_times = i64s(&told.output_times, groups.len()).map_err(about)?;
        if spec.domain == TimeDomain::EventTime
            && let Some((time, output)) = times.iter().zip(&output_times).find(|(time, output)| **time != i64::MAX && output > time)
        {
            return Err(about(format!("its output time {output} is after the time {time} at which it fires")));
        }
        Ok(Timers { timer, groups, times, output_times })
    }

    fn numbers(&self, groups: &[u8]) -> Result<Vec<u32>, String> {
        let groups = u32s(groups).ok_or("the groups are no list of u32")?;
        match groups.iter().max() {
            Some(last) if *last as usize >= self.groups => Err(format!("it names group {last} of {}", self.groups)),
            _ => Ok(groups),
        }
    }
}

fn i64s(bytes: &[u8], entries: usize) -> Result<Vec<i64>, String> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    if chunks.len() != entries || !rest.is_empty() {
        return Err(format!("a list of times has {} bytes where {} belong", bytes.len(), entries * 8));
    }
    Ok(chunks.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect())
}
