//! Stored items of another version of their type, brought to today's by functions of the author.
//!
//! `#[state(version = 3, migrate(1 = from_v1, 2 = from_v2))]` names one function a version. It takes the old value (of a map the pair of key and
//! value) and answers the new one, an `Option` of it (none drops it), or a `Result` of either, whose error stops the start.
//!
//! Invariant: a function sees values of the type that it takes, or it is not called.

use super::aggregate::Aggregate;
use super::encode::{StateKey, StateValue};
use super::{Aggregating, List, Map, State, Value};
use crate::keyed::StateItems;
use crate::wire::{Field, Migration};

/// What a migration answers.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what a migration to `{T}` answers",
    note = "it answers `{T}`, an `Option<{T}>`, or a `Result` of one of them with an error that can be shown"
)]
pub trait Migrated<T> {
    fn migrated(self) -> Result<Option<T>, String>;
}

impl<T> Migrated<T> for T {
    fn migrated(self) -> Result<Option<T>, String> {
        Ok(Some(self))
    }
}

impl<T> Migrated<T> for Option<T> {
    fn migrated(self) -> Result<Option<T>, String> {
        Ok(self)
    }
}

impl<T, E: std::fmt::Display> Migrated<T> for Result<T, E> {
    fn migrated(self) -> Result<Option<T>, String> {
        self.map(Some).map_err(|error| error.to_string())
    }
}

impl<T, E: std::fmt::Display> Migrated<T> for Result<Option<T>, E> {
    fn migrated(self) -> Result<Option<T>, String> {
        self.map_err(|error| error.to_string())
    }
}

/// What the accumulator of an aggregation is kept as.
pub use super::Value as Stored;

/// The new key and value, encoded; none: it is dropped.
pub type Entry = Result<Option<(Vec<u8>, Vec<u8>)>, String>;

const OTHER: &str = "the stored bytes are not of the type that the migration takes";

fn whole<T: StateValue>(mut bytes: &[u8]) -> Result<T, String> {
    T::decode(&mut bytes).filter(|_| bytes.is_empty()).ok_or_else(|| OTHER.to_owned())
}

fn fields<T: StateValue>() -> Vec<Field> {
    let mut fields = vec![];
    T::fields("", false, &mut fields);
    fields
}

fn encoded<T: StateValue>(value: &T) -> Vec<u8> {
    let mut bytes = vec![];
    value.encode(&mut bytes);
    bytes
}

impl<T: StateValue> Value<T> {
    #[doc(hidden)]
    pub fn migration<A: StateValue, R: Migrated<T>>(version: u32, _: impl Fn(A) -> R) -> Migration {
        Migration { version, value: fields::<A>(), key: vec![] }
    }

    #[doc(hidden)]
    pub fn migrate_entry<A: StateValue, R: Migrated<T>>(migrate: impl Fn(A) -> R, _key: &[u8], value: &[u8]) -> Entry {
        Ok(migrate(whole(value)?).migrated()?.map(|new| (vec![], encoded(&new))))
    }
}

impl<T: StateValue> List<T> {
    #[doc(hidden)]
    pub fn migration<A: StateValue, R: Migrated<T>>(version: u32, _: impl Fn(A) -> R) -> Migration {
        Migration { version, value: fields::<A>(), key: vec![] }
    }

    #[doc(hidden)]
    pub fn migrate_entry<A: StateValue, R: Migrated<T>>(migrate: impl Fn(A) -> R, key: &[u8], value: &[u8]) -> Entry {
        Value::<T>::migrate_entry(migrate, key, value)
    }
}

impl<K: StateKey, V: StateValue> Map<K, V> {
    #[doc(hidden)]
    pub fn migration<A: StateKey, B: StateValue, R: Migrated<(K, V)>>(version: u32, _: impl Fn((A, B)) -> R) -> Migration {
        Migration { version, value: fields::<B>(), key: fields::<A>() }
    }

    #[doc(hidden)]
    pub fn migrate_entry<A: StateKey, B: StateValue, R: Migrated<(K, V)>>(
        migrate: impl Fn((A, B)) -> R,
        key: &[u8],
        value: &[u8],
    ) -> Entry {
        let key = A::decode_key(key).ok_or(OTHER)?;
        let new = migrate((key, whole(value)?)).migrated()?;
        Ok(new.map(|(key, value)| (key.encode_key(), encoded(&value))))
    }
}

impl<A: Aggregate> Aggregating<A> {
    #[doc(hidden)]
    pub fn migration<B: StateValue, R: Migrated<A::Accumulator>>(version: u32, _: impl Fn(B) -> R) -> Migration {
        Migration { version, value: fields::<B>(), key: vec![] }
    }

    #[doc(hidden)]
    pub fn migrate_entry<B: StateValue, R: Migrated<A::Accumulator>>(migrate: impl Fn(B) -> R, key: &[u8], value: &[u8]) -> Entry {
        Value::<A::Accumulator>::migrate_entry(migrate, key, value)
    }
}

/// Every item of a call.
pub(crate) fn all<S: State>(state: &str, version: u32, items: &StateItems) -> Result<StateItems, String> {
    let keyed = !items.keys.is_empty();
    let mut migrated = StateItems::default();
    for number in 0..items.values.len() {
        let key = if keyed { items.keys.get(number).unwrap_or_default() } else { &[] };
        let value = items.values.get(number).unwrap_or_default();
        let entry = S::migrate(state, version, key, value);
        let entry = entry.ok_or_else(|| format!("the state `{state}` has no migration from version {version}"))??;
        let (key, value) = entry.unzip();
        if keyed {
            migrated.keys.push(key.as_deref());
        }
        migrated.values.push(value.as_deref());
    }
    Ok(migrated)
}
