//! Fuzz targets of what users write: pipeline files and templates. Under `cargo test` they explore for a moment; `cargo xtask fuzz` explores
//! on.

use crate::{Settings, UncheckedPlugins, load};
use std::time::Duration;

/// Time of a target under plain `cargo test`.
const TEST_TIME: Duration = Duration::from_millis(400);

fn settings(text: String) -> Settings {
    Settings { file: "fuzzed.yaml".into(), text, ..Settings::default() }
}

/// A file of any bytes: a graph, or messages, each with a place in the file.
#[test]
fn fuzz_pipeline_files() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(2_048).for_each(|bytes: &[u8]| {
        check(String::from_utf8_lossy(bytes).into_owned());
    });
}

/// The same for files that are made of what pipelines are made of.
#[test]
fn fuzz_pipelines_of_known_parts() {
    const PARTS: [&str; 40] = [
        "pipeline:\n",
        "  type: chain\n",
        "  transforms:\n",
        "    - type: ",
        "Create\n",
        "Filter\n",
        "MapToFields\n",
        "Combine\n",
        "WindowInto\n",
        "Flatten\n",
        "      name: a\n",
        "      name: b\n",
        "      input: a\n",
        "      input: [a, b]\n",
        "      config:\n",
        "        elements: [1, {a: 1}]\n",
        "        keep: a > 1\n",
        "        language: sql\n",
        "        fields: {x: a}\n",
        "        group_by: a\n",
        "        combine: {n: count}\n",
        "        windowing: {type: fixed, size: 1s}\n",
        "        error_handling: {output: e}\n",
        "options:\n",
        "  pelton:\n",
        "    limits: {call_deadline: 1s}\n",
        "providers:\n",
        "  - {type: wasm}\n",
        "{% if x %}",
        "{% endif %}",
        "{{ 1 + 2 }}",
        "\t",
        "&a ",
        "*a",
        "- ",
        "  ",
        "'",
        "\"",
        "{",
        "]",
    ];
    bolero::check!().with_test_time(TEST_TIME).with_max_len(64).for_each(|bytes: &[u8]| {
        check(bytes.iter().map(|byte| PARTS[usize::from(*byte) % PARTS.len()]).collect());
    });
}

fn check(text: String) {
    if let Err(faults) = load(&settings(text), &[], &UncheckedPlugins) {
        assert!(!faults.is_empty());
        assert!(!crate::render(&faults).is_empty());
    }
}
