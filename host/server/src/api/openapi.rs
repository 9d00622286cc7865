//! The OpenAPI document, made of the table of endpoints.

use super::endpoints::{Answer, Body, ENDPOINTS, Endpoint};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in &ENDPOINTS {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.to_lowercase()] = operation(endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pelton host",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The control API of `pelton serve`. Roles: a viewer sees what runs, an operator runs and stops what is there, an admin changes what is there.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas(),
        },
    })
}

/// Where a body has a list although this schema of the document wants an object: serde takes the one for the fields of the other, in their order.
pub fn list_for_object(schema: &str, body: &Value) -> Option<String> {
    static SCHEMAS: LazyLock<Value> = LazyLock::new(schemas);
    fn find(value: &Value, schema: &Value, at: &str) -> Option<String> {
        let schema = schema.get("anyOf").map_or(schema, |choices| &choices[0]);
        let schema = schema["$ref"].as_str().map_or(schema, |reference| &SCHEMAS[reference.rsplit('/').next().unwrap_or_default()]);
        match value {
            Value::Array(_) if schema["type"] == "object" => Some(at.into()),
            Value::Array(values) => {
                values.iter().enumerate().find_map(|(number, value)| find(value, &schema["items"], &format!("{at}[{number}]")))
            }
            Value::Object(entries) => entries.iter().find_map(|(key, value)| {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                find(value, &schema["properties"][key], &at)
            }),
            _ => None,
        }
    }
    find(body, &SCHEMAS[schema], "")
}

fn operation(endpoint: &Endpoint) -> Value {
    let path = endpoint.parameters().map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let query = endpoint
        .query
        .iter()
        .map(|(name, what)| json!({"name": name, "in": "query", "required": false, "description": what, "schema": {"type": "integer"}}));
    let mut operation = json!({
        "operationId": endpoint.operation.name(),
        "summary": endpoint.summary,
        "parameters": path.chain(query).collect::<Vec<_>>(),
        "responses": {
            "200": {"description": "Done", "content": content(endpoint.answer)},
            "default": {"description": "Not done", "content": {"application/json": {"schema": reference("Error")}}},
        },
    });
    if !endpoint.description.is_empty() {
        operation["description"] = endpoint.description.into();
    }
    match endpoint.role {
        Some(role) => operation["x-role"] = role.name().into(),
        None => operation["security"] = json!([]),
    }
    match endpoint.body {
        Body::None => {}
        Body::Optional(schema) | Body::Json(schema) => {
            let required = matches!(endpoint.body, Body::Json(_));
            operation["requestBody"] = json!({"required": required, "content": {"application/json": {"schema": reference(schema)}}});
        }
        Body::Component => {
            let schema = json!({"type": "string", "format": "binary"});
            operation["requestBody"] = json!({"required": true, "content": {"application/wasm": {"schema": schema}}});
        }
    }
    operation
}

fn content(answer: Answer) -> Value {
    match answer {
        Answer::Json(schema) => json!({"application/json": {"schema": reference(schema)}}),
        Answer::List(schema) => json!({"application/json": {"schema": {"type": "array", "items": reference(schema)}}}),
        Answer::Text(kind) => json!({kind: {"schema": {"type": "string"}}}),
    }
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// An object with these properties: name, type with `?` where it may be null or absent, what it is.
fn object(properties: &[(&str, &str, &str)]) -> Value {
    let mut all = Map::new();
    let mut required = Vec::new();
    for (name, kind, what) in properties {
        let (kind, optional) = kind.strip_suffix('?').map_or((*kind, false), |kind| (kind, true));
        let mut schema = match kind {
            "integer" | "number" | "string" | "boolean" | "object" => json!({"type": kind}),
            "any" => json!({}),
            "canary or shadow" => json!({"type": "string", "enum": ["canary", "shadow"]}),
            "objects" => json!({"type": "array", "items": {"type": "object"}}),
            "numbers" => json!({"type": "array", "items": {"type": "number"}}),
            "strings" => json!({"type": "array", "items": {"type": "string"}}),
            "map" => json!({"type": "object", "additionalProperties": {"type": "string"}}),
            list if list.ends_with("[]") => json!({"type": "array", "items": reference(list.trim_end_matches("[]"))}),
            other => reference(other),
        };
        if optional {
            schema = json!({"anyOf": [schema, {"type": "null"}]});
        } else {
            required.push(*name);
        }
        schema["description"] = (*what).into();
        all.insert((*name).into(), schema);
    }
    json!({"type": "object", "required": required, "properties": all})
}

/// Schemas of what is sent.
fn requests() -> [(&'static str, Value); 11] {
    [
        ("Empty", json!({"type": "object", "additionalProperties": false})),
        (
            "Deploy",
            object(&[
                ("file", "string", "The pipeline file, as its author names it."),
                ("text", "string", "Its text."),
                ("includes", "map?", "Texts of files that it includes, by path."),
                ("variables", "object?", "Variables of its template."),
                ("plugins", "map?", "Digests of its plugins, by path."),
                ("folder", "string?", "Relative paths in configs start here; else in the folder that the host was started in."),
                ("parallelism", "integer?", "Tasks side by side."),
                ("drop_state", "strings?", "Uids whose state may be dropped."),
                ("from", "string?", "A savepoint that a new pipeline begins with."),
                ("changes", "Changed[]?", "Transforms that are other than the file says."),
                ("note", "string?", "Why, for the history."),
                ("dry_run", "boolean?", "Only compare."),
                ("allow_downgrade", "boolean?", "Take plugins that are older than what the host has had of them."),
            ]),
        ),
        (
            "Changed",
            object(&[
                ("transform", "string", "Its full name; of an aggregate in a `Combine`, TRANSFORM.COLUMN."),
                ("plugin", "string?", "The digest of its plugin; else it stays."),
                ("config", "any?", "Its config; else it stays."),
            ]),
        ),
        (
            "Swap",
            object(&[
                ("changes", "Changed[]", "All of them or none."),
                ("dry_run", "boolean?", "Only check and try."),
                ("irreversible", "boolean?", "Also where the old version could not take its state back."),
                ("watch", "integer?", "Look at it for so many seconds, and go back if it refuses more rows than the old version."),
                ("allow_downgrade", "boolean?", "Take plugins that are older than what the host has had of them."),
                ("note", "string?", "Why, for the history."),
            ]),
        ),
        (
            "SwapBack",
            object(&[
                ("transform", "string", "Its full name; of an aggregate in a `Combine`, TRANSFORM.COLUMN."),
                ("note", "string?", "Why, for the history."),
            ]),
        ),
        (
            "Candidate",
            object(&[
                ("changes", "Changed[]", "What the candidate is."),
                ("kind", "canary or shadow", "What it is there for."),
                ("seconds", "integer", "How long it is looked at; of a canary, for each share."),
                ("percent", "numbers?", "Shares of a canary, one after the other."),
                ("by", "strings?", "Columns whose values say on which side a row is; else the key, or where the row was read."),
                ("allowed", "Allowed?", "From when on it goes."),
                ("promote", "boolean?", "Swap it in at the end."),
            ]),
        ),
        (
            "Signatures",
            object(&[
                ("name", "string", "Name of the plugin."),
                ("version", "string", "Its version."),
                ("digest", "string", "Its digest."),
                ("signatures", "Signature[]", "By anybody, 32 at most."),
            ]),
        ),
        ("Signature", object(&[("key", "string", "The public key, ed25519: and base64."), ("signature", "string", "64 bytes in base64.")])),
        ("Stop", object(&[("savepoint", "string?", "Copy the last checkpoint to this place.")])),
        ("Savepoint", object(&[("place", "string?", "A name, or for an admin a path or URL; else a name is made.")])),
        (
            "Rollback",
            object(&[
                ("version", "integer?", "Which; else the one before the current."),
                ("note", "string?", "Why, for the history."),
                ("dry_run", "boolean?", "Only compare."),
            ]),
        ),
    ]
}

const SUMMARY: [(&str, &str, &str); 15] = [
    ("name", "string", "Name of the pipeline."),
    ("state", "string", "starting, running, restarting, stopping, paused, stopped, ended or failed."),
    ("since", "string", "Since when, RFC 3339."),
    ("wanted", "string", "What is to be with it: running, paused, stopped or drained."),
    ("version", "integer", "The version that is to run."),
    ("restarts", "integer", "Lives after the first since it was started."),
    ("last_failure", "Failure?", "Its last failure, also one that passed."),
    ("rows_read", "integer", "Rows that sources have read."),
    ("rows_per_second", "number", "The same a second, over the last seconds."),
    ("watermark", "string?", "The lowest watermark of a transform, RFC 3339."),
    ("watermark_lag_seconds", "number?", "How far that is behind the clock."),
    ("lag", "integer?", "Records behind the end, where sources know it."),
    ("errors", "integer", "Rows that were refused."),
    ("late", "integer", "Rows that came too late."),
    ("busy", "number", "Processors that its transforms keep busy."),
];

/// Schemas of what comes back.
fn answers() -> Vec<(&'static str, Value)> {
    let status = [
        &SUMMARY[..],
        &[
            ("parallelism", "integer", "Tasks side by side."),
            ("plugins", "map", "Digests of its plugins, by path."),
            ("changes", "Changed[]", "Transforms that swaps have made other than the file says."),
            ("checkpoints", "object?", "Its checkpoints since it was started."),
            ("transforms", "Transform[]", "Its transforms, sources first."),
        ],
    ]
    .concat();
    let setting =
        [("name", "string", "What it is the value of."), ("from", "string?", "What it is now."), ("to", "string?", "What it will be.")];
    vec![
        ("Error", object(&[("error", "string", "What is wrong, and what to do next."), ("details", "object?", "For programs.")])),
        ("OpenApi", json!({"type": "object"})),
        ("Done", object(&[("done", "boolean", "Always true.")])),
        (
            "Host",
            object(&[
                ("version", "string", "Version of Pelton."),
                ("who", "string", "The name of your token, or your user on the Unix socket."),
                ("role", "string", "Your role."),
                ("uptime_seconds", "number", "Since the start of the host."),
                ("ready", "boolean", "Whether all that is to run has been started."),
                ("resident_bytes", "integer?", "Memory of the process."),
            ]),
        ),
        ("Failure", object(&[("at", "string", "When, RFC 3339."), ("message", "string", "What, and what to do next.")])),
        ("Summary", object(&SUMMARY)),
        ("Status", object(&status)),
        (
            "Transform",
            object(&[
                ("name", "string", "Its full name."),
                ("kind", "string", "Its type."),
                ("rows_in", "integer", "Rows that came in."),
                ("rows_in_per_second", "number", "The same a second, over the last seconds."),
                ("rows_out_per_second", "number", "Rows that came out a second."),
                ("busy", "number", "Processors that it keeps busy."),
            ]),
        ),
        ("Setting", object(&setting)),
        (
            "Change",
            object(&[
                ("change", "string", "added, removed or changed."),
                ("transform", "string", "Its full name."),
                ("kind", "string", "Its type."),
                ("what", "Setting[]?", "What of it."),
            ]),
        ),
        (
            "Diff",
            object(&[
                ("transforms", "Change[]", "Transforms that are not what they were."),
                ("plugins", "Setting[]", "Plugins with another digest."),
                ("settings", "Setting[]", "Options with another value."),
                ("in_place", "boolean", "Whether only plugins, their configs and expressions change."),
            ]),
        ),
        (
            "Deployed",
            object(&[
                ("pipeline", "string", "Name of the pipeline."),
                ("version", "integer?", "The version that is to run now."),
                ("diff", "Diff", "What changes."),
                ("warnings", "string", "What is odd in the file."),
                ("applied", "boolean", "Whether anything was done."),
                ("running", "boolean", "Whether the pipeline is to run, and has not failed."),
            ]),
        ),
        (
            "LogEntry",
            object(&[
                ("number", "integer", "Ascends by one."),
                ("at", "string", "When, RFC 3339."),
                ("level", "string", "ERROR, WARN, INFO, …"),
                ("message", "string", "What."),
                ("fields", "object?", "The rest of it."),
            ]),
        ),
        (
            "HistoryEntry",
            object(&[
                ("version", "integer", "Its number."),
                ("at", "string", "When it was deployed, RFC 3339."),
                ("who", "string", "By whom."),
                ("note", "string?", "Why."),
                ("rollback_of", "integer?", "The version that it brought back."),
                ("plugins", "map", "Digests of its plugins, by path."),
                ("refused", "string?", "Why it did not take over, if it did not."),
                ("changes", "Changed[]", "Transforms that swaps have made other than the file says."),
                ("current", "boolean", "Whether it is to run."),
            ]),
        ),
        (
            "Made",
            object(&[
                ("number", "integer", "Its number, from 1."),
                ("epoch", "integer", "The last epoch of the old versions."),
                ("positions", "object", "Where sources stood at its end, by transform and split."),
                ("changes", "objects", "What it has made: transforms with `from` and `to`."),
            ]),
        ),
        (
            "Swapped",
            object(&[
                ("number", "integer", "Its number; 0: only tried."),
                ("epoch", "integer", "The last epoch of the old versions."),
                ("cut", "object", "Where sources stood at its end, by transform and split."),
                ("pause_millis", "number?", "The longest time that a task stood still; not known after a restart in the middle."),
                ("trials", "Trial[]", "How rows that had just come in fared with the new versions."),
                ("notes", "strings", "What to know besides."),
                ("rolled_back", "string?", "Why it was taken back."),
                ("version", "integer?", "The version of the pipeline that runs."),
            ]),
        ),
        (
            "Trial",
            object(&[
                ("transform", "string", "Its full name."),
                ("rows", "integer", "Rows that were tried."),
                ("refused", "integer", "Of these: refused."),
                ("out", "integer", "Rows that came of it."),
                ("cells", "integer", "Cells of the last checkpoint that were brought to it, where it keeps its state otherwise."),
            ]),
        ),
        (
            "Allowed",
            object(&[
                ("rows", "integer?", "Rows that it has had before anything is concluded."),
                ("refused", "number?", "The share of refused rows that may come on top of that of the version that runs."),
                ("slower", "number?", "Times as long for a row."),
                ("differing", "number?", "The share of rows given out that may differ, where they are compared."),
            ]),
        ),
        (
            "CandidateSeen",
            object(&[
                ("kind", "string", "canary or shadow."),
                ("trials", "Trial[]", "How rows that had just come in fared with it before."),
                ("allowed", "Allowed", "From when on it would have gone."),
                ("slower", "number", "Times as long for a row."),
                ("figures", "object", "Rows of both sides, and what was compared."),
                ("rolled_back", "string?", "Why it was taken back."),
                ("promoted", "Swapped?", "The swap, if it was promoted."),
                ("version", "integer?", "The version of the pipeline that runs."),
            ]),
        ),
        ("Version", json!({"type": "object", "description": "A deployment as it was sent, with its number, time and author."})),
        ("SavepointTaken", object(&[("epoch", "integer", "The epoch that it holds."), ("place", "string", "Where it is.")])),
        ("Stopped", object(&[("savepoint", "SavepointTaken?", "The copy, if one was wanted.")])),
        ("Plugin", object(&[("digest", "string", "sha256: and its hexadecimal digits."), ("bytes", "integer", "Its size.")])),
        ("Signed", object(&[("digest", "string", "Its digest."), ("signatures", "integer", "Signatures that the host has of it.")])),
        ("AuditEntry", json!({"type": "object", "description": "A line of the audit log."})),
    ]
}

fn schemas() -> Value {
    let all = requests().into_iter().chain(answers());
    Value::Object(all.map(|(name, schema)| (name.to_string(), schema)).collect())
}

/// The reference of the API in Markdown.
pub fn markdown() -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for endpoint in &ENDPOINTS {
        let role = endpoint.role.map_or("anybody", |role| role.name());
        let _ = writeln!(text, "### {} {}\n\n{}. For: {role}.", endpoint.method, endpoint.path, endpoint.summary);
        if !endpoint.description.is_empty() {
            let _ = writeln!(text, "{}", endpoint.description);
        }
        for (name, what) in endpoint.query {
            let _ = writeln!(text, "- `?{name}=`: {what}");
        }
        let body = match endpoint.body {
            Body::None => None,
            Body::Optional(schema) | Body::Json(schema) => Some(format!("`{schema}`")),
            Body::Component => Some("a component".to_string()),
        };
        let answer = match endpoint.answer {
            Answer::Json(schema) => format!("`{schema}`"),
            Answer::List(schema) => format!("a list of `{schema}`"),
            Answer::Text(kind) => format!("text, `{kind}`"),
        };
        let _ = writeln!(text, "\n{}Comes back: {answer}.\n", body.map(|body| format!("Sent: {body}. ")).unwrap_or_default());
    }
    text.push_str("## What is sent and what comes back\n");
    for (name, schema) in requests().into_iter().chain(answers()) {
        let Some(properties) = schema["properties"].as_object() else { continue };
        let _ = writeln!(text, "\n### {name}\n\n| key | type | what it is |\n|---|---|---|");
        for (key, schema) in properties {
            let (kind, optional) = match &schema["anyOf"][0] {
                Value::Null => (schema, ""),
                inner => (inner, ", may be missing"),
            };
            let _ = writeln!(text, "| `{key}` | {}{optional} | {} |", type_name(kind), schema["description"].as_str().unwrap_or_default());
        }
    }
    text
}

fn type_name(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return format!("`{}`", reference.rsplit('/').next().unwrap_or_default());
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", type_name(&schema["items"])),
        Some("object") if schema.get("additionalProperties").is_some() => "object of texts".into(),
        Some(kind) => kind.into(),
        None => "any".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let mut found = 0;
        for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document["components"]["schemas"].get(name).is_some(), "no schema {name}");
            found += 1;
        }
        assert!(found > 40, "{found}");
        for endpoint in &ENDPOINTS {
            assert!(document["paths"][endpoint.path].get(endpoint.method.to_lowercase()).is_some(), "{endpoint:?}");
        }
        let operations: usize = document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(operations, ENDPOINTS.len());
    }

    #[test]
    fn a_deployment_is_what_the_document_says() {
        let deployment = serde_json::to_value(crate::folder::Deployment::default()).unwrap();
        let document = document();
        let known = document["components"]["schemas"]["Deploy"]["properties"].as_object().unwrap();
        let mut keys: Vec<&String> = deployment.as_object().unwrap().keys().collect();
        let besides = ["note", "dry_run", "allow_downgrade"].map(str::to_string);
        keys.extend(&besides);
        assert_eq!(keys, known.keys().collect::<Vec<_>>());
    }
}
