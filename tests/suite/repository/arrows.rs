//! The layout holds: rooms see only the rooms below them, and foreign types stay where they belong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The rooms of the library from the ground up. A room sees the floors below its own.
const FLOORS: &[&[&str]] = &[
    &["hooks"],
    &["core"],
    &["stores"],
    &["engine"],
    &["once"],
    &["confirmation", "handlers"],
    &["monitor", "simulation"],
    // What the tests see beside the public interface.
    &["cli", "internal"],
];

/// Files that may contain types of the AWS SDK, besides those in a folder `dynamodb`.
const AWS_FILES: &[&str] = &[
    "aws.rs",
    "aws_error.rs",
    "dynamodb.rs",
    "ses.rs",
    "sqs.rs",
    "lambda.rs",
];

pub struct File {
    /// Below `src`, such as `leases/row.rs`.
    pub path: String,
    /// Without comments and without the tests at its end.
    pub code: Vec<String>,
}

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        let mut code = Vec::new();
        for line in text.lines() {
            if line == "mod tests {" {
                break;
            }
            let comment = line.trim_start().starts_with("//");
            code.push(if comment {
                String::new()
            } else {
                line.to_owned()
            });
        }
        Self {
            path: path.to_owned(),
            code,
        }
    }

    /// `leases` for `leases/row.rs` and for `leases.rs`.
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    /// How many modules below the crate's root: 2 for `leases/row.rs`, 1 for `leases/mod.rs`.
    fn depth(&self) -> usize {
        self.path.split('/').count() - usize::from(self.name() == "mod.rs")
    }

    /// The lines that contain any of the words.
    fn lines_with<'a>(&'a self, words: &'a [&str]) -> impl Iterator<Item = String> + 'a {
        let numbered = self.code.iter().zip(1..);
        let hit = numbered.filter(|(line, _)| words.iter().any(|word| line.contains(word)));
        hit.map(|(line, number)| format!("src/{}:{number}: {}", self.path, line.trim()))
    }
}

/// Splits code into names, `::` and single other characters. Spaces and line ends do not matter, and
/// neither does the `$` of `$crate`.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_name(first) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The names right below the crate's root that the file uses: in imports, in paths, and in what it
/// passes to a macro or writes into one. A chain of `super` can lead to the root, too.
fn seen(file: &File) -> Vec<String> {
    let code = file.code.join("\n");
    let tokens = tokens(&code);
    let mut names = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let supers = tokens[at..]
            .chunks(2)
            .take_while(|pair| *pair == ["super", "::"])
            .count();
        let path = if supers > 0 {
            at += 2 * supers;
            (supers == file.depth()).then_some(&tokens[at..])
        } else {
            at += 1;
            let crate_root = tokens[at - 1..].starts_with(&["crate", "::"]);
            crate_root.then(|| &tokens[at + 1..])
        };
        names.extend(path.into_iter().flat_map(first_names).map(str::to_owned));
    }
    names
}

/// The first name of a path, or of each path of a group.
fn first_names<'a>(path: &[&'a str]) -> Vec<&'a str> {
    if path.first() != Some(&"{") {
        return path.iter().take(1).copied().collect();
    }
    let (mut names, mut open) = (Vec::new(), 0);
    for (before, token) in path.iter().zip(&path[1..]) {
        open += i32::from(*before == "{") - i32::from(*before == "}");
        match open {
            0 => break,
            1 if ["{", ","].contains(before) && *token != "}" => names.push(*token),
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> &str {
    let path = path.trim();
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_');
    &path[..end.unwrap_or(path.len())]
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

fn may_see(room: &str, other: &str) -> bool {
    match (floor(room), floor(other)) {
        _ if room == other => true,
        // Where the simulation reaches in, behind its feature.
        _ if room == "hooks" => other == "simulation",
        (Some(mine), Some(its)) => its < mine,
        _ => false,
    }
}

/// Every arrow that points the wrong way. `roots` says in which room a name of the crate's root is.
fn wrong_arrows(file: &File, roots: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in seen(file) {
        let room = roots.get(&name).unwrap_or(&name);
        if !may_see(file.room(), room) {
            wrong.push(format!("src/{}: sees {room} ({name})", file.path));
        }
    }
    wrong
}

fn foreign(file: &File) -> Vec<String> {
    let mut wrong = Vec::new();
    let adapter = file.path.contains("/dynamodb/");
    if !AWS_FILES.contains(&file.name()) && !adapter && file.room() != "cli" {
        wrong.extend(file.lines_with(&["aws_sdk_", "aws_smithy_", "aws_config::"]));
    }
    if file.room() != "confirmation" {
        wrong.extend(file.lines_with(&["lettre::"]));
    }
    if file.room() != "cli" {
        if file.path != "stores/clock.rs" {
            wrong.extend(file.lines_with(&["SystemTime::now"]));
        }
        wrong.extend(file.lines_with(&["std::time::Instant"]));
    }
    wrong
}

/// `pub use stores::clock::Clock;` in lib.rs means that `crate::Clock` is in the room `stores`.
fn roots(lib: &File) -> BTreeMap<String, String> {
    let mut roots = BTreeMap::new();
    let code = lib.code.join(" ");
    for statement in code.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else {
            continue;
        };
        let room = first_name(path).to_owned();
        let group = path.split_once('{').map(|(_, group)| group);
        let names = group.unwrap_or_else(|| path.rsplit("::").next().unwrap());
        for name in names.trim_end_matches(['}', ' ']).split(',') {
            roots.insert(name.trim().to_owned(), room.clone());
        }
    }
    roots
}

pub fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

pub fn sources() -> Vec<File> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&src, &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        File::new(path.strip_prefix(&src).unwrap().to_str().unwrap(), &text)
    };
    let all = paths.iter().map(read);
    all.filter(|file| file.name() != "tests.rs" && !file.path.contains("/tests/"))
        .collect()
}

#[test]
fn rooms_see_only_what_lies_below_them() {
    let sources = sources();
    let lib = sources.iter().find(|file| file.path == "lib.rs").unwrap();
    let roots = roots(lib);
    assert_eq!(
        roots.get("RecordHandler").map(String::as_str),
        Some("engine")
    );
    let inside = sources
        .iter()
        .filter(|file| !["lib", "main"].contains(&file.room()));
    let wrong: Vec<_> = inside.flat_map(|file| wrong_arrows(file, &roots)).collect();
    assert!(
        wrong.is_empty(),
        "arrows point one way:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_room_has_its_place() {
    for file in sources() {
        let room = file.room();
        let known = floor(room).is_some() || ["lib", "main"].contains(&room);
        assert!(
            known,
            "src/{}: give the room {room:?} its floor in this test",
            file.path
        );
    }
}

#[test]
fn foreign_types_and_the_wall_clock_stay_where_they_belong() {
    let wrong: Vec<_> = sources().iter().flat_map(foreign).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a pure machine has no use for.
const IMPURE: &[&str] = &[
    "tokio",
    "async ",
    ".await",
    "std::fs",
    "std::env",
    "std::time::Instant",
    "thread_local",
    "Rng::new()",
    "fastrand::u",
    "tracing",
];

#[test]
fn the_core_is_pure() {
    let sources = sources();
    let scripts = ["golden.rs", "properties.rs"];
    let core = sources.iter().filter(|file| file.room() == "core");
    let core: Vec<_> = core
        .filter(|file| !scripts.contains(&file.name()))
        .collect();
    assert!(core.len() >= 8, "it is not where it was");
    let wrong: Vec<_> = core
        .iter()
        .flat_map(|file| file.lines_with(IMPURE))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written() {
    let roots = BTreeMap::from([("Consumer".to_owned(), "engine".to_owned())]);
    let wrong = |path: &str, text: &str| wrong_arrows(&File::new(path, text), &roots).len();
    assert_eq!(
        wrong("core/claim.rs", "use crate::stores::leases::LeaseRow;"),
        1
    );
    assert_eq!(
        wrong(
            "stores/leases/row.rs",
            "use crate::{\n    Consumer,\n    core::record::X,\n};"
        ),
        1
    );
    assert_eq!(
        wrong("stores/ledger/mod.rs", "fn f(x: crate::engine::View) {}"),
        1
    );
    assert_eq!(
        wrong("confirmation/send.rs", "pub use crate::monitor::page;"),
        1
    );
    assert_eq!(
        wrong(
            "stores/leases/row.rs",
            "//! [`crate::engine::consumer`]\nuse crate::core::record::X;"
        ),
        0
    );
    assert_eq!(
        wrong("engine/member.rs", "use crate::stores::leases::View;"),
        0
    );
    assert_eq!(
        wrong("once/claims.rs", "use crate::confirmation::mail::Mail;"),
        1
    );
    let foreign = |path: &str, text: &str| foreign(&File::new(path, text)).len();
    assert_eq!(
        foreign("stores/leases/row.rs", "use aws_sdk_dynamodb::Client;"),
        1
    );
    assert_eq!(
        foreign("stores/leases/dynamodb.rs", "use aws_sdk_dynamodb::Client;"),
        0
    );
    assert_eq!(
        foreign("engine/handler.rs", "let x = lettre::Address::new();"),
        1
    );
    assert_eq!(
        foreign("engine/consumer.rs", "let now = SystemTime::now();"),
        1
    );
}

#[test]
fn a_path_in_a_macro_is_an_arrow_like_any_other() {
    let seen = |path: &str, text: &str| seen(&File::new(path, text));
    for text in [
        "assert_eq!(crate::engine::FEW, 3);",
        "macro_rules! few { () => { $crate::engine::FEW }; }",
        "few!(crate :: engine\n    ::FEW, 3)",
        "use crate::{engine};",
        "use crate::{\n    engine::{self, FEW},\n};",
        "use super::super::engine::FEW;",
        "pub(in crate::engine) fn few() {}",
    ] {
        assert_eq!(seen("core/claim.rs", text), ["engine"], "{text}");
    }
    let both = "use crate::{core::{shard::{A, B}, C}, engine::FEW};";
    assert_eq!(seen("core/claim.rs", both), ["core", "engine"]);
    for text in [
        "use super::engine::FEW;",
        "use my_crate::engine::FEW;",
        "pub(crate) fn few() {}",
        "// crate::engine::FEW",
    ] {
        assert_eq!(seen("core/claim.rs", text), [""; 0], "{text}");
    }
    assert_eq!(
        seen("core/claim/mod.rs", "super::super::engine::f()"),
        ["engine"]
    );
}
