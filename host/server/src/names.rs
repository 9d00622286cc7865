//! Which texts from outside may become names of files: names of pipelines and savepoints, digests of plugins.
//!
//! Invariant: nothing that passes here has a separator in it, or leads to another folder.

use crate::refusal::{Refusal, Why};

/// No name is longer.
const MAX_NAME: usize = 100;
/// Hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;

/// Whether a text may name a pipeline, as `options.pelton.name` may.
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(allowed) && !text.starts_with('.')
}

/// The text, if it may name a pipeline.
pub fn name(text: &str) -> Result<&str, Refusal> {
    match is_name(text) {
        true => Ok(text),
        false => Err(Refusal::new(
            Why::Malformed,
            format!("`{}` is no name: letters, digits, `-`, `_` and `.`, at most {MAX_NAME}", text.escape_debug()),
        )),
    }
}

/// The hexadecimal part of a digest such as `sha256:4f…`.
pub fn digest(text: &str) -> Result<&str, Refusal> {
    let hex = text.strip_prefix("sha256:");
    let fits = |hex: &&str| hex.len() == DIGITS && hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    hex.filter(fits).ok_or_else(|| {
        Refusal::new(
            Why::Malformed,
            format!("`{}` is no digest: write sha256: and {DIGITS} hexadecimal digits in small letters", text.escape_debug()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for good in ["orders", "a-b_c.d", "7"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a b", "ä", "a\0b", "a%2fb", &"x".repeat(101)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn digests_are_whole() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(digest(&format!("sha256:{hex}")).ok(), Some(hex.as_str()));
        for bad in
            [hex.clone(), format!("sha256:{}", hex.to_uppercase()), format!("sha256:{}", &hex[1..]), format!("sha256:../{}", &hex[3..])]
        {
            assert!(digest(&bad).is_err(), "{bad}");
        }
    }
}
