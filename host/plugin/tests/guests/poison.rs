//! Calls that fail as a whole: which rows are found guilty, in what words, and what that may cost.

use crate::*;
use pelton_plugin::OnBudget;
use std::time::Duration;

/// Room to isolate a thousand rows; short deadlines, so that it does not take an hour.
fn generous() -> Limits {
    Limits {
        call_deadline: Duration::from_millis(10),
        memory_bytes: 4 << 20,
        batch_calls: 100_000,
        batch_time: Duration::from_secs(3_600),
        ..Limits::default()
    }
}

/// `count` of `rows` rows are poison, spread evenly from the fourth on: exactly they are found, and the others come out in order.
fn check(transform: &str, rows: usize, count: usize, words: &str) {
    let step = (rows - 3) / count;
    let bad: Vec<u32> = (0..count).map(|number| (3 + number * step) as u32).collect();
    let mut values: Vec<i64> = (0..rows as i64).collect();
    bad.iter().for_each(|row| values[*row as usize] = -1 - i64::from(*row));
    let good: Vec<i64> = values.iter().copied().filter(|value| *value >= 0).collect();
    let limits = generous();
    // Whatever ends by itself may take longer than a tick on a busy machine.
    let call_deadline = if transform == "poison-loop" { limits.call_deadline } else { Duration::from_secs(10) };
    let processed = process_with(transform, &batch(values), &Limits { call_deadline, ..limits }).unwrap();
    assert_eq!(processed.errors.iter().map(|error| error.row).collect::<Vec<_>>(), bad);
    assert!(processed.errors.iter().all(|error| error.message.contains(words)), "{:?}", processed.errors[0]);
    assert_eq!(numbers(&processed, 0, "number"), good);
    assert_eq!(processed.led_to_output, good.len());
    assert!(processed.traps as usize > count);
}

#[test]
fn one_row_that_panics() {
    check("poison-panic", 8_192, 1, "number -4 is poison");
}

#[test]
fn five_rows_that_panic() {
    check("poison-panic", 8_192, 5, "is poison");
}

#[test]
fn a_thousand_rows_that_panic() {
    check("poison-panic", 8_192, 1_000, "is poison");
}

#[test]
fn one_endless_row() {
    check("poison-loop", 8_192, 1, "exceeded its deadline of 10ms");
}

#[test]
fn five_endless_rows() {
    check("poison-loop", 1_024, 5, "exceeded its deadline of 10ms");
}

#[test]
fn a_thousand_endless_rows() {
    check("poison-loop", 1_010, 1_000, "exceeded its deadline of 10ms");
}

#[test]
fn one_row_that_takes_all_memory() {
    check("poison-memory", 8_192, 1, "exceeded its memory limit of 4194304 bytes");
}

#[test]
fn five_rows_that_take_all_memory() {
    check("poison-memory", 8_192, 5, "exceeded its memory limit");
}

#[test]
fn a_thousand_rows_that_take_all_memory() {
    check("poison-memory", 8_192, 1_000, "exceeded its memory limit");
}

#[test]
fn one_row_that_recurses_for_ever() {
    check("poison-stack", 64, 1, "recursion is too deep");
}

#[test]
fn one_bad_row_of_a_full_batch_is_found_with_the_limits_by_default() {
    for transform in ["poison-panic", "poison-loop", "poison-memory"] {
        let processed = process(transform, &batch((0..8_192).map(|row| if row == 5_000 { -1 } else { row })));
        assert_eq!(processed.errors.iter().map(|error| error.row).collect::<Vec<_>>(), [5_000], "{transform}");
    }
}

#[test]
fn a_batch_of_bad_rows_stops_the_pipeline() {
    let input = batch((0..8_192).map(|row| if row % 8 == 7 { -1 } else { row }));
    match process_with("poison-panic", &input, &Limits::default()) {
        Err(PluginError::BudgetSpent { rows, calls, last, .. }) => {
            assert_eq!((rows.end, calls), (8_192, 32));
            assert!(last.contains("is poison"), "{last}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn undecided_rows_go_to_the_error_output_when_the_user_says_so() {
    let input = batch((0..8_192).map(|row| if row % 8 == 7 { -1 } else { row }));
    let processed = process_with("poison-panic", &input, &Limits { on_budget: OnBudget::ErrorOutput, ..Limits::default() }).unwrap();
    let kept = numbers(&processed, 0, "number").len();
    assert_eq!(processed.errors.len() + kept, 8_192);
    let (poison, undecided): (Vec<_>, Vec<_>) = processed.errors.iter().partition(|error| !error.message.starts_with("not isolated"));
    assert!(!poison.is_empty() && poison.iter().all(|error| error.row % 8 == 7));
    assert!(undecided.len() > 7_000);
    assert!(processed.errors.windows(2).all(|pair| pair[0].row < pair[1].row));
}

#[test]
fn what_a_leak_breaks_a_fresh_instance_mends() {
    let input = batch([1, 2, 3]);
    let mut instance = bind("leaky", &input, &Limits::default()).unwrap().open().unwrap();
    for _ in 0..5 {
        let processed = block_on(instance.process(&input)).unwrap();
        assert_eq!((numbers(&processed, 0, "number"), processed.errors.len()), (vec![1, 2, 3], 0));
    }
}

#[test]
fn a_failure_of_the_authors_is_told_in_their_words() {
    let processed = process("fails", &batch([1, -2, 3]));
    assert_eq!(processed.errors.len(), 1);
    assert_eq!((processed.errors[0].message.as_str(), processed.errors[0].stack.as_str()), ("a number is negative", "at hostile, line 1"));
}

#[test]
fn a_panic_says_where_it_was() {
    let error = &process("panic", &batch([1])).errors[0];
    assert!(error.message.contains("row 3 has no brakes") && error.message.contains("poison.rs"), "{}", error.message);
    assert!(error.stack.contains("hostile"), "{}", error.stack);
}

#[test]
fn a_trap_without_words_is_not_called_unreachable_alone() {
    let error = &process("silent-trap", &batch([1])).errors[0];
    assert!(error.message.contains("without saying why"), "{}", error.message);
}

#[test]
fn a_result_beyond_the_limit_of_bytes_is_halved() {
    // A megabyte a row, and four allowed.
    let limits = Limits { max_row_bytes: 1 << 20, ..Limits::default() };
    let processed = process_with("large-result", &batch(0..16), &limits).unwrap();
    assert_eq!(numbers(&processed, 0, "number"), (0..16).collect::<Vec<_>>());
    assert!(processed.traps > 0 && processed.errors.is_empty());
    let limits = Limits { max_row_bytes: 1 << 17, ..Limits::default() };
    let refused = process_with("large-result", &batch(0..2), &limits).unwrap();
    assert_eq!(refused.errors.len(), 2);
    assert!(refused.errors[0].message.contains("its answer is larger than 524288 bytes"), "{}", refused.errors[0].message);
}

#[test]
fn a_cancelled_call_leaves_no_half_used_guest() {
    let input = batch([-1]);
    let limits = Limits { call_deadline: Duration::from_secs(60), ..Limits::default() };
    let mut instance = bind("poison-loop", &input, &limits).unwrap().open().unwrap();
    block_on(async {
        tokio::select! { biased; _ = instance.process(&input) => panic!("it loops"), () = tokio::task::yield_now() => {} }
    });
    let processed = block_on(instance.process(&batch([5]))).unwrap();
    assert_eq!(numbers(&processed, 0, "number"), [5]);
}
