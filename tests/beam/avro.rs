//! Avro files against fastavro, which Beam itself uses: what we write it reads, what it writes we read.

use super::oracle::{Request, python};
use super::ours::{self, Outcome};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Rows of all kinds of values, with nulls and without.
fn rows() -> Value {
    json!([
        {"id": 1, "name": "Zoë", "score": 1.5, "good": true, "tags": ["a", "b"], "at": {"x": -1, "y": null}},
        {"id": -9_007_199_254_740_993i64, "name": "", "score": -0.25, "good": false, "tags": [], "at": {"x": 0, "y": "z"}},
        {"id": 3, "name": null, "score": null, "good": null, "tags": ["c"], "at": {"x": 7, "y": "w"}}
    ])
}

const READ: &str = "
import fastavro, json, sys
print(json.dumps([row for path in sys.argv[1:] for row in fastavro.reader(open(path, 'rb'))]))
";

const WRITE: &str = "
import datetime, fastavro, json, sys
path, codec = sys.argv[1:]
null = lambda kind: ['null', kind]
schema = {'type': 'record', 'name': 'R', 'fields': [
  {'name': 'id', 'type': 'long'}, {'name': 'name', 'type': null('string')}, {'name': 'score', 'type': null('double')},
  {'name': 'good', 'type': null('boolean')}, {'name': 'tags', 'type': {'type': 'array', 'items': 'string'}},
  {'name': 'at', 'type': {'type': 'record', 'name': 'P', 'fields': [{'name': 'x', 'type': 'int'}, {'name': 'y', 'type': null('string')}]}},
  {'name': 'kind', 'type': {'type': 'enum', 'name': 'K', 'symbols': ['big', 'small']}},
  {'name': 'when', 'type': {'type': 'long', 'logicalType': 'timestamp-millis'}}]}
rows = json.load(sys.stdin)
when = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, datetime.timezone.utc)
fastavro.writer(open(path, 'wb'), schema, [dict(row, kind='small', when=when) for row in rows], codec=codec)
";

/// Fails with what differs.
pub fn check(io: &tokio::runtime::Runtime) {
    let folder = tempfile::tempdir().expect("a folder");
    for codec in ["none", "deflate", "zstd"] {
        let path = folder.path().join(format!("ours-{codec}"));
        let yaml = format!(
            "pipeline:\n  type: chain\n  transforms:\n    - {{type: Create, config: {{elements: {}}}}}\n    - {{type: WriteToAvro, config: {{path: {}, compression: {codec}}}}}\n",
            rows(),
            path.display()
        );
        run(&folder.path().join("write.yaml"), &yaml, io);
        // fastavro reads zstandard only with one more package.
        if codec != "zstd" {
            let file = format!("{}-00000-of-00001", path.display());
            let read: Value = serde_json::from_str(&python_says(READ, &[&file], "")).expect("JSON of fastavro");
            assert_eq!(read, rows(), "fastavro reads {codec}");
        }
        run(&folder.path().join("read.yaml"), &reading(&format!("{}-*", path.display()), &rows()), io);
    }
    let mut expected = rows();
    for row in expected.as_array_mut().into_iter().flatten() {
        row["kind"] = "small".into();
        row["when"] = "2026-01-02T03:04:05.678Z".into();
    }
    for codec in ["null", "deflate"] {
        let path = folder.path().join(format!("theirs-{codec}.avro")).display().to_string();
        python_says(WRITE, &[&path, codec], &rows().to_string());
        run(&folder.path().join("read.yaml"), &reading(&path, &expected), io);
    }
    println!("avro: files of both sides are read by both");
}

fn reading(path: &str, expected: &Value) -> String {
    format!(
        "pipeline:\n  type: chain\n  transforms:\n    - {{type: ReadFromAvro, config: {{path: \"{path}\"}}}}\n    - {{type: AssertEqual, config: {{elements: {expected}}}}}\n"
    )
}

fn run(file: &Path, yaml: &str, io: &tokio::runtime::Runtime) {
    let request = Request { file, yaml, variables: &[], captures: &[] };
    let outcome = ours::load(&request).map(|loaded| ours::run(loaded, file, io)).unwrap_or_else(|outcome| outcome);
    assert!(matches!(outcome, Outcome::Ran(_)), "{outcome:?}\n{yaml}");
}

fn python_says(program: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut command = Command::new(python());
    command.args(["-c", program]).args(arguments).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("Python of the suite starts");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("Python reads");
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "fastavro failed; it said so above");
    String::from_utf8(output.stdout).expect("JSON is UTF-8")
}
