//! Tests that the paths and functions in the documents exist.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::top;

/// The folders in which paths of documents begin.
const ROOMS: [&str; 9] =
    ["docs", "libpag", "mod_pag", "pag", "pag-logind-helper", "pagctl", "pam_pag", "units", "xtask"];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The documents, and the pages in `docs`.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|name| top().join(name)).into();
    for folder in ["docs", "docs/design"] {
        let entries = fs::read_dir(top().join(folder)).unwrap();
        pages.extend(
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md")),
        );
    }
    pages
}

/// The steps of the walks: function and file.
fn steps(text: &str) -> Vec<(String, String)> {
    let is_step = |line: &&str| line.split_once(". `").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    let parts = |line: &str| {
        let mut words = quoted(line).map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap_or_else(|| panic!("a step names no file: {line}")))
    };
    text.lines().filter(is_step).map(parts).collect()
}

#[test]
fn each_step_of_a_walk_is_a_function() {
    let text = read(&top().join("docs/walks.md"));
    for walk in text.split("\n## ").skip(1) {
        let steps = steps(walk);
        assert!((1..=10).contains(&steps.len()), "a walk has {} steps: {walk}", steps.len());
        for (function, file) in steps {
            let code = read(&top().join(&file));
            let is_there = ["(", "<"].iter().any(|end| code.contains(&format!("fn {function}{end}")));
            assert!(is_there, "docs/walks.md: there is no function {function} in {file}");
        }
    }
}

#[test]
fn each_path_in_a_document_is_there() {
    let is_path =
        |word: &&str| ROOMS.iter().any(|room| word.strip_prefix(room).is_some_and(|rest| rest.starts_with('/')));
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for path in quoted(&text).filter(is_path).filter(|path| !path.contains(['*', ' ', '@'])) {
            assert!(top().join(path).exists(), "{}: there is no {path}", page.display());
            count += 1;
        }
    }
    assert!(count > 60, "{count} paths were found");
}

#[test]
fn each_link_in_a_document_leads_somewhere() {
    for page in pages() {
        let text = read(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let is_ours = !file.is_empty() && !file.contains("://");
            assert!(!is_ours || page.with_file_name(file).exists(), "{}: there is no {target}", page.display());
        }
    }
}

/// Fails if there is no scenario with this name.
fn is_scenario(name: &str) {
    let lists = ["tier1", "tier2", "tier3"].map(|tier| top().join("tests/src/scenarios").join(tier).join("mod.rs"));
    assert!(lists.iter().any(|list| read(list).contains(&format!("\"{name}\""))), "there is no scenario {name}");
}

#[test]
fn the_threat_model_names_scenarios() {
    let page = read(&top().join("docs/threat-model.md"));
    let shown = page.split("Shown by ").skip(1).map(|shown| shown.split('.').next().unwrap_or_default());
    let names: Vec<&str> = shown.flat_map(quoted).collect();
    names.iter().copied().for_each(is_scenario);
    assert!(names.len() > 30, "{names:?}");
}

#[test]
fn what_is_called_tested_has_a_scenario() {
    let page = read(&top().join("docs/support.md"));
    let rows: Vec<Vec<&str>> =
        page.lines().map(|line| line.split(" | ").collect()).filter(|row: &Vec<_>| row.len() == 3).collect();
    let is_tested = |row: &&Vec<&str>| row[1].starts_with("tested");
    for row in rows.iter().filter(is_tested) {
        let mut names = quoted(row[2]).peekable();
        assert!(names.peek().is_some(), "no scenario is named for {}", row[0]);
        names.for_each(is_scenario);
    }
    assert!(rows.iter().filter(is_tested).count() > 15);
}

#[test]
fn pages_of_the_design_have_short_lines() {
    for page in pages().into_iter().filter(|page| page.parent().is_some_and(|folder| folder.ends_with("docs/design"))) {
        for line in read(&page).lines() {
            assert!(line.chars().count() <= 100, "{}: more than 100 columns: {line}", page.display());
        }
    }
}
