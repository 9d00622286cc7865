//! From a start, or from a failure, to the next epoch: one straight line, the same for both.
//!
//! ```text
//! take a generation ─▶ fence ─▶ read the decision ─▶ read the store ─▶ verdict ─▶ roll forward ─▶ record ─▶ discard ─▶ restore ─▶ start
//! ```
//!
//! The order is the point:
//!
//! - The fence comes before the decision is read: else an earlier life could decide one more epoch after the reading.
//! - The store is read after the decision: else an earlier life could have prepared and decided an epoch in between, which would look lost.
//! - Followers are brought to D before anything beyond D is deleted, and before sources read again.
//!
//! - The newest generation in the store is read after the manifests. Who has been overtaken in between would compare the decision that
//!   it has read with manifests that came later, and refuse for a wrong reason.
//!
//! A step that fails is a failure of the whole recovery: nothing here is half done, so it begins again, with a new generation: by
//! [`Recovery::restart`], once one has been taken.
//!
//! A process that *starts* takes the pipeline over from whoever has it (that nobody does so by mistake is the business of a lock). A
//! process that restarts *itself* after a failure does not: it goes on only if nobody has taken over meanwhile ([`Take::After`]),
//! or two processes would fence each other for ever.

use super::verdict::{Found, Prepared, Refusal, Verdict, verdict};
use crate::{Decision, Epoch, Generation};

/// Which generation to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The one after the newest in the store, and after this one. When somebody else creates it first, the next.
    Above(Generation),
    /// The one after this and no other. When there is a later one already: [`Answer::Overtaken`].
    After(Generation),
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create a generation in the store, durably: [`Answer::Taken`].
    TakeGeneration(Take),
    /// Make sure that no life before this one can decide any more, in every slot of the decider: [`Answer::Done`], or [`Answer::Overtaken`].
    Fence(Generation),
    /// What was decided last: [`Answer::Decision`].
    ReadDecision,
    /// All manifests, the newest commit record, and after these the newest generation: [`Answer::Store`].
    ReadStore,
    /// Make this epoch visible at every follower, again if need be: [`Answer::Done`].
    RollForward(Prepared),
    /// Write down that all followers have committed the epoch: [`Answer::Done`].
    RecordCommit(Epoch),
    /// Delete what is staged and prepared after this epoch by lives before this one: [`Answer::Done`].
    Discard { after: Epoch, before: Generation },
    /// Load the state of this epoch (`None`: of nothing), and put sources at its positions: [`Answer::Done`].
    Restore(Option<Prepared>),
    /// Run, beginning with this epoch. The last step.
    Start { generation: Generation, epoch: Epoch },
    /// There is nothing to run: the pipeline has ended, and all its output is visible. The last step.
    Ended { epoch: Epoch },
    /// Do not run. The last step.
    Refuse(Refusal),
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The generation that is now ours.
    Taken(Generation),
    /// This later generation, or another life of the same, is known there.
    Overtaken(Generation),
    /// What the decider says.
    Decision(Option<Decision>),
    /// What the store has. `newest` is read last: so that whoever wrote one of these manifests is known.
    Store { prepared: Vec<Prepared>, recorded: Epoch, newest: Generation },
}

/// Asks for step after step.
///
/// Invariant, asserted: the decision is read after the fence, and the store after the decision.
#[derive(Clone, Debug)]
pub struct Recovery {
    pipeline: String,
    take: Take,
    /// Ours, once it is taken.
    generation: Generation,
    /// The answer awaited.
    step: Step,
    decision: Option<Decision>,
    recorded: Epoch,
    verdict: Option<Verdict>,
}

impl Recovery {
    /// Of a process that starts, on the store of this pipeline (name and incarnation).
    pub fn start(pipeline: String) -> Recovery {
        Recovery::begin(pipeline, Take::Above(0))
    }

    /// Of a process that was this generation until something failed.
    pub fn restart(pipeline: String, generation: Generation) -> Recovery {
        Recovery::begin(pipeline, Take::After(generation))
    }

    fn begin(pipeline: String, take: Take) -> Recovery {
        Recovery { pipeline, take, generation: 0, step: Step::TakeGeneration(take), decision: None, recorded: 0, verdict: None }
    }

    /// What is to be done.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// What was found; once the store is read.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// The step is done: the next one.
    pub fn answer(&mut self, answer: Answer) -> &Step {
        self.step = match (&self.step, answer) {
            (Step::TakeGeneration(_), Answer::Taken(generation)) => self.taken(generation),
            (Step::TakeGeneration(_) | Step::Fence(_), Answer::Overtaken(theirs)) => self.overtaken(theirs),
            (Step::Fence(_), Answer::Done) => Step::ReadDecision,
            (Step::ReadDecision, Answer::Decision(decision)) => {
                self.decision = decision;
                Step::ReadStore
            }
            (Step::ReadStore, Answer::Store { prepared, recorded, newest }) => self.judge(prepared, recorded, newest),
            (Step::RollForward(decided), Answer::Done) => Step::RecordCommit(decided.epoch),
            (Step::RecordCommit(_), Answer::Done) => self.discard(),
            (Step::Discard { .. }, Answer::Done) => self.go_on(),
            (Step::Restore(decided), Answer::Done) => {
                Step::Start { generation: self.generation, epoch: decided.as_ref().map_or(0, |decided| decided.epoch) + 1 }
            }
            (step, answer) => panic!("{answer:?} is no answer to {step:?}"),
        };
        &self.step
    }

    fn taken(&mut self, generation: Generation) -> Step {
        let fits = match self.take {
            Take::Above(least) => generation > least,
            Take::After(own) => generation == own + 1,
        };
        assert!(fits, "generation {generation} was taken instead of {:?}", self.take);
        self.generation = generation;
        Step::Fence(generation)
    }

    /// A later life is known to the store or to the decider. Who starts goes above it; who restarts gives way.
    fn overtaken(&mut self, theirs: Generation) -> Step {
        match self.take {
            Take::Above(least) => {
                self.take = Take::Above(least.max(theirs));
                Step::TakeGeneration(self.take)
            }
            Take::After(own) => Step::Refuse(Refusal::Overtaken { ours: own.max(self.generation), theirs }),
        }
    }

    fn judge(&mut self, prepared: Vec<Prepared>, recorded: Epoch, newest: Generation) -> Step {
        self.recorded = recorded;
        let (pipeline, decision) = (self.pipeline.clone(), self.decision.clone());
        let verdict = verdict(&Found { pipeline, generation: self.generation, newest, prepared, decision, recorded });
        let step = match (&verdict, verdict.decided()) {
            (Verdict::Refuse(refusal), _) => Step::Refuse(refusal.clone()),
            (_, Some(decided)) if recorded < decided.epoch => Step::RollForward(decided.clone()),
            _ => self.discard_after(verdict.decided()),
        };
        self.verdict = Some(verdict);
        step
    }

    fn discard(&self) -> Step {
        self.discard_after(self.decided())
    }

    fn discard_after(&self, decided: Option<&Prepared>) -> Step {
        Step::Discard { after: decided.map_or(0, |decided| decided.epoch), before: self.generation }
    }

    fn go_on(&self) -> Step {
        match &self.verdict {
            Some(Verdict::Ended(decided)) => Step::Ended { epoch: decided.epoch },
            _ => Step::Restore(self.decided().cloned()),
        }
    }

    fn decided(&self) -> Option<&Prepared> {
        self.verdict.as_ref().and_then(Verdict::decided)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECIDED: Prepared = Prepared { epoch: 4, generation: 1, manifest: 40, last: false };

    fn decision() -> Answer {
        Answer::Decision(Some(Decision { pipeline: "p".into(), epoch: 4, generation: 1, manifest: 40 }))
    }

    /// The steps from the first on, given the answers.
    fn check(mut recovery: Recovery, line: Vec<(Step, Answer)>, last: &Step) {
        for (step, answer) in line {
            assert_eq!(recovery.step(), &step);
            recovery.answer(answer);
        }
        assert_eq!(recovery.step(), last);
    }

    #[test]
    fn a_start_goes_the_whole_line() {
        let line = vec![
            (Step::TakeGeneration(Take::Above(0)), Answer::Taken(2)),
            // The decider knows a later one: of a process on another copy of the store.
            (Step::Fence(2), Answer::Overtaken(6)),
            (Step::TakeGeneration(Take::Above(6)), Answer::Taken(7)),
            (Step::Fence(7), Answer::Done),
            (Step::ReadDecision, decision()),
            (Step::ReadStore, Answer::Store { prepared: vec![DECIDED, Prepared { epoch: 5, ..DECIDED }], recorded: 3, newest: 7 }),
            (Step::RollForward(DECIDED), Answer::Done),
            (Step::RecordCommit(4), Answer::Done),
            (Step::Discard { after: 4, before: 7 }, Answer::Done),
            (Step::Restore(Some(DECIDED)), Answer::Done),
        ];
        check(Recovery::start("p".into()), line, &Step::Start { generation: 7, epoch: 5 });
    }

    #[test]
    fn a_restart_gives_way_to_who_has_taken_over() {
        for overtaken_at_the_fence in [false, true] {
            let mut line = vec![(Step::TakeGeneration(Take::After(2)), Answer::Overtaken(4))];
            if overtaken_at_the_fence {
                line = vec![(Step::TakeGeneration(Take::After(2)), Answer::Taken(3)), (Step::Fence(3), Answer::Overtaken(4))];
            }
            let ours = 2 + Generation::from(overtaken_at_the_fence);
            check(Recovery::restart("p".into(), 2), line, &Step::Refuse(Refusal::Overtaken { ours, theirs: 4 }));
        }
    }

    #[test]
    fn what_has_ended_is_made_visible_and_not_run() {
        let last = Prepared { last: true, ..DECIDED };
        let line = vec![
            (Step::TakeGeneration(Take::Above(0)), Answer::Taken(2)),
            (Step::Fence(2), Answer::Done),
            (Step::ReadDecision, decision()),
            (Step::ReadStore, Answer::Store { prepared: vec![last.clone()], recorded: 3, newest: 2 }),
            (Step::RollForward(last), Answer::Done),
            (Step::RecordCommit(4), Answer::Done),
            (Step::Discard { after: 4, before: 2 }, Answer::Done),
        ];
        check(Recovery::start("p".into()), line, &Step::Ended { epoch: 4 });
    }

    #[test]
    #[should_panic(expected = "is no answer to Fence")]
    fn nothing_is_read_before_the_fence() {
        let mut recovery = Recovery::start("p".into());
        recovery.answer(Answer::Taken(1));
        recovery.answer(decision());
    }
}
