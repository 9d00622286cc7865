//! Cells that another version of the plugin has written, brought to the present: before they are first called with, and by a sweep.
//!
//! A cell is converted by the host where its rules know how, else by calls of the plugin's `migrate` with the items of many cells. Items of lists and maps
//! move to another set as they are converted, so that a cell with very many of them is converted in portions; it is of the present when none is left, and
//! its values are converted then. What the plugin refuses stops the pipeline, and no epoch is written after it.
//!
//! Invariant: the guest never sees a cell of another era than the present one.

use super::Stateful;
use super::call::States;
use crate::failure::Failure;
use arrow::util::display::array_value_to_string;
use pelton_core::Instant;
use pelton_core::evolution::{Change, Conversion, Step};
use pelton_plugin::{Item, MigrateError, PluginError};
use pelton_state::Slot;
use std::collections::BTreeMap;

/// Items of a call of `migrate`, and their bytes.
const ITEMS: usize = 1_024;
const BYTES: usize = 1 << 20;

/// A stored item that is to be converted.
struct Old {
    slot: Slot,
    /// Where it comes.
    to: usize,
    /// In its set; of a value it is empty.
    key: Vec<u8>,
    expires: Instant,
}

/// By place and former version: the state's name, and its items.
type ByPlugin = BTreeMap<(usize, u32), (String, Vec<(Old, Vec<u8>)>)>;

/// What is converted together.
struct Portion {
    /// How much it still takes.
    items: usize,
    bytes: usize,
    /// For the plugin.
    by_plugin: ByPlugin,
}

impl Portion {
    fn has_room(&self) -> bool {
        self.items > 0 && self.bytes > 0
    }

    fn takes(&mut self, bytes: usize) {
        self.items = self.items.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Stateful {
    /// After the cells were restored: whether some are of earlier eras.
    pub(super) fn look_for_old(&mut self) {
        let old = self.with_states(|states| states.keyed.cells_mut().old());
        self.evolving.left(old);
    }

    /// The first parts of the sweep, before anything else.
    pub(super) async fn begin(&mut self) -> Result<(), Failure> {
        let parts = self.evolving.begins();
        if parts == 0 {
            return Ok(());
        }
        let cells = self.with_states(|states| states.keyed.cells_mut().old());
        for _ in 0..parts {
            if self.evolving.is_settling() {
                self.sweep().await?;
            }
        }
        let left = self.with_states(|states| states.keyed.cells_mut().old());
        tracing::info!(transform = self.refusals.transform, cells, left, "state is brought to the plugin's types");
        Ok(())
    }

    /// A part of the sweep.
    pub(super) async fn sweep_some(&mut self) -> Result<(), Failure> {
        pelton_core::failpoint::hit("evolve.sweep");
        self.sweep().await?;
        if !self.evolving.is_settling() {
            tracing::info!(transform = self.refusals.transform, "all state is of the plugin's types");
        }
        Ok(())
    }

    async fn sweep(&mut self) -> Result<(), Failure> {
        let states = self.states.clone();
        let slots = self.evolving.next(|| states.lock().expect("no holder of this lock panics").keyed.find_old());
        let rest = self.bring_some(slots.clone()).await?;
        self.evolving.put_back(rest);
        let old = self.with_states(|states| {
            slots.iter().for_each(|slot| states.keyed.drop_if_empty(*slot));
            states.keyed.cells_mut().old()
        });
        self.evolving.left(old);
        Ok(())
    }

    /// Brings cells to the present that are not.
    pub(super) async fn bring(&mut self, slots: impl Iterator<Item = Slot>) -> Result<(), Failure> {
        if self.evolving.is_still() {
            return Ok(());
        }
        let mut slots: Vec<Slot> = slots.collect();
        while !slots.is_empty() {
            slots = self.bring_some(slots).await?;
        }
        Ok(())
    }

    /// A portion of it. Gives the cells that are left; the first of them may be converted in part.
    async fn bring_some(&mut self, slots: Vec<Slot>) -> Result<Vec<Slot>, Failure> {
        let bounds = self.evolving.bounds;
        let mut portion = Portion { items: bounds.items, bytes: bounds.bytes, by_plugin: ByPlugin::new() };
        let mut done = 0;
        {
            let mut states = self.states.lock().expect("no holder of this lock panics");
            while let Some(slot) = slots.get(done).copied().filter(|_| portion.has_room()) {
                let cells = states.keyed.cells_mut();
                if cells.is_live(slot) && cells.is_old(slot) && !self.take(&mut states, slot, &mut portion)? {
                    break;
                }
                done += 1;
            }
        }
        for ((_, version), (state, items)) in portion.by_plugin {
            self.migrate(&state, version, items).await?;
        }
        Ok(slots[done..].to_vec())
    }

    /// Converts what a cell has, or takes it for the plugin. False: items are left, for which there is no room in this portion.
    fn take(&self, states: &mut States, slot: Slot, portion: &mut Portion) -> Result<bool, Failure> {
        let era = states.keyed.cells_mut().era(slot);
        let Some(plan) = self.evolving.plan(era) else {
            let message = format!("transform `{}`: a cell is of era {era}, of which nothing is known", self.refusals.transform);
            return Err(Failure::Checkpoint { message, refused: true });
        };
        let (values, sets): (Vec<&Step>, Vec<&Step>) =
            plan.iter().filter(|step| !step.is_none()).partition(|step| states.is_value(step.from));
        for step in sets {
            if step.change == Change::Clear {
                states.keyed.clear(step.from, slot);
                continue;
            }
            let (items, all) = states.keyed.take_items(step.from, slot, portion.items, portion.bytes);
            for (key, value, expires) in items {
                portion.takes(key.len() + value.len());
                self.turn(states, step, Old { slot, to: step.to, key, expires }, value, portion)?;
            }
            if !all {
                return Ok(false);
            }
        }
        for step in values {
            if let Some((value, expires)) = states.keyed.take_value(step.from, slot) {
                portion.takes(value.len());
                self.turn(states, step, Old { slot, to: step.to, key: Vec::new(), expires }, value, portion)?;
            }
        }
        states.keyed.cells_mut().renew(slot);
        Ok(true)
    }

    /// Converts what was taken from its place.
    fn turn(&self, states: &mut States, step: &Step, old: Old, value: Vec<u8>, portion: &mut Portion) -> Result<(), Failure> {
        match &step.change {
            Change::Clear => {}
            Change::Convert(conversion) => states.put(&old, &old.key, &self.converted(old.to, conversion, value)?),
            Change::Migrate { state, version, before } => {
                let value = self.converted(old.to, before, value)?;
                let (_, items) = portion.by_plugin.entry((old.to, *version)).or_insert_with(|| (state.clone(), Vec::new()));
                items.push((old, value));
            }
        }
        Ok(())
    }

    /// Has the plugin convert items of one state, in calls of a bounded size.
    async fn migrate(&mut self, state: &str, version: u32, items: Vec<(Old, Vec<u8>)>) -> Result<(), Failure> {
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let (mut olds, mut sent, mut bytes): (Vec<Old>, Vec<Item>, usize) = (Vec::new(), Vec::new(), 0);
            while let Some((old, value)) = items.next_if(|_| sent.len() < ITEMS && bytes < BYTES) {
                bytes += old.key.len() + value.len();
                sent.push((self.evolving.is_map(old.to).then(|| old.key.clone()), value));
                olds.push(old);
            }
            let Some(instance) = &mut self.instance else { return Err(self.internal("state is migrated after the end".into())) };
            let new = match instance.migrate(state, version, &sent).await {
                Ok(new) => new,
                Err(MigrateError::Plugin(error)) => return Err(Failure::Plugin { transform: self.refusals.transform.clone(), error }),
                Err(MigrateError::Item { plugin, number, message }) => {
                    let key = self.key_of(&olds[number]);
                    let error = PluginError::Migrate { plugin, state: state.into(), version, key, message };
                    return Err(Failure::Plugin { transform: self.refusals.transform.clone(), error });
                }
            };
            self.with_states(|states| {
                for (old, new) in olds.iter().zip(new) {
                    if let Some((key, value)) = new {
                        states.put(old, key.as_ref().unwrap_or(&old.key), &value);
                    }
                }
            });
        }
        Ok(())
    }

    /// In words.
    fn key_of(&self, old: &Old) -> String {
        let shown = self.keys_of(&[old.slot]).map(|columns| {
            let shown = columns.iter().map(|column| array_value_to_string(column, 0).unwrap_or_default());
            shown.collect::<Vec<_>>().join(", ")
        });
        shown.unwrap_or_else(|_| "?".into())
    }

    fn converted(&self, place: usize, conversion: &Conversion, value: Vec<u8>) -> Result<Vec<u8>, Failure> {
        if conversion.is_same() {
            return Ok(value);
        }
        let mut new = Vec::with_capacity(value.len() + 8);
        conversion.apply(&value, &mut new).map_err(|error| self.unreadable(place, &error.to_string()))?;
        Ok(new)
    }

    fn unreadable(&self, place: usize, why: &str) -> Failure {
        let book = self.evolving.book();
        let name = book.present().states.iter().find(|placed| placed.place == place).map_or("?", |placed| &placed.state.name);
        Failure::Checkpoint {
            message: format!("transform `{}`: the state `{name}` cannot be converted: {why}", self.refusals.transform),
            refused: true,
        }
    }
}

impl States {
    fn put(&mut self, old: &Old, key: &[u8], value: &[u8]) {
        let stored = Some((value, old.expires));
        match self.is_value(old.to) {
            true => self.keyed.set_value(old.to, old.slot, stored),
            false => self.keyed.put(old.to, old.slot, key, stored),
        }
    }
}
