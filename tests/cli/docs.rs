//! Commands in documents, examples and help are commands that the command line knows.

use pelton_tests::pelton::{root, run};
use std::path::{Path, PathBuf};

/// A command with its words, and where it stands.
#[derive(Debug)]
struct Shown {
    place: String,
    words: Vec<String>,
}

#[test]
fn references_are_what_the_command_prints() {
    for what in ["connectors", "transforms"] {
        let written = std::fs::read_to_string(root().join(format!("docs/reference/{what}.md")));
        let Ok(written) = written else { panic!("docs/reference/{what}.md is missing") };
        assert!(run(&["reference", what]).out == written, "make it anew: pelton reference {what} > docs/reference/{what}.md");
    }
}

#[test]
fn every_command_that_is_shown_is_one() {
    let mut shown = Vec::new();
    for path in documents(&root(), &["md", "yaml"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let place = path.strip_prefix(root()).unwrap().display().to_string();
        match path.extension().is_some_and(|ending| ending == "md") {
            true => shown.extend(in_markdown(&place, &text)),
            false => shown.extend(in_comments(&place, &text)),
        }
    }
    for command in [
        &["run"][..],
        &["lint"],
        &["graph"],
        &["plugin", "new"],
        &["plugin", "build"],
        &["plugin", "inspect"],
        &["plugin", "test"],
        &["plugin", "bench"],
        &["plugin", "dev"],
        &["replay", "record"],
        &["replay", "run"],
    ] {
        let help = run(&[command, &["--help"]].concat());
        shown.extend(lines_of(&format!("pelton {} --help", command.join(" ")), &help.out));
    }
    assert!(shown.len() >= 25, "only {} commands were found", shown.len());
    for command in &shown {
        assert!(is_known(&command.words), "{}: {:?} is no command", command.place, command.words);
    }
}

#[test]
fn a_wrong_command_would_be_found() {
    for wrong in ["pelton rnu x.yaml", "pelton run x.yaml --sett a=b", "pelton plugin new a b", "pelton lint a.yaml b.yaml"] {
        let [command] = lines_of("", wrong).try_into().unwrap();
        assert!(!is_known(&command.words), "{wrong}");
    }
}

/// With `--help` at the end, words before it are judged and nothing is run.
fn is_known(words: &[String]) -> bool {
    let mut arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    arguments.push("--help");
    run(&arguments).code == 0
}

/// Blocks of code, indented or fenced, and pieces of text in backticks.
fn in_markdown(place: &str, text: &str) -> Vec<Shown> {
    let mut shown = lines_of(place, text);
    let in_backticks = text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    shown.extend(in_backticks.filter(|piece| piece.starts_with("pelton ") && !piece.contains('|')).map(|piece| command(place, piece)));
    shown
}

fn in_comments(place: &str, text: &str) -> Vec<Shown> {
    let comments: Vec<&str> = text.lines().filter_map(|line| line.trim_start().strip_prefix('#')).collect();
    lines_of(place, &comments.join("\n"))
}

/// Lines that begin with the program's name, or with cargo running it; a backslash at the end goes on in the next line.
fn lines_of(place: &str, text: &str) -> Vec<Shown> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    let commands = lines.filter_map(|line| match line.strip_prefix("cargo run --release -p pelton-cli -- ") {
        Some(rest) => Some(format!("pelton {rest}")),
        None => line.starts_with("pelton ").then(|| line.to_string()),
    });
    commands.map(|line| command(place, &line)).collect()
}

/// Splits as a shell does, as far as documents need it: quotes, and an end at a comment, a redirection or another command.
fn command(place: &str, line: &str) -> Shown {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            (None, '#' | '>' | '|' | '&' | ';') if word.is_empty() => break,
            (_, c) => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    Shown { place: place.into(), words }
}

/// Files of the repository with these endings; nothing that was built.
fn documents(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true if name == "target" || name.starts_with('.') => {}
            true => found.extend(documents(&path, endings)),
            false if path.extension().is_some_and(|ending| endings.contains(&&*ending.to_string_lossy())) => found.push(path),
            false => {}
        }
    }
    found
}
