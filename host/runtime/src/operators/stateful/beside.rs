//! A candidate beside the version that runs: cells are handed to it, taken back, or adopted for good ([`crate::swap::beside`]).

use super::Stateful;
use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::windows;
use pelton_core::key::{Keys, key_hash};
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Window};
use pelton_state::{CellKey, Rows, Slot, StateError, cell_hash};

/// What becomes of the output of a cell that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// It counts as before.
    Counts,
    /// The other's counts.
    IsDropped,
}

impl Stateful {
    /// Hashes of the rows' keys.
    pub fn key_hashes(&mut self, batch: &Batch) -> Result<Vec<u64>, Failure> {
        self.encode_keys(batch)?;
        Ok((0..batch.num_rows()).map(|row| key_hash(self.keys.get(row))).collect())
    }

    /// Comes to where another has come; gives what that has told of event time.
    pub fn follow(&mut self, other: &Stateful) -> Option<Watermark> {
        let at = other.with_states(|states| states.keyed.at);
        self.with_states(|states| states.keyed.at = at);
        (self.idle, self.given, self.highest) = (other.idle, other.given, other.highest);
        self.given
    }

    /// Hands the cells of rows to another that has not got them, as they are now.
    pub fn hand(&mut self, batch: &Batch, other: Option<&mut Stateful>, output: Output) -> Result<(), Failure> {
        let Some(other) = other else { return Ok(()) };
        self.encode_keys(batch)?;
        let mut cells: Vec<(usize, Window)> = Vec::new();
        windows::for_each(batch, self.plan.window_fn, |row, window| cells.push((row, window)));
        let keys = std::mem::take(&mut self.keys);
        let handed =
            cells.iter().try_for_each(|(row, window)| self.hand_cell(CellKey { key: keys.get(*row), window: *window }, other, output));
        self.keys = keys;
        handed
    }

    fn hand_cell(&mut self, cell: CellKey<'_>, other: &mut Stateful, output: Output) -> Result<(), Failure> {
        // One that the other has had and dropped is not handed again.
        if !self.handed.insert(cell_hash(cell)) {
            return Ok(());
        }
        self.drops_handed = output == Output::IsDropped;
        let rows = self.with_states(|states| {
            let slot = states.keyed.cells_mut().find(cell)?;
            let mut rows = Rows::default();
            states.keyed.copy(slot, &mut rows);
            Some(rows)
        });
        match rows {
            Some(rows) => other.with_states(|states| states.keyed.adopt(cell, &rows)).map_err(|error| self.damaged(&error)),
            None => Ok(()),
        }
    }

    /// The output of all cells counts again.
    pub fn take_all_back(&mut self) {
        self.handed.clear();
        self.drops_handed = false;
    }

    /// The cells that were handed over take their places here as the other has them; both are of one version by now.
    pub fn adopt(&mut self, other: &mut Stateful) -> Result<(), Failure> {
        let handed = std::mem::take(&mut self.handed);
        self.take_all_back();
        self.with_states(|states| {
            let cells = states.keyed.cells_mut();
            let slots: Vec<Slot> = cells.slots().filter(|slot| handed.contains(&cells.hash(*slot))).collect();
            slots.into_iter().for_each(|slot| states.keyed.drop(slot));
        });
        let theirs: Vec<Slot> = other.with_states(|states| states.keyed.cells_mut().slots().collect());
        for slot in theirs {
            let (mut rows, mut key) = (Rows::default(), Vec::new());
            let window = other.with_states(|states| {
                let cell = states.keyed.key(slot);
                key.extend_from_slice(cell.key);
                let window = cell.window;
                states.keyed.copy(slot, &mut rows);
                window
            });
            let adopted = self.with_states(|states| states.keyed.adopt(CellKey { key: &key, window }, &rows));
            adopted.map_err(|error| self.damaged(&error))?;
        }
        self.look_for_old();
        Ok(())
    }

    fn encode_keys(&mut self, batch: &Batch) -> Result<(), Failure> {
        let columns = group_columns(&self.refusals.transform, &self.plan.key, batch)?;
        let mut keys: Keys = std::mem::take(&mut self.keys);
        encode(&self.encoder, &columns, batch.num_rows(), &mut keys);
        self.keys = keys;
        Ok(())
    }

    fn damaged(&self, error: &StateError) -> Failure {
        Failure::Internal { transform: self.refusals.transform.clone(), message: error.to_string() }
    }
}
