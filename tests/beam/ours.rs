//! Our side: a pipeline is loaded and run in this process; what its outputs give is captured with windows and panes.
//!
//! A capture is two nodes behind an output: ExtractWindowingInfo, and a Parquet file, which keeps every type.

use super::oracle::{Capture, Request};
use super::value::{Captured, Pane, Value, millis};
use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pelton_core::Instant;
use pelton_pipeline::graph::{Graph, Input, Node, Transform, WindowingInfo};
use pelton_pipeline::{Files, Settings, UncheckedPlugins};
use pelton_runtime::RunOptions;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// Tasks side by side: enough for rows to be divided.
const PARALLELISM: usize = 2;
/// A pipeline of a few rows that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Names of the captured windowing.
const INFO: [(&str, WindowingInfo); 4] = [
    ("captured time", WindowingInfo::Timestamp),
    ("captured start", WindowingInfo::WindowStart),
    ("captured end", WindowingInfo::WindowEnd),
    ("captured pane", WindowingInfo::PaneInfo),
];

/// How a pipeline fared.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Rows by capture.
    Ran(Vec<Vec<Captured>>),
    /// It was refused before it ran.
    Rejected(String),
    /// It failed while it ran.
    Failed(String),
    /// It needs something that is still to come.
    NotYet(String),
    /// A fault of ours that no file excuses.
    Broken(String),
}

/// A loaded pipeline and what is captured of it.
pub struct Loaded {
    graph: Graph,
    pub captures: Vec<Capture>,
}

/// Loads a pipeline and finds the outputs that nobody reads.
pub fn load(request: &Request<'_>) -> Result<Loaded, Outcome> {
    let variables = request.variables.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let files = Files::read_by(|path| std::fs::read_to_string(path).map_err(|error| error.to_string()));
    let settings = Settings { file: request.file.into(), text: request.yaml.into(), variables, files, ..Settings::default() };
    match pelton_pipeline::load(&settings, &pelton_connect::catalog(), &UncheckedPlugins) {
        Ok(mut graph) => {
            let captures = capture_leaves(&mut graph, request.file.parent().expect("a file lies in a folder"));
            Ok(Loaded { graph, captures })
        }
        Err(findings) => Err(rejected(pelton_pipeline::render(&findings))),
    }
}

/// Runs it to the end.
pub fn run(loaded: Loaded, file: &Path, io: &tokio::runtime::Runtime) -> Outcome {
    let folder = file.parent().expect("a file lies in a folder");
    let options =
        RunOptions { file: file.display().to_string(), base_dir: folder.into(), parallelism: PARALLELISM, io: io.handle().clone() };
    let captures = loaded.captures.len();
    let running = async {
        let prepared = pelton_runtime::prepare(loaded.graph, &[], options).await.map_err(|failure| rejected(failure.to_string()))?;
        prepared.run().await.map_err(|failure| match failure {
            failure @ pelton_runtime::Failure::Internal { .. } => Outcome::Broken(failure.to_string()),
            failure => Outcome::Failed(failure.to_string()),
        })
    };
    match io.block_on(async { tokio::time::timeout(PATIENCE, running).await }) {
        Err(_) => Outcome::Broken(format!("no end within {} s", PATIENCE.as_secs())),
        Ok(Err(outcome)) => outcome,
        Ok(Ok(_)) => Outcome::Ran((0..captures).map(|number| read_capture(folder, number)).collect()),
    }
}

fn rejected(message: String) -> Outcome {
    if message.contains("not available yet") { Outcome::NotYet(message) } else { Outcome::Rejected(message) }
}

/// Puts a capture behind each output that nobody reads.
fn capture_leaves(graph: &mut Graph, folder: &Path) -> Vec<Capture> {
    let mut captures = Vec::new();
    for (node, output) in leaves(graph) {
        let input = Input { node, output: output.clone() };
        let path = folder.join(format!("captured-{}", captures.len()));
        captures.push(Capture { output, ..name_in_file(graph, node) });
        let fields = INFO.iter().map(|(name, info)| (name.to_string(), *info)).collect();
        let shown = add(graph, "shown", Transform::ExtractWindowingInfo { fields }, input);
        let write = Transform::Sink { kind: "WriteToParquet".into(), config: json!({"path": path, "compression": "none"}) };
        let written = add(graph, "captured", write, Input { node: shown, output: String::new() });
        graph.nodes[written].windowing = None;
    }
    captures
}

fn leaves(graph: &Graph) -> Vec<(usize, String)> {
    let is_read = |node: usize, output: &str| {
        let mut inputs = graph.nodes.iter().flat_map(|reader| &reader.inputs);
        inputs.any(|input| input.node == node && input.output == output)
    };
    let mut found = Vec::new();
    for node in graph.nodes.iter().filter(|node| !matches!(node.transform, Transform::Sink { .. })) {
        let main = (!matches!(node.transform, Transform::Partition { .. })).then_some("");
        let outputs = main.into_iter().chain(node.outputs.iter().map(String::as_str));
        found.extend(outputs.filter(|output| !is_read(node.id, output)).map(|output| (node.id, output.to_string())));
    }
    found
}

/// What the file calls a node. Windowing of a source and `output_schema` are nodes of ours behind a transform, and a part of it
/// for Beam.
fn name_in_file(graph: &Graph, node: usize) -> Capture {
    let mut owner = &graph.nodes[node];
    while let Some(input) = owner.inputs.first().map(|input| &graph.nodes[input.node])
        && owner.name.starts_with(&format!("{}/", input.name))
    {
        owner = input;
    }
    let name = owner.name.rsplit('/').next().unwrap_or_default();
    // Nameless transforms of one type are told apart by what follows the type.
    let kind = owner.transform.kind();
    let name = if name.starts_with(&format!("{kind}@")) || name.starts_with(&format!("{kind}-")) { kind } else { name };
    Capture { name: name.into(), line: owner.place.line, output: String::new() }
}

fn add(graph: &mut Graph, name: &str, transform: Transform, input: Input) -> usize {
    let id = graph.nodes.len();
    let like = graph.nodes[input.node].clone();
    let node = Node { id, name: format!("{name} {id}"), transform, inputs: vec![input], outputs: Vec::new(), error_output: None, ..like };
    graph.nodes.push(node);
    id
}

fn read_capture(folder: &Path, number: usize) -> Vec<Captured> {
    let prefix = format!("captured-{number}-");
    parquet_files(folder, &prefix).iter().flat_map(captured).collect()
}

/// The rows of all Parquet files that begin so.
pub fn parquet_files(folder: &Path, prefix: &str) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    for path in super::files::beginning_with(folder, prefix) {
        let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(ParquetRecordBatchReaderBuilder::build);
        let reader = reader.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        batches.extend(reader.map(|batch| batch.unwrap_or_else(|error| panic!("{}: {error}", path.display()))));
    }
    batches
}

fn captured(batch: &RecordBatch) -> Vec<Captured> {
    let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("the column `{name}` was captured"));
    let instants = |name: &str| column(name).as_primitive::<TimestampMicrosecondType>().clone();
    let [time, start, end] = [INFO[0].0, INFO[1].0, INFO[2].0].map(instants);
    let pane = column(INFO[3].0).as_struct();
    let flag = |name: &str, row: usize| pane.column_by_name(name).is_some_and(|column| column.as_boolean().value(row));
    let number = |name: &str, row: usize| pane.column_by_name(name).map_or(0, |column| column.as_primitive::<Int64Type>().value(row));
    let own: Vec<usize> =
        (0..batch.num_columns()).filter(|at| INFO.iter().all(|info| info.0 != batch.schema().field(*at).name())).collect();
    let rows = StructArray::from(batch.project(&own).expect("columns of the batch"));
    (0..batch.num_rows())
        .map(|row| Captured {
            row: value(&rows, row),
            time: millis(time.value(row)),
            window: (end.value(row) != Instant::END_OF_GLOBAL_WINDOW.micros()).then(|| (millis(start.value(row)), millis(end.value(row)))),
            pane: Pane {
                is_first: flag("is_first", row),
                is_last: flag("is_last", row),
                timing: pane.column_by_name("timing").map(|column| column.as_string::<i32>().value(row).to_string()).unwrap_or_default(),
                index: number("index", row),
                nonspeculative_index: number("nonspeculative_index", row),
            },
        })
        .collect()
}

/// The rows of a batch as values.
pub fn rows(batch: &RecordBatch) -> Vec<Value> {
    let rows = StructArray::from(batch.clone());
    (0..batch.num_rows()).map(|row| value(&rows, row)).collect()
}

fn value(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let text = || array_value_to_string(array, row).expect("a value can be shown");
    match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        data_type if data_type.is_integer() => Value::Int(text().parse().expect("an integer")),
        DataType::Float64 => Value::Float(array.as_primitive::<arrow::datatypes::Float64Type>().value(row)),
        DataType::Float32 => Value::Float(array.as_primitive::<arrow::datatypes::Float32Type>().value(row).into()),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).into()),
        DataType::LargeUtf8 => Value::Text(array.as_string::<i64>().value(row).into()),
        DataType::Utf8View => Value::Text(array.as_string_view().value(row).into()),
        DataType::Binary => Value::Bytes(array.as_binary::<i32>().value(row).into()),
        DataType::LargeBinary => Value::Bytes(array.as_binary::<i64>().value(row).into()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Value::Time(millis(array.as_primitive::<TimestampMicrosecondType>().value(row))),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Value::List((0..items.len()).map(|item| value(&items, item)).collect())
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            Value::Row(fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), value(column, row))).collect())
        }
        _ => Value::Other(text()),
    }
}
