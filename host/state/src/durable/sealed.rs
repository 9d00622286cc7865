//! Small files of JSON with a checksum:
//!
//! ```text
//! JSON, in any number of lines
//! xxh3 0123456789abcdef          xxh3-64 of all bytes before this line
//! ```

use super::StoreError;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Of the last line, with its line feed.
const LINE_BYTES: usize = 5 + 16 + 1;

/// The file of a value, and its hash.
pub fn write(value: &impl Serialize) -> Result<(Bytes, u64), StoreError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(StoreError::internal)?;
    bytes.push(b'\n');
    let hash = xxh3_64(&bytes);
    bytes.extend_from_slice(line(hash).as_bytes());
    Ok((bytes.into(), hash))
}

/// The value in a file, and its hash; `Err`: what is wrong with it.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, u64), String> {
    let (json, hash) = unsealed(bytes)?;
    let value = serde_json::from_slice(json)
        .map_err(|error| format!("its checksum is right, but {error}; has a later version of pelton written it?"))?;
    Ok((value, hash))
}

/// Refuses a file that is whole and of a later format than `format`: nothing of it must be guessed, and nothing of it is damaged.
pub fn check_format(file: &str, bytes: &[u8], format: u32) -> Result<(), StoreError> {
    /// What every format says of itself.
    #[derive(Deserialize)]
    struct Written {
        format: u32,
        version: String,
    }
    let written = unsealed(bytes).ok().and_then(|(json, _)| serde_json::from_slice::<Written>(json).ok());
    match written.filter(|written| written.format > format) {
        None => Ok(()),
        Some(Written { format: theirs, version }) => Err(StoreError::user(
            format!("{file} has format {theirs}, and this pelton reads formats up to {format}"),
            format!("use pelton {version}, which has written it, or a later one"),
        )),
    }
}

/// The JSON in a file, and its hash.
fn unsealed(bytes: &[u8]) -> Result<(&[u8], u64), String> {
    let (json, last) = bytes.split_at_checked(bytes.len().wrapping_sub(LINE_BYTES)).ok_or("it is too short")?;
    let hash = xxh3_64(json);
    if last != line(hash).as_bytes() {
        return Err("its checksum is wrong".into());
    }
    Ok((json, hash))
}

fn line(hash: u64) -> String {
    format!("xxh3 {hash:016x}\n")
}

/// Numbers of 64 bits as hexadecimal text: not every reader of JSON keeps all their bits.
pub mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// As text.
    pub fn serialize<S: Serializer>(number: &u64, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&format!("{number:016x}"))
    }

    /// From text.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// Bytes as base64.
pub mod base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// As text.
    pub fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&STANDARD.encode(bytes))
    }

    /// From text.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::manifest::Manifest;
    use crate::durable::progress::Progress;
    use std::time::Duration;

    /// Hostile bytes are an error and nothing else, also where their checksum is right.
    #[test]
    fn fuzz_sealed() {
        bolero::check!().with_test_time(Duration::from_millis(400)).with_max_len(512).for_each(|bytes: &[u8]| {
            let mut sealed = bytes.to_vec();
            sealed.extend_from_slice(line(xxh3_64(bytes)).as_bytes());
            for bytes in [bytes, &sealed] {
                let _ = read::<Manifest>(bytes);
                let _ = read::<Progress>(bytes);
            }
        });
    }

    #[test]
    fn the_checksum_covers_all_before_it() {
        let (bytes, hash) = write(&"text").expect("is JSON");
        assert_eq!(bytes, format!("\"text\"\nxxh3 {hash:016x}\n"));
        assert_eq!(read::<String>(&bytes), Ok(("text".into(), hash)));
        let later = write(&7).expect("is JSON").0;
        let message = read::<String>(&later).expect_err("is a number");
        assert!(message.starts_with("its checksum is right, but invalid type"), "{message}");
    }
}
