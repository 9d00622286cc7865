//! Stored state against the pipeline as it is now: what is kept, migrated, dropped and new, before anything starts.
//!
//! Invariant: either all of the stored state has its place, or was dropped by name, or nothing is started.

use super::keep::{COUNTED, NodeEntry};
use crate::failure::Failure;
use pelton_core::evolution::{Book, Evolved, Problem};
use pelton_state::durable::{Manifest, OperatorEntry};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What stands between a transform's uid and the name of one of its states or timers in `--drop-state`.
const PART: char = '#';

/// How stored state goes on.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By uid: the state of plugins.
    pub evolved: HashMap<String, Arc<Evolved>>,
    /// Uids of transforms that begin anew.
    pub anew: HashSet<String>,
}

/// Compares, and says what becomes of it; refuses to lose state.
pub fn compare(manifest: &Manifest, nodes: &[NodeEntry], drop_state: &[String]) -> Result<Outcome, Failure> {
    let by_uid: HashMap<&str, &NodeEntry> = nodes.iter().map(|node| (node.uid.as_str(), node)).collect();
    let is_state = |operator: &&OperatorEntry| operator.states.iter().any(|state| state.name != COUNTED);
    let stored: Vec<&OperatorEntry> = manifest.contents.operators.iter().filter(is_state).collect();
    let is_dropped = |uid: &str| drop_state.iter().any(|drop| drop == uid);
    let (mut outcome, mut told, mut refused) = (Outcome::default(), Told::default(), Refused::default());
    for operator in &stored {
        let uid = &operator.uid;
        match by_uid.get(uid.as_str()) {
            _ if is_dropped(uid) => {
                told.dropped.push(uid.clone());
                if by_uid.contains_key(uid.as_str()) {
                    outcome.anew.insert(uid.clone());
                }
            }
            None => refused.unmatched.push((uid.clone(), operator.kind.clone())),
            Some(node) => match evolve(operator, node, drop_state)? {
                Ok(evolved) => {
                    told.plugin(uid, evolved.as_deref());
                    outcome.evolved.extend(evolved.map(|evolved| (uid.clone(), evolved)));
                }
                Err(problems) => {
                    let whole = node.declared.as_ref().is_some_and(|declared| declared.fixed);
                    refused.problems.extend(problems.into_iter().map(|problem| (uid.clone(), drop_of(uid, whole, &problem), problem)));
                }
            },
        }
    }
    if let Some(message) = refused.message(manifest.id.epoch) {
        return Err(Failure::Checkpoint { message, refused: true });
    }
    let known: HashSet<&str> = manifest.contents.operators.iter().map(|operator| operator.uid.as_str()).collect();
    let new = nodes.iter().map(|node| node.uid.as_str()).filter(|uid| !known.contains(uid));
    told.new.extend(new.map(str::to_owned));
    tracing::info!(
        epoch = manifest.id.epoch,
        kept = told.kept.join(", "),
        migrated = told.migrated.join(", "),
        dropped = told.dropped.join(", "),
        new = told.new.join(", "),
        "going on from a checkpoint"
    );
    Ok(outcome)
}

/// The state of a transform of a plugin with its plugin of today; `None`: of something else.
fn evolve(
    operator: &OperatorEntry,
    node: &NodeEntry,
    drop_state: &[String],
) -> Result<Result<Option<Arc<Evolved>>, Vec<Problem>>, Failure> {
    let Some(declared) = &node.declared else { return Ok(Ok(None)) };
    let schema = operator.states.iter().map(|state| &state.schema).find(|schema| !schema.is_empty());
    let damaged = |message: String| Failure::Checkpoint { message: format!("transform `{}`: {message}", operator.uid), refused: true };
    let Some(book) = Book::read(schema.map_or(&[][..], |schema| schema)).map_err(damaged)? else { return Ok(Ok(None)) };
    let is_dropped = |name: &str| {
        let named = |drop: &String| drop.strip_suffix(name).and_then(|drop| drop.strip_suffix(PART)) == Some(&operator.uid);
        drop_state.iter().any(named)
    };
    Ok(book.evolve(declared, &is_dropped).map(|evolved| Some(Arc::new(evolved))))
}

/// What is said before a start: transforms, and states of those that have changed.
#[derive(Default)]
struct Told {
    kept: Vec<String>,
    migrated: Vec<String>,
    dropped: Vec<String>,
    new: Vec<String>,
}

impl Told {
    fn plugin(&mut self, uid: &str, evolved: Option<&Evolved>) {
        let changed = evolved.filter(|evolved| {
            let report = &evolved.report;
            !(report.migrated.is_empty() && report.dropped.is_empty() && report.new.is_empty())
        });
        let Some(evolved) = changed else { return self.kept.push(uid.into()) };
        let report = &evolved.report;
        let lists = [
            (&mut self.kept, &report.kept),
            (&mut self.migrated, &report.migrated),
            (&mut self.dropped, &report.dropped),
            (&mut self.new, &report.new),
        ];
        for (all, states) in lists {
            all.extend(states.iter().map(|state| format!("{uid}{PART}{state}")));
        }
    }
}

/// What cannot go on.
#[derive(Default)]
struct Refused {
    /// Uid and kind.
    unmatched: Vec<(String, String)>,
    /// By uid, with what `--drop-state` would drop.
    problems: Vec<(String, String, Problem)>,
}

fn drop_of(uid: &str, whole: bool, problem: &Problem) -> String {
    if whole || problem.name == "*" { uid.into() } else { format!("{uid}{PART}{}", problem.name) }
}

impl Refused {
    fn message(&self, epoch: u64) -> Option<String> {
        let mut parts = Vec::new();
        if !self.unmatched.is_empty() {
            let list: Vec<String> = self.unmatched.iter().map(|(uid, kind)| format!("`{uid}` ({kind})")).collect();
            let flags: Vec<String> = self.unmatched.iter().map(|(uid, _)| format!("--drop-state '{uid}'")).collect();
            parts.push(format!(
                "checkpoint {epoch} holds state that no transform of the pipeline has the uid of: {}\n  next: give the transform that goes on with it this \
                 uid in `options.pelton.uids`, or drop the state with {}",
                list.join(", "),
                flags.join(" ")
            ));
        }
        for (uid, drop, problem) in &self.problems {
            parts.push(format!(
                "checkpoint {epoch} holds state of transform `{uid}` with which its plugin cannot go on\n  {problem}\n  next: {}, or drop it with \
                 --drop-state '{drop}'",
                problem.next
            ));
        }
        if parts.is_empty() { None } else { Some(parts.join("\n")) }
    }
}
