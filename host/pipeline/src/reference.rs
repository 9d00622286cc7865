//! What the transforms that Beam has too say of themselves (our own are in docs/reference/pelton-transforms.md): the reference is made of it. A test holds it against the keys that the front
//! end really reads.

use pelton_core::catalog::KeySpec;

/// A transform type besides connectors and plugins.
#[derive(Clone, Copy, Debug)]
pub struct TransformSpec {
    /// The `type:` in a pipeline.
    pub name: &'static str,
    /// What it does, and where it differs from Beam's.
    pub doc: &'static str,
    /// Every key of its config, besides `output_schema`, which all have.
    pub keys: &'static [KeySpec],
}

const fn key(name: &'static str, required: bool, doc: &'static str) -> KeySpec {
    KeySpec { name, required, doc }
}

const LANGUAGE: KeySpec =
    key("language", false, "`generic` (default): a field, a literal, or one comparison of two. `sql`: SQL scalar expressions.");
const ERRORS: KeySpec = key(
    "error_handling",
    false,
    "`{output, threshold}`: refused rows go to that output, which somebody must read. With `threshold` (0 to 1) the pipeline fails when more than that share of a window's rows was refused.",
);
const SIDE_INPUTS: KeySpec = key(
    "side_inputs",
    false,
    "Ours: `{tag: {as: singleton|iterable|dict, …}}` with `input: {main: …, tag: …}`. Explained in [Pelton's own transforms](pelton-transforms.md).",
);
const DEPENDENCIES: KeySpec = key("dependencies", false, "Beam's; not available.");

const EQUALITIES: KeySpec =
    key("equalities", true, "A field that both inputs have, or a list of `{left: field, right: field}` that must be equal.");
const ALLOWED_LATENESS: KeySpec =
    key("allowed_lateness", false, "How long behind the watermark a row may be; later ones are at the output `late`. Default: `0s`.");

/// All of them, by name.
pub static TRANSFORMS: &[TransformSpec] = &[
    TransformSpec {
        name: "AsOfJoin",
        doc: "Ours: each row of `left` with the newest row of `right` of the same key that is not newer than it. Explained in [Pelton's own transforms](pelton-transforms.md).",
        keys: &[
            EQUALITIES,
            key("tolerance", true, "How old the right row may be."),
            key("type", false, "`left` (default): nulls where there is no right row; or `inner`."),
            key("fields", false, "As for Join."),
            ALLOWED_LATENESS,
        ],
    },
    TransformSpec {
        name: "AssignTimestamps",
        doc: "Sets the event time of each row. Right behind a source the watermark starts anew here; behind a grouping or a Reshuffle it goes on as it was.",
        keys: &[
            key("timestamp", true, "An expression: a timestamp, a number, or an RFC 3339 string."),
            key("unit", false, "Of a bare number: `s` (default, as in Beam), `ms`, `us`, `ns`. Ours."),
            key("time_zone", false, "IANA name or offset, for times without a zone. Ours."),
            LANGUAGE,
            DEPENDENCIES,
            ERRORS,
        ],
    },
    TransformSpec {
        name: "Combine",
        doc: "Aggregates per key and window. Rows that come too late are at its output `late`.",
        keys: &[
            key("group_by", true, "A field or a list of fields; `[]` is one group."),
            key("combine", true, "Per column of the output `fn`, or `{value, fn}`."),
            LANGUAGE,
            key(
                "fanout",
                false,
                "The rows of a key are first aggregated in so many tasks, then merged: for keys with very many rows. Ours.",
            ),
        ],
    },
    TransformSpec {
        name: "Explode",
        doc: "One row for each value of a list. A null instead of a list is refused, an empty list gives no row; a row that would become more than 1,048,576 rows is refused.",
        keys: &[
            key("fields", true, "A field or a list of fields, all of them lists."),
            key(
                "cross_product",
                false,
                "Needed with several fields. `true`: every combination of their values. `false`: side by side, with nulls where a list is shorter.",
            ),
            ERRORS,
        ],
    },
    TransformSpec {
        name: "ExtractWindowingInfo",
        doc: "Adds columns with the metadata of a row.",
        keys: &[key(
            "fields",
            false,
            "A list of kinds, or new names for them: `timestamp`, `window_start`, `window_end` (the default), `window_string`, `window_type`, `pane_info`, `processing_timestamp` (ours).",
        )],
    },
    TransformSpec {
        name: "Filter",
        doc: "Keeps rows.",
        keys: &[key("keep", true, "An expression; rows for which it is true are kept."), LANGUAGE, SIDE_INPUTS, DEPENDENCIES, ERRORS],
    },
    TransformSpec {
        name: "Flatten",
        doc: "All rows of all inputs. Columns are the union, missing values null; numbers of two types are widened. The elements of error outputs may differ in any way: what cannot be widened is text.",
        keys: &[],
    },
    TransformSpec {
        name: "IntervalJoin",
        doc: "Ours: pairs of rows of the inputs `left` and `right` with equal keys and event times near each other. Explained in [Pelton's own transforms](pelton-transforms.md).",
        keys: &[
            EQUALITIES,
            key("before", false, "How much earlier than the left row a right row may be. `before` or `after` is needed."),
            key("after", false, "How much later."),
            key("type", false, "`inner` (default), `left`, `right` or `outer`: whose rows come out without a partner."),
            key("fields", false, "As for Join."),
            ALLOWED_LATENESS,
        ],
    },
    TransformSpec {
        name: "Join",
        doc: "Rows of two or more inputs side by side, per window. The inputs are named: `input: {a: …, b: …}`.",
        keys: &[
            key("equalities", true, "A field that all inputs have, or a list of `{input: field, …}` that must be equal."),
            key("type", false, "`inner` (default), `left`, `right`, `outer`, or `{outer: [inputs]}`."),
            key("fields", false, "Per input a list of fields, or new names for them; default: all."),
        ],
    },
    TransformSpec {
        name: "LogForTesting",
        doc: "Logs each row as JSON and passes it on.",
        keys: &[key("level", false, "`ERROR`, `INFO` (default) or `DEBUG`."), key("prefix", false, "Text before each row.")],
    },
    TransformSpec {
        name: "LookupJoin",
        doc: "Ours: each row with the row of a table that has its key; the table is read again from time to time. Explained in [Pelton's own transforms](pelton-transforms.md).",
        keys: &[
            key("table", true, "A source that ends: `{type: ReadFromCsv, config: {path: …}}`."),
            key("on", true, "`{column of the input: column of the table}`."),
            key("fields", false, "Columns of the table to add: a list, or `{new: old}`. Default: all but the keys."),
            key("type", false, "`left` (default), or `inner`: rows without a partner are filtered."),
            key("default", false, "`{column: value}` for rows without a partner; default: nulls."),
            key("refresh", false, "How often the table is read again; default: never."),
        ],
    },
    TransformSpec {
        name: "MapToFields",
        doc: "New columns from old.",
        keys: &[
            key("fields", true, "Per column an expression, or `{expression, output_type}`. Not needed with `append`."),
            key("append", false, "Keep the columns of the input too."),
            key("drop", false, "With `append`: columns not to keep."),
            LANGUAGE,
            SIDE_INPUTS,
            DEPENDENCIES,
            ERRORS,
        ],
    },
    TransformSpec {
        name: "MatchAll",
        doc: "The files that the pattern in each row matches, as rows of `path`, `size_in_bytes` and `last_updated_in_seconds`. Hidden files only match patterns with the dot.",
        keys: &[
            key("file_pattern", false, "The field with the pattern; not needed if there is only one."),
            key(
                "empty_match_treatment",
                false,
                "A pattern without files gives no row (`ALLOW`, default), is refused (`DISALLOW`), or is refused if it has no star (`ALLOW_IF_WILDCARD`).",
            ),
        ],
    },
    TransformSpec {
        name: "Partition",
        doc: "Sends each row to one of several outputs, read as `Name.output`.",
        keys: &[
            key("by", true, "An expression: the name of an output."),
            key("outputs", true, "Their names."),
            key("unknown_output", false, "One more output, for rows of another name or none; without it they are refused."),
            LANGUAGE,
            ERRORS,
        ],
    },
    TransformSpec {
        name: "Reshuffle",
        doc: "Spreads rows over the workers, batch by batch, so that what follows runs beside what came before. Rows, event times, windows and panes stay; their order does not.",
        keys: &[key("num_buckets", false, "At most so many tasks; default: the pipeline's `parallelism`.")],
    },
    TransformSpec {
        name: "Sql",
        doc: "A query over one or more inputs, which stand in it by their names; one input is `PCOLLECTION`. Explained in the book.",
        keys: &[key("query", true, "The query.")],
    },
    TransformSpec { name: "StripErrorMetadata", doc: "Turns the rows of an error output back into the rows that were refused.", keys: &[] },
    TransformSpec {
        name: "ValidateWithSchema",
        doc: "Refuses rows that do not fit a JSON schema. A row is checked as the JSON that would be written of it, without its null fields. Available keywords: `type`, `enum`, `const`, ranges and lengths, `pattern`, `items`, `uniqueItems`, `properties`, `required`, `additionalProperties`, `allOf`, `anyOf`, `oneOf`, `not`; another is an error, never ignored. A schema that the columns can never fit is an error before any row is read.",
        keys: &[key("schema", true, "The JSON schema."), ERRORS],
    },
    TransformSpec {
        name: "WindowInto",
        doc: "Assigns rows to windows. Any transform may have `windowing` beside its `config` instead.",
        keys: &[key(
            "windowing",
            false,
            "`{type: global}`, `{type: fixed, size, offset}`, `{type: sliding, size, period, offset}` or `{type: sessions, gap}`. It may also stand beside `config`.",
        )],
    },
];
