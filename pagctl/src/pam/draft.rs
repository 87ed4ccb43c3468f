//! A host with changes that are not written yet: what the plans of `enable` are tried in.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::edit::Edit;
use super::host::Host;
use super::parse::Libpam;
use super::stack::{Files, Opened};

/// A host with changes that are not written yet.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    host: &'a Host,
    /// The files as another tool will write them, by path.
    assumed: BTreeMap<String, String>,
    /// The files as pagctl will write them; none for a file to be removed.
    edited: BTreeMap<String, Option<String>>,
    /// The host's files, each read once: a draft tries many places for a line.
    read: RefCell<BTreeMap<String, Opened>>,
    listed: RefCell<BTreeMap<String, Vec<String>>>,
}

impl<'a> Draft<'a> {
    /// The host without changes.
    pub(crate) fn new(host: &'a Host) -> Self {
        let (read, listed) = (RefCell::default(), RefCell::default());
        Self { host, assumed: BTreeMap::new(), edited: BTreeMap::new(), read, listed }
    }

    /// Lets a file read like this, as another tool will write it.
    pub(crate) fn assume(&mut self, path: &str, text: String) {
        self.assumed.insert(path.to_owned(), text);
    }

    /// Lets a file read like this, as pagctl will write it.
    pub(crate) fn edit(&mut self, edit: Edit) {
        self.edited.insert(edit.path, edit.text);
    }

    /// Takes an edit back: puts in its place what [`Draft::edited`] returned before it.
    pub(crate) fn restore(&mut self, path: &str, text: Option<Option<String>>) {
        match text {
            Some(text) => self.edited.insert(path.to_owned(), text),
            None => self.edited.remove(path),
        };
    }

    /// The edit of a file so far.
    pub(crate) fn edited(&self, path: &str) -> Option<Option<String>> {
        self.edited.get(path).cloned()
    }

    /// The edits that change a file.
    pub(crate) fn edits(&self) -> Vec<Edit> {
        let edits = self.edited.iter().filter(|(path, text)| self.host.text(path) != **text);
        edits.map(|(path, text)| Edit { path: path.clone(), text: text.clone() }).collect()
    }
}

impl Files for Draft<'_> {
    fn open(&self, path: &str) -> Opened {
        match (self.edited.get(path), self.assumed.get(path)) {
            (Some(None), _) => Opened::Missing,
            (Some(Some(text)), _) | (None, Some(text)) => Opened::Text(text.clone()),
            (None, None) => {
                let mut read = self.read.borrow_mut();
                read.entry(path.to_owned()).or_insert_with(|| self.host.open(path)).clone()
            }
        }
    }

    fn libpam(&self) -> Libpam {
        self.host.libpam()
    }

    fn real_path(&self, path: &str) -> String {
        self.host.real_path(path)
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let mut listed = self.listed.borrow_mut();
        let mut names = listed.entry(directory.to_owned()).or_insert_with(|| self.host.names(directory)).clone();
        let written = self.edited.keys().filter_map(|path| path.strip_prefix(directory)?.strip_prefix('/'));
        names.extend(written.map(str::to_owned));
        names.sort();
        names.dedup();
        names
    }
}
