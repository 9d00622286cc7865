//! Answers that break the contract: each is refused with a message that says what was broken, and nothing is applied.

use crate::*;

/// What the message must say.
const RESULTS: &[(&str, &str)] = &[
    ("few-rows", "rows without an origin"),
    ("no-output-node", "fewer nodes"),
    ("more-nodes", "more nodes or buffers"),
    ("node-length", "values buffer"),
    ("huge-node", "beyond the limit"),
    ("no-buffers", "fewer buffers"),
    ("few-buffers", "fewer buffers"),
    ("many-buffers", "more nodes or buffers"),
    ("short-values", "values buffer"),
    ("long-values", "values buffer"),
    ("short-validity", "validity has"),
    ("null-count", "null count"),
    ("hidden-nulls", "not nullable"),
    ("offsets-short", "offsets buffer"),
    ("offsets-empty", "offsets buffer"),
    ("offsets-down", "ffset"),
    ("offsets-negative", "ffset"),
    ("offsets-beyond", "data buffer"),
    ("offsets-not-zero", "not at 0"),
    ("data-unused", "data buffer"),
    ("not-utf8", "utf-8"),
    ("cut-character", "utf-8"),
    ("list-child-short", "rows where"),
    ("decimal-too-wide", "precision"),
    ("origin-beyond", "an origin is row"),
    ("origin-short", "origins"),
    ("origin-uneven", "no list of u32"),
    ("origin-timer", "an origin is row"),
    ("port-beyond", "for output 7"),
    ("rows-without-origin", "rows without an origin"),
    ("times-short", "event times have"),
    ("times-beyond", "outside the range"),
    ("errors-twice", "at most once"),
    ("errors-down", "ascend"),
    ("errors-beyond", "is none of an input"),
    ("errors-offsets", "do not cover"),
    ("errors-not-utf8", "not UTF-8"),
    ("errors-uneven", "no list of u32"),
    ("error-and-output", "both an error and an output"),
    ("error-and-whole", "both an error and an output"),
    ("metric-beyond", "for metric 1"),
];

const OPENS: &[(&str, &str)] = &[
    ("open-fails", "`limit` is missing"),
    ("open-panics", "open has no brakes"),
    ("open-reads-beyond", "names column 2 of 2"),
    ("open-reads-twice", "twice"),
    ("open-passes-beyond", "names column 4294967295"),
    ("open-no-output", "has 0 outputs"),
    ("open-same-name", "two columns have the name `number`"),
    ("open-same-tag", "two outputs have the tag"),
    ("open-large-list", "+L"),
    ("open-dictionary", "vu"),
    ("open-bad-format", "d:99,3"),
    ("open-cut", "ends inside"),
    ("open-deep", "fields"),
    ("open-many-fields", "fields"),
    ("open-nullable-key", "not nullable"),
    ("open-loops", "deadline of 5s"),
];

#[test]
fn a_result_that_breaks_the_contract_is_refused() {
    for (transform, words) in RESULTS {
        match process_with(transform, &batch(0..20), &Limits::default()) {
            Err(PluginError::Contract { message, .. }) => assert!(message.contains(words), "{transform}: {message}"),
            other => panic!("{transform}: {other:?}"),
        }
    }
}

#[test]
fn an_opening_that_breaks_the_contract_is_refused() {
    for (transform, words) in OPENS {
        let error = bind(transform, &batch([1]), &Limits::default()).err().expect(transform).to_string();
        assert!(error.contains(words), "{transform}: {error}");
    }
}

/// Transforms of the guest's module `greed`.
const GREED: [&str; 14] = [
    "busy",
    "log-flood",
    "log-huge",
    "poison-copies",
    "poison-outputs",
    "poison-errors-huge",
    "close-panics",
    "close-loops",
    "grows-rudely",
    "allocates-beyond",
    "allocates-over",
    "frees-badly",
    "drop-loops",
    "drop-panics",
];

/// A transform of the guest without a test fails here.
#[test]
fn every_lie_is_told() {
    let told: Vec<_> = RESULTS.iter().chain(OPENS).map(|(transform, _)| *transform).collect();
    let honest = [
        "identity",
        "empty",
        "filter",
        "map",
        "flat-map",
        "tagged",
        "row-error",
        "context",
        "later",
        "earlier",
        "metrics",
        "chatty",
        "grows",
        "fails",
        "large-result",
        "words",
    ];
    let poison = ["poison-panic", "poison-loop", "poison-memory", "poison-stack", "loop", "panic", "silent-trap", "leaky"];
    for spec in &HOSTILE.descriptor().transforms {
        let name = spec.name.as_str();
        // Those of greed are in `limits` and in the hostile suite, which runs every transform.
        let greedy = GREED.contains(&name);
        assert!(told.contains(&name) || honest.contains(&name) || poison.contains(&name) || greedy, "{name}");
    }
}
