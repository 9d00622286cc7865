//! What must never happen, looked at whenever something has become visible, was decided or deleted. A broken invariant is a panic.

use crate::plan::{DeciderKind, FollowerKind, Output, id_of_row, id_of_total, said};
use crate::process::{Process, State};
use crate::running::Slot;
use crate::store::{Content, Manifest, Name};
use crate::world::World;
use pelton_core::{Decision, Epoch};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What was decided so far, and what sinks have to show for it.
#[derive(Debug, Default)]
pub struct Checks {
    decided: Option<Rc<Manifest>>,
    /// Output up to the epoch decided last, and up to the one before.
    expected: Vec<Output>,
    before: Vec<Output>,
}

/// How output differs from what it has to be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    lost: usize,
    duplicated: usize,
    wrong: usize,
}

impl Checks {
    /// The last decided epoch.
    pub fn decided(&self) -> Epoch {
        self.decided.as_ref().map_or(0, |decided| decided.epoch)
    }
}

impl World {
    /// A decision counts from now on.
    pub fn decided(&mut self, decision: &Decision) {
        let manifest = self.manifests.get(&decision.manifest).expect("somebody made it").clone();
        let (epoch, last) = (self.checks.decided(), self.checks.decided.as_ref().map_or(0, |decided| decided.hash));
        assert!(decision.epoch != epoch || manifest.hash == last, "epoch {epoch} is decided twice, with different manifests");
        if decision.epoch == epoch {
            return;
        }
        assert_eq!(decision.epoch, epoch + 1, "epochs are decided one by one");
        assert_eq!(manifest.parent, last, "decided epoch {epoch} is lost: epoch {} goes on from another", decision.epoch);
        let names = || manifest.segments.iter().copied().chain([Name::Manifest(manifest.epoch, manifest.generation)]);
        let durable = self.stores.iter().any(|store| names().all(|name| store.durable(name)));
        assert!(durable, "epoch {} is decided, and it is not durable", decision.epoch);
        let mut expected = self.plan.expected(&manifest.positions, &manifest.ended);
        expected.sort_unstable();
        self.checks.before = std::mem::replace(&mut self.checks.expected, expected);
        self.checks.decided = Some(manifest);
        self.check_kept();
    }

    /// Every sink of the decider shows the decided epochs; a follower those, or all but the last.
    pub fn check_visible(&self) {
        let Checks { decided, expected, before } = &self.checks;
        let epoch = self.checks.decided();
        for sink in 0..self.plan.own_sinks {
            let visible = self.visible_at_decider(sink);
            assert!(self.in_order(&visible), "sink {sink} shows rows of a source and key in another order");
            assert_eq!(compare(visible, expected), Difference::default(), "sink {sink} after the decision of epoch {epoch}");
        }
        for follower in 0..self.plan.followers.len() {
            let visible = self.visible_at_follower(follower);
            let behind = decided.is_some() && compare(visible.clone(), before) == Difference::default();
            let difference = compare(visible, expected);
            assert!(
                behind || difference == Difference::default(),
                "follower {follower} after the decision of epoch {epoch}: {difference:?}"
            );
        }
    }

    /// The decided epoch can be restored from some store, and what was staged for it is there.
    pub fn check_kept(&self) {
        let Some(decided) = &self.checks.decided else { return };
        let kept = self.stores.iter().any(|store| store.prepared().any(|manifest| manifest.hash == decided.hash));
        assert!(kept, "decided epoch {} is lost", decided.epoch);
        for (follower, kind) in self.plan.followers.iter().enumerate() {
            let (staged, last) = (Name::Staged(follower, decided.epoch, decided.generation), Name::Final(follower, decided.epoch));
            let kept = *kind == FollowerKind::Table || [staged, last].iter().any(|name| self.folder.read(*name).is_some());
            assert!(kept, "what follower {follower} staged for decided epoch {} is lost", decided.epoch);
        }
    }

    /// What could decide now: at most one process.
    pub fn check_owners(&self) {
        let able = |process: &&Process| {
            let State::Running(running) = &process.state else { return false };
            let (slot, at, log, generation) = running.means();
            match self.plan.decider {
                DeciderKind::Kafka => matches!(slot, Slot::Ready(producer_epoch) if self.kafka.is_current(at, producer_epoch)),
                DeciderKind::Postgres => self.postgres.generation == generation,
                DeciderKind::Store => self.stores[process.store].log().0 == log,
            }
        };
        let owners = self.processes.iter().filter(able).count();
        assert!(owners <= 1, "{owners} processes can make output visible");
    }

    /// All is done: every sink shows everything, and what was forked from savepoints would come to the same.
    pub fn check_end(&self, savepoints: &[Rc<Manifest>]) {
        let mut everything = self.plan.everything();
        everything.sort_unstable();
        let decided = self.checks.decided.as_ref().expect("the last epoch is decided");
        assert!(decided.last, "the last epoch is the last");
        for sink in 0..self.plan.own_sinks {
            let visible = self.visible_at_decider(sink);
            if self.plan.decider == DeciderKind::Kafka {
                assert_eq!(self.kafka.readable(sink), visible.len(), "a transaction hangs before the end of sink {sink}");
            }
            assert_eq!(compare(visible, &everything), Difference::default(), "sink {sink} at the end");
        }
        for follower in 0..self.plan.followers.len() {
            assert_eq!(compare(self.visible_at_follower(follower), &everything), Difference::default(), "follower {follower} at the end");
        }
        savepoints.iter().for_each(|savepoint| self.check_fork(savepoint, &everything));
    }

    /// A pipeline that begins with a savepoint gives what the one from the beginning gives after it.
    fn check_fork(&self, savepoint: &Manifest, everything: &[Output]) {
        let mut state = savepoint.state.clone();
        let mut outputs = self.plan.expected(&savepoint.positions, &savepoint.ended);
        for (source, rows) in self.plan.sources.iter().enumerate() {
            for (position, row) in rows.iter().enumerate().skip(savepoint.positions[source]) {
                let cell = state.entry((source as u8, row.key)).or_default();
                *cell = (cell.0 + 1, cell.1 + u64::from(row.value));
                outputs.push(Output { id: id_of_row(source as u8, position), value: said(source as u8, row.key, cell.0, cell.1) });
            }
        }
        for key in (0..self.plan.keys).filter(|key| !savepoint.ended[self.plan.operator_of(*key)]) {
            let cells: Vec<_> = state.iter().filter(|((_, of), _)| *of == key).map(|(_, cell)| *cell).collect();
            let (count, sum) = (cells.iter().map(|cell| cell.0).sum(), cells.iter().map(|cell| cell.1).sum());
            outputs.extend((count > 0).then(|| Output { id: id_of_total(key), value: said(255, key, count, sum) }));
        }
        assert_eq!(compare(outputs, everything), Difference::default(), "a fork from the savepoint of epoch {}", savepoint.epoch);
    }

    /// Whether rows of one source and one key come in their order.
    fn in_order(&self, visible: &[Output]) -> bool {
        let mut last: BTreeMap<(usize, u8), u32> = BTreeMap::new();
        visible.iter().filter(|output| output.id < id_of_total(0)).all(|output| {
            let (source, position) = (output.id as usize >> 16, output.id as usize & 0xffff);
            let key = self.plan.sources[source][position].key;
            last.insert((source, key), output.id).is_none_or(|before| before < output.id)
        })
    }

    fn visible_at_decider(&self, sink: usize) -> Vec<Output> {
        match self.plan.decider {
            DeciderKind::Kafka => self.kafka.committed(sink),
            _ => self.postgres.rows.clone(),
        }
    }

    fn visible_at_follower(&self, follower: usize) -> Vec<Output> {
        if self.plan.followers[follower] == FollowerKind::Table {
            return self.tables[follower].rows.clone();
        }
        let of_follower = |name: &Name| matches!(name, Name::Final(of, _) if *of == follower);
        let rows = self.folder.names().filter(of_follower).filter_map(|name| match self.folder.read(name) {
            Some(Content::Rows(rows)) => Some(rows.clone()),
            _ => None,
        });
        rows.flat_map(|rows| rows.to_vec()).collect()
    }
}

/// Compares output with what is expected, which is in order.
fn compare(mut visible: Vec<Output>, expected: &[Output]) -> Difference {
    visible.sort_unstable();
    if visible == expected {
        return Difference::default();
    }
    let ids = |rows: &[Output]| rows.iter().map(|row| (row.id, row.value)).collect::<BTreeMap<_, _>>();
    let (seen, wanted) = (ids(&visible), ids(expected));
    Difference {
        lost: wanted.keys().filter(|id| !seen.contains_key(id)).count(),
        duplicated: visible.windows(2).filter(|pair| pair[0].id == pair[1].id).count(),
        wrong: seen.iter().filter(|(id, value)| wanted.get(id) != Some(value)).count(),
    }
}
