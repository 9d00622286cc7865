//! A recording, run again: each task alone, with its steps, its clock and its state.

use super::file::Recording;
use crate::checkpoint::contents::partition_in_task;
use crate::lab::{Lab, Restored, Setup};
use arrow::array::RecordBatch;
use pelton_core::key::group_owner;
use pelton_core::{Duration, WindowFn};
use pelton_plugin::{Limits, Plugin};
use pelton_state::Rows;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a task has given, of one output.
#[derive(Debug)]
pub struct Given {
    /// The task.
    pub task: usize,
    /// Name of the output.
    pub output: String,
    /// When it was recorded.
    pub recorded: Vec<RecordBatch>,
    /// Now.
    pub replayed: Vec<RecordBatch>,
}

/// Runs it with a plugin, which may be another than that of the recording.
pub fn replay(recording: &Recording, plugin: &Arc<Plugin>) -> Result<Vec<Given>, String> {
    let mut given: BTreeMap<(usize, String), Given> = BTreeMap::new();
    let about = &recording.about;
    for task in 0..about.tasks.max(1) {
        let steps: Vec<_> = recording.steps.iter().filter(|taped| taped.task == task).collect();
        if steps.is_empty() {
            continue;
        }
        let mut lab = Lab::new(setup(recording, plugin, task))?;
        let names = lab.outputs().to_vec();
        let mut of = |output: &str, fill: &dyn Fn(&mut Given)| {
            let none = || Given { task, output: output.into(), recorded: Vec::new(), replayed: Vec::new() };
            fill(given.entry((task, output.into())).or_insert_with(none));
        };
        for taped in steps {
            taped.given.iter().for_each(|(port, batch)| of(&about.outputs[*port], &|given| given.recorded.push(batch.rows.clone())));
            let now = lab.feed(taped.step.clone(), taped.now).map_err(|failure| failure.to_string())?;
            now.iter().for_each(|(port, batch)| of(&names[*port], &|given| given.replayed.push(batch.rows.clone())));
        }
    }
    Ok(given.into_values().collect())
}

fn setup(recording: &Recording, plugin: &Arc<Plugin>, task: usize) -> Setup {
    let about = &recording.about;
    let owned = |rows: &Rows| {
        let mut own = Rows::default();
        rows.iter().filter(|row| group_owner(row.group(), about.tasks.max(1)) == task).for_each(|row| own.push(row));
        own
    };
    let unkeyed = about.unkeyed.iter().map(|(part, bytes)| (partition_in_task(part).to_string(), bytes.clone()));
    Setup {
        plugin: plugin.clone(),
        transform: about.plugin_transform.clone(),
        config: about.config.clone(),
        input: recording.input.clone(),
        key: about.key.clone(),
        // Windows are written beside the rows where the transform sees them.
        window_fn: WindowFn::Global,
        allowed_lateness: Duration::from_micros(about.allowed_lateness_micros),
        limits: Limits::default(),
        restored: (!about.key.is_empty()).then(|| Restored {
            book: about.book.clone(),
            layouts: about.layouts.clone(),
            rows: recording.state.iter().map(|(name, rows)| (name.clone(), owned(rows))).collect(),
            unkeyed: unkeyed.collect(),
        }),
    }
}
