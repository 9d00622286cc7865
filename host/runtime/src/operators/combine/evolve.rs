//! Accumulators that another version of a plugin has written, brought to the present: before they are first used, and by a sweep.
//!
//! Invariant: the guest never sees an accumulator of another era than the present one.

use super::core::{Aggregate, Core};
use super::plugin::PluginAggregate;
use super::{Combine, CombinePlan};
use crate::failure::Failure;
use crate::operators::evolving::Evolving;
use arrow::util::display::array_value_to_string;
use pelton_core::evolution::{Change, Conversion, Declared, Evolved};
use pelton_plugin::{MigrateError, PluginError};
use pelton_state::Slot;
use std::collections::BTreeMap;

/// Accumulators for one aggregate and from one version, and the aggregate's name.
type Taken = (String, Vec<(Slot, Vec<u8>)>);

impl CombinePlan {
    /// Whether an aggregate is a plugin's.
    pub fn has_plugins(&self) -> bool {
        self.plugins.iter().any(Option::is_some)
    }

    /// What is kept for plugins: an accumulator for each of their aggregates, by the name of its column.
    pub fn declared(&self) -> Declared {
        let name = |number: usize| self.schema.field(self.group_types.len() + number).name();
        let states = self.plugins.iter().enumerate();
        let states = states.filter_map(|(number, binding)| Some(binding.as_ref()?.declared(name(number)))).collect();
        Declared { states, timers: Vec::new(), fixed: true }
    }
}

impl Core {
    /// Brings cells to the present that are not.
    pub async fn bring(&mut self, slots: &[Slot]) -> Result<(), Failure> {
        if self.evolving.is_still() || self.cells.old() == 0 {
            return Ok(());
        }
        let mut by_plugin: BTreeMap<(usize, u32), Taken> = BTreeMap::new();
        for slot in slots {
            if self.cells.is_live(*slot) && self.cells.is_old(*slot) {
                self.take(*slot, &mut by_plugin)?;
                self.cells.renew(*slot);
            }
        }
        for ((place, version), (name, old)) in by_plugin {
            let Some(plugin) = plugin_at(&mut self.aggregates, place) else { continue };
            let migrated = plugin.migrate(&mut self.cells, version, &old).await;
            migrated.map_err(|(slot, error)| self.not_migrated(&name, version, slot, error))?;
        }
        Ok(())
    }

    fn take(&mut self, slot: Slot, by_plugin: &mut BTreeMap<(usize, u32), Taken>) -> Result<(), Failure> {
        let era = self.cells.era(slot);
        let unknown = || self.refused(format!("a cell is of era {era}, of which nothing is known"));
        let plan = self.evolving.plan(era).ok_or_else(unknown)?;
        for step in plan.iter().filter(|step| !step.is_none()) {
            let Some(plugin) = plugin_at(&mut self.aggregates, step.from) else { continue };
            let Some(held) = plugin.take(&mut self.cells, slot) else { continue };
            let transform = &self.refusals.transform;
            match &step.change {
                Change::Clear => {}
                Change::Convert(conversion) => plugin.put(&mut self.cells, slot, converted(transform, conversion, held)?),
                Change::Migrate { state, version, before } => {
                    let (_, old) = by_plugin.entry((step.from, *version)).or_insert_with(|| (state.clone(), Vec::new()));
                    old.push((slot, converted(transform, before, held)?));
                }
            }
        }
        Ok(())
    }

    fn refused(&self, message: String) -> Failure {
        Failure::Checkpoint { message: format!("transform `{}`: {message}", self.refusals.transform), refused: true }
    }

    fn not_migrated(&self, name: &str, version: u32, slot: Slot, error: MigrateError) -> Failure {
        let (plugin, message) = match error {
            MigrateError::Plugin(error) => return self.plugin(error),
            MigrateError::Item { plugin, message, .. } => (plugin, message),
        };
        let key = self.decoder.decode(std::iter::once(self.cells.key(slot).key)).map(|columns| {
            let shown = columns.iter().map(|column| array_value_to_string(column, 0).unwrap_or_default());
            shown.collect::<Vec<_>>().join(", ")
        });
        self.plugin(PluginError::Migrate { plugin, state: name.into(), version, key: key.unwrap_or_else(|_| "?".into()), message })
    }
}

fn converted(transform: &str, conversion: &Conversion, held: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if conversion.is_same() {
        return Ok(held);
    }
    let mut new = Vec::with_capacity(held.len() + 8);
    let damaged = |error| Failure::Checkpoint {
        message: format!("transform `{transform}`: an accumulator cannot be converted: {error}"),
        refused: true,
    };
    conversion.apply(&held, &mut new).map_err(damaged)?;
    Ok(new)
}

/// The aggregate at a place: places count those of plugins.
fn plugin_at(aggregates: &mut [Aggregate], place: usize) -> Option<&mut PluginAggregate> {
    let plugins = aggregates.iter_mut().filter_map(|aggregate| match aggregate {
        Aggregate::Plugin(plugin) => Some(&mut **plugin),
        Aggregate::Own(_) => None,
    });
    plugins.into_iter().nth(place)
}

impl Combine {
    /// With what another version of its plugins has left.
    pub fn going_on(mut self, evolved: Option<&Evolved>) -> Combine {
        if let Some(evolved) = evolved {
            self.core.cells.keep_eras(evolved.book.present().number);
            self.core.evolving = Evolving::new(evolved);
        }
        self
    }

    /// The first parts of the sweep, before anything else.
    pub(super) async fn begin(&mut self) -> Result<(), Failure> {
        let parts = self.core.evolving.begins();
        if parts == 0 {
            return Ok(());
        }
        let cells = self.core.cells.old();
        for _ in 0..parts {
            if self.core.evolving.is_settling() {
                self.sweep().await?;
            }
        }
        tracing::info!(transform = self.refusals.transform, cells, left = self.core.cells.old(), "state is brought to the plugin's types");
        Ok(())
    }

    /// A part of the sweep.
    pub(super) async fn sweep_some(&mut self) -> Result<(), Failure> {
        pelton_core::failpoint::hit("evolve.sweep");
        self.sweep().await?;
        if !self.core.evolving.is_settling() {
            tracing::info!(transform = self.refusals.transform, "all state is of the plugin's types");
        }
        Ok(())
    }

    async fn sweep(&mut self) -> Result<(), Failure> {
        let (core, way) = (&mut self.core, &mut self.way);
        if core.evolving.is_out() {
            core.cells.bring_old();
            way.arrived(core);
        }
        let cells = &core.cells;
        let slots = core.evolving.next(|| cells.slots().filter(|slot| cells.is_old(*slot)).collect());
        core.bring(&slots).await?;
        let old = core.cells.old();
        core.evolving.left(old);
        Ok(())
    }
}
