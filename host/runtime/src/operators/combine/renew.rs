//! Another version of the plugins' aggregates, at a barrier.
//!
//! All guests of the grouping are replaced, also those of aggregates that stay as they are; the cells stay. Accumulators that the new version keeps
//! otherwise are of an earlier era from then on, and are brought to it as after a start ([`super::evolve`]).
//!
//! Invariant: which aggregates there are, and of what, is the same before and after (`swap::shape` has seen to it), so that columns of state keep their
//! meaning.

use super::core::Aggregate;
use super::{Combine, CombinePlan};
use crate::bind::OperatorPlan;
use crate::failure::Failure;
use crate::operators::evolving::Evolving;
use crate::swap::{Guest, NewVersion, farewell};

/// Gives the aggregates of a task, or of an edge that aggregates for it, the guests of a version.
pub(crate) fn renewed(version: &NewVersion, plan: &mut CombinePlan, aggregates: &mut [Aggregate]) -> Result<(), Failure> {
    let (OperatorPlan::Combine(new), Some(Guest::Combine(guests))) = (&version.bound.plan, version.guest()) else {
        return Err(version.not_prepared());
    };
    let mut fresh = new.plugins.iter().flatten().zip(guests);
    let mut old = Vec::new();
    for aggregate in aggregates {
        if let Aggregate::Plugin(plugin) = aggregate {
            let (binding, guest) = fresh.next().ok_or_else(|| version.not_prepared())?;
            old.push(plugin.renew(binding, guest));
        }
    }
    plan.aggregates.clone_from(&new.aggregates);
    plan.plugins.clone_from(&new.plugins);
    farewell(async {
        for guest in old {
            guest.close().await;
        }
    });
    Ok(())
}

impl Combine {
    /// What comes from now on is this version's.
    pub(super) fn take_over(&mut self, version: &NewVersion) -> Result<(), Failure> {
        let core = &mut self.core;
        let declared = version.bound.declared().ok_or_else(|| version.not_prepared())?;
        let evolved = core.evolving.book().evolve(&declared, &|_| false).map_err(|_| version.not_prepared())?;
        renewed(version, &mut core.plan, &mut core.aggregates)?;
        core.cells.begin_era(evolved.book.present().number);
        core.evolving = Evolving::new(&evolved);
        core.evolving.left(core.cells.old());
        Ok(())
    }
}
