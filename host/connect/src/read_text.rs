//! `ReadFromText`: each line of each file is a row with the one column `line`.

use crate::ConnectError;
use crate::file::chunk::plan;
use crate::file::compression::{CHOICES, Compression};
use crate::file::decode::{Decode, LineDecode, text_schema};
use crate::file::find::find;
use crate::file::source::FileSource;
use crate::settings::Settings;
use crate::source::{Source, SourceContext};
use pelton_core::catalog::{ConfigFault, ConnectorSpec, KeySpec, Role};
use serde_json::Value;

/// What it says of itself.
pub static SPEC: ConnectorSpec = ConnectorSpec {
    name: "ReadFromText",
    role: Role::Source,
    doc: "Reads text files line by line into the column `line`, without line ends; blank lines are rows too.",
    keys: &[
        KeySpec { name: "path", required: true, doc: "Path or glob of the files; relative paths start at the working directory." },
        KeySpec { name: "skip_header_lines", required: false, doc: "Lines to pass over at the start of each file (default 0)." },
        KeySpec {
            name: "compression",
            required: false,
            doc: "`auto` (default: by the extensions .gz, .gzip, .zst, .zstd), `none`, `gzip` or `zstd`.",
        },
    ],
    has_errors: true,
    endless: |_| false,
    check: |config| read(config).1,
};

struct Options {
    path: String,
    skip_lines: u64,
    compression: Compression,
}

fn read(config: &Value) -> (Options, Vec<ConfigFault>) {
    let mut settings = Settings::new(config);
    let options = Options {
        path: settings.string("path").unwrap_or_default(),
        skip_lines: settings.integer("skip_header_lines", 0..=u64::MAX).unwrap_or(0),
        compression: settings.choice("compression", &CHOICES).unwrap_or(Compression::Auto),
    };
    (options, settings.into_faults())
}

/// Finds the files.
pub async fn open(config: Value, ctx: SourceContext) -> Result<Box<dyn Source>, ConnectError> {
    let options = read(&config).0;
    let base_dir = ctx.base_dir.clone();
    let files = ctx.io.spawn_blocking(move || find(&base_dir, &options.path)).await.map_err(ConnectError::internal)??;
    Ok(Box::new(FileSource {
        schema: text_schema(),
        chunks: plan(&files, options.compression, options.skip_lines, true, ctx.parallelism),
        in_lines: true,
        make_decode: Box::new(|projection| Ok(Box::new(LineDecode::text(projection)) as Box<dyn Decode>)),
        projection: None,
        ctx,
    }))
}
