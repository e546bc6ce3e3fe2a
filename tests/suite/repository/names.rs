//! One name, one meaning: no two types of the crate are called the same.

use std::collections::BTreeMap;

use super::arrows::{File, sources};

/// Files that only tests compile, besides those that `sources` leaves out.
const OF_TESTS: &[&str] = &["describe.rs", "golden.rs", "properties.rs"];

/// The name of the type that a line defines. An alias of a type of the same name is not another type.
fn defined(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub(") {
        Some(line) => line.split_once(") ")?.1,
        None => line.strip_prefix("pub ").unwrap_or(line),
    };
    let (kind, rest) = line.split_once(' ')?;
    if !["struct", "enum", "trait", "type"].contains(&kind) {
        return None;
    }
    let end = |c: char| !(c.is_alphanumeric() || c == '_');
    let name = rest.split(end).next()?;
    let is_alias = kind == "type" && rest.contains(&format!("::{name}"));
    (!is_alias).then_some(name)
}

fn repeated<'a>(files: impl Iterator<Item = &'a File>) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in files {
        for name in file.code.iter().filter_map(|line| defined(line)) {
            places.entry(name).or_default().push(&file.path);
        }
    }
    let repeated = places.into_iter().filter(|(_, files)| files.len() > 1);
    repeated
        .map(|(name, files)| format!("{name}: {}", files.join(", ")))
        .collect()
}

#[test]
fn no_two_types_have_one_name() {
    let sources = sources();
    let is_test = |file: &&File| OF_TESTS.iter().any(|name| file.path.ends_with(name));
    let found = repeated(sources.iter().filter(|file| !is_test(file)));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_name_that_is_defined_twice_is_found() {
    let files = [
        ("a.rs", "pub(super) struct Row<'a> {\n}\nstruct Other;"),
        (
            "b.rs",
            "type Other = crate::a::Other<u8>;\n    type Item = u8;",
        ),
        ("c.rs", "enum Row {\n}"),
    ];
    let files = files.map(|(path, text)| File::new(path, text));
    assert_eq!(repeated(files.iter()), ["Row: a.rs, c.rs"]);
}
