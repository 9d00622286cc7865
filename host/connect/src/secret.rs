//! References to secrets: `${secret:env:NAME}` and `${secret:file:PATH}`, anywhere inside a string of a config.
//!
//! A pipeline file, its graph and its checks only ever hold the reference. The value exists from the moment a connector
//! opens, inside that connector; no message names it.

use crate::ConnectError;
use serde_json::Value;

const OPENING: &str = "${secret:";
/// A secret is a key or a password; a larger file is a slip.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The config with the values of the secrets that it refers to. A file's trailing line end is no part of the secret.
pub fn resolve_secrets(config: &Value) -> Result<Value, ConnectError> {
    Ok(match config {
        Value::String(text) if text.contains(OPENING) => Value::String(resolve_text(text)?),
        Value::Array(items) => Value::Array(items.iter().map(resolve_secrets).collect::<Result<_, _>>()?),
        Value::Object(entries) => Value::Object(
            entries.iter().map(|(key, value)| Ok((key.clone(), resolve_secrets(value)?))).collect::<Result<_, ConnectError>>()?,
        ),
        other => other.clone(),
    })
}

/// Whether a text refers to a secret, so that its value cannot be checked before it opens.
pub fn has_secret(text: &str) -> bool {
    text.contains(OPENING)
}

fn resolve_text(text: &str) -> Result<String, ConnectError> {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(OPENING) {
        resolved.push_str(&rest[..at]);
        let reference = &rest[at + OPENING.len()..];
        let end = reference.find('}').ok_or_else(|| {
            ConnectError::user("a reference to a secret has no closing `}`", "write ${secret:env:NAME} or ${secret:file:PATH}")
        })?;
        resolved.push_str(&read(&reference[..end])?);
        rest = &reference[end + 1..];
    }
    resolved.push_str(rest);
    Ok(resolved)
}

fn read(reference: &str) -> Result<String, ConnectError> {
    if let Some(name) = reference.strip_prefix("env:") {
        return std::env::var(name).map_err(|_| {
            ConnectError::user(
                format!("the secret ${{secret:env:{name}}} is not set"),
                format!("set the environment variable {name} for pelton"),
            )
        });
    }
    let Some(path) = reference.strip_prefix("file:") else {
        return Err(ConnectError::user(format!("`{reference}` is no kind of secret"), "write ${secret:env:NAME} or ${secret:file:PATH}"));
    };
    let of_file = |error: &std::io::Error| ConnectError::of_file("read the secret", path.as_ref(), error);
    let length = std::fs::metadata(path).map_err(|error| of_file(&error))?.len();
    if length > MAX_SECRET_BYTES {
        return Err(ConnectError::user(
            format!("the secret {path} has {length} bytes, more than {MAX_SECRET_BYTES}"),
            "name the file that holds only the secret",
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| of_file(&error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_become_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "hush\n").unwrap();
        let config = json!({"a": format!("x${{secret:file:{}}}y", path.display()), "b": [1, "plain"], "c": "${secret:env:PATH}"});
        let resolved = resolve_secrets(&config).unwrap();
        assert_eq!(resolved["a"], "xhushy");
        assert_eq!(resolved["b"], json!([1, "plain"]));
        assert_eq!(resolved["c"], json!(std::env::var("PATH").unwrap()));
    }

    #[test]
    fn faults_name_the_reference() {
        for (text, part) in [
            ("${secret:env:NO_SUCH_X}", "NO_SUCH_X"),
            ("${secret:file:/no/such}", "/no/such"),
            ("${secret:vault:x}", "vault:x"),
            ("${secret:env:A", "closing"),
        ] {
            let error = resolve_secrets(&json!(text)).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            assert!(error.help().is_some());
        }
    }
}
