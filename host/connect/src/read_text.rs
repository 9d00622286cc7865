//! `ReadFromText`: each line of each file is a row with the one column `line`.

use crate::ConnectError;
use crate::file::chunk::Layout;
use crate::file::compression::{CHOICES, Compression};
use crate::file::decode::{Decode, LineDecode, text_schema};
use crate::file::find::find;
use crate::file::restart::Reached;
use crate::file::source::{COMPRESSION, FileSource, PATH};
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
        PATH,
        KeySpec { name: "skip_header_lines", required: false, doc: "Lines to pass over at the start of each file (default 0)." },
        COMPRESSION,
    ],
    has_errors: true,
    endless: |_| false,
    timed: false,
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
    let (base_dir, readers) = (ctx.base_dir.clone(), ctx.parallelism);
    let layout = Layout { compression: options.compression, skip_lines: options.skip_lines, divisible: true };
    let planned = ctx.io.spawn_blocking(move || layout.plan(&find(&base_dir, &options.path)?, readers));
    Ok(Box::new(FileSource {
        schema: text_schema(),
        layout,
        plan: planned.await.map_err(ConnectError::internal)??,
        reached: Reached::default(),
        in_lines: true,
        make_decode: Box::new(|projection| Ok(Box::new(LineDecode::text(projection)) as Box<dyn Decode>)),
        projection: None,
        ctx,
    }))
}
