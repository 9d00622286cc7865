//! Parquet and Avro: what one pipeline writes another reads back, with every type, in several files and with few of the columns.

use pelton_tests::pelton::{run, summary};
use serde_json::{Value, json};

fn rows() -> Value {
    json!([
        {"id": 1, "at": "2026-01-02T03:04:05.678901Z", "name": "Zoë", "score": 1.5, "tags": ["a", "b"], "place": {"x": -1, "y": null}},
        {"id": 2, "at": "2026-01-02T03:04:06Z", "name": null, "score": -0.25, "tags": [], "place": {"x": 0, "y": "z"}},
        {"id": 3, "at": "1969-12-31T23:59:59.999999Z", "name": "", "score": null, "tags": ["c"], "place": null}
    ])
}

fn check(format: &str, options: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (write, read, part) = ("write.yaml", "read.yaml", folder.path().join("part"));
    let write_to = |path: &str, text: String| {
        let path = folder.path().join(path);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let rows = rows();
    let write = write_to(
        write,
        format!(
            "pipeline:\n  type: chain\n  transforms:\n    - {{type: Create, config: {{elements: {rows}}}}}\n    - {{type: Reshuffle}}\n    - {{type: MapToFields, config: {{language: sql, append: true, drop: [at], fields: {{at: \"CAST(at AS TIMESTAMP)\"}}}}}}\n    - {{type: WriteTo{format}, config: {{path: {}, num_shards: 2{options}}}}}\n",
            part.display()
        ),
    );
    summary(&[&write, "--parallelism", "2"]);
    let read = write_to(
        read,
        format!(
            "pipeline:\n  transforms:\n    - {{type: ReadFrom{format}, name: Read, config: {{path: '{part}-*'}}}}\n    - {{type: MapToFields, name: Ids, input: Read, config: {{fields: {{id: id}}}}}}\n    - {{type: AssertEqual, input: Ids, config: {{elements: [{{id: 1}}, {{id: 2}}, {{id: 3}}]}}}}\n    - {{type: AssertEqual, name: Whole, input: Read, config: {{elements: {rows}}}}}\n",
            part = part.display()
        ),
    );
    for parallelism in ["1", "3"] {
        let said = run(&["run", &read, "--quiet", "--parallelism", parallelism]);
        assert_eq!(said.code, 0, "{format}{options}\n{}", said.err);
    }
    // A file that is cut short is told by its name.
    let file = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let file = file.filter(|path| path.to_string_lossy().contains("part-")).max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 10]).unwrap();
    let said = run(&["run", &read, "--quiet"]);
    assert!(said.code == 2 && said.err.contains(file.to_str().unwrap()), "{format}: {} {}", said.code, said.err);
}

#[test]
fn parquet_files_are_read_back() {
    check("Parquet", "");
    check("Parquet", ", compression: snappy");
}

#[test]
fn avro_files_are_read_back() {
    for compression in ["none", "deflate", "snappy", "zstd"] {
        check("Avro", &format!(", compression: {compression}"));
    }
}
