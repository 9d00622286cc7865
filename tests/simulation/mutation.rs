//! Faults that are built into the driver or the world on purpose: the simulation has to find each, or it proves nothing.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// An epoch is decided before its manifest is durable.
    DecideBeforeDurable,
    /// A manifest is written before it is durable: its content is not synced.
    ContentNotSynced,
    /// As above: its entry in the folder is not synced.
    EntryNotSynced,
    /// The decider is not fenced (of Kafka's two slots, one is forgotten).
    SkipFence,
    /// The decision and the store are read before the fence.
    ReadBeforeFence,
    /// The decider takes any generation, also one below that of an earlier fence.
    FenceOutOfOrder,
    /// Epoch N + 1 is persisted while N is still being decided.
    ManifestBeforeDecision,
    /// After an indefinite error the commit is sent again, and the producer is kept.
    ReuseProducer,
    /// An indefinite error is taken for success.
    UnknownIsDecided,
    /// An indefinite error is taken for an abort: the epoch is made anew without asking what was decided.
    UnknownIsUndecided,
    /// Followers commit when an epoch is prepared.
    CommitBeforeDecision,
    /// Followers do not look whether they have the epoch already.
    CommitTwice,
    /// Followers are not rolled forward by recovery.
    SkipRollForward,
    /// Recovery deletes what is staged beyond the last decision, of whichever generation.
    DiscardAnyGeneration,
    /// Garbage is collected up to and including the last epoch.
    CollectTooMuch,
    /// The next epoch is sent into the other slot before the last one's is acknowledged.
    SealBeforeAcknowledged,
    /// Operators do not align barriers.
    SkipAlignment,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 17] = [
        Mutation::DecideBeforeDurable,
        Mutation::ContentNotSynced,
        Mutation::EntryNotSynced,
        Mutation::SkipFence,
        Mutation::ReadBeforeFence,
        Mutation::FenceOutOfOrder,
        Mutation::ManifestBeforeDecision,
        Mutation::ReuseProducer,
        Mutation::UnknownIsDecided,
        Mutation::UnknownIsUndecided,
        Mutation::CommitBeforeDecision,
        Mutation::CommitTwice,
        Mutation::SkipRollForward,
        Mutation::DiscardAnyGeneration,
        Mutation::CollectTooMuch,
        Mutation::SealBeforeAcknowledged,
        Mutation::SkipAlignment,
    ];
}
