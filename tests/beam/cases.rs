//! The corpus: files of small pipelines, each a YAML document that begins with what is known of it.
//!
//! ```text
//! # Case: combine-nulls            its name, one in all files
//! # Known: nulls-in-aggregates     the answers differ, and this is why (an entry of beam-differences.md)
//! # Rejected: no column            both refuse to run it; ours says this, and where
//! # Fails: cannot be divided       both fail, ours while it runs or when it opens something
//! # Set: name=value                a variable of the template; `dir` is always there
//! # File in.csv:                   a file in `dir`; its lines follow
//! #| a,b                          … of a Parquet file: its rows as a list of JSON objects
//! # Written: out.json              rows of these files are compared too: json, csv, text or parquet by the name's end
//! # Ours: {"a": 1}                 a row of our only output, where it cannot be compared
//! pipeline: …
//! ```

use std::path::{Path, PathBuf};

/// One pipeline and what is known of it.
#[derive(Clone, Debug, Default)]
pub struct Case {
    pub name: String,
    /// File and line of its first line.
    pub place: String,
    /// The document without the lines above.
    pub yaml: String,
    pub known: Option<String>,
    pub expected: Expected,
    pub variables: Vec<(String, String)>,
    pub files: Vec<(String, String)>,
    pub written: Vec<String>,
    pub ours: Vec<String>,
}

/// How it should end on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    #[default]
    Runs,
    /// Part of our message.
    Rejected(String),
    /// Part of our message.
    Fails(String),
}

/// All cases of the folder `cases`.
pub fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("beam/cases");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let cases: Vec<Case> = paths.iter().flat_map(|path| read(path)).collect();
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        panic!("two cases are called {}", twice[0]);
    }
    cases
}

/// The cases of one file.
pub fn read(path: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut cases = Vec::new();
    let mut document = Vec::new();
    let mut first = 1;
    for (number, line) in text.lines().chain(["---"]).enumerate() {
        if line != "---" {
            document.push(line);
            continue;
        }
        if document.iter().any(|line| !line.trim().is_empty()) {
            cases.push(case(&document, format!("{file}:{first}")));
        }
        document.clear();
        first = number + 2;
    }
    cases
}

fn case(lines: &[&str], place: String) -> Case {
    let mut case = Case { place, ..Case::default() };
    let head = lines.iter().take_while(|line| line.starts_with('#') || line.is_empty()).count();
    for line in &lines[..head] {
        if let Some(content) = line.strip_prefix("#|") {
            let file = case.files.last_mut().unwrap_or_else(|| panic!("{}: `#|` without a file", case.place));
            file.1.push_str(content.strip_prefix(' ').unwrap_or(content));
            file.1.push('\n');
            continue;
        }
        let Some((key, value)) = line.strip_prefix("# ").and_then(|line| line.split_once(':')) else { continue };
        let value = value.trim().to_string();
        match key {
            "Case" => case.name = value,
            "Known" => case.known = Some(value),
            "Rejected" => case.expected = Expected::Rejected(value),
            "Fails" => case.expected = Expected::Fails(value),
            "Set" => {
                let (name, value) = value.split_once('=').unwrap_or_else(|| panic!("{}: Set: NAME=VALUE", case.place));
                case.variables.push((name.into(), value.into()));
            }
            "Written" => case.written.push(value),
            "Ours" => case.ours.push(value),
            key => match key.strip_prefix("File ") {
                Some(name) => case.files.push((name.into(), String::new())),
                None => panic!("{}: `{key}` is nothing that a case says of itself", case.place),
            },
        }
    }
    assert!(!case.name.is_empty(), "{}: a case begins with `# Case: NAME`", case.place);
    case.yaml = lines[head..].join("\n") + "\n";
    case
}
