//! What requests do when they arrive. Of one that is not done at once, a stage at a time.

use crate::deciders::Outcome;
use crate::mutation::Mutation;
use crate::plan::{FollowerKind, Plan, StoreKind};
use crate::process::{Call, Deletion, Listing, Op, Place, Reply};
use crate::store::{Content, Manifest, Name, State};
use crate::world::World;
use std::rc::Rc;

impl World {
    /// One stage of a request. No reply: there are more.
    pub fn serve(&mut self, call: &Call) -> Option<Reply> {
        let store = self.processes[call.process].store;
        let out_of_order = self.plan.is(Mutation::FenceOutOfOrder);
        Some(match &call.op {
            Op::List => {
                let store = &self.stores[store];
                let prepared = store.prepared().cloned().collect();
                let listing = Listing { generation: store.generation(), prepared, recorded: store.recorded(), log: store.log() };
                Reply::Listing(Rc::new(listing))
            }
            Op::Create(place, name, content) => return self.create(call, store, *place, *name, content),
            Op::Delete(place, deletion) => {
                self.delete(*place, store, *deletion);
                Reply::Done
            }
            Op::Load(manifest) => self.load(store, manifest),
            Op::Init(slot) => {
                let producer_epoch = self.kafka.init(*slot);
                Reply::ProducerEpoch(producer_epoch)
            }
            Op::Produce { slot, producer_epoch, rows, marker } => {
                let produced = self.kafka.produce(*slot, *producer_epoch, rows, marker.clone());
                if produced { Reply::Done } else { Reply::Fenced }
            }
            Op::EndTransaction { slot, producer_epoch } => {
                let (outcome, decision) = self.kafka.commit(*slot, *producer_epoch);
                if let Some(decision) = decision {
                    self.decided(&decision);
                }
                self.check_visible();
                reply_of(outcome)
            }
            Op::ReadProgress => {
                let (owner, decision) = self.kafka.progress();
                Reply::Progress(owner, decision)
            }
            Op::PostgresFence(generation) if self.plan.is(Mutation::SkipFence) => Reply::Progress(*generation, None),
            Op::PostgresFence(generation) => reply_of(self.postgres.fence(*generation, out_of_order)),
            Op::PostgresRead => Reply::Progress(self.postgres.generation, self.postgres.decision.clone()),
            Op::PostgresDecide(decision, rows) => {
                let outcome = self.postgres.decide(decision, rows, self.plan.is(Mutation::SkipFence));
                if matches!(outcome, Outcome::Done) {
                    self.decided(decision);
                    self.check_visible();
                }
                reply_of(outcome)
            }
            Op::Commit { follower, manifest } => return self.commit(call, *follower, manifest),
        })
    }

    fn create(&mut self, call: &Call, store: usize, place: Place, name: Name, content: &Content) -> Option<Reply> {
        let target = if place == Place::Store { &mut self.stores[store] } else { &mut self.folder };
        let content_synced = !self.plan.is(Mutation::ContentNotSynced) || matches!(content, Content::Decision(_));
        match call.stage {
            0 => {
                if !target.create(name, content.clone(), content_synced) {
                    return Some(Reply::Exists);
                }
                if target.kind == StoreKind::Folder {
                    let skip =
                        self.plan.is(Mutation::EntryNotSynced) && matches!(name, Name::Manifest(..) | Name::Segment(..) | Name::Staged(..));
                    return skip.then_some(Reply::Done);
                }
                if let Content::Decision(decision) = content {
                    self.decided(decision);
                }
            }
            _ => {
                let decisions = target.sync();
                decisions.iter().for_each(|decision| self.decided(decision));
            }
        }
        if matches!(name, Name::Log(_)) {
            self.check_visible();
        }
        Some(Reply::Done)
    }

    fn delete(&mut self, place: Place, store: usize, deletion: Deletion) {
        let target = if place == Place::Store { &mut self.stores[store] } else { &mut self.folder };
        match deletion {
            Deletion::Undecided { after, before } => target.delete(|_, name| match name {
                Name::Segment(epoch, generation) | Name::Manifest(epoch, generation) | Name::Staged(_, epoch, generation) => {
                    epoch > after && generation < before
                }
                _ => false,
            }),
            Deletion::Before(keep_from) => {
                let needed: Vec<Name> = target
                    .manifests()
                    .filter(|manifest| manifest.epoch >= keep_from)
                    .flat_map(|manifest| manifest.segments.iter().copied())
                    .collect();
                target.delete(|_, name| match name {
                    Name::Segment(epoch, _) => epoch < keep_from && !needed.contains(&name),
                    Name::Manifest(epoch, _) | Name::Staged(_, epoch, _) | Name::Record(epoch) => epoch < keep_from,
                    _ => false,
                });
            }
        }
        self.check_kept();
    }

    /// Of a manifest that a later process has collected, segments are missing.
    fn load(&self, store: usize, manifest: &Manifest) -> Reply {
        let mut sum = State::new();
        for name in &manifest.segments {
            let Some(Content::Segment(state)) = self.stores[store].read(*name) else { return Reply::Lost };
            sum.extend(state.iter().map(|(at, cell)| (*at, *cell)));
        }
        Reply::Loaded(Rc::new(sum))
    }

    fn commit(&mut self, call: &Call, follower: usize, manifest: &Manifest) -> Option<Reply> {
        match self.plan.followers[follower] {
            FollowerKind::Table => {
                let table = &mut self.tables[follower];
                if table.epoch < manifest.epoch || self.plan.is(Mutation::CommitTwice) {
                    table.epoch = manifest.epoch;
                    table.rows.extend_from_slice(&manifest.outputs);
                }
            }
            FollowerKind::Files if call.stage == 0 => {
                let staged = Name::Staged(follower, manifest.epoch, manifest.generation);
                let there = self.folder.rename(staged, Name::Final(follower, manifest.epoch));
                assert!(there, "what follower {follower} staged for epoch {} is lost", manifest.epoch);
                self.check_visible();
                return None;
            }
            FollowerKind::Files => drop(self.folder.sync()),
        }
        self.check_visible();
        Some(Reply::Done)
    }
}

fn reply_of(outcome: Outcome) -> Reply {
    match outcome {
        Outcome::Done => Reply::Done,
        Outcome::Fenced => Reply::Fenced,
        Outcome::Overtaken(generation) => Reply::Overtaken(generation),
    }
}

/// Whether a request leaves the machine.
pub fn is_remote(plan: &Plan, op: &Op) -> bool {
    match op {
        Op::Create(Place::Folder, ..) | Op::Delete(Place::Folder, _) => false,
        Op::List | Op::Create(..) | Op::Delete(..) | Op::Load(_) => plan.store == StoreKind::Objects,
        Op::Commit { follower, .. } => plan.followers[*follower] == FollowerKind::Table,
        _ => true,
    }
}

/// The slot of Kafka's that a request goes to.
pub fn slot_of(op: &Op) -> Option<usize> {
    match op {
        Op::Init(slot) | Op::Produce { slot, .. } | Op::EndTransaction { slot, .. } => Some(*slot),
        _ => None,
    }
}

/// For the trace.
pub fn shown(call: &Call) -> String {
    let what = match &call.op {
        Op::Create(place, name, _) => format!("create {name:?} in {place:?}"),
        Op::Load(manifest) => format!("load epoch {} of generation {}", manifest.epoch, manifest.generation),
        Op::Commit { follower, manifest } => format!("follower {follower} commits epoch {}", manifest.epoch),
        Op::PostgresDecide(decision, _) => format!("decide {decision:?}"),
        op => format!("{op:?}"),
    };
    format!("process {}{}: {what}", call.process, if call.detached { ", late" } else { "" })
}
