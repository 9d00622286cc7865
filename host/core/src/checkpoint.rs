//! The rules of checkpoints: what is done when, and what is made of what a dead process has left behind.
//!
//! - [`coordinator`]: the life of epochs while the pipeline runs.
//! - [`recovery`]: from a start, or from a failure, to the next epoch.
//! - [mod@verdict]: which epoch a pipeline goes on from.
//!
//! They are pure: events and answers come in, actions come out, and time is an argument. `host/runtime` carries the actions out; the
//! suite `simulation` does so with simulated storage, deciders, sinks, crashes and competing processes.
//!
//! What the world has to promise, and the simulation models:
//!
//! 1. **Generation**: creating one is conditional, so no two lives on one store have the same.
//! 2. **Store**: an object becomes visible whole or not at all, and is durable when the store has said so. Manifests are created only if
//!    absent. All that an epoch makes before its decision carries the generation in its name.
//! 3. **Decider**: after a fence no decision of a life before the fence can be made, and a decision that is read after the fence is
//!    the last there was. A decision and the decider's own output appear together or not at all. For a decider on a store that
//!    can do no more than create if absent, taking over and deciding have to compete for the same name.
//! 4. **Followers**: committing an epoch twice does no harm, however late the second time is.
//! 5. **Deleting**: a life deletes what is staged beyond the last decision only of *earlier* generations, for it may itself have been
//!    overtaken by the time it does so; and it collects only epochs before those that it has seen committed.
//!
//! Invariants, asserted by these rules and checked from outside by the simulation: no epoch is decided twice with different
//! manifests; output of an undecided epoch is never visible; a decided epoch is never lost.

pub mod coordinator;
pub mod recovery;
pub mod verdict;

pub use coordinator::{Action, Coordinator, Event, Failure, FollowerId, Life, Reason, RequestId, Settings, Stage, TaskId};
pub use recovery::{Answer, Recovery, Step, Take};
pub use verdict::{Found, Prepared, Refusal, Verdict, verdict};
