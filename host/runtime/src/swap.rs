//! Swaps: a transform of a running pipeline becomes another version at one exact cut (decision 0019; the rules are `pelton_core::swap`).
//!
//! In reading order:
//! - [`Cut`]: what a barrier carries: the new versions, bound and opened, one guest for each task.
//! - [`shape`]: what may differ between what runs and what is to run.
//! - [`trial`]: the new version on rows that have just come in, [`passage`]: on the state of the last checkpoint; nobody sees either.
//! - [`experiment`], [`beside`]: a candidate beside the version that runs, for some keys or unseen.
//! - [`swapper`]: PREPARE, ARM, and the wish for the barrier; `checkpoint::driver` cuts and commits.
//!
//! Invariant: all that can fail has been done before the barrier goes out; at the cut a task takes what lies ready.

pub mod beside;
pub mod experiment;
pub mod passage;
pub mod shape;
pub mod swapper;
pub mod trial;

use crate::bind::{BoundNode, OperatorPlan};
use crate::failure::Failure;
use crate::metrics::NodeMetrics;
use crate::operator::Operator;
use crate::operators::{plugin, stateful, stateless};
use pelton_core::evolution::Book;
use pelton_plugin::{CombineInstance, Instance, StatefulInstance};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use experiment::{ALL, Allowed, Experiment, Figures, Kind};
pub use swapper::{Refused, Swapped, Swapper, Wanted, component_of, guess, history_of};

/// What changes at a barrier.
pub struct Cut {
    /// By node.
    versions: HashMap<usize, NewVersion>,
    /// How long tasks stood still that have changed.
    pauses: Mutex<Vec<Duration>>,
}

/// What a transform becomes.
pub struct NewVersion {
    /// What it is bound to.
    pub bound: BoundNode,
    /// Its cells will be made of more, or of other things: what was sealed of them is to be encoded before.
    pub grows: bool,
    /// It is a candidate, or was one until now.
    pub experiment: Option<Arc<Experiment>>,
    /// It comes beside what runs, and not in its place.
    pub is_candidate: bool,
    /// One for each task, and for each edge that aggregates on the way to one; opened.
    guests: Mutex<Vec<Guest>>,
}

/// An opened guest.
pub enum Guest {
    /// Of a transform without state.
    Stateless(Box<Instance>),
    /// Of one with state.
    Stateful(Box<StatefulInstance>),
    /// Of a grouping, one for each aggregate of a plugin.
    Combine(Vec<CombineInstance>),
}

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.versions.keys()).finish()
    }
}

impl Cut {
    /// With these versions by node.
    pub fn new(versions: HashMap<usize, NewVersion>) -> Cut {
        Cut { versions, pauses: Mutex::default() }
    }

    /// The same, beside what runs.
    pub fn of_candidates(self) -> Cut {
        let versions = self.versions.into_iter().map(|(node, version)| (node, NewVersion { is_candidate: true, ..version }));
        Cut { versions: versions.collect(), ..self }
    }

    /// What a node becomes.
    pub fn version(&self, node: usize) -> Option<&NewVersion> {
        self.versions.get(&node)
    }

    /// All that change.
    pub fn versions(&self) -> impl Iterator<Item = (usize, &NewVersion)> {
        self.versions.iter().map(|(node, version)| (*node, version))
    }

    /// A task has changed; it stood still for so long, from the first input that it held back.
    pub fn stood_still(&self, pause: Duration) {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).push(pause);
    }

    /// The longest pause so far.
    pub fn longest_pause(&self) -> Duration {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).iter().max().copied().unwrap_or_default()
    }
}

impl NewVersion {
    /// Opens so many guests, where it has some.
    pub fn open(bound: BoundNode, grows: bool, guests: usize) -> Result<NewVersion, Failure> {
        let failed = |error| Failure::Plugin { transform: bound.refusals.transform.clone(), error };
        let guest = || -> Result<Option<Guest>, Failure> {
            Ok(match &bound.plan {
                OperatorPlan::Plugin { binding, .. } => Some(Guest::Stateless(Box::new(binding.open().map_err(failed)?))),
                OperatorPlan::Stateful(plan) => Some(Guest::Stateful(Box::new(plan.binding.open().map_err(failed)?))),
                OperatorPlan::Combine(plan) if plan.has_plugins() => {
                    let opened: Result<Vec<CombineInstance>, _> = plan.plugins.iter().flatten().map(|binding| binding.open()).collect();
                    Some(Guest::Combine(opened.map_err(failed)?))
                }
                _ => None,
            })
        };
        let guests: Result<Vec<Option<Guest>>, Failure> = (0..guests).map(|_| guest()).collect();
        let guests = Mutex::new(guests?.into_iter().flatten().collect());
        Ok(NewVersion { bound, grows, experiment: None, is_candidate: false, guests })
    }

    /// One more guest.
    pub fn guest(&self) -> Option<Guest> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// An operator of this version, where it keeps nothing.
    pub fn operator(&self) -> Result<Box<dyn Operator>, Failure> {
        stateless(self.bound.clone()).map_err(|_| self.not_prepared())
    }

    /// An operator of this version beside the one that runs.
    pub fn candidate(&self, book: Option<&Book>) -> Result<Box<dyn Operator>, Failure> {
        let bound = match stateless(self.bound.clone()) {
            Ok(operator) => return Ok(operator),
            Err(bound) => *bound,
        };
        let metrics = Arc::new(NodeMetrics::new(bound.refusals.transform.clone(), String::new(), bound.ports.clone()));
        match (bound.plan, self.guest()) {
            (OperatorPlan::Plugin { binding, ports }, Some(Guest::Stateless(instance))) => Ok(Box::new(plugin::Plugin {
                binding,
                instance: Some(*instance),
                ports,
                window_fn: bound.window_fn,
                metrics,
                counted: Default::default(),
                refusals: bound.refusals,
            })),
            (OperatorPlan::Stateful(plan), Some(Guest::Stateful(instance))) => {
                let evolved = match book {
                    Some(book) => Some(Arc::new(book.evolve(&plan.binding.declared(), &|_| false).map_err(|_| self.not_prepared())?)),
                    None => None,
                };
                Ok(Box::new(stateful::Stateful::with(*plan, *instance, evolved, metrics, bound.refusals)?))
            }
            _ => Err(self.not_prepared()),
        }
    }

    /// What was prepared is not what a task needs.
    pub fn not_prepared(&self) -> Failure {
        Failure::Internal { transform: self.bound.refusals.transform.clone(), message: "the swap was not prepared for this task".into() }
    }
}

/// Lets an old guest say its farewell where it holds nobody up.
pub fn farewell(close: impl Future<Output = ()> + Send + 'static) {
    let here = tokio::runtime::Handle::current();
    drop(tokio::task::spawn_blocking(move || here.block_on(close)));
}
