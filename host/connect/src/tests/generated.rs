use super::*;
use serde_json::json;

#[test]
fn created_rows_come_once_whatever_the_readers() {
    let dir = tempfile::tempdir().unwrap();
    let found = read(dir.path(), "Create", json!({"elements": [{"a": 1}, {"a": 2}]}), 3, None).unwrap();
    assert_eq!(found.texts(), [r#"{"a":1}"#, r#"{"a":2}"#]);
}

#[test]
fn events_are_the_same_in_any_parts_readers_and_rate() {
    let dir = tempfile::tempdir().unwrap();
    let lag = json!({"offline_share": 0.2, "offline_duration": "2s", "duplicates": 0.05, "malformed": 0.02, "max_out_of_order": "1s"});
    let lines = |parts: u64, readers: usize, rate: Option<u64>| {
        let config = json!({"kind": "web_access", "count": 20_000, "parts": parts, "rate": rate, "interval": "1ms", "lag": lag});
        let mut texts = read(dir.path(), "GenerateEvents", config, readers, None).unwrap().texts();
        texts.sort();
        texts
    };
    let one = lines(1, 1, None);
    assert!(one.len() > 20_700 && one.len() < 21_300, "{}", one.len());
    assert_eq!(lines(4, 2, None), one);
    assert_eq!(lines(3, 5, Some(200_000)), one);
}

#[test]
fn rows_have_the_fields_as_columns_and_cut_ones_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"kind": "iot", "count": 10_000, "lag": {"malformed": 0.1}});
    let found = read(dir.path(), "GenerateEvents", config, 1, Some(&["temperature"])).unwrap();
    assert_eq!(found.rows().len() + found.errors().len(), 10_000);
    assert!((800..1_200).contains(&found.errors().len()));
    assert_eq!(found.schema.fields().len(), 6);
    assert!(found.rows()[0].1.starts_with("{\"temperature\":"));
}

#[test]
fn every_fault_of_a_config_is_found() {
    let spec = crate::catalog().into_iter().find(|spec| spec.name == "GenerateEvents").unwrap();
    let config = json!({"kind": "webaccess", "parts": 0, "start": "today", "lag": {"offlin_share": 1, "duplicates": 2}});
    let mut paths: Vec<String> = (spec.check)(&config).iter().map(|fault| fault.path.join(".")).collect();
    paths.sort();
    assert_eq!(paths, ["kind", "lag.duplicates", "lag.offlin_share", "parts", "start"]);
    let held = json!({"kind": "iot", "interval": "0.001ms", "lag": {"offline_share": 0.9, "offline_duration": "1h"}});
    assert_eq!((spec.check)(&held)[0].path, ["lag", "offline_duration"]);
}

#[test]
fn names_and_keys_of_connectors_are_documented_once() {
    let mut names: Vec<&str> = crate::catalog().iter().map(|spec| spec.name).collect();
    let total = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), total);
    for spec in crate::catalog() {
        assert!(spec.doc.ends_with('.'), "{}", spec.name);
        assert!(spec.keys.iter().all(|key| key.doc.ends_with('.')), "{}", spec.name);
    }
}
