//! Documents: links lead somewhere, files that are named exist, and the book has every page.

use super::root;
use std::path::{Path, PathBuf};

/// Markdown files of the repository; nothing that was built.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The text outside fenced blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    documents(&root(), &mut found);
    let mut links = 0;
    for path in &found {
        let text = prose(&std::fs::read_to_string(path).unwrap());
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            if target.starts_with("http://") || target.starts_with("https://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: the link to {target} leads nowhere", path.display());
            if !heading.is_empty() {
                let there = std::fs::read_to_string(&file).unwrap();
                assert!(headings(&there).iter().any(|name| name == heading), "{}: {target} has no such heading", path.display());
            }
            links += 1;
        }
    }
    assert!(links >= 9, "only {links} links were found");
}

/// Headings as they are named in links: small letters, digits and hyphens.
fn headings(text: &str) -> Vec<String> {
    let titles = prose(text);
    let titles = titles.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    let name = |title: &str| {
        let kept = title.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    titles.map(name).collect()
}

#[test]
fn the_book_has_every_page_once() {
    let folder = root().join("docs/book/src");
    let summary = std::fs::read_to_string(folder.join("SUMMARY.md")).unwrap();
    let mut listed: Vec<String> = summary.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_string).collect();
    listed.sort();
    let mut pages = Vec::new();
    documents(&folder, &mut pages);
    let mut pages: Vec<String> = pages.iter().map(|page| page.strip_prefix(&folder).unwrap().display().to_string()).collect();
    pages.retain(|page| page != "SUMMARY.md");
    pages.sort();
    assert_eq!(listed, pages, "SUMMARY.md on the left, files on the right");
}

#[test]
fn files_that_documents_name_exist() {
    let top: Vec<String> =
        std::fs::read_dir(root()).unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let mut found = Vec::new();
    documents(&root(), &mut found);
    let mut named = 0;
    for path in &found {
        let text = prose(&std::fs::read_to_string(path).unwrap());
        for name in text.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches('/')) {
            let (first, rest) = name.split_once('/').unwrap_or((name, ""));
            // A path from the root or from the document; patterns and what is made by a build are not looked for.
            let plain = !rest.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '/' | '-' | '_' | '.'));
            if !plain || !top.iter().any(|folder| folder == first) || name.contains("/.cache/") || first == "target" {
                continue;
            }
            let beside = path.parent().unwrap().join(name);
            assert!(root().join(name).exists() || beside.exists(), "{} names `{name}`, which does not exist", path.display());
            named += 1;
        }
    }
    assert!(named >= 20, "only {named} names were found");
}
