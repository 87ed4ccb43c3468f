//! The table of breaks, `tests/breaks.toml`. A break changes the product on purpose, and names the scenario that must
//! fail then.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::roots;
use crate::shell::top;

/// The file, below the top of the tree.
const TABLE: &str = "tests/breaks.toml";

/// One break.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Break {
    /// Its name: the fault of the broken product.
    pub(crate) name: String,
    /// The scenario that must fail. In tier 3 it is `NAME on CLIENT`, or `NAME` for the scenario's first client.
    pub(crate) scenario: String,
    /// Words of the assertion at which the scenario must fail.
    pub(crate) assertion: String,
    /// The Debian release, if the oldest one can't show the fault.
    suite: Option<String>,
    edit: Vec<Edit>,
}

/// One change of the source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    find: String,
    replace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "break")]
    breaks: Vec<Break>,
}

/// All breaks, in the order of the table.
pub(crate) fn table() -> Vec<Break> {
    let text = fs::read_to_string(top().join(TABLE)).unwrap_or_else(|error| panic!("{TABLE}: {error}"));
    let table: Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{TABLE}: {error}"));
    table.breaks
}

impl Break {
    /// The Debian release on which the scenario is run.
    pub(crate) fn suite(&self) -> &str {
        self.suite.as_deref().unwrap_or(roots::SUITES[0])
    }

    /// Breaks the product in the tree at `tree`.
    ///
    /// # Errors
    /// An edit with a snippet that is not exactly once in its file. The edits before it have been made then.
    pub(crate) fn apply(&self, tree: &Path) -> Result<(), String> {
        for edit in &self.edit {
            let path = tree.join(&edit.file);
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", edit.file))?;
            fs::write(&path, edit.made_in(&text)?).map_err(|error| format!("{}: {error}", edit.file))?;
        }
        Ok(())
    }
}

impl Edit {
    /// `text` with the edit made in it.
    fn made_in(&self, text: &str) -> Result<String, String> {
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            times => Err(format!("this stands {times} times in {}, not once:\n{}", self.file, self.find)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pag_tests::scenarios::{tier1, tier2, tier3};

    use super::*;

    #[test]
    fn each_break_fits_the_source_and_names_a_scenario() {
        let known: BTreeSet<&str> = (tier1::ALL.iter().map(|(name, ..)| *name))
            .chain(tier2::ALL.iter().map(|one| one.name))
            .chain(tier3::ALL.iter().map(|one| one.name))
            .collect();
        let mut wrong = Vec::new();
        for one in table() {
            let scenario = one.scenario.split_once(" on ").map_or(&one.scenario[..], |(name, _)| name);
            if !known.contains(scenario) {
                wrong.push(format!("{}: there is no scenario {scenario}", one.name));
            }
            if one.edit.is_empty() {
                wrong.push(format!("{}: it breaks nothing", one.name));
            }
            for edit in &one.edit {
                let text =
                    fs::read_to_string(top().join(&edit.file)).map_err(|error| format!("{}: {error}", edit.file));
                if let Err(why) = text.and_then(|text| edit.made_in(&text)) {
                    wrong.push(format!("{}: {why}", one.name));
                }
                if edit.find == edit.replace {
                    wrong.push(format!("{}: an edit of {} changes nothing", one.name, edit.file));
                }
            }
        }
        assert!(wrong.is_empty(), "{TABLE} is out of date:\n{}", wrong.join("\n"));
    }

    #[test]
    fn the_table_is_sorted_and_each_name_is_there_once() {
        let table = table();
        for (one, next) in table.iter().zip(table.iter().skip(1)) {
            assert!(one.name < next.name, "{} stands before {}", one.name, next.name);
        }
    }

    #[test]
    fn an_edit_stands_exactly_once() {
        let edit = |find: &str| Edit { file: "f".to_owned(), find: find.to_owned(), replace: "X".to_owned() };
        assert_eq!(edit("b").made_in("abc"), Ok("aXc".to_owned()));
        assert!(edit("a").made_in("aba").is_err());
        assert!(edit("d").made_in("abc").is_err());
    }
}
