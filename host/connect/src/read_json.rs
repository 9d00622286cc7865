//! `ReadFromJson`: each line of each file is a JSON object, its fields are columns.
//!
//! Without `schema` the columns are those of a sample: the first lines of the first files. Only the fields that the pipeline uses
//! are looked into.

use crate::ConnectError;
use crate::file::blocks::{Piece, read_lines};
use crate::file::chunk::{Chunk, Layout};
use crate::file::compression::{CHOICES, Compression};
use crate::file::decode::{Decode, LineDecode};
use crate::file::find::find;
use crate::file::restart::Reached;
use crate::file::source::{COMPRESSION, FileSource, PATH};
use crate::format::json_infer::Shape;
use crate::format::json_read::JsonDecoder;
use crate::format::schema;
use crate::settings::Settings;
use crate::source::{Source, SourceContext};
use arrow::datatypes::Schema;
use pelton_core::catalog::{ConfigFault, ConnectorSpec, KeySpec, Role};
use serde_json::Value;

/// Lines of a file that are looked at to find the types.
const SAMPLE_ROWS: usize = 1_000;
/// Files that are looked at.
const SAMPLE_FILES: usize = 4;

/// What it says of itself.
pub static SPEC: ConnectorSpec = ConnectorSpec {
    name: "ReadFromJson",
    role: Role::Source,
    doc: "Reads files of JSON objects, one a line; blank lines are passed over.",
    keys: &[
        PATH,
        KeySpec {
            name: "schema",
            required: false,
            doc: "Fields and their types, as `{name: type}` or a JSON schema; default: the types that most values have among the first 1,000 lines of each of the first 4 files.",
        },
        COMPRESSION,
    ],
    has_errors: true,
    endless: |_| false,
    timed: false,
    check: |config| read(config).1,
};

struct Options {
    path: String,
    schema: Option<Schema>,
    compression: Compression,
}

fn read(config: &Value) -> (Options, Vec<ConfigFault>) {
    let mut settings = Settings::new(config);
    let options = Options {
        path: settings.string("path").unwrap_or_default(),
        schema: given_schema(&mut settings),
        compression: settings.choice("compression", &CHOICES).unwrap_or(Compression::Auto),
    };
    (options, settings.into_faults())
}

/// The key `schema`, where it is given and right.
pub(crate) fn given_schema(settings: &mut Settings<'_>) -> Option<Schema> {
    match schema::parse(settings.get("schema")?) {
        Ok(schema) => Some(schema),
        Err(faults) => {
            settings.faults_below("schema", faults);
            None
        }
    }
}

/// Finds the files, and looks at some lines if the types were not given.
pub async fn open(config: Value, ctx: SourceContext) -> Result<Box<dyn Source>, ConnectError> {
    let options = read(&config).0;
    let (base_dir, readers, given) = (ctx.base_dir.clone(), ctx.parallelism, options.schema.is_some());
    let layout = Layout { compression: options.compression, skip_lines: 0, divisible: true };
    let opened = ctx.io.spawn_blocking(move || {
        let mut plan = layout.plan(&find(&base_dir, &options.path)?, readers)?;
        let schema = match options.schema {
            Some(schema) => schema,
            None => infer(&layout.chunks(&plan, &Reached::default()), &options.path)?,
        };
        plan.columns = (!given).then(|| schema::describe(&schema));
        Ok::<_, ConnectError>((plan, schema))
    });
    let (plan, schema) = opened.await.map_err(ConnectError::internal)??;
    let decoded = schema.clone();
    Ok(Box::new(FileSource {
        schema: schema::nullable(&schema),
        layout,
        plan,
        reached: Reached::default(),
        in_lines: true,
        make_decode: Box::new(move |projection| Ok(Box::new(LineDecode::json(JsonDecoder::new(&decoded, projection)?)) as Box<dyn Decode>)),
        projection: None,
        ctx,
    }))
}

fn infer(chunks: &[Chunk], pattern: &str) -> Result<Schema, ConnectError> {
    let mut shape = Shape::default();
    for chunk in chunks.iter().filter(|chunk| chunk.range.start == 0).take(SAMPLE_FILES) {
        let mut rows = 0;
        let mut look = |piece: Piece| {
            let Piece::Block { bytes, .. } = piece else { return true };
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                // Lines that are no objects become errors when they are read.
                if let Ok(value @ Value::Object(_)) = serde_json::from_slice(line) {
                    shape.see(&value);
                }
                rows += 1;
                if rows >= SAMPLE_ROWS {
                    return false;
                }
            }
            true
        };
        read_lines(chunk, &mut look).map_err(|error| ConnectError::of_file("read", &chunk.path, &error))?;
    }
    shape.schema().ok_or_else(|| {
        ConnectError::user(
            format!("{pattern}: no JSON object among the first lines, so the columns are not known"),
            "give `schema`, such as `schema: {id: integer, name: string}`",
        )
    })
}
