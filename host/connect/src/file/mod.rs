//! Files: finding them, dividing them among readers, decoding what was read, and writing new ones.
//!
//! ```text
//!  spawn_blocking on io                          the worker
//!  open → decompress → whole lines, ~1 MiB  ──►  Decode: rows, offsets, errors  ──►  SourceBatch
//!                       (bounded channel)
//! ```
//!
//! - [`find`]: a path or glob to files. [`mod@matches`]: the same for those who only want to know. [`compression`]: gzip and zstd.
//! - [`chunk`]: what one reader claims. [`restart`]: how far readers have come, after a restart too. [`blocks`]: the bytes of a chunk in pieces.
//! - [`decode`]: pieces to rows. [`source`]: the source and its readers.
//! - [`batches`]: files whose format has a reader of its own; [`avro_blocks`]: whether one is whole. [`lines`]: the line of an offset.
//! - [`publish`]: names that only whole files get. [`output`], [`part`]: one file being written. [`sink`]: a shard of a sink.
//! - [`staging`]: what is staged at a barrier, and hidden names. [`open_part`]: a file that spans epochs. [`epochs`]: a shard whose rows become visible
//!   by epochs. [`committer`]: makes them visible. [`disk`]: the calls of these.

pub mod avro_blocks;
pub mod batches;
pub mod blocks;
pub mod chunk;
pub mod committer;
pub mod compression;
pub mod decode;
pub mod disk;
pub mod epochs;
pub mod find;
pub mod lines;
pub mod matches;
pub mod open_part;
pub mod output;
pub mod part;
pub mod publish;
pub mod restart;
pub mod sink;
pub mod source;
pub mod staging;
