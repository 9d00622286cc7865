//! Compressed files: gzip and zstd, by name or by extension.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As its extension says.
    Auto,
    /// Not at all.
    None,
    /// Gzip, also of several members.
    Gzip,
    /// Zstandard, also of several frames.
    Zstd,
}

/// What a config may say.
pub const CHOICES: [(&str, Compression); 4] =
    [("auto", Compression::Auto), ("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)];

impl Compression {
    /// What `Auto` means for this file.
    pub fn of(self, path: &Path) -> Compression {
        match (self, path.extension().and_then(|extension| extension.to_str())) {
            (Compression::Auto, Some("gz" | "gzip")) => Compression::Gzip,
            (Compression::Auto, Some("zst" | "zstd")) => Compression::Zstd,
            (Compression::Auto, _) => Compression::None,
            (chosen, _) => chosen,
        }
    }

    /// The decompressed bytes of a file.
    pub fn open(self, path: &Path) -> std::io::Result<Box<dyn Read + Send>> {
        let file = File::open(path)?;
        Ok(match self.of(path) {
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(file))),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
            _ => Box::new(file),
        })
    }
}
