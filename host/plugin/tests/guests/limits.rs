//! Limits that are told of by figures, and the breaker. Those that only end a call are in [`crate::poison`] and in the hostile suite.

use crate::*;
use pelton_plugin::{BreakerLimits, BreakerPolicy, Instance, PluginFigures};
use std::time::{Duration, Instant};

fn figures(transform: &str, input: &Batch, calls: usize, limits: &Limits) -> PluginFigures {
    let binding = bind(transform, input, limits).unwrap();
    let mut instance = binding.open().unwrap();
    (0..calls).for_each(|_| drop(block_on(instance.process(input)).unwrap()));
    binding.meters.figures().unwrap()
}

#[test]
fn a_call_that_is_not_back_in_time_is_stopped_whatever_it_computes() {
    let limits = Limits { call_deadline: Duration::from_secs(60), wall_deadline: Duration::from_millis(400), ..Limits::default() };
    let processed = process_with("poison-loop", &batch([1, -2, 3]), &limits).unwrap();
    assert_eq!(processed.errors.len(), 1);
    assert!(processed.errors[0].message.contains("not back within 400ms"), "{}", processed.errors[0].message);
    assert_eq!(numbers(&processed, 0, "number"), [1, 3]);
}

#[test]
fn a_guest_that_has_spent_its_part_of_a_second_waits() {
    let limits = Limits {
        call_deadline: Duration::from_secs(60),
        wall_deadline: Duration::from_millis(800),
        cpu_per_second: Duration::from_millis(50),
        ..Limits::default()
    };
    let mut calls = 1;
    loop {
        let begun = Instant::now();
        let figures = figures("busy", &batch([1]), calls, &limits);
        assert_eq!((figures.calls, figures.breaches.len()), (calls as u64, 0), "a wait counts for no deadline");
        if figures.throttled_seconds > 0.1 {
            assert!(begun.elapsed().as_secs_f64() > figures.throttled_seconds / 2.0);
            break;
        }
        // A fast machine does the work in fewer ticks.
        calls *= 2;
    }
}

#[test]
fn answers_have_settings_of_their_own() {
    let limits = Limits { host_call_bytes: Some(1 << 18), ..Limits::default() };
    let refused = process_with("large-result", &batch(0..2), &limits).unwrap();
    assert!(refused.errors.iter().all(|error| error.message.contains("262144 bytes (limits.host_call_bytes)")), "{:?}", refused.errors);
    // Sixteen million bytes of origins ask for four million copies of a row.
    let limits = Limits { call_deadline: Duration::from_secs(10), batch_time: Duration::from_secs(60), ..Limits::default() };
    let refused = process_with("poison-copies", &batch([4, -5, 6]), &limits).unwrap();
    assert_eq!((refused.errors.len(), numbers(&refused, 0, "number")), (1, vec![4, 6]));
    assert!(refused.errors[0].message.contains("limits.output_bytes"), "{}", refused.errors[0].message);
}

#[test]
fn log_lines_are_counted_and_so_are_those_that_were_dropped() {
    let limits = Limits {
        log_lines_per_second: 10,
        call_deadline: Duration::from_secs(60),
        wall_deadline: Duration::from_secs(60),
        ..Limits::default()
    };
    let figures = figures("chatty", &batch([1]), 1, &limits);
    assert!(figures.log_lines >= 10 && figures.log_lines_dropped > 0, "{figures:?}");
    assert_eq!(figures.log_lines + figures.log_lines_dropped, 1_000);
}

#[test]
fn what_a_search_cost_is_counted_by_cause() {
    let input = batch((0..64).map(|row| if row == 5 { -1 } else { row }));
    let figures = figures("poison-panic", &input, 2, &Limits::default());
    assert_eq!(figures.poison_rows, 2);
    assert_eq!(figures.instances_discarded, figures.breaches["trap"]);
    assert_eq!(figures.calls, 2 + figures.retries);
    assert!(figures.memory_bytes_peak > 1 << 16 && figures.breaches.len() == 1, "{figures:?}");
}

#[test]
fn an_instance_that_cannot_be_closed_is_thrown_away() {
    let input = batch(0..4);
    let limits = Limits { recycle_bytes: 1 << 20, setup_deadline: Duration::from_millis(50), ..Limits::default() };
    let call_deadline = Duration::from_secs(10);
    let begun = Instant::now();
    // It grows by 70 MiB, so it is replaced after each call; the first farewell takes as long as it may, later ones are not said.
    let figures = figures("grows-rudely", &input, 6, &Limits { call_deadline, ..limits });
    assert_eq!((figures.instances_recycled, figures.breaches.get("setup_deadline").copied()), (6, Some(1)), "after {:?}", begun.elapsed());
}

/// A transform that fails where a number is negative, behind a breaker that opens after two batches.
fn broken(policy: BreakerPolicy, pause: Duration) -> (Binding, Instance) {
    let breaker = BreakerLimits { after: 2, policy, pause, ..BreakerLimits::default() };
    let binding = bind("poison-panic", &batch([1]), &Limits { breaker, ..Limits::default() }).unwrap();
    let mut instance = binding.open().unwrap();
    let first = block_on(instance.process(&batch([1, -2]))).unwrap();
    assert_eq!((first.errors.len(), numbers(&first, 0, "number")), (1, vec![1]));
    (binding, instance)
}

#[test]
fn a_breaker_stops_the_pipeline() {
    let (binding, mut instance) = broken(BreakerPolicy::Stop, Duration::from_secs(1));
    let error = block_on(instance.process(&batch([-3]))).err().unwrap();
    assert!(matches!(&error, PluginError::BreakerOpen { after: 2, last, .. } if last.contains("-3 is poison")), "{error}");
    assert!(error.to_string().contains(binding.plugin().digest()), "{error}");
    assert!(matches!(block_on(instance.process(&batch([4]))), Err(PluginError::BreakerOpen { .. })));
}

#[test]
fn a_breaker_sends_rows_to_the_error_output_until_a_batch_succeeds() {
    // So long that the third batch comes within it, even on a busy machine.
    let (binding, mut instance) = broken(BreakerPolicy::ErrorOutput, Duration::from_secs(3));
    block_on(instance.process(&batch([-3]))).unwrap();
    let figures = || binding.meters.figures().unwrap();
    assert_eq!((figures().breakers_opened, figures().breakers_open), (1, 1));
    let refused = block_on(instance.process(&batch([4, 5]))).unwrap();
    assert_eq!((refused.errors.len(), refused.outputs.len()), (2, 0));
    assert!(refused.errors[0].message.contains("the breaker is open") && refused.errors[0].message.contains("-3 is poison"));
    let begun = Instant::now();
    while block_on(instance.process(&batch([6]))).unwrap().outputs.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((figures().breakers_opened, figures().breakers_open), (1, 0));
    // Two more open it again: what was before is forgotten.
    block_on(instance.process(&batch([-7]))).unwrap();
    assert_eq!(figures().breakers_open, 0);
    block_on(instance.process(&batch([-8]))).unwrap();
    assert_eq!((figures().breakers_opened, figures().breakers_open), (2, 1));
    drop(instance);
    assert_eq!(figures().breakers_open, 0);
}

#[test]
fn a_breaker_holds_rows_back() {
    let (binding, mut instance) = broken(BreakerPolicy::Pause, Duration::from_millis(300));
    block_on(instance.process(&batch([-3]))).unwrap();
    let calls = binding.meters.figures().unwrap().calls;
    let passed = block_on(instance.process(&batch([4, 5]))).unwrap();
    assert_eq!((numbers(&passed, 0, "number"), passed.errors.len()), (vec![4, 5], 0));
    let figures = binding.meters.figures().unwrap();
    assert_eq!((figures.calls, figures.breakers_opened, figures.breakers_open), (calls + 1, 1, 0));
}
