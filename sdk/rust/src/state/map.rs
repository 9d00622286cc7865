//! A map, read entry by entry or as a whole.

use std::rc::Rc;

use super::encode::{StateKey, StateValue, decode_all};
use super::{ByKey, Call, Cell, Handle, Kind, Moment, NEVER, write};
use crate::keyed::StateWrites;
use crate::wire::{StateKind, StateSpec, Ttl};

/// Values by key, in the order of the keys.
pub struct Map<K, V> {
    call: Rc<Call>,
    group: u32,
    number: u32,
    name: &'static str,
    ttl: Option<Ttl>,
    moment: Moment,
    content: Content<V>,
    /// Entries before this row changed them, the first change first; `None`: the entry was not known.
    journal: Vec<(Vec<u8>, Option<Entry<V>>)>,
    /// Everything before this row cleared the map.
    before: Option<Content<V>>,
    keys: std::marker::PhantomData<K>,
}

/// What is known of the map.
struct Content<V> {
    entries: ByKey<Entry<V>>,
    /// All that the host keeps is among the entries.
    whole: bool,
    cleared: bool,
}

struct Entry<V> {
    value: Option<V>,
    expires: i64,
    written: bool,
}

impl<K: StateKey, V: StateValue> Map<K, V> {
    /// The value at a key, unless there is none or it has expired.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        let key = key.encode_key();
        if !self.content.whole && !self.content.entries.contains_key(&key) {
            let entry = match self.call.get(self.number, self.group, &key) {
                Some((bytes, expires)) => Entry { value: Some(decode_all(self.name, &bytes)), expires, written: false },
                None => Entry { value: None, expires: NEVER, written: false },
            };
            self.content.entries.insert(key.clone(), entry);
        }
        let entry = self.content.entries.get(&key)?;
        entry.value.as_ref().filter(|_| !self.moment.is_past(entry.expires, self.ttl))
    }

    /// Sets the value at a key, and its time to live anew.
    pub fn insert(&mut self, key: &K, value: V) {
        self.write(key.encode_key(), Some(value));
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &K) {
        self.write(key.encode_key(), None);
    }

    /// Removes all keys.
    pub fn clear(&mut self) {
        if self.before.is_none() {
            self.revert();
            let empty = Content { entries: ByKey::new(), whole: true, cleared: true };
            self.before = Some(std::mem::replace(&mut self.content, empty));
        } else {
            self.content.entries.clear();
        }
        self.journal.clear();
    }

    /// The entries that have not expired, ascending by key. Reads all of them.
    pub fn iter(&mut self) -> impl Iterator<Item = (K, &V)> {
        if !self.content.whole {
            for (key, bytes, expires) in self.call.items(self.number, self.group) {
                let stored = || Entry { value: Some(decode_all(self.name, &bytes)), expires, written: false };
                self.content.entries.entry(key).or_insert_with(stored);
            }
            self.content.whole = true;
        }
        let (moment, ttl, name) = (self.moment, self.ttl, self.name);
        self.content.entries.iter().filter(move |(_, entry)| !moment.is_past(entry.expires, ttl)).filter_map(move |(key, entry)| {
            let decoded = || K::decode_key(key).unwrap_or_else(|| panic!("the state `{name}` has a key that is not of its type"));
            entry.value.as_ref().map(|value| (decoded(), value))
        })
    }

    /// Whether there are no entries. Reads all of them.
    pub fn is_empty(&mut self) -> bool {
        self.iter().next().is_none()
    }

    fn write(&mut self, key: Vec<u8>, value: Option<V>) {
        let new = Entry { value, expires: self.moment.expiry(self.ttl), written: true };
        let old = self.content.entries.insert(key.clone(), new);
        self.journal.push((key, old));
    }

    /// Undoes the journal.
    fn revert(&mut self) {
        for (key, old) in self.journal.drain(..).rev() {
            match old {
                Some(old) => self.content.entries.insert(key, old),
                None => {
                    // What the host keeps at this key is no longer among the entries, if it was.
                    self.content.whole = self.content.cleared;
                    self.content.entries.remove(&key)
                }
            };
        }
    }
}

impl<K: StateKey, V: StateValue> Handle for Map<K, V> {
    fn begin(&mut self, moment: Moment) {
        self.moment = moment;
    }

    fn end(&mut self, succeeded: bool) {
        match self.before.take() {
            Some(before) if !succeeded => self.content = before,
            None if !succeeded => self.revert(),
            _ => {}
        }
        self.journal.clear();
    }

    fn finish(&mut self, group: u32, writes: &mut StateWrites) {
        if self.content.cleared {
            writes.cleared.extend_from_slice(&group.to_le_bytes());
        }
        for (key, entry) in self.content.entries.iter().filter(|(_, entry)| entry.written) {
            write(writes, group, entry.expires, self.ttl);
            writes.keys.push(Some(key));
            match &entry.value {
                Some(value) => writes.values.push_with(|out| value.encode(out)),
                None => writes.values.push(None),
            }
        }
    }
}

impl<K: StateKey, V: StateValue> Kind for Map<K, V> {
    fn spec(name: &'static str, version: u32, ttl: Option<Ttl>) -> StateSpec {
        let (mut key, mut value) = (vec![], vec![]);
        K::fields("key", false, &mut key);
        V::fields(name, false, &mut value);
        StateSpec { name: name.to_owned(), kind: StateKind::Map, value, key, version, migrates: vec![], ttl }
    }

    fn load(cell: &Cell, number: u32, name: &'static str, ttl: Option<Ttl>) -> Map<K, V> {
        Map {
            call: cell.call.clone(),
            group: cell.group,
            number,
            name,
            ttl,
            moment: Moment::default(),
            content: Content { entries: ByKey::new(), whole: false, cleared: false },
            journal: vec![],
            before: None,
            keys: std::marker::PhantomData,
        }
    }
}
