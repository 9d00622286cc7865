use super::*;

const INTERVAL: Duration = Duration::from_secs(1);

/// A coordinator at time 0, of as many tasks, with one follower.
fn coordinator(tasks: usize) -> Coordinator {
    let settings = Settings { interval: INTERVAL, slow_after: 10 * INTERVAL, retained: 2 };
    Coordinator::new(Life { pipeline: "p".into(), generation: 3 }, settings, tasks, 1, 0, Duration::ZERO)
}

/// The actions after each event, at one time.
fn check(coordinator: &mut Coordinator, seconds: u64, events: &[(Event, &[Action])]) {
    for (event, expected) in events {
        assert_eq!(coordinator.on(Duration::from_secs(seconds), event.clone()), *expected, "after {event:?}");
    }
}

fn decide(epoch: Epoch, manifest: u64) -> Action {
    Action::Decide(Decision { pipeline: "p".into(), epoch, generation: 3, manifest })
}

/// From all sealed to complete.
fn complete(coordinator: &mut Coordinator, seconds: u64, epoch: Epoch, after: &[Action]) {
    check(
        coordinator,
        seconds,
        &[
            (Event::Persisted { epoch, manifest: 10 * epoch }, &[decide(epoch, 10 * epoch)]),
            (Event::Decided { epoch }, &[Action::Commit { follower: 0, epoch }]),
            (Event::Committed { follower: 0, epoch }, &[Action::RecordCommit { epoch }]),
            (Event::Recorded { epoch }, after),
        ],
    );
}

#[test]
fn an_epoch_goes_from_barrier_to_commit_in_order() {
    let mut one = coordinator(2);
    check(&mut one, 5, &[(Event::Tick, &[]), (Event::Moved, &[Action::InjectBarrier { epoch: 1, requests: vec![] }])]);
    check(
        &mut one,
        5,
        &[
            (Event::Moved, &[]),
            (Event::Sealed { task: 0, epoch: 1 }, &[]),
            (Event::Sealed { task: 1, epoch: 1 }, &[Action::Persist { epoch: 1, last: false }]),
        ],
    );
    complete(&mut one, 5, 1, &[]);
    check(&mut one, 5, &[(Event::Tick, &[])]);
    assert_eq!(one.next_tick(), Some(Duration::from_secs(6)));
    check(&mut one, 6, &[(Event::Tick, &[Action::InjectBarrier { epoch: 2, requests: vec![] }])]);
}

#[test]
fn no_barrier_while_the_epoch_before_is_undecided() {
    let mut one = coordinator(1);
    check(&mut one, 1, &[(Event::Moved, &[Action::InjectBarrier { epoch: 1, requests: vec![] }])]);
    let persist: &[Action] = &[Action::Persist { epoch: 1, last: false }];
    check(&mut one, 1, &[(Event::Sealed { task: 0, epoch: 1 }, persist), (Event::Moved, &[])]);
    check(&mut one, 9, &[(Event::Tick, &[]), (Event::Request(7), &[])]);
    check(&mut one, 9, &[(Event::Persisted { epoch: 1, manifest: 8 }, &[decide(1, 8)])]);
    let next = Action::InjectBarrier { epoch: 2, requests: vec![7] };
    check(&mut one, 9, &[(Event::Decided { epoch: 1 }, &[Action::Commit { follower: 0, epoch: 1 }, next])]);
    // Sealed, but epoch 1 is not complete.
    check(&mut one, 9, &[(Event::Sealed { task: 0, epoch: 2 }, &[])]);
    check(&mut one, 9, &[(Event::Committed { follower: 0, epoch: 1 }, &[Action::RecordCommit { epoch: 1 }])]);
    check(&mut one, 9, &[(Event::Recorded { epoch: 1 }, &[Action::Persist { epoch: 2, last: false }])]);
    complete(&mut one, 9, 2, &[Action::Complete { epoch: 2, requests: vec![7] }]);
}

#[test]
fn a_slow_barrier_is_reported_and_waited_for() {
    let mut one = coordinator(2);
    check(&mut one, 1, &[(Event::Moved, &[Action::InjectBarrier { epoch: 1, requests: vec![] }])]);
    check(&mut one, 2, &[(Event::Sealed { task: 0, epoch: 1 }, &[])]);
    assert_eq!(one.next_tick(), Some(Duration::from_secs(11)));
    let slow = Action::Slow { epoch: 1, waiting_for: vec![1] };
    check(&mut one, 11, &[(Event::Tick, std::slice::from_ref(&slow)), (Event::Tick, &[])]);
    check(&mut one, 21, &[(Event::Tick, &[slow])]);
    check(&mut one, 22, &[(Event::Sealed { task: 1, epoch: 1 }, &[Action::Persist { epoch: 1, last: false }])]);
}

#[test]
fn nothing_is_begun_when_nothing_moves_unless_asked() {
    let mut one = coordinator(1);
    check(&mut one, 100, &[(Event::Tick, &[])]);
    assert_eq!(one.next_tick(), None);
    check(&mut one, 100, &[(Event::Request(1), &[Action::InjectBarrier { epoch: 1, requests: vec![1] }])]);
}

#[test]
fn who_can_wait_rides_on_the_next_barrier() {
    let with = |interval, event: Event, at| {
        let settings = Settings { interval: Duration::from_millis(interval), ..coordinator(1).settings };
        let mut one = Coordinator::new(coordinator(1).life, settings, 1, 1, 0, Duration::ZERO);
        let before = (one.on(Duration::from_millis(50), event), one.next_tick());
        assert_eq!(before, (vec![], Some(Duration::from_millis(at))));
        assert_eq!(one.on(Duration::from_millis(at - 1), Event::Tick), []);
        let next = Action::InjectBarrier { epoch: 1, requests: vec![7] };
        assert_eq!(one.on(Duration::from_millis(at), Event::Tick), [next]);
    };
    with(200, Event::Join(7), 200);
    // Where barriers are far apart, it is not waited for the next one.
    with(60_000, Event::Join(7), 1_000);
    // Those who cannot wait take the others with them.
    let mut one = coordinator(1);
    let both = Action::InjectBarrier { epoch: 1, requests: vec![7, 8] };
    check(&mut one, 0, &[(Event::Join(7), &[]), (Event::Request(8), &[both])]);
}

#[test]
fn the_end_is_an_epoch_without_a_barrier() {
    let mut one = coordinator(2);
    check(
        &mut one,
        0,
        &[(Event::TaskEnded { task: 0, epoch: 1 }, &[]), (Event::Request(4), &[Action::InjectBarrier { epoch: 1, requests: vec![4] }])],
    );
    // Task 1 ends after the barrier: one epoch more.
    check(&mut one, 0, &[(Event::Sealed { task: 1, epoch: 1 }, &[Action::Persist { epoch: 1, last: false }])]);
    check(&mut one, 0, &[(Event::TaskEnded { task: 1, epoch: 2 }, &[])]);
    complete(&mut one, 0, 1, &[Action::Complete { epoch: 1, requests: vec![4] }, Action::Persist { epoch: 2, last: true }]);
    complete(&mut one, 0, 2, &[Action::Finished { epoch: 2 }]);
    check(&mut one, 9, &[(Event::Moved, &[])]);
}

#[test]
fn a_barrier_that_all_tasks_end_before_is_that_of_the_last_epoch() {
    let mut one = coordinator(2);
    check(&mut one, 1, &[(Event::Moved, &[Action::InjectBarrier { epoch: 1, requests: vec![] }])]);
    let persist: &[Action] = &[Action::Persist { epoch: 1, last: true }];
    check(&mut one, 1, &[(Event::TaskEnded { task: 0, epoch: 1 }, &[]), (Event::TaskEnded { task: 1, epoch: 1 }, persist)]);
    complete(&mut one, 1, 1, &[Action::Finished { epoch: 1 }]);
}

#[test]
fn every_failure_goes_back_to_recovery_and_a_fence_ends() {
    let epoch = 1;
    let cases = [
        (vec![], Event::PersistFailed { epoch }, Action::Recover(Reason::NotPersisted { epoch })),
        (vec![], Event::Overtaken, Action::Stop(Reason::Fenced { epoch })),
        (
            vec![Event::Persisted { epoch, manifest: 1 }],
            Event::DecideFailed { epoch, failure: Failure::Fenced },
            Action::Stop(Reason::Fenced { epoch }),
        ),
        (
            vec![Event::Persisted { epoch, manifest: 1 }],
            Event::DecideFailed { epoch, failure: Failure::Indefinite },
            Action::Recover(Reason::Indefinite { epoch }),
        ),
        (
            vec![Event::Persisted { epoch, manifest: 1 }, Event::Decided { epoch }],
            Event::CommitFailed { follower: 0, epoch },
            Action::Recover(Reason::NotCommitted { follower: 0, epoch }),
        ),
    ];
    for (before, event, expected) in cases {
        let mut one = coordinator(1);
        let mut events = vec![Event::TaskEnded { task: 0, epoch }];
        events.extend(before);
        for event in events {
            one.on(Duration::ZERO, event);
        }
        check(&mut one, 0, &[(event, &[expected]), (Event::Tick, &[])]);
    }
}

#[test]
#[should_panic(expected = "seals its epochs in order")]
fn a_task_cannot_skip_an_epoch() {
    coordinator(1).on(Duration::ZERO, Event::TaskEnded { task: 0, epoch: 2 });
}
