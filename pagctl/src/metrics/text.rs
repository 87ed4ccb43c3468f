//! Prometheus's text format (version 0.0.4), as node_exporter's textfile collector reads it, with OpenMetrics's `# EOF` at its
//! end. Both formats share all other lines but one: OpenMetrics has the name of a counter without `_total` in its `# TYPE`,
//! and the collector would then not know it for a counter.

use std::fmt::Write as _;

/// What kind of number a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows, and begins at zero with the helper's start.
    Counter,
    Gauge,
}

/// One number, with the labels that set it apart.
pub(super) type Sample = (Vec<(&'static str, String)>, u64);

/// Numbers of one name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) samples: Vec<Sample>,
}

/// The families as text. One without samples is left out.
pub(super) fn render(families: &[Family]) -> String {
    let mut text = String::new();
    for Family { name, kind, help, samples } in families.iter().filter(|family| !family.samples.is_empty()) {
        let kind = if *kind == Kind::Counter { "counter" } else { "gauge" };
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n", escaped(help, false));
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{} {value}", in_braces(labels));
        }
    }
    text + "# EOF\n"
}

fn in_braces(labels: &[(&'static str, String)]) -> String {
    let pair = |(name, value): &(&str, String)| format!("{name}=\"{}\"", escaped(value, true));
    let pairs: Vec<String> = labels.iter().map(pair).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

/// A text without what would end its line, or its quotes.
fn escaped(text: &str, in_quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if in_quotes { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Reads a text by the format's grammar, and gives its samples. It panics where the text is none.
    ///
    /// Source: "Exposition formats" of Prometheus's documentation.
    pub(crate) fn parse(text: &str) -> Vec<(String, u64)> {
        let (mut samples, mut families, mut series) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let (mut helped, mut typed) = (String::new(), String::new());
        let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
        for line in body.split_terminator('\n') {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("a help has words");
                assert!(is_name(name) && !words.is_empty(), "{line}");
                assert!(families.insert(name.to_owned()), "a family stands together: {line}");
                name.clone_into(&mut helped);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert!(name == helped && ["counter", "gauge"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                name.clone_into(&mut typed);
            } else {
                assert!(!line.starts_with('#'), "{line}");
                let (name, value) = line.rsplit_once(' ').expect("a value");
                let (family, labels) = name.split_once('{').map_or((name, None), |(name, rest)| (name, Some(rest)));
                assert_eq!(family, typed, "a sample follows its type: {line}");
                if let Some(labels) = labels {
                    check_labels(labels);
                }
                assert!(series.insert(name.to_owned()), "a series stands once: {line}");
                samples.push((name.to_owned(), value.parse().unwrap_or_else(|_| panic!("a number: {line}"))));
            }
        }
        samples
    }

    fn is_name(text: &str) -> bool {
        text.starts_with("pag_") && text.bytes().all(|c| c.is_ascii_lowercase() || c == b'_')
    }

    /// Labels, without the brace before them.
    fn check_labels(mut text: &str) {
        loop {
            let (name, rest) = text.split_once("=\"").unwrap_or_else(|| panic!("a label: {text}"));
            assert!(!name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase()), "{text}");
            let mut is_escaped = false;
            let end = rest.bytes().position(|c| {
                let is_end = c == b'"' && !is_escaped;
                assert!(!is_escaped || b"\\n\"".contains(&c), "an escape that there is not: {rest}");
                is_escaped = c == b'\\' && !is_escaped;
                is_end
            });
            text = &rest[end.unwrap_or_else(|| panic!("an end of the value: {rest}")) + 1..];
            match text.strip_prefix(',') {
                Some(more) => text = more,
                None => break assert_eq!(text, "}"),
            }
        }
    }

    fn family(kind: Kind, samples: Vec<Sample>) -> Family {
        let name = if kind == Kind::Counter { "pag_total" } else { "pag_some" };
        Family { name, kind, help: "Some \\ help.\n", samples }
    }

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        let hostile = "a\"} 1\n# TYPE x \\";
        let families = [
            family(Kind::Gauge, vec![(vec![], 1)]),
            family(Kind::Counter, vec![(vec![("cell", hostile.to_owned()), ("client", "kafs".to_owned())], 2)]),
        ];
        let text = render(&families);
        let expected = "# HELP pag_some Some \\\\ help.\\n\n# TYPE pag_some gauge\npag_some 1\n\
                        # HELP pag_total Some \\\\ help.\\n\n# TYPE pag_total counter\n\
                        pag_total{cell=\"a\\\"} 1\\n# TYPE x \\\\\",client=\"kafs\"} 2\n# EOF\n";
        assert_eq!(text, expected);
        assert_eq!(parse(&text).len(), 2);
        assert_eq!(render(&[family(Kind::Gauge, vec![])]), "# EOF\n");
    }

    #[test]
    fn the_grammar_refuses_what_is_none() {
        let refused = |text: &'static str| std::panic::catch_unwind(|| parse(text)).is_err();
        let good = "# HELP pag_a x\n# TYPE pag_a gauge\npag_a{b=\"c\"} 1\n# EOF\n";
        assert!(!refused(good));
        for bad in [
            "# HELP pag_a x\n# TYPE pag_a gauge\npag_a 1\n",
            "pag_a 1\n# EOF\n",
            "# HELP pag_a x\n# TYPE pag_a counter\npag_a 1\n# EOF\n",
            "# HELP pag_a x\n# TYPE pag_a gauge\npag_a 1\npag_a 1\n# EOF\n",
            "# HELP pag_a x\n# TYPE pag_a gauge\npag_a{b=\"c\"d\"} 1\n# EOF\n",
            "# HELP pag_a x\n# TYPE pag_a gauge\npag_a{b=\"\\x\"} 1\n# EOF\n",
        ] {
            assert!(refused(bad), "{bad}");
        }
    }
}
