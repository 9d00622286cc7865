//! Models of those who decide, with all that makes them dangerous. The third one, the checkpoint store, is [`crate::store::Store::log`].

use crate::plan::Output;
use pelton_core::{Decision, Generation};

/// What stands in the progress topic, in the transaction of the data.
#[derive(Clone, Debug)]
pub enum Marker {
    /// A generation has taken over.
    Owner(Generation),
    Decision(Decision),
}

/// How a request to a decider went.
#[derive(Clone, Debug)]
pub enum Outcome {
    Done,
    Fenced,
    /// A generation that is not before the one that asks.
    Overtaken(Generation),
}

/// Transactions as brokers and clients have them without KIP-890: a request to end one says whose it is, not which.
#[derive(Debug, Default)]
pub struct Kafka {
    slots: [Slot; 2],
    transactions: Vec<Transaction>,
    /// By topic: of which transaction, and what.
    topics: Vec<Vec<(usize, Output)>>,
    owner: Generation,
    decision: Option<Decision>,
}

#[derive(Debug, Default)]
struct Slot {
    producer_epoch: u32,
    open: Option<usize>,
    /// A transaction of this producer epoch has been committed: a repeated request succeeds.
    committed: bool,
}

#[derive(Debug, Default)]
struct Transaction {
    committed: bool,
    markers: Vec<Marker>,
}

impl Kafka {
    pub fn new(topics: usize) -> Kafka {
        Kafka { topics: vec![Vec::new(); topics], ..Kafka::default() }
    }

    /// `init_transactions`: aborts what is open, and every earlier producer of the slot is fenced.
    pub fn init(&mut self, slot: usize) -> u32 {
        let slot = &mut self.slots[slot];
        *slot = Slot { producer_epoch: slot.producer_epoch + 1, open: None, committed: false };
        slot.producer_epoch
    }

    /// The transaction has been open for too long.
    pub fn time_out(&mut self, slot: usize) -> bool {
        let open = self.slots[slot].open.is_some();
        if open {
            self.init(slot);
        }
        open
    }

    pub fn is_current(&self, slot: usize, producer_epoch: u32) -> bool {
        self.slots[slot].producer_epoch == producer_epoch
    }

    /// Appends to the open transaction, or opens one. False: fenced.
    pub fn produce(&mut self, slot: usize, producer_epoch: u32, rows: &[Output], marker: Option<Marker>) -> bool {
        if !self.is_current(slot, producer_epoch) {
            return false;
        }
        let slot = &mut self.slots[slot];
        let open = *slot.open.get_or_insert(self.transactions.len());
        if open == self.transactions.len() {
            self.transactions.push(Transaction::default());
        }
        self.transactions[open].markers.extend(marker);
        self.topics.iter_mut().for_each(|topic| topic.extend(rows.iter().map(|row| (open, *row))));
        true
    }

    /// Commits whatever transaction is open. Gives the decision in it.
    pub fn commit(&mut self, slot: usize, producer_epoch: u32) -> (Outcome, Option<Decision>) {
        if !self.is_current(slot, producer_epoch) {
            return (Outcome::Fenced, None);
        }
        let slot = &mut self.slots[slot];
        let Some(open) = slot.open.take() else {
            return (if slot.committed { Outcome::Done } else { Outcome::Fenced }, None);
        };
        slot.committed = true;
        self.transactions[open].committed = true;
        let mut decided = None;
        for marker in std::mem::take(&mut self.transactions[open].markers) {
            match marker {
                Marker::Owner(generation) => self.owner = generation,
                Marker::Decision(decision) => {
                    self.decision = Some(decision.clone());
                    decided = Some(decision);
                }
            }
        }
        (Outcome::Done, decided)
    }

    /// The newest committed owner and decision.
    pub fn progress(&self) -> (Generation, Option<Decision>) {
        (self.owner, self.decision.clone())
    }

    /// What was committed, in the order of the topic.
    pub fn committed(&self, topic: usize) -> Vec<Output> {
        self.topics[topic].iter().filter(|(transaction, _)| self.transactions[*transaction].committed).map(|(_, row)| *row).collect()
    }

    /// How much of that a reader with `read_committed` has got: up to the first row of an open transaction.
    pub fn readable(&self, topic: usize) -> usize {
        let is_open = |transaction: usize| self.slots.iter().any(|slot| slot.open == Some(transaction));
        let stable = self.topics[topic].iter().take_while(|(transaction, _)| !is_open(*transaction));
        stable.filter(|(transaction, _)| self.transactions[*transaction].committed).count()
    }
}

/// Tables, and a row that says who owns them and how far they are. Each request is one transaction.
#[derive(Debug, Default)]
pub struct Postgres {
    pub generation: Generation,
    pub decision: Option<Decision>,
    pub rows: Vec<Output>,
}

impl Postgres {
    /// Takes over, unless by the same or a later generation.
    pub fn fence(&mut self, generation: Generation, any: bool) -> Outcome {
        if self.generation >= generation && !any {
            return Outcome::Overtaken(self.generation);
        }
        self.generation = generation;
        Outcome::Done
    }

    /// Rows and decision, if the generation still owns them.
    pub fn decide(&mut self, decision: &Decision, rows: &[Output], any: bool) -> Outcome {
        if decision.generation != self.generation && !any {
            return Outcome::Fenced;
        }
        self.decision = Some(decision.clone());
        self.rows.extend_from_slice(rows);
        Outcome::Done
    }
}
