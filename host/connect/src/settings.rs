//! Reading values out of a config: the same reading serves `check`, which wants every fault, and opening, which wants the values.
//!
//! Numbers may be written as strings, since `--set` gives strings.

use pelton_core::Duration;
use pelton_core::catalog::{ConfigFault, kind, nearest};
use serde_json::Value;

/// A config that is being read, and what was found wrong with it.
pub struct Settings<'a> {
    config: &'a Value,
    path: Vec<String>,
    faults: Vec<ConfigFault>,
}

impl<'a> Settings<'a> {
    /// The config as a whole.
    pub fn new(config: &'a Value) -> Settings<'a> {
        Settings { config, path: Vec::new(), faults: Vec::new() }
    }

    /// The mapping below a key, with paths that begin with it. Faults go back by [`Settings::absorb`].
    pub fn section(&mut self, key: &str, known: &[&str]) -> Settings<'a> {
        let mut path = self.path.clone();
        path.push(key.into());
        let config = self.get(key).unwrap_or(&Value::Null);
        let mut section = Settings { config, path, faults: Vec::new() };
        match config {
            Value::Null => {}
            Value::Object(entries) => {
                for name in entries.keys().filter(|name| !known.contains(&name.as_str())) {
                    let help = match nearest(name, known.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("known keys: {}", known.join(", ")),
                    };
                    section.fault(name, format!("unknown key `{name}`"), help);
                }
            }
            other => self.fault(key, format!("must be a mapping, not {}", kind(other)), format!("keys: {}", known.join(", "))),
        }
        section
    }

    /// Takes over the faults of a section.
    pub fn absorb(&mut self, section: Settings<'_>) {
        self.faults.extend(section.faults);
    }

    /// Every fault that was found.
    pub fn into_faults(self) -> Vec<ConfigFault> {
        self.faults
    }

    /// The raw value of a key that is there and not null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    /// Notes a fault of a key.
    pub fn fault(&mut self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        let mut path = self.path.clone();
        path.push(key.into());
        self.faults.push(ConfigFault { path, message: message.into(), help: Some(help.into()) });
    }

    /// Takes over faults whose paths begin below a key.
    pub fn faults_below(&mut self, key: &str, faults: Vec<ConfigFault>) {
        for mut fault in faults {
            fault.path.insert(0, key.into());
            fault.path.splice(0..0, self.path.iter().cloned());
            self.faults.push(fault);
        }
    }

    /// A string.
    pub fn string(&mut self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::String(_) => {
                self.fault(key, format!("`{key}` is empty"), "give a value or leave the key out");
                None
            }
            other => {
                self.fault(key, format!("`{key}` must be a string, not {}", kind(other)), "put the value in quotes");
                None
            }
        }
    }

    /// A whole number in a range.
    pub fn integer(&mut self, key: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        let number = match value {
            Value::String(text) => text.trim().replace('_', "").parse().ok(),
            other => other.as_u64(),
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                let bound = match *range.end() {
                    u64::MAX => format!("of at least {}", range.start()),
                    end => format!("from {} to {end}", range.start()),
                };
                self.fault(key, format!("`{key}` must be a whole number {bound}, not {value}"), "write the number without a unit");
                None
            }
        }
    }

    /// A number in a range.
    pub fn number(&mut self, key: &str, range: std::ops::RangeInclusive<f64>) -> Option<f64> {
        let value = self.get(key)?;
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                self.fault(
                    key,
                    format!("`{key}` must be a number from {} to {}, not {value}", range.start(), range.end()),
                    "write the number without a unit",
                );
                None
            }
        }
    }

    /// True or false.
    pub fn boolean(&mut self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(value) => Some(*value),
            Value::String(text) if text == "true" || text == "false" => Some(text == "true"),
            other => {
                self.fault(key, format!("`{key}` must be true or false, not {}", kind(other)), "write true or false");
                None
            }
        }
    }

    /// One of a few names.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string(key)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let help = match nearest(&text, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("choose one of {}", names.join(", ")),
            };
            self.fault(key, format!("`{text}` is no value of `{key}`"), help);
        }
        found
    }

    /// A length of time; bare numbers are seconds.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        let text = match self.get(key)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match Duration::parse(&text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.fault(key, error.to_string(), "write a number and ms, s, m, h or d, such as 60s");
                None
            }
        }
    }

    /// A number of bytes, such as `128MiB`.
    pub fn size(&mut self, key: &str) -> Option<u64> {
        let value = self.get(key)?;
        let size = match value {
            Value::String(text) => parse_size(text),
            other => other.as_u64(),
        };
        if size.is_none() {
            self.fault(key, format!("{value} is no size"), "write a number and B, KiB, MiB or GiB, such as 128MiB");
        }
        size
    }

    /// One ASCII character.
    pub fn character(&mut self, key: &str) -> Option<u8> {
        let text = self.string(key)?;
        match (text.as_bytes(), text.as_str()) {
            (_, "\\t") => Some(b'\t'),
            ([byte], _) if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Some(*byte),
            _ => {
                self.fault(
                    key,
                    format!("`{key}` must be one ASCII character, not `{text}`"),
                    "write one character, such as \",\" or \"\\t\"",
                );
                None
            }
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[split..].trim() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    text[..split].parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes() {
        for (text, size) in [("128MiB", Some(128 << 20)), ("5", Some(5)), ("1 KB", Some(1_000)), ("MiB", None), ("1TB", None)] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }

    #[test]
    fn every_fault_is_found_with_its_path() {
        let config = json!({"path": 3, "n": -1, "roll": {"sise": 1, "interval": "x"}, "delimiter": "ab", "how": "turncate"});
        let mut settings = Settings::new(&config);
        assert_eq!(settings.string("path"), None);
        assert_eq!(settings.integer("n", 1..=9), None);
        assert_eq!(settings.character("delimiter"), None);
        assert_eq!(settings.choice("how", &[("truncate", 1)]), None);
        let mut roll = settings.section("roll", &["size", "interval"]);
        assert_eq!(roll.duration("interval"), None);
        settings.absorb(roll);
        let faults = settings.into_faults();
        let paths: Vec<String> = faults.iter().map(|fault| fault.path.join(".")).collect();
        assert_eq!(paths, ["path", "n", "delimiter", "how", "roll.sise", "roll.interval"]);
        assert!(faults.iter().all(|fault| fault.help.is_some()));
    }
}
