//! Who may do what: tokens with roles.
//!
//! ```text
//! # name   role      hash of the token
//! ci       admin     sha256:9f86d081…
//! on-call  operator  sha256:60303ae2…
//! ```
//!
//! The file holds hashes only. A token is 32 random bytes, so that its plain SHA-256 tells nothing: there is nothing to guess. It is looked up by its hash, and
//! the time that takes says nothing of tokens.

use crate::ServerError;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What somebody may do. Each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// See what runs.
    Viewer,
    /// Run and stop what is there.
    Operator,
    /// Change what is there.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// As it is written, the other way round.
    pub fn parse(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == text)
    }
}

/// Somebody.
#[derive(Clone, Debug)]
pub struct Who {
    /// The name of the token, or `uid N`.
    pub name: String,
    /// Their rights.
    pub role: Role,
}

/// The tokens of a host.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<[u8; 32], Who>);

impl Tokens {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Tokens, ServerError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ServerError::user(format!(
                "cannot read the tokens in {}: {error}\n  next: make one with `pelton token NAME --role admin --tokens {0}`",
                path.display()
            ))
        })?;
        Tokens::parse(&text).map_err(|(line, message)| ServerError::user(format!("{}:{line}: {message}", path.display())))
    }

    fn parse(text: &str) -> Result<Tokens, (usize, String)> {
        let mut tokens = HashMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
            let fault = |message: &str| (number + 1, message.to_string());
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, role, hash] = words[..] else { return Err(fault("a line is a name, a role and a hash")) };
            let role = Role::parse(role).ok_or_else(|| fault("the role is viewer, operator or admin"))?;
            let hash =
                hash.strip_prefix("sha256:").and_then(from_hex).ok_or_else(|| fault("the hash is sha256: and 64 hexadecimal digits"))?;
            tokens.insert(hash, Who { name: name.into(), role });
        }
        Ok(Tokens(tokens))
    }

    /// Who has this token.
    pub fn of(&self, token: &str) -> Option<&Who> {
        self.0.get(&<[u8; 32]>::from(Sha256::digest(token)))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Makes a token and appends its line to the file; gives the token, which is nowhere else.
pub fn make_token(path: &Path, name: &str, role: Role) -> Result<String, ServerError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if !crate::names::is_name(name) {
        return Err(ServerError::user(format!("`{name}` is no name: letters, digits, `-`, `_` and `.`")));
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| ServerError::user(format!("the system gives no random bytes: {error}")))?;
    let token = format!("pelton_{}", hex(&random));
    let line = format!("{name} {} sha256:{}\n", role.name(), hex(&Sha256::digest(&token)));
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| ServerError::user(format!("cannot write the tokens to {}: {error}", path.display())))?;
    Ok(token)
}

/// Where the command line looks for the host if it is not told, and a host for its data.
pub fn default_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home).unwrap_or_else(std::env::temp_dir);
    base.join("pelton")
}

/// Bytes as small hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_token_is_known_by_its_hash_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let viewer = make_token(&path, "grafana", Role::Viewer).unwrap();
        let admin = make_token(&path, "ci", Role::Admin).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&viewer) && !text.contains(&admin[7..]), "{text}");
        let tokens = Tokens::read(&path).unwrap();
        assert_eq!(tokens.of(&viewer).map(|who| (who.name.as_str(), who.role)), Some(("grafana", Role::Viewer)));
        assert_eq!(tokens.of(&admin).map(|who| who.role), Some(Role::Admin));
        assert!(tokens.of("").is_none() && tokens.of(&viewer[1..]).is_none());
    }

    #[test]
    fn a_wrong_line_is_named() {
        let hash = "0".repeat(64);
        for (text, line) in [
            ("\n# ok\nci admin".to_string(), 3),
            (format!("ci root sha256:{hash}"), 1),
            (format!("ci admin {hash}"), 1),
            (format!("a viewer sha256:{hash}\nci admin sha256:{}", &hash[1..]), 2),
        ] {
            assert_eq!(Tokens::parse(&text).map(drop).map_err(|(line, _)| line), Err(line), "{text}");
        }
    }

    #[test]
    fn roles_are_ordered() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }
}
