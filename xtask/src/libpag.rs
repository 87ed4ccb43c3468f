//! The C library: linked from the crate, and laid out with its header.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{Profile, build, run, target_of, top};

/// The version of the interface's library. It grows when a program that was linked before can't run any more.
pub(crate) const SONAME: &str = "libpag.so.0";

/// The calls that the library exports, in the order of `pag.h`.
pub(crate) fn calls(tree: &Path) -> Vec<String> {
    let map = fs::read_to_string(tree.join("libpag/libpag.map")).unwrap();
    let calls = map.lines().map(str::trim).filter_map(|line| line.strip_suffix(';'));
    calls.filter(|name| name.starts_with("pag_")).map(str::to_owned).collect()
}

/// Builds the library of the tree at `tree`, and returns its file. The crate is a static library, and the linker makes a
/// shared one of it: rustc would give the linker a version script of its own, and two cannot be combined.
pub(crate) fn link(tree: &Path, profile: Profile) -> PathBuf {
    build(tree, &["--profile", profile.name(), "-p", "libpag"]);
    let built = target_of(tree).join(profile.name());
    let library = built.join("libpag.so");
    run(Command::new("cc")
        .arg("-shared")
        .arg("-o")
        .arg(&library)
        .arg(format!("-Wl,-soname,{SONAME}"))
        .arg(format!("-Wl,--version-script,{}", tree.join("libpag/libpag.map").display()))
        // The parts of an archive are linked for those who need them: here, for the exported calls.
        .args(calls(tree).iter().map(|name| format!("-Wl,--undefined,{name}")))
        .arg(built.join("liblibpag.a"))
        // `nodelete` in it: a thread of the library sleeps in its code, so dlclose(3) must not take that away.
        .arg(format!("@{}", tree.join("libpag/libpag.link").display())));
    library
}

/// Lays out what a C program needs, the programs in `tests/c`, and the examples, in one directory, and returns it.
pub(crate) fn for_tests(tree: &Path, profile: Profile) -> PathBuf {
    let place = target_of(tree).join(profile.name()).join("libpag-tests");
    fs::create_dir_all(&place).unwrap();
    let copy = |from: &Path| fs::copy(from, place.join(from.file_name().unwrap())).unwrap();
    fs::copy(link(tree, profile), place.join(SONAME)).unwrap();
    copy(&tree.join("libpag/include/pag.h"));
    let programs = files(&top().join("tests/c")).into_iter().chain(files(&tree.join("libpag/examples")));
    for source in programs {
        if source.extension().is_some_and(|name| name == "c") {
            compile(&source, &place, &place.join(SONAME), &place);
        } else {
            copy(&source);
        }
    }
    copy(&rust_server(tree, profile));
    copy(&example(tree, profile, "serve"));
    place
}

/// Builds the program that does what a test tells it by the Rust interface, and returns its file.
pub(crate) fn rust_server(tree: &Path, profile: Profile) -> PathBuf {
    example(tree, profile, "pag-rusthost")
}

fn example(tree: &Path, profile: Profile, name: &str) -> PathBuf {
    build(tree, &["--profile", profile.name(), "-p", "libpag", "--example", name]);
    target_of(tree).join(profile.name()).join("examples").join(name)
}

/// The files in a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// Puts the programs that do what a scenario tells them beside a product that has been laid out in `product`. The one in C
/// finds the library in the place where it is installed.
pub(crate) fn servers(tree: &Path, profile: Profile, product: &Path) {
    let place = product.join("usr/local/bin");
    fs::create_dir_all(&place).unwrap();
    run(Command::new("strip").arg("-o").arg(place.join("pag-rusthost")).arg(rust_server(tree, profile)));
    compile(&top().join("tests/c/pag-chost.c"), &tree.join("libpag/include"), &link(tree, profile), &place);
}

/// Compiles a C program with a header in the directory `headers`, and with a library, and puts it into `place`.
fn compile(source: &Path, headers: &Path, library: &Path, place: &Path) {
    run(Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread", "-g"])
        .arg("-I")
        .arg(headers)
        .arg(source)
        .arg("-o")
        .arg(place.join(source.file_stem().unwrap()))
        .arg(library)
        .args(["-ldl", "-Wl,-rpath,$ORIGIN"]));
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Stdio;

    use super::*;

    /// The words after which `pag.h` names a call.
    fn declared() -> Vec<String> {
        let header = fs::read_to_string(top().join("libpag/include/pag.h")).unwrap();
        let lines = header.lines().filter(|line| line.ends_with(");") && !line.starts_with([' ', '/', '#']));
        let name = |line: &str| {
            let (before, _) = line.split_once('(').unwrap();
            before.rsplit([' ', '*']).next().unwrap().to_owned()
        };
        lines.map(name).collect()
    }

    #[test]
    fn the_map_names_the_calls_of_the_header() {
        let declared = declared();
        assert!(declared.len() >= 11, "{declared:?}");
        assert_eq!(calls(&top()), declared, "libpag.map and pag.h");
    }

    #[test]
    fn the_header_is_clean_c99_and_cxx() {
        // Twice, since a header may come by several others. An initializer, each end of the codes, and a call.
        let text = "#include <pag.h>\n#include <pag.h>\nint main(void) {\n\
                    struct pag_seed seed = PAG_SEED_INIT; pag *one = NULL;\n\
                    return pag_create(NULL, &seed, &one) == PAG_OK ? PAG_EINVAL + PAG_ESYSTEM : PAG_API_VERSION;\n}\n";
        for (compiler, language, standard) in
            [("cc", "c", "c99"), ("cc", "c", "c17"), ("c++", "c++", "c++98"), ("c++", "c++", "c++20")]
        {
            let mut compiler = Command::new(compiler)
                .args(["-x", language, &format!("-std={standard}"), "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
                .arg("-I")
                .arg(top().join("libpag/include"))
                .args(["-fsyntax-only", "-"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            compiler.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(compiler.wait().unwrap().success(), "pag.h as {standard}");
        }
    }

    /// The examples of a manual: what stands between `.EX` and `.EE`.
    fn examples(page: &str) -> Vec<String> {
        let plain = |line: &str| line.strip_prefix("\\&").unwrap_or(line).replace("\\-", "-").replace("\\e", "\\");
        let blocks = page.split("\n.EX\n").skip(1).map(|rest| rest.split("\n.EE\n").next().unwrap());
        blocks.map(|block| block.lines().map(|line| plain(line) + "\n").collect()).collect()
    }

    #[test]
    fn the_manual_has_the_examples_that_the_tests_run() {
        let page = fs::read_to_string(top().join("docs/man/libpag.3")).unwrap();
        let file = |name: &str| fs::read_to_string(top().join("libpag/examples").join(name)).unwrap();
        let shown = examples(&page);
        for name in ["together.c", "serve.py", "serve.rs"] {
            assert!(shown.contains(&file(name)), "docs/man/libpag.3 does not show libpag/examples/{name} as it is");
        }
    }

    #[test]
    fn the_manual_tells_each_call_and_each_code() {
        let page = fs::read_to_string(top().join("docs/man/libpag.3")).unwrap().replace("\\-", "-");
        let header = fs::read_to_string(top().join("libpag/include/pag.h")).unwrap();
        for call in declared() {
            assert!(page.contains(&format!("{call}(")), "libpag(3) has no synopsis of {call}");
        }
        let codes = header
            .lines()
            .filter_map(|line| line.trim().split_once(" = ").filter(|(name, _)| name.starts_with("PAG_")));
        for (name, rest) in codes {
            let number = rest.split(',').next().unwrap().split(' ').next().unwrap();
            assert!(page.contains(&format!(".BR {name} \" ({number})\"")), "libpag(3) does not tell {name} ({number})");
        }
    }
}
