//! The rules of swaps: how the code and the config of a running pipeline are changed, and what a restart makes of it (DESIGN 7, decision 0019).
//!
//! ```text
//! PREPARE            ARM              CUT at barrier E                COMMIT
//! all checks, ──▶ components and ──▶ each task seals E, then ──▶ epoch E is decided:
//! nothing is      the wish are       its next row goes to          the swap is made
//! changed         durable            the new version
//! ```
//!
//! What runs is the file and the [`Replacement`]s on top of it. The manifest of epoch E says by which E+1 is processed ([`Versions`]), so the decision of E
//! decides the swap with it: whoever restores E goes on with the new version, whoever restores E-1 with the old one, and then a swap that is still armed
//! is made again ([`at_start`]).
//!
//! A swap is never taken back: the way back is a swap to the version before ([`back`]).

use crate::Epoch;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The transform of what a swap names: itself, or the `Combine` of a plugin's aggregate (`Transform.column`). `nodes` are the names of what runs; what is
/// inside a transform is named after it, behind a slash.
pub fn transform_of<'a, 'n>(name: &'a str, nodes: impl Iterator<Item = &'n str> + Clone) -> &'a str {
    let is_one =
        |name: &str| nodes.clone().any(|node| node.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    if is_one(name) {
        return name;
    }
    // Names of columns may have dots, too.
    name.rmatch_indices('.').map(|(at, _)| &name[..at]).find(|before| is_one(before)).unwrap_or(name)
}

/// What a transform is made of, as far as it can be changed while it runs; or a plugin's aggregate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Digest of its plugin, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Its config, as in the file.
    pub config: Value,
}

/// A transform that is not what the file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replacement {
    /// Its full name; of a plugin's aggregate `Transform.column`.
    pub transform: String,
    /// What the file said when it was replaced first. While the file says the same, the replacement holds; a file that was changed since wins.
    pub base: Version,
    /// What it is.
    pub version: Version,
    /// It processes this epoch and the later ones.
    pub since: Epoch,
}

/// By which versions an epoch's successor is processed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    /// Swaps since the pipeline began.
    pub swaps: u64,
    /// The last epoch before the last of them.
    #[serde(default)]
    pub cut: Epoch,
    /// Where sources stood at its end.
    #[serde(default)]
    pub positions: Positions,
    /// What is not as in the file, by transform.
    pub replaced: Vec<Replacement>,
}

/// By transform and split: where reading goes on, as its connector writes it.
pub type Positions = BTreeMap<String, BTreeMap<String, String>>;

/// What a swap makes of a transform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its full name; of a plugin's aggregate `Transform.column`.
    pub transform: String,
    /// What the file says of it.
    pub base: Version,
    /// What it is until then.
    pub from: Version,
    /// What it becomes.
    pub to: Version,
}

/// A swap that is to be made at the next barrier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Armed {
    /// Number of the swap: one more than those before.
    pub number: u64,
    /// All of them or none.
    pub changes: Vec<Change>,
}

/// A swap that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// Number of the swap.
    pub number: u64,
    /// The last epoch of the old versions.
    pub epoch: Epoch,
    /// Where sources stood at its end: rows before were processed by the old versions, rows from there on by the new ones.
    #[serde(default)]
    pub positions: Positions,
    /// What it has made.
    pub changes: Vec<Change>,
}

/// What becomes of an armed swap at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// The epoch that is restored has it: it is to be written down as made.
    Made,
    /// It is not: it is made again.
    Again,
}

/// Whether what is restored has the armed swap in it.
pub fn at_start(armed: &Armed, restored: &Versions) -> AtStart {
    if restored.swaps >= armed.number { AtStart::Made } else { AtStart::Again }
}

impl Versions {
    /// What a swap makes of these, from the epoch after `cut` on.
    pub fn after(&self, armed: &Armed, cut: Epoch, positions: Positions) -> Versions {
        let mut replaced: BTreeMap<String, Replacement> = self.replaced.iter().map(|one| (one.transform.clone(), one.clone())).collect();
        for Change { transform, base, to, .. } in &armed.changes {
            match to == base {
                // Again as in the file.
                true => replaced.remove(transform),
                false => {
                    let (base, version) = (base.clone(), to.clone());
                    replaced.insert(transform.clone(), Replacement { transform: transform.clone(), base, version, since: cut + 1 })
                }
            };
        }
        Versions { swaps: armed.number, cut, positions, replaced: replaced.into_values().collect() }
    }

    /// The swap that has led to these.
    pub fn made(&self, armed: &Armed) -> Made {
        Made { number: armed.number, epoch: self.cut, positions: self.positions.clone(), changes: armed.changes.clone() }
    }

    /// Those that hold for a file, and those that do not: it was changed since, or has no such transform any more. `file` is what it says of a transform.
    pub fn over(&self, file: impl Fn(&str) -> Option<Version>) -> (Versions, Vec<Replacement>) {
        let holds = |one: &Replacement| file(&one.transform).is_some_and(|now| now == one.base && now != one.version);
        let (replaced, dropped): (Vec<_>, Vec<_>) = self.replaced.iter().cloned().partition(holds);
        (Versions { replaced, ..self.clone() }, dropped)
    }

    /// What a transform is now, of which the file says `base`.
    pub fn of(&self, transform: &str, base: &Version) -> Version {
        self.replaced.iter().find(|one| one.transform == transform).map_or_else(|| base.clone(), |one| one.version.clone())
    }
}

/// The swap that undoes the last one that changed a transform to what it is now.
pub fn back<'a>(made: impl DoubleEndedIterator<Item = &'a Made>, transform: &str, now: &Version) -> Option<&'a Change> {
    let mut changes = made.rev().flat_map(|made| &made.changes);
    changes.find(|change| change.transform == transform && change.to == *now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn version(number: u8) -> Version {
        Version { plugin: Some(format!("sha256:{number}")), config: json!({"n": number}) }
    }

    #[test]
    fn the_restored_epoch_says_whether_a_swap_was_made() {
        let armed = Armed { number: 3, changes: vec![] };
        assert_eq!(at_start(&armed, &Versions { swaps: 2, ..Versions::default() }), AtStart::Again);
        assert_eq!(at_start(&armed, &Versions { swaps: 3, ..Versions::default() }), AtStart::Made);
    }

    #[test]
    fn an_aggregate_is_of_the_transform_before_its_dot() {
        let nodes = ["A", "A.b", "Outer/Sum", "Query.x/scan", "D.e.f"];
        let of = |name| transform_of(name, nodes.iter().copied());
        for (name, transform) in [
            ("A", "A"),
            ("A.total", "A"),
            ("A.b", "A.b"),
            ("A.b.c", "A.b"),
            ("Outer/Sum.a.b", "Outer/Sum"),
            ("Query.x", "Query.x"),
            ("D.e", "D.e"),
            ("none.at", "none.at"),
        ] {
            assert_eq!(of(name), transform);
        }
    }

    #[test]
    fn a_file_that_was_changed_wins() {
        let armed =
            Armed { number: 1, changes: vec![Change { transform: "T".into(), base: version(0), from: version(0), to: version(1) }] };
        let versions = Versions::default().after(&armed, 7, Positions::new());
        assert_eq!(versions.replaced[0].since, 8);
        let held = |file: Option<Version>| versions.over(|_| file.clone()).1.is_empty();
        assert!(held(Some(version(0))));
        // Changed; the transform is gone; the file has caught up.
        assert!(!held(Some(version(2))) && !held(None) && !held(Some(version(1))));
    }

    proptest! {
        /// A map from transform to version is all that counts, whatever the order of swaps.
        #[test]
        fn what_runs_is_what_was_swapped_last(swaps in proptest::collection::vec(proptest::collection::btree_map(0u8..4, 0u8..3, 1..3), 0..12)) {
            let mut model: BTreeMap<u8, u8> = BTreeMap::new();
            let (mut versions, mut history) = (Versions::default(), Vec::new());
            for (number, swap) in swaps.iter().enumerate() {
                let change = |(transform, to): (&u8, &u8)| {
                    let name = transform.to_string();
                    Change { from: versions.of(&name, &version(0)), transform: name, base: version(0), to: version(*to) }
                };
                let armed = Armed { number: number as u64 + 1, changes: swap.iter().map(change).collect() };
                versions = versions.after(&armed, number as u64, Positions::new());
                model.extend(swap);
                history.push(versions.made(&armed));
            }
            for transform in 0..4 {
                let now = versions.of(&transform.to_string(), &version(0));
                prop_assert_eq!(&now, &version(model.get(&transform).copied().unwrap_or(0)));
                if let Some(last) = swaps.iter().rev().find(|swap| swap.contains_key(&transform)) {
                    let undo = back(history.iter(), &transform.to_string(), &now).unwrap();
                    prop_assert_eq!(&undo.to, &version(last[&transform]));
                }
            }
            // What is as in the file is in no list.
            prop_assert!(versions.replaced.iter().all(|one| one.version != one.base));
        }
    }
}
