//! The shapes of `docs/json.md`, and whether a value has the shape that the page tells. For tests: those of this crate, and
//! the scenarios.
#![allow(unreachable_pub, clippy::panic, reason = "the scenarios have this file, too, and to panic is to fail")]

use std::collections::BTreeMap;

use serde_json::Value;

/// The page. The scenarios' crate lies beside this one.
const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md"));

/// The rows of tables that begin with one word in backticks: that word, and the second cell.
fn rows(text: &'static str) -> BTreeMap<&'static str, &'static str> {
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.strip_suffix('`')?, cells.next()?.trim_end_matches('|').trim()))
    };
    text.lines().filter_map(row).collect()
}

/// The commands, and what each prints.
pub fn commands() -> BTreeMap<&'static str, &'static str> {
    rows(PAGE.split("\n### ").next().unwrap_or_default())
}

/// The keys of a shape, and the type of each.
fn keys(shape: &str) -> BTreeMap<&'static str, &'static str> {
    let section = PAGE.split("\n### ").find_map(|section| section.strip_prefix(shape)?.strip_prefix('\n'));
    rows(section.unwrap_or_else(|| panic!("docs/json.md has no shape '{shape}'")))
}

/// Panics unless the value is what docs/json.md has for this command, or for this type.
pub fn check(what: &str, value: &Value) {
    let kind = commands().get(what).copied().unwrap_or(what);
    if let Err(why) = compare(kind, value, "") {
        panic!("the JSON of '{what}' is not as docs/json.md tells: {why}: {value:#}");
    }
}

fn compare(kind: &str, value: &Value, at: &str) -> Result<(), String> {
    let mut failures = Vec::new();
    for kind in kind.split(" or ") {
        match one(kind, value, at) {
            Ok(()) => return Ok(()),
            Err(why) => failures.push(why),
        }
    }
    // The failure that lies deepest tells most.
    failures.sort_by_key(|why| why.split(':').next().map_or(0, |place| place.matches(['.', '[']).count()));
    Err(failures.pop().unwrap_or_default())
}

fn one(kind: &str, value: &Value, at: &str) -> Result<(), String> {
    let right = match kind {
        "text" => value.is_string(),
        "number" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        word if word.starts_with('`') => value.as_str() == Some(word.trim_matches('`')),
        list if list.starts_with("list of ") => match value.as_array() {
            Some(all) => {
                let inner = list.trim_start_matches("list of ");
                return all
                    .iter()
                    .enumerate()
                    .try_for_each(|(index, one)| compare(inner, one, &format!("{at}[{index}]")));
            }
            None => false,
        },
        shape => match value.as_object() {
            Some(object) => {
                let keys = keys(shape);
                if let Some(other) = object.keys().find(|key| !keys.contains_key(key.as_str())) {
                    return Err(format!("{at}.{other}: {shape} has no such key"));
                }
                return keys.into_iter().try_for_each(|(key, kind)| {
                    let at = format!("{at}.{key}");
                    object.get(key).ok_or_else(|| format!("{at}: it is missing")).and_then(|it| compare(kind, it, &at))
                });
            }
            None => false,
        },
    };
    if right { Ok(()) } else { Err(format!("{at}: {value} is not {kind}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_type_of_the_page_is_there() {
        let shapes = PAGE.split("\n### ").skip(1).filter_map(|section| section.lines().next());
        let kinds = shapes.flat_map(|shape| keys(shape).into_values()).chain(commands().into_values());
        for kind in kinds.flat_map(|kinds| kinds.split(" or ")) {
            match kind.trim_start_matches("list of ") {
                "text" | "number" | "boolean" | "null" => {}
                word if word.starts_with('`') && word.ends_with('`') => {}
                shape => assert!(!keys(shape).is_empty(), "{shape}"),
            }
        }
    }

    #[test]
    fn a_value_of_another_shape_is_refused_with_its_place() {
        let good = json!({ "pid": 1, "program": "a", "uses": null });
        assert_eq!(compare("maker", &good, ""), Ok(()));
        for (bad, place) in [
            (json!({ "pid": 1, "program": "a" }), ".uses: it is missing"),
            (json!({ "pid": 1, "program": "a", "uses": null, "more": 1 }), ".more: maker has no such key"),
            (json!({ "pid": 1, "program": null, "uses": 2 }), ".program: null is not text"),
            (json!([good]), ": [{"),
        ] {
            let why = compare("maker", &bad, "").unwrap_err();
            assert!(why.starts_with(place), "{why}");
        }
        assert_eq!(compare("list of maker or null", &json!([good]), ""), Ok(()));
        assert_eq!(compare("list of maker or null", &json!([1]), ""), Err("[0]: 1 is not maker".to_owned()));
        assert_eq!(compare("`a` or `b`", &json!("c"), ".x"), Err(".x: \"c\" is not `b`".to_owned()));
    }
}
