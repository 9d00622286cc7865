//! Good files and the shape of their graphs.

use pelton_pipeline::physical::StageKind;
use pelton_pipeline::{AggregateFunction, Graph, Language, Transform, render};

use crate::load_with;

/// One line a node: `name: Kind <- input.output, … @window`.
fn shape(graph: &Graph) -> Vec<String> {
    let name = |input: &pelton_pipeline::Input| {
        let node = &graph.nodes[input.node].name;
        if input.output.is_empty() { node.clone() } else { format!("{node}.{}", input.output) }
    };
    let line = |node: &pelton_pipeline::Node| {
        let inputs: Vec<String> = node.inputs.iter().map(name).collect();
        let inputs = if inputs.is_empty() { String::new() } else { format!(" <- {}", inputs.join(", ")) };
        let window = match node.windowing.as_ref().map(|strategy| strategy.window_fn) {
            Some(pelton_core::window::WindowFn::Fixed { size, .. }) => format!(" @{size}"),
            _ => String::new(),
        };
        format!("{}: {}{inputs}{window}", node.name, node.transform.kind())
    };
    graph.nodes.iter().map(line).collect()
}

fn loaded(text: &str, variables: &[(&str, &str)]) -> Graph {
    let graph = load_with(text, variables).unwrap_or_else(|findings| panic!("{}\n{text}", render(&findings)));
    for (index, node) in graph.nodes.iter().enumerate() {
        assert_eq!(node.id, index);
        assert!(node.inputs.iter().all(|input| input.node < index), "{text}");
    }
    graph
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(shape(&loaded(text, &[])), expected, "{text}");
}

#[test]
fn a_chain_reads_from_top_to_bottom() {
    check(
        "pipeline:
  type: chain
  source: {type: ReadFromJson, config: {path: a}}
  transforms:
    - {type: Filter, config: {keep: x}}
  sink: {type: WriteToJson, config: {path: b}}
",
        &["ReadFromJson: ReadFromJson", "Filter: Filter <- ReadFromJson", "WriteToJson: WriteToJson <- Filter"],
    );
}

#[test]
fn names_types_and_outputs_can_be_read() {
    check(
        "pipeline:
  transforms:
    - {type: WriteToJson, name: Last, input: Parts.a, config: {path: b}}
    - {type: Partition, name: Parts, input: ReadFromJson, config: {by: x, outputs: [a, b], unknown_output: c}}
    - {type: ReadFromJson, config: {path: a}}
",
        &["ReadFromJson: ReadFromJson", "Parts: Partition <- ReadFromJson", "Last: WriteToJson <- Parts.a"],
    );
}

#[test]
fn several_inputs_are_flattened() {
    check(
        "pipeline:
  transforms:
    - {type: Create, name: A, config: {elements: [1]}}
    - {type: Create, name: B, config: {elements: [2]}}
    - {type: Flatten, name: Both, input: [A, B]}
    - {type: Filter, name: F, input: [A, Both], config: {keep: x}}
",
        &["A: Create", "B: Create", "Both: Flatten <- A, B", "F-Flatten[input]: Flatten <- A, Both", "F: Filter <- F-Flatten[input]"],
    );
}

#[test]
fn windowing_stands_at_three_places_and_is_inherited() {
    check(
        "pipeline:
  type: chain
  windowing: {type: fixed, size: 60s}
  transforms:
    - {type: Create, config: {elements: [1]}}
    - {type: Filter, config: {keep: x}}
    - {type: Combine, windowing: {type: fixed, size: 2h}, config: {group_by: [], combine: {n: count}}}
    - {type: WindowInto, config: {windowing: '{\"type\": \"fixed\", \"size\": 5}'}}
    - {type: WindowInto, windowing: {type: global}}
",
        &[
            "Create: Create",
            "Create/WindowInto[output]: WindowInto <- Create @1m",
            "Filter: Filter <- Create/WindowInto[output] @1m",
            "Combine/WindowInto[input]: WindowInto <- Filter @2h",
            "Combine: Combine <- Combine/WindowInto[input] @2h",
            "WindowInto@8: WindowInto <- Combine @5s",
            "WindowInto@9: WindowInto <- WindowInto@8",
        ],
    );
}

#[test]
fn composites_disappear() {
    check(
        "pipeline:
  transforms:
    - {type: Create, name: A, config: {elements: [1]}}
    - type: composite
      name: Outer
      input: {rows: A}
      windowing: {type: fixed, size: 1m}
      transforms:
        - {type: Filter, name: Inner, input: rows, config: {keep: x}}
        - type: chain
          name: Deep
          input: Inner
          transforms:
            - {type: LogForTesting}
            - {type: Flatten}
      output: {kept: Inner, deep: Deep}
    - {type: WriteToJson, name: Out, input: [Outer.kept, Outer.deep], config: {path: p}}
",
        &[
            "A: Create",
            "Outer/WindowInto[rows]: WindowInto <- A @1m",
            "Outer/Inner: Filter <- Outer/WindowInto[rows] @1m",
            "Outer/Deep/LogForTesting: LogForTesting <- Outer/Inner @1m",
            "Outer/Deep/Flatten: Flatten <- Outer/Deep/LogForTesting @1m",
            "Out-Flatten[input]: Flatten <- Outer/Inner, Outer/Deep/Flatten @1m",
            "Out: WriteToJson <- Out-Flatten[input]",
        ],
    );
}

#[test]
fn a_composite_without_input_windows_its_roots() {
    check(
        "pipeline:
  transforms:
    - type: composite
      name: Both
      windowing: {type: fixed, size: 1m}
      transforms:
        - {type: Create, name: A, config: {elements: [1]}}
        - {type: Create, name: B, windowing: {type: fixed, size: 60s}, config: {elements: [1]}}
        - {type: Flatten, input: [A, B]}
      output: Flatten
    - {type: LogForTesting, input: Both}
",
        &[
            "Both/A: Create",
            "Both/A/WindowInto[output]: WindowInto <- Both/A @1m",
            "Both/B: Create",
            "Both/B/WindowInto[output]: WindowInto <- Both/B @1m",
            "Both/Flatten: Flatten <- Both/A/WindowInto[output], Both/B/WindowInto[output] @1m",
            "LogForTesting: LogForTesting <- Both/Flatten @1m",
        ],
    );
}

#[test]
fn errors_and_late_rows_are_outputs() {
    check(
        "pipeline:
  type: chain
  transforms:
    - {type: ReadFromJson, config: {path: a, error_handling: {output: bad}}}
    - {type: Filter, name: Keep, config: {keep: x, error_handling: {output: bad}}}
    - {type: Combine, config: {group_by: x, combine: {n: count}}}
    - {type: WriteToJson, config: {path: b}}
  extra_transforms:
    - {type: WriteToJson, name: Errors, input: [ReadFromJson.bad, Keep.bad], config: {path: c}}
    - {type: WriteToJson, name: Late, input: Combine.late, config: {path: d}}
    - {type: WriteToJson, name: Good, input: Keep.good, config: {path: e}}
",
        &[
            "ReadFromJson: ReadFromJson",
            "Keep: Filter <- ReadFromJson",
            "Combine: Combine <- Keep",
            "WriteToJson: WriteToJson <- Combine",
            "Late: WriteToJson <- Combine.late",
            "Good: WriteToJson <- Keep",
            "Errors-Flatten[input]: Flatten <- ReadFromJson.bad, Keep.bad",
            "Errors: WriteToJson <- Errors-Flatten[input]",
        ],
    );
}

#[test]
fn plugins_have_outputs_of_their_own() {
    let graph = loaded(
        "pipeline:
  transforms:
    - {type: Create, config: {elements: [1]}}
    - {type: Parse, input: Create, config: {limit: 3, error_handling: {output: bad}}}
    - {type: WriteToJson, input: [Parse, Parse.slow, Parse.bad], config: {path: b}}
providers:
  - type: wasm
    config: {plugin: plugins/parse.wasm, limits: {memory: 64MiB}}
    transforms: {Parse: parse}
",
        &[],
    );
    let node = &graph.nodes[1];
    assert_eq!((node.outputs.as_slice(), node.error_output.as_deref()), (&["slow".to_string()][..], Some("bad")));
    assert_eq!(graph.providers[0].path, std::path::Path::new("folder/plugins/parse.wasm"));
    assert_eq!(graph.providers[0].limits["memory"], "64MiB");
    let Transform::Plugin { transform, config, .. } = &node.transform else { panic!("a plugin") };
    assert_eq!((transform.as_str(), config.to_string().as_str()), ("parse", r#"{"limit":3}"#));
}

#[test]
fn values_are_read_as_written() {
    let graph = loaded(
        "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [&row {a: yes, b: 0755, c: 1.50, d: 2026-01-01, e: ~}, *row, {<<: *row, a: x}]}}
    - type: MapToFields
      config:
        language: sql
        append: true
        drop: [a]
        fields: {one: 1, text: a || 'x', typed: {expression: a, output_type: string}, flag: true}
    - {type: Combine, config: {group_by: [d, b], combine: {c: sum, n: {fn: count}, m: {value: b, fn: {type: mean}}}}}
",
        &[],
    );
    let Transform::Source { config, .. } = &graph.nodes[0].transform else { panic!("a source") };
    let row = r#"{"a":true,"b":493,"c":1.5,"d":"2026-01-01","e":null}"#;
    assert_eq!(config["elements"][0].to_string(), row);
    assert_eq!(config["elements"][1].to_string(), row);
    assert_eq!(config["elements"][2]["a"], "x");
    let Transform::MapToFields { fields, append: true, drop } = &graph.nodes[1].transform else { panic!("a map") };
    let texts: Vec<&str> = fields.iter().map(|(_, expression)| expression.text.as_str()).collect();
    assert_eq!((texts, drop.len()), (vec!["1", "a || 'x'", "a", "true"], 1));
    assert!(fields.iter().all(|(_, expression)| expression.language == Language::Sql));
    assert_eq!(fields[2].1.output_type.as_deref(), Some("string"));
    let Transform::Combine { group_by, combine, .. } = &graph.nodes[2].transform else { panic!("a combine") };
    assert_eq!(group_by.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["d", "b"]);
    let functions: Vec<_> = combine.iter().map(|a| (a.function.clone(), a.value.as_ref().map(|value| value.text.as_str()))).collect();
    let expected = [(AggregateFunction::Sum, Some("c")), (AggregateFunction::Count, None), (AggregateFunction::Mean, Some("b"))];
    assert_eq!(functions, expected);
}

#[test]
fn aggregates_with_a_config() {
    let graph = loaded(
        "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [{a: 1}]}}
    - type: Combine
      config:
        group_by: []
        combine:
          a: {fn: {type: top, config: {n: 3, order: smallest}}}
          b: {value: a, fn: {type: approx_count_distinct}}
          c: {value: a, fn: {type: approx_count_distinct, config: {precision: 14}}}
          d: {value: a, fn: {type: quantiles, config: {q: [0, 0.5, 1]}}}
          e: {value: a, fn: {type: approx_quantile, config: {q: 0.99}}}
          f: {value: a, fn: {type: stddev, config: {of: population}}}
          g: {value: a, fn: variance}
",
        &[],
    );
    let Transform::Combine { combine, .. } = &graph.nodes[1].transform else { panic!("a combine") };
    let functions: Vec<_> = combine.iter().map(|aggregate| aggregate.function.clone()).collect();
    let expected = [
        AggregateFunction::Top { n: 3, smallest: true },
        AggregateFunction::ApproxCountDistinct { precision: 12 },
        AggregateFunction::ApproxCountDistinct { precision: 14 },
        AggregateFunction::Quantiles(vec![0.0, 0.5, 1.0]),
        AggregateFunction::Quantile(0.99),
        AggregateFunction::StdDev { population: true },
        AggregateFunction::Variance { population: false },
    ];
    assert_eq!(functions, expected);
}

#[test]
fn templates_are_filled_in_first() {
    let text = "pipeline:
  type: chain
  transforms:
    - {type: ReadFromJson, config: {path: '{{ input }}'}}
{% for word in ['a', 'b'] %}
    - {type: Filter, name: Keep{{ word }}, config: {keep: {{ word }}}}
{% endfor %}
    - {type: Combine, config: {group_by: [], combine: {n: count}}, windowing: {type: fixed, size: {{ size | default('60s') }}}}
";
    let graph = loaded(text, &[("input", "x/*.json")]);
    let expected = [
        "ReadFromJson: ReadFromJson",
        "Keepa: Filter <- ReadFromJson",
        "Keepb: Filter <- Keepa",
        "Combine/WindowInto[input]: WindowInto <- Keepb @1m",
        "Combine: Combine <- Combine/WindowInto[input] @1m",
    ];
    assert_eq!(shape(&graph), expected);
    let lines: Vec<usize> = graph.nodes.iter().map(|node| node.place.line).collect();
    assert_eq!(lines, [4, 6, 6, 8, 8]);
    let graph = loaded(text, &[("input", "x"), ("size", "5m")]);
    assert!(shape(&graph)[4].ends_with("@5m"));
}

#[test]
fn options_are_read() {
    let graph = loaded(
        "options:
  runner: FlinkRunner
  streaming: true
  pelton:
    name: traffic
    parallelism: 4
    memory: 1.5GiB
    delivery: at_least_once
    watermark: {delay: 10s, idle_timeout: 1m, allowed_lateness: 5m, sources: {Create: {delay: 0s}}}
    limits: {row: 1MiB}
tests: [{name: t, expected_outputs: [{name: Create, elements: [1]}]}]
pipeline:
  resource_hints: {min_ram: 1}
  transforms:
    - {type: Create, config: {elements: []}}
",
        &[],
    );
    let options = &graph.options;
    assert_eq!((graph.name.as_str(), options.parallelism, options.memory), ("traffic", Some(4), Some(3 << 29)));
    assert_eq!(options.watermark.sources["Create"].delay, Some(pelton_core::time::Duration::ZERO));
    assert_eq!(graph.nodes[0].windowing.as_ref().expect("a source has windowing").allowed_lateness.to_string(), "5m");
    let warnings: Vec<&str> = graph.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(warnings, ["the option `runner` has no effect here"]);
}

/// Windows over a source without an end whose rows nobody gives an event time: once for each way, and only there.
#[test]
fn windows_by_the_time_of_arrival_are_a_warning() {
    let (endless, ends, kafka) =
        ("{type: ReadFromJson, config: {path: endless}}", "{type: ReadFromJson, config: {path: a}}", "{type: ReadFromKafka}");
    let assign = "{type: AssignTimestamps, config: {timestamp: t}}";
    let watermark = |more: &str| format!("{{type: SetWatermark, config: {{policy: {{{more}}}}}");
    let combine = |windowing: &str| format!("{{type: Combine, windowing: {windowing}, config: {{group_by: [k], combine: {{n: count}}}}}}");
    let fixed = combine("{type: fixed, size: 3}");
    let triggered = "{type: WindowIntoWithTriggers, config: {windowing: {type: global}, trigger: {type: repeatedly, trigger: {type: after_count, count: 3}}}}";
    let count = "{type: Combine, config: {group_by: [k], combine: {n: count}}}";
    let roll_up = "{type: RollUp, config: {group_by: [k], combine: {n: count}, levels: [1m, 1h]}}";
    let by_clock = watermark("type: processing_time}");
    let ingested = watermark("type: fixed_delay, delay: 1s}, time: ingestion");
    let only_delay = watermark("type: fixed_delay, delay: 1s}");
    let cases: [(&[&str], usize); 13] = [
        (&[endless, &fixed], 1),
        (&[endless, &combine("{type: sliding, size: 4, period: 2}")], 1),
        (&[endless, &combine("{type: sessions, gap: 4}")], 1),
        (&[endless, "{type: WindowIntoWithTriggers, config: {windowing: {type: calendar, unit: days}}}", count], 1),
        (&[endless, roll_up], 1),
        (&[endless, &only_delay, &fixed], 1),
        (&[endless, &fixed, &fixed], 1),
        (&[endless, assign, &fixed], 0),
        (&[endless, &by_clock, &fixed], 0),
        (&[endless, &ingested, &fixed], 0),
        (&[endless, triggered, count], 0),
        (&[kafka, &fixed], 0),
        (&[ends, &fixed], 0),
    ];
    for (transforms, warnings) in cases {
        let lines: String = transforms.iter().map(|transform| format!("    - {transform}\n")).collect();
        let text = format!("pipeline:\n  type: chain\n  transforms:\n{lines}");
        let found = loaded(&text, &[]).warnings;
        let about = found.iter().filter(|warning| warning.message.contains("goes by the time at which rows of `ReadFromJson` arrive"));
        assert_eq!((about.count(), found.len()), (warnings, warnings), "{text}\n{found:?}");
    }
}

#[test]
fn without_a_name_the_file_gives_one() {
    let graph = loaded("pipeline: {transforms: [{type: Create, config: {elements: []}}]}", &[]);
    assert_eq!(graph.name, "test");
}

#[test]
fn an_output_schema_is_a_transform_whose_errors_join() {
    let text = "pipeline:
  transforms:
    - {type: Create, config: {elements: [1], output_schema: {type: object}}}
    - {type: Filter, name: F, input: Create, config: {keep: x, error_handling: {output: bad, threshold: 0.25}, output_schema: {required: [x]}}}
    - {type: WriteToJson, name: Good, input: F.good, config: {path: a}}
    - {type: WriteToJson, name: Bad, input: F.bad, config: {path: b}}
";
    check(
        text,
        &[
            "Create: Create",
            "Create/EnforceOutputSchema: ValidateWithSchema <- Create",
            "F: Filter <- Create/EnforceOutputSchema",
            "F/EnforceOutputSchema: ValidateWithSchema <- F",
            "F/FlattenErrors: Flatten <- F.bad, F/EnforceOutputSchema.bad",
            "Good: WriteToJson <- F/EnforceOutputSchema",
            "Bad: WriteToJson <- F/FlattenErrors",
        ],
    );
    let graph = loaded(text, &[]);
    assert_eq!(graph.nodes[2].error_threshold, Some(0.25));
    assert!(graph.warnings[0].message.contains("fails the pipeline"), "{:?}", graph.warnings);
    assert_eq!(graph.warnings.len(), 1);
}

#[test]
fn explode_reshuffle_and_match_all_have_beams_config() {
    let text = "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [{a: [1], b: [2]}]}}
    - {type: Explode, config: {fields: [a, b], cross_product: false}}
    - {type: Reshuffle, config: {num_buckets: 3}}
    - {type: MatchAll, config: {file_pattern: a, empty_match_treatment: ALLOW_IF_WILDCARD}}
    - {type: ValidateWithSchema, config: {schema: {type: object, properties: {path: {type: string}}}}}
";
    let graph = loaded(text, &[]);
    let shown: Vec<String> = graph.nodes[1..4].iter().map(|node| format!("{:?}", node.transform)).collect();
    assert_eq!(
        shown,
        [
            "Explode { fields: [\"a\", \"b\"], cross_product: false }",
            "Reshuffle { buckets: Some(3) }",
            "MatchAll { file_pattern: Some(\"a\"), empty: AllowIfWildcard }",
        ]
    );
}

#[test]
fn the_reference_names_the_keys_that_are_read() {
    for spec in pelton_pipeline::reference::TRANSFORMS {
        let text = format!(
            "pipeline:\n  transforms:\n    - {{type: Create, config: {{elements: [1]}}}}\n    - {{type: {}, input: Create, config: {{qqqqqqqqqq: 1}}}}\n",
            spec.name
        );
        let findings = load_with(&text, &[]).unwrap_err();
        let unknown = findings.iter().find(|finding| finding.message.contains("qqqqqqqqqq")).unwrap();
        let help = unknown.help.as_deref().unwrap_or_default().trim_start_matches("known names: ");
        let mut read: Vec<&str> = help.split(", ").filter(|name| *name != "output_schema" && !name.is_empty()).collect();
        let mut written: Vec<&str> = spec.keys.iter().map(|key| key.name).collect();
        read.sort_unstable();
        written.sort_unstable();
        assert_eq!(read, written, "{}", spec.name);
    }
}

#[test]
fn a_stateful_transform_is_a_stage_of_its_own() {
    let graph = loaded(
        "pipeline:
  transforms:
    - {type: Create, config: {elements: [1]}}
    - {type: Count, input: Create, config: {key: [a, b], size: 3}}
    - {type: WriteToJson, name: Out, input: Count, config: {path: x}}
    - {type: WriteToJson, name: Late, input: Count.late, config: {path: y}}
providers: [{type: wasm, config: {plugin: parse.wasm}, transforms: {Count: count}}]
",
        &[],
    );
    let Transform::Plugin { key, config, .. } = &graph.nodes[1].transform else { panic!("a plugin") };
    assert_eq!(key.iter().map(|column| column.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((config.to_string().as_str(), graph.nodes[1].outputs.len()), (r#"{"size":3}"#, 0));
    let stages = pelton_pipeline::physical::Physical::of(&graph).stages;
    assert_eq!(stages.iter().map(|stage| stage.kind).collect::<Vec<_>>()[..2], [StageKind::Source, StageKind::Keyed]);
}

#[test]
fn a_composite_whose_transforms_say_nothing_is_a_chain() {
    check(
        "pipeline:
  transforms:
    - {type: Create, config: {elements: [1]}}
    - type: composite
      name: Inner
      input: Create
      transforms:
        - {type: Filter, config: {keep: x}}
        - {type: LogForTesting}
    - {type: WriteToJson, input: Inner, config: {path: b}}
",
        &[
            "Create: Create",
            "Inner/Filter: Filter <- Create",
            "Inner/LogForTesting: LogForTesting <- Inner/Filter",
            "WriteToJson: WriteToJson <- Inner/LogForTesting",
        ],
    );
}

#[test]
fn side_inputs_follow_the_input_whose_rows_are_worked_on() {
    let graph = loaded(
        "pipeline:
  transforms:
    - {type: Create, name: A, config: {elements: [1]}}
    - {type: ReadFromJson, name: B, config: {path: endless}}
    - {type: Create, name: C, config: {elements: [1]}}
    - type: Parse
      name: P
      input: {c: C, main: A, b: B}
      config: {limit: 1, side_inputs: {b: {as: dict, key: k, refresh: 1m, default: {v: 7}}, c: {as: iterable}}}
    - {type: WriteToJson, name: Out, input: P, config: {path: x}}
    - {type: WriteToJson, name: Late, input: P.late, config: {path: y}}
providers: [{type: wasm, config: {plugin: parse.wasm}, transforms: {Parse: parse}}]
",
        &[],
    );
    let node = graph.nodes.iter().find(|node| node.name == "P").unwrap();
    let inputs: Vec<&str> = node.inputs.iter().map(|input| graph.nodes[input.node].name.as_str()).collect();
    assert_eq!(inputs, ["A", "C", "B"]);
    let sides: Vec<_> = node.sides.iter().map(|side| (side.tag.as_str(), side.from_first_row, side.default.len())).collect();
    assert_eq!(sides, [("c", false, 0), ("b", true, 1)]);
    let Transform::Plugin { config, .. } = &node.transform else { panic!("a plugin") };
    assert_eq!((config.to_string().as_str(), node.outputs.as_slice()), (r#"{"limit":1}"#, &["slow".to_string()][..]));
    let stages = pelton_pipeline::physical::Physical::of(&graph).stages;
    assert!(stages.iter().any(|stage| stage.kind == StageKind::Sided && graph.nodes[stage.head].name == "P"));
}
