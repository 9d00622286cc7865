//! The headers of grants, with their values.

use std::fmt;

use pelton_core::grants::Value;
use pelton_core::grants::http::{Header, HttpGrant};

/// Grants with the values of their headers, which are shown to nobody.
#[derive(Clone, Default)]
pub struct Secrets {
    pub(crate) grants: Vec<HttpGrant>,
    /// By number of the grant.
    pub(crate) headers: Vec<crate::Headers>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.grants.fmt(f)
    }
}

impl Secrets {
    /// Reads the environment, by `env`, and files. An error names what is missing and shows no value.
    pub fn read(grants: &[HttpGrant], env: &dyn Fn(&str) -> Option<String>) -> Result<Secrets, String> {
        let headers = grants.iter().map(|grant| grant.headers.iter().map(|header| value(header, env)).collect());
        Ok(Secrets { headers: headers.collect::<Result<_, String>>()?, grants: grants.to_vec() })
    }
}

fn value(header: &Header, env: &dyn Fn(&str) -> Option<String>) -> Result<(String, String), String> {
    let Header { name, prefix, value } = header;
    let cannot = |why: String| format!("the secret of the header `{name}` cannot be read: {why}");
    let text = match value {
        Value::Text(text) => text.clone(),
        Value::Env(variable) => env(variable).ok_or_else(|| cannot(format!("the environment has no `{variable}`; set it for the host")))?,
        Value::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| cannot(format!("{}: {error}", path.display())))?;
            text.trim_end_matches(['\r', '\n']).to_string()
        }
    };
    let value = format!("{prefix}{text}");
    match crate::is_value(&value) {
        true => Ok((name.clone(), value)),
        false => Err(cannot("it has characters that no header has, such as an end of line".into())),
    }
}
