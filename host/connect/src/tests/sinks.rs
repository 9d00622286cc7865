use super::*;
use arrow::array::{Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use pelton_core::{Duration, Instant};
use serde_json::json;
use std::sync::Arc;

fn numbers(values: &[i64]) -> Batch {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let rows = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap();
    batch(rows, values.iter().map(|value| value * 1_000_000).collect())
}

fn write(dir: &Path, kind: &str, config: Value, batches: &[Batch]) -> crate::SinkSummary {
    let runtime = runtime();
    runtime.block_on(async {
        let mut sink = open(kind, &config, sink_context(&runtime, dir, batches[0].schema())).await;
        for batch in batches {
            assert_eq!(sink.write(batch).await.unwrap(), []);
        }
        sink.finish().await.unwrap()
    })
}

#[test]
fn nothing_is_visible_before_the_end_and_nothing_is_left_after_an_abort() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let many: Vec<i64> = (0..300_000).collect();
    runtime.block_on(async {
        let rows = numbers(&many);
        let mut sink = open("WriteToJson", &json!({"path": "out/n.json"}), sink_context(&runtime, dir.path(), rows.schema())).await;
        sink.write(&rows).await.unwrap();
        let out = dir.path().join("out");
        assert!(visible(&out).iter().all(|name| name.starts_with(".n.json.tmp-")), "{:?}", visible(&out));
        let summary = sink.finish().await.unwrap();
        assert_eq!(visible(&out), ["n.json-00000-of-00001"]);
        let text = std::fs::read_to_string(&summary.files[0]).unwrap();
        assert_eq!((summary.rows, summary.bytes as usize), (300_000, text.len()));
        assert_eq!(text.lines().last(), Some("{\"n\":299999}"));

        let mut sink = open("WriteToJson", &json!({"path": "out/n.json"}), sink_context(&runtime, dir.path(), rows.schema())).await;
        sink.write(&numbers(&[7])).await.unwrap();
        sink.abort().await;
        assert_eq!(visible(&out), ["n.json-00000-of-00001"]);
        assert_eq!(std::fs::read_to_string(&summary.files[0]).unwrap(), text);
    });
}

#[test]
fn dispositions() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("n-00000-of-00003"), "old").unwrap();
    std::fs::write(dir.path().join("n-keep"), "mine").unwrap();
    write(dir.path(), "WriteToText", json!({"path": "n"}), &[numbers(&[1])]);
    assert_eq!(visible(dir.path()), ["n-00000-of-00001", "n-keep"]);
    write(dir.path(), "WriteToText", json!({"path": "n", "write_disposition": "append"}), &[numbers(&[2])]);
    assert_eq!(visible(dir.path()), ["n-00000-of-00001", "n-00001-00000-of-00001", "n-keep"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("n-00001-00000-of-00001")).unwrap(), "2\n");
    let runtime = runtime();
    let config = json!({"path": "n", "write_disposition": "fail-if-exists"});
    let opened = runtime.block_on(open_sink("WriteToText", &config, sink_context(&runtime, dir.path(), numbers(&[1]).schema())));
    assert!(opened.err().unwrap().to_string().contains("n-00000-of-00001"));
    write(dir.path(), "WriteToText", json!({"path": "n", "write_disposition": "truncate"}), &[numbers(&[3])]);
    assert_eq!(visible(dir.path()), ["n-00000-of-00001", "n-keep"]);
}

#[test]
fn unbounded_input_rolls_by_window_size_and_age() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let size = Duration::from_micros(60_000_000);
    runtime.block_on(async {
        let rows = numbers(&[0, 59, 60]);
        let ctx = SinkContext {
            unbounded: true,
            window: WindowFn::Fixed { size, offset: Duration::ZERO },
            ..sink_context(&runtime, dir.path(), rows.schema())
        };
        let mut sink = open("WriteToJson", &json!({"path": "n", "roll": {"interval": "1s", "size": "1MiB"}}), ctx).await;
        sink.tick(Instant::from_micros_saturating(0)).await.unwrap();
        sink.write(&rows).await.unwrap();
        assert!(visible(dir.path()).iter().all(|name| name.starts_with('.')));
        sink.tick(Instant::from_micros_saturating(4_000_000_000_000_000)).await.unwrap();
        assert_eq!(visible(dir.path()), ["n-19700101T000000Z-00000", "n-19700101T000100Z-00000"]);
        sink.write(&numbers(&(0..30).cycle().take(200_000).collect::<Vec<_>>())).await.unwrap();
        assert!(visible(dir.path()).contains(&"n-19700101T000000Z-00001".into()));
        sink.write(&numbers(&[30])).await.unwrap();
        let summary = sink.finish().await.unwrap();
        assert_eq!(summary.rows, 200_004);
        assert_eq!(summary.files.len(), 4);
        assert_eq!(visible(dir.path()).len(), 4);
    });
}

#[test]
fn a_row_that_json_cannot_say_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8, true), Field::new("x", DataType::Float64, true)]));
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["a", "b", "c"])), Arc::new(Float64Array::from(vec![1.0, f64::NAN, f64::INFINITY]))];
    let rows = batch(RecordBatch::try_new(schema.clone(), columns).unwrap(), vec![0; 3]);
    runtime.block_on(async {
        let mut sink = open("WriteToJson", &json!({"path": "x"}), sink_context(&runtime, dir.path(), schema)).await;
        let errors = sink.write(&rows).await.unwrap();
        assert_eq!(errors.iter().map(|error| error.row).collect::<Vec<_>>(), [1, 2]);
        assert!(errors[0].message.contains("field `x`: NaN"), "{errors:?}");
        let summary = sink.finish().await.unwrap();
        assert_eq!(std::fs::read_to_string(&summary.files[0]).unwrap(), "{\"s\":\"a\",\"x\":1.0}\n");
    });
}

#[test]
fn text_takes_one_field_and_an_unwritable_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let two = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)]));
    let opened = runtime.block_on(open_sink("WriteToText", &json!({"path": "x"}), sink_context(&runtime, dir.path(), two)));
    assert!(opened.err().unwrap().to_string().contains("exactly one field"));
    std::fs::write(dir.path().join("file"), "").unwrap();
    let opened =
        runtime.block_on(open_sink("WriteToText", &json!({"path": "file/x"}), sink_context(&runtime, dir.path(), numbers(&[1]).schema())));
    assert!(opened.err().unwrap().to_string().contains("file"));
}
