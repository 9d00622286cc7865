//! `ReadFromCsv`: files of CSV records with a header.
//!
//! A quoted field may hold line ends, so a file cannot be cut in the middle: each is read by one reader.

use crate::ConnectError;
use crate::file::blocks::{Piece, read_bytes};
use crate::file::chunk::{Chunk, Layout};
use crate::file::compression::{CHOICES, Compression};
use crate::file::decode::{CsvDecode, Decode, header_names};
use crate::file::find::find;
use crate::file::restart::Reached;
use crate::file::source::{COMPRESSION, FileSource, PATH};
use crate::format::csv_read::{CsvDecoder, CsvFormat, CsvRecords, CsvShape, Step, inferred_schema};
use crate::format::schema;
use crate::read_json::given_schema;
use crate::settings::Settings;
use crate::source::{Source, SourceContext};
use arrow::datatypes::Schema;
use pelton_core::catalog::{ConfigFault, ConnectorSpec, KeySpec, Role};
use serde_json::Value;

/// Records of a file that are looked at to find the types.
const SAMPLE_ROWS: usize = 1_000;
/// Files that are looked at.
const SAMPLE_FILES: usize = 8;

/// What it says of itself.
pub static SPEC: ConnectorSpec = ConnectorSpec {
    name: "ReadFromCsv",
    role: Role::Source,
    doc: "Reads CSV files whose first record names the columns; blank fields are null, and a record of another length than the header is an error.",
    keys: &[
        PATH,
        KeySpec { name: "delimiter", required: false, doc: "The character between fields (default `,`)." },
        KeySpec { name: "comment", required: false, doc: "Lines that begin with this character are passed over (default: none are)." },
        KeySpec { name: "skip_header_lines", required: false, doc: "Lines to pass over before the header of each file (default 0)." },
        KeySpec {
            name: "schema",
            required: false,
            doc: "Columns and their types, as `{name: type}` or a JSON schema; default: boolean, integer, double or string, whichever takes every value among the first 1,000 records of each of the first 8 files.",
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
    format: CsvFormat,
    skip_lines: u64,
    schema: Option<Schema>,
    compression: Compression,
}

fn read(config: &Value) -> (Options, Vec<ConfigFault>) {
    let mut settings = Settings::new(config);
    let options = Options {
        path: settings.string("path").unwrap_or_default(),
        format: CsvFormat { delimiter: settings.character("delimiter").unwrap_or(b','), comment: settings.character("comment") },
        skip_lines: settings.integer("skip_header_lines", 0..=u64::MAX).unwrap_or(0),
        schema: given_schema(&mut settings),
        compression: settings.choice("compression", &CHOICES).unwrap_or(Compression::Auto),
    };
    if let Some(Err(message)) = options.schema.as_ref().map(|schema| CsvDecoder::new(schema, None)) {
        settings.fault("schema", message, "CSV fields are booleans, numbers, strings, bytes, timestamps, dates and decimals");
    }
    (options, settings.into_faults())
}

/// Finds the files, and looks at some records if the types were not given.
pub async fn open(config: Value, ctx: SourceContext) -> Result<Box<dyn Source>, ConnectError> {
    let options = read(&config).0;
    let (base_dir, format, given) = (ctx.base_dir.clone(), options.format, options.schema.is_some());
    let layout = Layout { compression: options.compression, skip_lines: options.skip_lines, divisible: false };
    let opened = ctx.io.spawn_blocking(move || {
        let mut plan = layout.plan(&find(&base_dir, &options.path)?, 1)?;
        let schema = match options.schema {
            Some(schema) => schema,
            None => infer(&layout.chunks(&plan, &Reached::default()), format, &options.path)?,
        };
        plan.columns = (!given).then(|| schema::describe(&schema));
        Ok::<_, ConnectError>((plan, schema))
    });
    let (plan, schema) = opened.await.map_err(ConnectError::internal)??;
    let decoded = schema.clone();
    let known = (!given).then(|| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>());
    Ok(Box::new(FileSource {
        schema: schema::nullable(&schema),
        layout,
        plan,
        reached: Reached::default(),
        in_lines: false,
        make_decode: Box::new(move |projection| {
            Ok(Box::new(CsvDecode::new(format, CsvDecoder::new(&decoded, projection)?, known.clone())) as Box<dyn Decode>)
        }),
        projection: None,
        ctx,
    }))
}

fn infer(chunks: &[Chunk], format: CsvFormat, pattern: &str) -> Result<Schema, ConnectError> {
    let mut columns: Vec<(String, CsvShape)> = Vec::new();
    for chunk in chunks.iter().take(SAMPLE_FILES) {
        let mut sample = Sample { records: CsvRecords::new(format, 0), places: None, rows: 0, columns: &mut columns };
        let read = read_bytes(chunk, &mut |piece| match piece {
            Piece::Block { bytes, .. } => sample.look(&bytes),
            Piece::TooLong { .. } => true,
        });
        read.map_err(|error| ConnectError::of_file("read", &chunk.path, &error))?;
        sample.look(&[]);
    }
    if columns.is_empty() {
        return Err(ConnectError::user(
            format!("{pattern}: the files are empty, so the columns are not known"),
            "give `schema`, such as `schema: {id: integer, name: string}`",
        ));
    }
    Ok(inferred_schema(&columns))
}

/// The first records of a file.
struct Sample<'a> {
    records: CsvRecords,
    /// For each field of the header its column.
    places: Option<Vec<usize>>,
    rows: usize,
    columns: &'a mut Vec<(String, CsvShape)>,
}

impl Sample<'_> {
    /// Looks at the records of a block; false when enough were seen. An empty block ends the file.
    fn look(&mut self, block: &[u8]) -> bool {
        let mut at = 0;
        while self.rows < SAMPLE_ROWS {
            let (used, step) = self.records.step(&block[at..]);
            at += used;
            match step {
                Step::Record => self.record(),
                Step::TooLong => {}
                Step::NeedInput | Step::End => return true,
            }
            if at == block.len() && !block.is_empty() {
                return true;
            }
        }
        false
    }

    fn record(&mut self) {
        let Some(places) = &self.places else {
            let names = header_names(&self.records);
            self.places = Some(names.into_iter().map(|name| self.place(name)).collect());
            return;
        };
        self.rows += 1;
        // A record of another length becomes an error when it is read.
        if self.records.len() == places.len() {
            for (position, place) in places.iter().enumerate() {
                self.columns[*place].1.see(self.records.field(position));
            }
        }
    }

    fn place(&mut self, name: String) -> usize {
        match self.columns.iter().position(|(known, _)| *known == name) {
            Some(place) => place,
            None => {
                self.columns.push((name, CsvShape::default()));
                self.columns.len() - 1
            }
        }
    }
}
