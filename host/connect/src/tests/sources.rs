use super::*;
use crate::line_of;
use serde_json::json;
use std::io::Write;

#[test]
fn text_lines_of_all_kinds() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), b"head\none\r\n\ntwo\xFF\nlast").unwrap();
    let found = read(dir.path(), "ReadFromText", json!({"path": "*.txt", "skip_header_lines": 1}), 2, None).unwrap();
    assert_eq!(found.texts(), [r#"{"line":"one"}"#, r#"{"line":""}"#, r#"{"line":"last"}"#]);
    assert_eq!(found.errors(), [(11, "not UTF-8".into())]);
    assert_eq!(line_of(&dir.path().join("a.txt").display().to_string(), 11), Some(4));
    assert_eq!(found.batches.iter().filter(|batch| batch.split_ended).count(), 1);
}

#[test]
fn a_line_of_16_mib_is_read_and_a_longer_one_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let limit = pelton_core::batch::MAX_ROW_BYTES;
    let text = format!("{}\n{}\nend\n", "x".repeat(limit), "y".repeat(limit + 1));
    std::fs::write(dir.path().join("a"), text).unwrap();
    let found = read(dir.path(), "ReadFromText", json!({"path": "a"}), 1, None).unwrap();
    let rows = found.rows();
    assert_eq!(rows.iter().map(|(offset, text)| (*offset, text.len() - 11)).collect::<Vec<_>>(), [(0, limit), (2 * limit as i64 + 3, 3)]);
    assert_eq!(found.errors(), [(limit as i64 + 1, "the record is longer than 16 MiB".into())]);
    assert!(found.batches.iter().flat_map(|batch| &batch.errors).all(|error| error.element.len() <= 64 * 1024));
}

#[test]
fn json_types_come_from_a_sample_and_what_does_not_fit_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        "{\"a\":1,\"b\":\"x\",\"c\":[1.5]}\n\n{\"a\":2}\n{\"a\":\"no\"}\nnot json\n{\"b\":\"y\",\"a\":3,\"new\":1}\n{\"a\":4,\"b\":5}\n";
    std::fs::write(dir.path().join("a.json"), text).unwrap();
    let found = read(dir.path(), "ReadFromJson", json!({"path": "a.json"}), 2, None).unwrap();
    assert_eq!(
        found.texts(),
        [r#"{"a":1,"b":"x","c":[1.5],"new":null}"#, r#"{"a":2,"b":null,"c":null,"new":null}"#, r#"{"a":3,"b":"y","c":null,"new":1}"#]
    );
    let errors = found.errors();
    assert_eq!(errors.len(), 3);
    assert!(errors[0].1.contains("field `a`: `no` is no int64"), "{errors:?}");
    assert!(errors[2].1.contains("field `b`: `5` is no string"), "{errors:?}");
    let projected = read(dir.path(), "ReadFromJson", json!({"path": "a.json"}), 1, Some(&["new", "a"])).unwrap();
    assert_eq!(projected.texts(), [r#"{"a":1,"new":null}"#, r#"{"a":2,"new":null}"#, r#"{"a":3,"new":1}"#, r#"{"a":4,"new":null}"#]);
    assert_eq!(projected.schema.fields().len(), 4);
    assert_eq!(read(dir.path(), "ReadFromJson", json!({"path": "a.json"}), 1, Some(&[])).unwrap().rows().len(), 5);
}

#[test]
fn compressed_files_give_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..50_000).map(|number| format!("{{\"n\":{number}}}\n")).collect();
    std::fs::write(dir.path().join("plain.json"), &text).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    std::fs::write(dir.path().join("a.json.gz"), &gzip).unwrap();
    std::fs::write(dir.path().join("b.json.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    std::fs::write(dir.path().join("cut.json.gz"), &gzip[..gzip.len() / 2]).unwrap();
    let plain = read(dir.path(), "ReadFromJson", json!({"path": "plain.json"}), 2, None).unwrap().rows();
    assert_eq!(plain.len(), 50_000);
    assert_eq!(read(dir.path(), "ReadFromJson", json!({"path": "a.json.gz"}), 2, None).unwrap().rows(), plain);
    assert_eq!(read(dir.path(), "ReadFromJson", json!({"path": "b.json.zst"}), 2, None).unwrap().rows(), plain);
    let error = read(dir.path(), "ReadFromJson", json!({"path": "cut.json.gz"}), 1, None).err().unwrap();
    assert!(error.to_string().contains("cut.json.gz"), "{error}");
}

#[test]
fn a_large_file_is_shared_and_each_line_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..400_000).map(|number| format!("line number {number:050}\n")).collect();
    std::fs::write(dir.path().join("a"), &text).unwrap();
    let found = read(dir.path(), "ReadFromText", json!({"path": "a"}), 3, None).unwrap();
    assert!(found.batches.iter().filter(|batch| batch.split_ended).count() >= 3);
    let rows = found.rows();
    assert_eq!(rows.len(), 400_000);
    for (number, (offset, text)) in rows.iter().enumerate() {
        assert_eq!(*offset, number as i64 * 63);
        assert!(text.ends_with(&format!("{number}\"}}")));
    }
}

#[test]
fn csv_values_gaps_and_errors() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.csv"), "# made by hand\nid,name,price,ok\n1,\"a,\nb\",1.5,true\n\n2,,2,False\n3,c\n").unwrap();
    std::fs::write(dir.path().join("b.csv"), "name,id\nz,9\r\n").unwrap();
    let found = read(dir.path(), "ReadFromCsv", json!({"path": "*.csv", "comment": "#"}), 2, None).unwrap();
    let mut texts = found.texts();
    texts.sort();
    assert_eq!(
        texts,
        [
            r#"{"id":1,"name":"a,\nb","price":1.5,"ok":true}"#,
            r#"{"id":2,"name":null,"price":2.0,"ok":false}"#,
            r#"{"id":9,"name":"z","price":null,"ok":null}"#,
        ]
    );
    assert_eq!(found.errors(), [(62, "the record has 2 fields and the header 4".into())]);
    let element = &found.batches.iter().find(|batch| !batch.errors.is_empty()).unwrap().errors[0].element;
    assert_eq!(element, b"3,c");
    let typed = json!({"path": "a.csv", "comment": "#", "schema": {"id": "int8", "name": "integer"}});
    let found = read(dir.path(), "ReadFromCsv", typed, 1, None).unwrap();
    assert_eq!(found.texts(), [r#"{"id":2,"name":null}"#]);
    assert_eq!(found.errors().len(), 2);
}

#[test]
fn stopped_readers_end() {
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "x\n".repeat(100_000)).unwrap();
    runtime.block_on(async {
        let (sender, stop) = watch::channel(false);
        let source = open_source("ReadFromText", &json!({"path": "a"}), source_context(&runtime, dir.path(), stop)).await.unwrap();
        let mut readers = source.readers(1).unwrap();
        assert!(readers[0].next().await.unwrap().is_some());
        sender.send(true).unwrap();
        assert!(readers[0].next().await.unwrap().is_none());
    });
}

#[test]
fn openers_name_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, config, part) in [
        ("ReadFromText", json!({"path": "none.txt"}), "none.txt"),
        ("ReadFromText", json!({}), "`path`"),
        ("ReadFromJson", json!({"path": 3}), "`path` must be a string"),
        ("ReadFromCsv", json!({"path": "x", "schema": {"a": "strin"}}), "unknown type `strin`"),
        ("Nothing", json!({}), "Nothing"),
    ] {
        let error = read(dir.path(), kind, config, 1, None).err().unwrap();
        assert!(error.to_string().contains(part), "{error}");
    }
}
