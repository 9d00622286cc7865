//! A single value.

use super::encode::{StateValue, decode_all};
use super::{Cell, Handle, Kind, Moment, NEVER, write};
use crate::keyed::StateWrites;
use crate::wire::{StateKind, StateSpec, Ttl};

/// One value of the cell, or none.
#[derive(Debug)]
pub struct Value<T> {
    current: Stored<T>,
    /// What was there before the row that is being processed wrote.
    before: Option<Stored<T>>,
    ttl: Option<Ttl>,
    moment: Moment,
}

#[derive(Debug)]
struct Stored<T> {
    value: Option<T>,
    expires: i64,
    written: bool,
}

impl<T> Value<T> {
    /// The value, unless there is none or it has expired.
    pub fn get(&self) -> Option<&T> {
        self.current.value.as_ref().filter(|_| !self.moment.is_past(self.current.expires, self.ttl))
    }

    /// Sets it, and its time to live anew.
    pub fn set(&mut self, value: T) {
        self.replace(Some(value));
    }

    /// Removes it.
    pub fn clear(&mut self) {
        self.replace(None);
    }

    fn replace(&mut self, value: Option<T>) {
        let new = Stored { value, expires: self.moment.expiry(self.ttl), written: true };
        let old = std::mem::replace(&mut self.current, new);
        self.before.get_or_insert(old);
    }
}

impl<T: Clone> Value<T> {
    /// The value, or another where there is none.
    pub fn get_or(&self, default: T) -> T {
        self.get().cloned().unwrap_or(default)
    }
}

impl<T: StateValue> Handle for Value<T> {
    fn begin(&mut self, moment: Moment) {
        self.moment = moment;
    }

    fn end(&mut self, succeeded: bool) {
        if let Some(before) = self.before.take()
            && !succeeded
        {
            self.current = before;
        }
    }

    fn finish(&mut self, group: u32, writes: &mut StateWrites) {
        if !self.current.written {
            return;
        }
        write(writes, group, self.current.expires, self.ttl);
        match &self.current.value {
            Some(value) => writes.values.push_with(|out| value.encode(out)),
            None => writes.values.push(None),
        }
    }
}

impl<T: StateValue> Kind for Value<T> {
    fn spec(name: &'static str, version: u32, ttl: Option<Ttl>) -> StateSpec {
        let mut value = vec![];
        T::fields(name, false, &mut value);
        StateSpec { name: name.to_owned(), kind: StateKind::Value, value, key: vec![], version, migrates: vec![], ttl }
    }

    fn load(cell: &Cell, number: u32, name: &'static str, ttl: Option<Ttl>) -> Value<T> {
        let current = match cell.value(number) {
            Some((bytes, expires)) => Stored { value: Some(decode_all(name, bytes)), expires, written: false },
            None => Stored { value: None, expires: NEVER, written: false },
        };
        Value { current, before: None, ttl, moment: Moment::default() }
    }
}
