//! Compiled code on disk, so that a known plugin starts in milliseconds.
//!
//! ```text
//! <folder>/key                 32 random bytes, readable by the user alone
//! <folder>/<name>.aot          HMAC-SHA256(key, name ‖ code) ‖ code
//! name = hex sha256(wasmtime version, hash of the engine's settings, digest of the component)
//! ```
//! Compiled code runs outside the sandbox's guarantees, so nothing is ever loaded that this user's own Pelton has not written: an entry
//! whose MAC is wrong is compiled anew and replaced. A cache that fails costs time, never a pipeline, so faults are warnings.

use sha2::{Digest, Sha256};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Entries kept; the oldest go first. A component of 20 MB compiles to about 60 MB.
const MAX_ENTRIES: usize = 64;
const MAC_BYTES: usize = 32;
const KEY_BYTES: usize = 32;

/// A folder of compiled code.
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
}

impl Cache {
    pub(crate) fn open(folder: &Path) -> io::Result<Cache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Cache { key: key(folder)?, folder: folder.into() })
    }

    /// The code stored under a name, if nobody has touched it.
    pub(crate) fn load(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name);
        let mut entry = fs::read(&path).ok()?;
        let genuine = entry.len() > MAC_BYTES && same(&self.mac(name, &entry[MAC_BYTES..]), &entry[..MAC_BYTES]);
        if !genuine {
            tracing::warn!(path = %path.display(), "an entry of the cache of compiled plugins was damaged or written by someone else; compiling anew");
            return None;
        }
        entry.drain(..MAC_BYTES);
        Some(entry)
    }

    /// Keeps code under a name. The file appears whole or not at all.
    pub(crate) fn store(&self, name: &str, code: &[u8]) -> io::Result<()> {
        write_whole(&self.path(name), &[&self.mac(name, code), code])?;
        self.evict()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.aot"))
    }

    fn mac(&self, name: &str, code: &[u8]) -> [u8; MAC_BYTES] {
        hmac(&self.key, &[name.as_bytes(), code])
    }

    fn evict(&self) -> io::Result<()> {
        let mut entries = fs::read_dir(&self.folder)?
            .filter_map(Result::ok)
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "aot"))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect::<Vec<_>>();
        entries.sort();
        let surplus = entries.len().saturating_sub(MAX_ENTRIES);
        entries[..surplus].iter().try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// The folder's key, made at first use. A key that others can read is no key.
fn key(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join("key");
    let mut key = [0; KEY_BYTES];
    match fs::File::open(&path) {
        Ok(mut file) if file.metadata()?.mode() & 0o077 == 0 && file.metadata()?.len() == KEY_BYTES as u64 => {
            file.read_exact(&mut key)?;
            return Ok(key);
        }
        Ok(_) => {
            tracing::warn!(path = %path.display(), "the key of the cache of compiled plugins is readable by others or damaged; making a new one")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    write_whole(&path, &[&key])?;
    // Two processes may have raced: the file that won is the key.
    let written = fs::read(&path)?;
    key.copy_from_slice(written.get(..KEY_BYTES).ok_or(io::ErrorKind::UnexpectedEof)?);
    Ok(key)
}

fn write_whole(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let making = path.with_extension(format!("making-{}", std::process::id()));
    let _ = fs::remove_file(&making);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&making)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    drop(file);
    fs::rename(&making, path)
}

/// HMAC-SHA256 (RFC 2104) for keys up to a block, 64 bytes.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; MAC_BYTES] {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let mut inner = Sha256::new_with_prefix(padded(0x36));
    parts.iter().for_each(|part| inner.update(part));
    Sha256::new_with_prefix(padded(0x5c)).chain_update(inner.finalize()).finalize().into()
}

/// Compares without telling by the time how much was equal.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differs, (left, right)| differs | (left ^ right)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_follows_rfc_4231() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(&hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn an_entry_comes_back_only_untouched_under_its_name_and_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("opens");
        cache.store("one", b"code").expect("stores");
        assert_eq!(Cache::open(folder.path()).expect("opens again").load("one").as_deref(), Some(&b"code"[..]));
        fs::copy(cache.path("one"), cache.path("two")).expect("copies");
        assert_eq!(cache.load("two"), None, "moved to another name");
        let mut entry = fs::read(cache.path("one")).expect("reads");
        *entry.last_mut().expect("not empty") ^= 1;
        fs::write(cache.path("one"), entry).expect("writes");
        assert_eq!(cache.load("one"), None, "changed");
        cache.store("one", b"code").expect("stores");
        fs::remove_file(folder.path().join("key")).expect("removes");
        assert_eq!(Cache::open(folder.path()).expect("opens").load("one"), None, "another key");
    }

    #[test]
    fn the_key_is_the_users_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Cache::open(folder.path()).expect("opens").key;
        let path = folder.path().join("key");
        assert_eq!(fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("sets");
        assert_ne!(Cache::open(folder.path()).expect("opens").key, first);
    }
}
