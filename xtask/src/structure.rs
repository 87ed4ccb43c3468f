//! Tests of the product's structure: no two modules need each other.
//!
//! Each file is a module. A module needs another one if its code has a path into that module, in a `use` or elsewhere.
//! Unit tests and other items of the test configuration do not count. A name that a `mod.rs` re-exports stands for the
//! module that defines it. If a `mod.rs` needs a file beside it, that file must not use an item that the `mod.rs`
//! itself defines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};

use crate::shell::top;

/// The product's crates, by the file at their root.
const CRATES: [&str; 5] = [
    "pag/src/lib.rs",
    "libpag/src/lib.rs",
    "pam_pag/src/lib.rs",
    "pag-logind-helper/src/main.rs",
    "pagctl/src/main.rs",
];

/// A module, by its path below the crate. The path of the root is empty.
type Module = Vec<String>;

/// A crate's modules, and for each the modules that it needs.
type Needs = BTreeMap<Module, BTreeSet<Module>>;

/// The paths in one module's code that begin in its crate.
struct Paths<'a> {
    module: &'a Module,
    children: BTreeSet<String>,
    found: Vec<Vec<String>>,
    /// The paths that the module re-exports, by the names that it gives them.
    exported: BTreeMap<String, Vec<String>>,
    is_export: bool,
}

/// Whether an item with these attributes is for tests only.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string().contains("test"))
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(it) => &it.attrs,
        syn::Item::Enum(it) => &it.attrs,
        syn::Item::Fn(it) => &it.attrs,
        syn::Item::Impl(it) => &it.attrs,
        syn::Item::Mod(it) => &it.attrs,
        syn::Item::Static(it) => &it.attrs,
        syn::Item::Struct(it) => &it.attrs,
        syn::Item::Trait(it) => &it.attrs,
        syn::Item::Type(it) => &it.attrs,
        syn::Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

impl Paths<'_> {
    /// Notes a path, from the crate's root, if it begins in this crate.
    fn note(&mut self, path: Vec<String>, name: Option<&syn::Ident>) {
        let mut from: Module = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => self.module.clone(),
            Some(first) if self.children.contains(first) => self.module.clone(),
            _ => return,
        };
        for segment in path {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => drop(from.pop()),
                _ => from.push(segment),
            }
        }
        if let Some(name) = name.filter(|_| self.is_export) {
            self.exported.insert(name.to_string(), from.clone());
        }
        self.found.push(from);
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.note(with(&name.ident), Some(&name.ident)),
            syn::UseTree::Rename(name) => self.note(with(&name.ident), Some(&name.rename)),
            syn::UseTree::Glob(_) => self.note(before.to_vec(), None),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.is_export = !matches!(item.vis, syn::Visibility::Inherited);
        self.tree(&[], &item.tree);
        self.is_export = false;
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note(path.segments.iter().map(|segment| segment.ident.to_string()).collect(), None);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        // The arguments of most macros are expressions, separated by commas.
        let parser = syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        if let Ok(arguments) = invocation.parse_body_with(parser) {
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        }
    }
}

/// Reads the module in `file`, and those below it.
fn read(file: &Path, module: &Module, modules: &mut BTreeMap<Module, syn::File>) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let directory = match file.file_name().and_then(|name| name.to_str()) {
        Some("lib.rs" | "main.rs" | "mod.rs") => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    for item in &parsed.items {
        let syn::Item::Mod(child) = item else { continue };
        if child.content.is_some() || is_for_tests(&child.attrs) {
            continue;
        }
        let name = child.ident.to_string();
        let below: Module = module.iter().cloned().chain([name.clone()]).collect();
        let beside = directory.join(format!("{name}.rs"));
        let file = if beside.exists() { beside } else { directory.join(&name).join("mod.rs") };
        read(&file, &below, modules);
    }
    modules.insert(module.clone(), parsed);
}

/// What each module of a crate needs.
fn needs(root: &Path) -> Needs {
    let mut modules = BTreeMap::new();
    read(root, &Vec::new(), &mut modules);
    let is_child = |module: &Module, other: &Module| other.len() == module.len() + 1 && other.starts_with(module);
    let mut all = BTreeMap::new();
    for (module, parsed) in &modules {
        let children = modules.keys().filter(|other| is_child(module, other)).filter_map(|other| other.last().cloned());
        let children = children.collect();
        let mut paths = Paths { module, children, found: Vec::new(), exported: BTreeMap::new(), is_export: false };
        paths.visit_file(parsed);
        all.insert(module, paths);
    }
    let definer = |path: &Vec<String>| {
        let mut path = path.clone();
        // Each step follows one re-exported name.
        for _ in 0..10 {
            let module = (0..=path.len()).rev().map(|length| &path[..length]).find(|it| modules.contains_key(*it))?;
            let again = path.get(module.len()).and_then(|name| all.get(&module.to_vec())?.exported.get(name));
            match again {
                Some(again) => path = again.iter().chain(&path[module.len() + 1..]).cloned().collect(),
                None => return Some(module.to_vec()),
            }
        }
        None
    };
    let of = |(module, paths): (&&Module, &Paths<'_>)| {
        let needed = paths.found.iter().filter_map(definer).filter(|other| other != *module);
        ((*module).clone(), needed.collect())
    };
    all.iter().map(of).collect()
}

/// The circles of modules that need each other, as `a -> b -> a`.
fn circles(needs: &Needs) -> Vec<String> {
    let mut circles = BTreeSet::new();
    for start in needs.keys() {
        let mut ways = vec![vec![start]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            let Some(&last) = way.last() else { continue };
            for next in needs.get(last).into_iter().flatten() {
                if next == start {
                    let mut names: Vec<String> = way.iter().map(|module| module.join("::")).collect();
                    // A circle is found from each of its modules. Beginning with the first name, it is one string.
                    let first = names.iter().enumerate().min_by_key(|(_, name)| (*name).clone()).map_or(0, |it| it.0);
                    names.rotate_left(first);
                    names.push(names[0].clone());
                    circles.insert(names.join(" -> "));
                } else if seen.insert(next) {
                    ways.insert(0, way.iter().copied().chain([next]).collect());
                }
            }
        }
    }
    circles.into_iter().collect()
}

/// The rooms of a crate: a folder or a file just below the root.
fn rooms(needs: &Needs) -> Needs {
    let room = |module: &Module| module.iter().take(1).cloned().collect::<Module>();
    let mut rooms = Needs::new();
    for (module, others) in needs.iter().filter(|(module, _)| !module.is_empty()) {
        let others = others.iter().map(room).filter(|other| *other != room(module));
        rooms.entry(room(module)).or_default().extend(others);
    }
    rooms
}

#[test]
fn no_two_rooms_need_each_other() {
    for root in CRATES {
        let circles = circles(&rooms(&needs(&top().join(root))));
        assert!(circles.is_empty(), "{root}: rooms in a circle:\n{}", circles.join("\n"));
    }
}

#[test]
fn no_two_modules_need_each_other() {
    for root in CRATES {
        let circles = circles(&needs(&top().join(root)));
        assert!(circles.is_empty(), "{root}: modules in a circle:\n{}", circles.join("\n"));
    }
}
