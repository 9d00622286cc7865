//! A list that is appended to.

use std::cell::OnceCell;
use std::rc::Rc;

use super::encode::{StateValue, decode_all};
use super::{Call, Cell, Handle, Kind, Moment, write};
use crate::keyed::StateWrites;
use crate::wire::{StateKind, StateSpec, Ttl};

/// Items in the order of appending.
pub struct List<T> {
    call: Rc<Call>,
    group: u32,
    number: u32,
    name: &'static str,
    ttl: Option<Ttl>,
    moment: Moment,
    /// What the host keeps, read when it is first asked for; an item and its expiry.
    stored: OnceCell<Vec<(T, i64)>>,
    cleared: bool,
    appended: Vec<(T, i64)>,
    /// Items that rows before this one appended.
    mark: usize,
    /// `cleared` and `appended` before this row cleared the list.
    before: Option<(bool, Vec<(T, i64)>)>,
}

impl<T: StateValue> List<T> {
    /// Appends an item, with a time to live of its own.
    pub fn push(&mut self, item: T) {
        self.appended.push((item, self.moment.expiry(self.ttl)));
    }

    /// Removes all items.
    pub fn clear(&mut self) {
        let mut appended = std::mem::take(&mut self.appended);
        if self.before.is_none() {
            appended.truncate(self.mark);
            self.before = Some((self.cleared, appended));
        }
        self.mark = 0;
        self.cleared = true;
    }

    /// The items that have not expired, in the order of appending.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let stored = if self.cleared { &[][..] } else { self.stored() };
        let alive = |entry: &&(T, i64)| !self.moment.is_past(entry.1, self.ttl);
        stored.iter().chain(&self.appended).filter(alive).map(|(item, _)| item)
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    fn stored(&self) -> &[(T, i64)] {
        self.stored.get_or_init(|| {
            let items = self.call.items(self.number, self.group);
            items.into_iter().map(|(_, bytes, expires)| (decode_all(self.name, &bytes), expires)).collect()
        })
    }
}

impl<T: StateValue> Handle for List<T> {
    fn begin(&mut self, moment: Moment) {
        self.moment = moment;
        self.mark = self.appended.len();
    }

    fn end(&mut self, succeeded: bool) {
        match self.before.take() {
            Some((cleared, appended)) if !succeeded => (self.cleared, self.appended) = (cleared, appended),
            None if !succeeded => self.appended.truncate(self.mark),
            _ => {}
        }
    }

    fn finish(&mut self, group: u32, writes: &mut StateWrites) {
        if self.cleared {
            writes.cleared.extend_from_slice(&group.to_le_bytes());
        }
        for (item, expires) in &self.appended {
            write(writes, group, *expires, self.ttl);
            writes.values.push_with(|out| item.encode(out));
        }
    }
}

impl<T: StateValue> Kind for List<T> {
    fn spec(name: &'static str, version: u32, ttl: Option<Ttl>) -> StateSpec {
        let mut value = vec![];
        T::fields(name, false, &mut value);
        StateSpec { name: name.to_owned(), kind: StateKind::List, value, key: vec![], version, migrates: vec![], ttl }
    }

    fn load(cell: &Cell, number: u32, name: &'static str, ttl: Option<Ttl>) -> List<T> {
        List {
            call: cell.call.clone(),
            group: cell.group,
            number,
            name,
            ttl,
            moment: Moment::default(),
            stored: OnceCell::new(),
            cleared: false,
            appended: vec![],
            mark: 0,
            before: None,
        }
    }
}
