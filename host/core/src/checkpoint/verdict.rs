//! Which epoch a pipeline goes on from: what has been found after the fence, and what follows.
//!
//! D is the epoch that was decided last (0: none), P the newest one that is prepared, that is, has a manifest. While a pipeline lives, P is D
//! or D + 1, and what is recorded as committed is D or D - 1: see [`super::coordinator`]. So:
//!
//! | found | verdict |
//! |---|---|
//! | D = P, recorded as committed | [`Verdict::Resume`] |
//! | D = P, not recorded | [`Verdict::RollForward`]: some follower may lack D |
//! | D = P, and its manifest is that of the end | [`Verdict::Ended`] |
//! | D + 1 = P | [`Verdict::Discard`]: P was never decided, and after the fence never will be |
//! | no decision, no manifest | [`Verdict::Fresh`] |
//! | anything else | [`Verdict::Refuse`]: something is lost, or belongs to somebody else |
//!
//! An overtaken process may write a manifest after its successor has read them, of an epoch that the successor then
//! prepares and decides itself. So an epoch can have manifests of several generations; the decision says by its hash which counts.
//!
//! Invariant: no verdict but `Refuse` goes on from an epoch other than D, or from a manifest other than the one that was decided.

use crate::{Decision, Epoch, Generation};

/// A manifest in the checkpoint store, with all that it names in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Of which epoch.
    pub epoch: Epoch,
    /// Who wrote it.
    pub generation: Generation,
    /// xxh3-64 of its bytes.
    pub manifest: u64,
    /// All tasks had ended.
    pub last: bool,
}

/// What there is, read after the fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Name and incarnation of the pipeline in the checkpoint store.
    pub pipeline: String,
    /// Our own life.
    pub generation: Generation,
    /// The newest life in the store, read after the manifests: a later one has written among them since we have read the decision.
    pub newest: Generation,
    /// Manifests, in any order; those of collected epochs are missing.
    pub prepared: Vec<Prepared>,
    /// What the decider decided last.
    pub decision: Option<Decision>,
    /// The newest epoch that is recorded as committed; 0: none.
    pub recorded: Epoch,
}

/// How a pipeline goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// From nothing.
    Fresh,
    /// From this epoch, after followers have committed it (again).
    RollForward(Prepared),
    /// From this epoch (`None`: from nothing); the prepared one after it does not count.
    Discard { resume: Option<Prepared>, discarded: Epoch },
    /// From this epoch, which is committed everywhere.
    Resume(Prepared),
    /// Not at all: it had ended with this epoch. Followers may still lack it.
    Ended(Prepared),
    /// Not without an operator.
    Refuse(Refusal),
}

/// Why a pipeline does not start, and what an operator can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The decider has gone further than the store: D > P.
    #[error(
        "epoch {decided} is decided, but the newest checkpoint found is {newest}: checkpoints were lost, or this is an older copy of them"
    )]
    StateLost { decided: Epoch, newest: Epoch },
    /// The store has gone further than the decider: D < P - 1, or D < recorded.
    #[error(
        "checkpoint {newest} was written after epoch {known} was decided, but the last decision found is {decided}: the decision record was \
         deleted or set back, or this is another cluster"
    )]
    DecisionLost { decided: Epoch, known: Epoch, newest: Epoch },
    /// Epoch D is here, but it is not the one that was decided.
    #[error("epoch {epoch} was decided with another manifest (of generation {generation}): a process on a copy of this store has gone on")]
    OtherManifest { epoch: Epoch, generation: Generation },
    /// The decision is that of another pipeline or incarnation.
    #[error("the decision found (epoch {epoch}) is that of pipeline {found}, and these are checkpoints of {expected}")]
    OtherPipeline { found: String, expected: String, epoch: Epoch },
    /// A later life has decided.
    #[error("fenced: generation {theirs} has decided, and this process is generation {ours}: a later process owns this pipeline")]
    Overtaken { ours: Generation, theirs: Generation },
}

impl Refusal {
    /// What an operator can do.
    pub fn next_step(&self) -> String {
        let or_savepoint = "start from a savepoint (--from) and accept that later results come again";
        match self {
            Refusal::StateLost { decided, .. } => {
                format!("give the store that has epoch {decided}, with damaged files put back from a copy, or {or_savepoint}")
            }
            Refusal::DecisionLost { known, .. } => format!("connect the decider that has epoch {known}, or {or_savepoint}"),
            Refusal::OtherManifest { .. } => "give the store that it used, and delete this copy".into(),
            Refusal::OtherPipeline { found, .. } => format!("give the store of {found}, or give this pipeline another name"),
            Refusal::Overtaken { .. } => "stop that one first".into(),
        }
    }
}

impl Verdict {
    /// The epoch whose state is restored; `None`: none, or it is not known.
    pub fn decided(&self) -> Option<&Prepared> {
        match self {
            Verdict::RollForward(decided) | Verdict::Resume(decided) | Verdict::Ended(decided) => Some(decided),
            Verdict::Discard { resume, .. } => resume.as_ref(),
            Verdict::Fresh | Verdict::Refuse(_) => None,
        }
    }
}

/// The rule. `found` was read after the fence: what was read before may be decided a moment later.
pub fn verdict(found: &Found) -> Verdict {
    let newest = found.prepared.iter().map(|prepared| prepared.epoch).max().unwrap_or(0);
    let decided = found.decision.as_ref().map_or(0, |decision| decision.epoch);
    if let Some(refusal) = refuse(found, decided, newest) {
        return Verdict::Refuse(refusal);
    }
    let resume = match &found.decision {
        None => None,
        Some(decision) => match found.prepared.iter().find(|prepared| decides(decision, prepared)) {
            Some(prepared) => Some(prepared.clone()),
            None => return Verdict::Refuse(Refusal::OtherManifest { epoch: decided, generation: decision.generation }),
        },
    };
    assert_eq!(resume.as_ref().map_or(0, |prepared| prepared.epoch), decided, "a pipeline goes on from what was decided");
    match resume {
        Some(resume) if resume.last => Verdict::Ended(resume),
        resume if newest > decided => Verdict::Discard { resume, discarded: newest },
        Some(resume) if found.recorded < decided => Verdict::RollForward(resume),
        Some(resume) => Verdict::Resume(resume),
        None => Verdict::Fresh,
    }
}

/// What does not fit together.
fn refuse(found: &Found, decided: Epoch, newest: Epoch) -> Option<Refusal> {
    if found.newest > found.generation {
        return Some(Refusal::Overtaken { ours: found.generation, theirs: found.newest });
    }
    if let Some(decision) = &found.decision {
        if decision.pipeline != found.pipeline {
            let (found, expected) = (decision.pipeline.clone(), found.pipeline.clone());
            return Some(Refusal::OtherPipeline { found, expected, epoch: decided });
        }
        if decision.generation > found.generation {
            return Some(Refusal::Overtaken { ours: found.generation, theirs: decision.generation });
        }
    }
    // A manifest is written when the epoch before is decided and recorded.
    let known = found.recorded.max(newest.saturating_sub(1));
    if decided > newest {
        return Some(Refusal::StateLost { decided, newest });
    }
    (decided < known).then_some(Refusal::DecisionLost { decided, known, newest })
}

/// Whether this is the manifest that was decided.
fn decides(decision: &Decision, prepared: &Prepared) -> bool {
    (prepared.epoch, prepared.generation, prepared.manifest) == (decision.epoch, decision.generation, decision.manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Epoch, generation, hash.
    type Written = (Epoch, Generation, u64);

    fn prepared((epoch, generation, manifest): Written) -> Prepared {
        Prepared { epoch, generation, manifest, last: epoch == 9 }
    }

    /// Of generation 5, which has written nothing yet.
    fn check(manifests: &[Written], decided: Option<Written>, recorded: Epoch, expected: &Verdict) {
        let decision = decided.map(|(epoch, generation, manifest)| Decision { pipeline: "p".into(), epoch, generation, manifest });
        let mut prepared: Vec<Prepared> = manifests.iter().copied().map(prepared).collect();
        for _ in 0..2 {
            let found =
                Found { pipeline: "p".into(), generation: 5, newest: 5, prepared: prepared.clone(), decision: decision.clone(), recorded };
            assert_eq!(verdict(&found), *expected, "{found:?}");
            prepared.reverse();
        }
    }

    #[test]
    fn what_is_found_and_what_follows() {
        let (three, four, ours, zombies) = ((3, 1, 30), (4, 1, 40), (5, 4, 50), (5, 1, 51));
        check(&[], None, 0, &Verdict::Fresh);
        check(&[(1, 1, 10)], None, 0, &Verdict::Discard { resume: None, discarded: 1 });
        check(&[three, four], Some(four), 4, &Verdict::Resume(prepared(four)));
        check(&[three, four], Some(four), 3, &Verdict::RollForward(prepared(four)));
        check(&[four, ours], Some(four), 4, &Verdict::Discard { resume: Some(prepared(four)), discarded: 5 });
        // An overtaken process wrote its epoch 5 later than ours.
        check(&[four, ours, zombies], Some(ours), 4, &Verdict::RollForward(prepared(ours)));
        check(&[(8, 1, 80), (9, 1, 90)], Some((9, 1, 90)), 8, &Verdict::Ended(prepared((9, 1, 90))));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let (four, five) = ((4, 1, 40), (5, 1, 50));
        let refuse = Verdict::Refuse;
        check(&[], Some(five), 0, &refuse(Refusal::StateLost { decided: 5, newest: 0 }));
        check(&[four], Some(five), 4, &refuse(Refusal::StateLost { decided: 5, newest: 4 }));
        check(&[four, five], Some((3, 1, 30)), 3, &refuse(Refusal::DecisionLost { decided: 3, known: 4, newest: 5 }));
        check(&[four, five], None, 3, &refuse(Refusal::DecisionLost { decided: 0, known: 4, newest: 5 }));
        check(&[four, five], Some(four), 5, &refuse(Refusal::DecisionLost { decided: 4, known: 5, newest: 5 }));
        check(&[four, five], Some((5, 1, 51)), 4, &refuse(Refusal::OtherManifest { epoch: 5, generation: 1 }));
        check(&[four, five], Some((5, 2, 50)), 4, &refuse(Refusal::OtherManifest { epoch: 5, generation: 2 }));
        check(&[four, five], Some((5, 6, 50)), 4, &refuse(Refusal::Overtaken { ours: 5, theirs: 6 }));
        let decision = Some(Decision { pipeline: "q".into(), epoch: 4, generation: 1, manifest: 40 });
        let found = Found { pipeline: "p".into(), generation: 5, newest: 5, prepared: vec![prepared(four)], decision, recorded: 4 };
        let other = Refusal::OtherPipeline { found: "q".into(), expected: "p".into(), epoch: 4 };
        assert_eq!(verdict(&found), Verdict::Refuse(other));
        // Whatever else is found: somebody has taken over.
        assert_eq!(verdict(&Found { newest: 6, ..found }), Verdict::Refuse(Refusal::Overtaken { ours: 5, theirs: 6 }));
    }
}
