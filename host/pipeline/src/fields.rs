//! Reading a mapping key by key, with every mistake reported: wrong types, missing keys, and keys that nobody asked for.

use pelton_core::time::Duration;

use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::yaml::{Content, Entry, Yaml};

/// A mapping that is being read.
pub(crate) struct Fields<'y> {
    /// What it is called in messages, such as "`Combine`".
    owner: String,
    mark: Mark,
    entries: &'y [Entry],
    known: Vec<&'static str>,
    /// Required keys that are not there, and what was said of each.
    missing: Vec<(&'static str, String)>,
}

impl<'y> Fields<'y> {
    /// Of a value that must be a mapping; a missing one is empty.
    pub fn of(yaml: Option<&'y Yaml>, mark: Mark, owner: impl Into<String>, report: &mut Report<'_>) -> Fields<'y> {
        let owner = owner.into();
        let entries = match yaml {
            None => &[][..],
            Some(yaml) => match &yaml.content {
                Content::Mapping(entries) => entries.as_slice(),
                Content::Null => &[],
                _ => {
                    report.error(yaml.mark, format!("{owner} must be a mapping, not {}", yaml.kind()));
                    &[]
                }
            },
        };
        Fields { owner, mark, entries, known: Vec::new(), missing: Vec::new() }
    }

    /// A key that may be there; null counts as absent, as in Beam.
    pub fn get(&mut self, key: &'static str) -> Option<&'y Entry> {
        self.get_even_null(key).filter(|entry| !entry.value.is_null())
    }

    /// A key that may be there, even with a null.
    pub fn get_even_null(&mut self, key: &'static str) -> Option<&'y Entry> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// A key that must be there.
    pub fn require(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<&'y Entry> {
        let found = self.get(key);
        if found.is_none() {
            let empty = self.entries.iter().find(|entry| entry.key == key);
            let (mark, problem) = match empty {
                Some(entry) => (entry.mark, format!("`{key}` of {} has no value", self.owner)),
                None => {
                    let problem = format!("{} needs `{key}`", self.owner);
                    self.missing.push((key, problem.clone()));
                    (self.mark, problem)
                }
            };
            report.error(mark, problem);
        }
        found
    }

    /// A string.
    pub fn text(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<&'y str> {
        let entry = self.get(key)?;
        text(&entry.value, &format!("`{key}`"), report)
    }

    /// A boolean.
    pub fn boolean(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<bool> {
        let entry = self.get(key)?;
        match entry.value.content {
            Content::Bool(value) => Some(value),
            _ => {
                report.error(entry.value.mark, format!("`{key}` must be true or false, not {}", entry.value.kind()));
                None
            }
        }
    }

    /// A whole number that is at least `least`.
    pub fn count(&mut self, key: &'static str, least: usize, report: &mut Report<'_>) -> Option<usize> {
        let entry = self.get(key)?;
        let number = match &entry.value.content {
            Content::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| *number >= least),
            _ => None,
        };
        if number.is_none() {
            report.error(entry.value.mark, format!("`{key}` must be a whole number of at least {least}"));
        }
        number
    }

    /// A duration.
    pub fn duration(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<Duration> {
        let entry = self.get(key)?;
        duration(&entry.value, &format!("`{key}`"), report)
    }

    /// A key that Beam or our plan has and that does nothing yet: an error, since ignoring it would give other results.
    pub fn not_yet(&mut self, key: &'static str, report: &mut Report<'_>) {
        if let Some(entry) = self.get(key) {
            report.error(entry.mark, format!("`{key}` is not available yet"));
        }
    }

    /// All entries, for mappings whose keys are names. Marks them as known.
    pub fn into_entries(self) -> &'y [Entry] {
        self.entries
    }

    /// Reports the keys that nobody asked for. A key that is missing because of a slip in its name is told by that name alone.
    pub fn finish(self, report: &mut Report<'_>) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let meant = pelton_core::catalog::nearest(&entry.key, self.known.iter().copied());
            if let Some((_, problem)) = self.missing.iter().find(|(key, _)| Some(*key) == meant) {
                report.take_back(self.mark, problem);
            }
            let message = format!("unknown key `{}` of {}", entry.key, self.owner);
            report.error_with_help(entry.mark, message, suggestion(&entry.key, self.known.iter().copied()));
        }
    }
}

/// A value that must be a string.
pub(crate) fn text<'y>(yaml: &'y Yaml, what: &str, report: &mut Report<'_>) -> Option<&'y str> {
    match &yaml.content {
        Content::Text(text) => Some(text),
        _ => {
            report.error(yaml.mark, format!("{what} must be a string, not {}", yaml.kind()));
            None
        }
    }
}

/// A value that must be a string or a list of strings.
pub(crate) fn texts<'y>(yaml: &'y Yaml, what: &str, report: &mut Report<'_>) -> Vec<(&'y str, Mark)> {
    let values = match &yaml.content {
        Content::List(values) => values.iter().collect(),
        Content::Mapping(_) | Content::Null => {
            report.error(yaml.mark, format!("{what} must be a string or a list of strings, not {}", yaml.kind()));
            Vec::new()
        }
        _ => vec![yaml],
    };
    values.into_iter().filter_map(|value| Some((text(value, what, report)?, value.mark))).collect()
}

/// A number with a unit, or a number of seconds.
pub(crate) fn duration(yaml: &Yaml, what: &str, report: &mut Report<'_>) -> Option<Duration> {
    let text = match &yaml.content {
        Content::Text(text) => text.clone(),
        Content::Number(number) => number.to_string(),
        _ => {
            report.error(yaml.mark, format!("{what} must be a duration such as 60s, not {}", yaml.kind()));
            return None;
        }
    };
    Duration::parse(&text).map_err(|error| report.error(yaml.mark, format!("{what}: {error}"))).ok()
}
