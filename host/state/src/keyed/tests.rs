use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at(micros: i64) -> Instant {
    Instant::from_micros_saturating(micros)
}

const WINDOW: Window = Window { start: Instant::from_micros_saturating(0), end: Instant::from_micros_saturating(1_000) };

fn cell(key: &[u8]) -> CellKey<'_> {
    CellKey { key, window: WINDOW }
}

fn states(kind: StateKind, expires_by: Option<Clock>, clocks: &[Clock]) -> KeyedStates {
    KeyedStates::new(vec![StateLayout { kind, expires_by }], clocks.to_vec(), Duration::from_micros(50))
}

#[test]
fn what_has_expired_is_not_read_and_then_dropped_with_its_cell() {
    let mut states = states(StateKind::Value, Some(Clock::Processing), &[]);
    let slot = states.entry(cell(b"a"));
    states.set_value(0, slot, Some((b"x", at(1_500_000))));
    states.at.now = at(1_499_999);
    assert_eq!(states.value(0, slot), Some((&b"x"[..], at(1_500_000))));
    states.at.now = at(1_500_000);
    assert_eq!(states.value(0, slot), None);
    states.sweep(Clock::Processing).expect("in memory");
    assert_eq!(states.len(), 1, "sweeps are a second apart");
    // Written again before the sweep comes: kept.
    states.set_value(0, slot, Some((b"y", at(9_000_000))));
    states.at.now = at(2_000_000);
    states.sweep(Clock::Processing).expect("in memory");
    assert_eq!(states.value(0, slot), Some((&b"y"[..], at(9_000_000))));
    states.at.now = at(9_000_000);
    states.sweep(Clock::Processing).expect("in memory");
    assert!(states.is_empty());
}

#[test]
fn timers_beyond_the_close_fire_at_it_and_those_of_processing_time_too() {
    let mut states = states(StateKind::Items, None, &[Clock::Event, Clock::Processing]);
    let slot = states.entry(cell(b"a"));
    states.set_timer(0, slot, Some((at(5_000), at(5_000))));
    states.set_timer(1, slot, Some((at(77), at(20))));
    assert_eq!(states.hold(), Some(at(20)));
    states.at.watermark = at(1_049);
    assert!(states.due(Clock::Event, 9).is_empty() && states.closing().is_empty());
    states.at.watermark = at(1_050);
    assert_eq!(states.due(Clock::Event, 9), [Due { slot, timer: 0, time: at(1_050), output: at(1_050) }]);
    assert_eq!(states.closing(), [slot]);
    assert_eq!(states.last_of(slot), Some(Due { slot, timer: 1, time: at(77), output: at(20) }));
    states.set_timer(1, slot, Some((at(99), at(20))));
    assert_eq!((states.last_of(slot), states.hold()), (None, None));
    states.drop(slot);
    assert!(states.is_empty());
}

/// Also in cells that were on disk when it was forgotten.
#[test]
fn a_forgotten_timer_neither_fires_nor_holds_nor_keeps_a_cell() {
    let folder = tempfile::tempdir().expect("a folder");
    let scratch = crate::Scratch::open(folder.path(), 4_000, 1).expect("a scratch");
    let mut states = states(StateKind::Value, None, &[Clock::Event, Clock::Processing]);
    states.cells_mut().evict_to(&scratch).expect("a tree");
    const CELLS: u16 = 400;
    for key in 0..CELLS {
        let slot = states.entry(cell(&key.to_be_bytes()));
        states.set_timer(0, slot, Some((at(10 + i64::from(key)), at(1))));
        if key % 2 == 0 {
            states.set_timer(1, slot, Some((at(20), at(7))));
        }
        states.make_room().expect("room");
    }
    let in_memory = states.cells_mut().slots().count();
    assert!(0 < in_memory && in_memory < usize::from(CELLS) / 2, "{in_memory} are in memory");
    states.forget_timer(0);
    assert_eq!(states.hold(), Some(at(7)));
    (states.at.watermark, states.at.now) = (at(1_000), at(1_000));
    let mut fired = [0, 0];
    for clock in Clock::ALL {
        loop {
            let due = states.due(clock, 10);
            fired[clock as usize] += due.len();
            due.iter().for_each(|due| states.drop_if_empty(due.slot));
            states.make_room().expect("room");
            if due.is_empty() {
                break;
            }
        }
    }
    assert_eq!((fired, states.hold(), states.len()), ([0, usize::from(CELLS) / 2], None, 0));
}

proptest! {
    /// Each round gives the earliest of each cell, and the hold is the earliest output time that is pending.
    #[test]
    fn rounds_fire_as_a_plain_map_does(
        steps in proptest::collection::vec((0u8..4, 0usize..3, proptest::option::of((0i64..30, 0i64..30))), 0..60), upto in 0i64..40,
    ) {
        let mut states = states(StateKind::Value, None, &[Clock::Event; 3]);
        let mut model: BTreeMap<(Slot, usize), (i64, i64)> = BTreeMap::new();
        for (key, timer, set) in steps {
            let slot = states.entry(cell(&[key]));
            states.set_timer(timer, slot, set.map(|(time, output)| (at(time), at(output))));
            model.remove(&(slot, timer));
            model.extend(set.map(|set| ((slot, timer), set)));
            prop_assert_eq!(states.hold(), model.values().map(|(_, output)| at(*output)).min());
        }
        states.at.watermark = at(upto);
        loop {
            let round = states.due(Clock::Event, 1_000);
            let mut want: BTreeMap<Slot, (i64, usize, i64)> = BTreeMap::new();
            for ((slot, timer), (time, output)) in model.iter().filter(|(_, (time, _))| *time <= upto) {
                let first = want.entry(*slot).or_insert((*time, *timer, *output));
                *first = (*first).min((*time, *timer, *output));
            }
            let mut got: Vec<_> = round.iter().map(|due| (due.slot, (due.time.micros(), due.timer, due.output.micros()))).collect();
            got.sort();
            prop_assert_eq!(&got, &want.into_iter().collect::<Vec<_>>());
            if got.is_empty() {
                break;
            }
            model.retain(|(slot, timer), _| !got.iter().any(|(of, (_, fired, _))| (of, fired) == (slot, timer)));
            prop_assert_eq!(states.hold(), model.values().map(|(_, output)| at(*output)).min());
        }
    }
}
