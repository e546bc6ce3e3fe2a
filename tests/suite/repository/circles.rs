//! No two files need each other: a reader of one can stop at what it imports.
//!
//! A module and the files below it count as one thing: a parent may name its children, and they may
//! name it.

use std::collections::{BTreeMap, BTreeSet};

use super::arrows::{File, sources};

/// The path of a module, such as `["core", "fleet", "plan"]`.
type Module = Vec<String>;

fn module(file: &File) -> Module {
    let path = file.path.strip_suffix(".rs").unwrap();
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let path = path.strip_suffix("/main").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

/// The paths that a file names, each cut into words: `use` statements taken apart, and paths in code.
fn named(code: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut rest = String::new();
    for statement in code.split(';') {
        let statement = statement.replace('\n', " ");
        match statement.split_once("use ") {
            Some((before, tree)) if !before.contains(['(', '{', '=']) => {
                take_apart(&[], tree, &mut all);
            }
            _ => rest.push_str(&statement),
        }
    }
    let words = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    let paths = rest.split(words).filter(|path| {
        let roots = ["crate::", "super::", "self::"];
        roots.iter().any(|root| path.starts_with(root))
    });
    all.extend(paths.map(split));
    all
}

fn split(path: &str) -> Vec<String> {
    let parts = path.split("::").map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn take_apart(before: &[String], tree: &str, into: &mut Vec<Vec<String>>) {
    let tree = tree.split(" as ").next().unwrap().trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        into.push([before, &split(tree)].concat());
        return;
    };
    let before = [before, &split(prefix)].concat();
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                take_apart(&before, &group[start..at], into);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !group[start..].trim().is_empty() {
        take_apart(&before, &group[start..], into);
    }
}

/// The module that a path within `from` leads to, if it is a file of the same crate.
fn leads_to(path: &[String], from: &Module, all: &BTreeSet<Module>) -> Option<Module> {
    let (mut whole, mut rest) = match path.first()?.as_str() {
        "crate" => (Module::new(), &path[1..]),
        "self" => (from.clone(), &path[1..]),
        _ => (from.clone(), path),
    };
    while rest.first().is_some_and(|word| word == "super") {
        whole.pop();
        rest = &rest[1..];
    }
    whole.extend(rest.iter().cloned());
    while !all.contains(&whole) {
        whole.pop()?;
    }
    (!whole.is_empty()).then_some(whole)
}

fn arrows(files: &[File]) -> BTreeMap<Module, BTreeSet<Module>> {
    let all: BTreeSet<_> = files.iter().map(module).collect();
    let of = |file: &File| {
        let from = module(file);
        let code = file.code.join("\n");
        let paths = named(&code);
        let to = paths.iter().filter_map(|path| leads_to(path, &from, &all));
        let others = to.filter(|to| !to.starts_with(&from) && !from.starts_with(to));
        (from.clone(), others.collect())
    };
    files.iter().map(of).collect()
}

/// All that can be reached from a module by its arrows.
fn reached<'a>(
    from: &Module,
    arrows: &'a BTreeMap<Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut all = BTreeSet::new();
    let mut next: Vec<&Module> = arrows[from].iter().collect();
    while let Some(module) = next.pop() {
        if all.insert(module) {
            next.extend(arrows.get(module).into_iter().flatten());
        }
    }
    all
}

/// The modules on a circle, each with those of its arrows that close one.
fn circles(files: &[File]) -> Vec<String> {
    let arrows = arrows(files);
    let reach: BTreeMap<_, _> = arrows.keys().map(|m| (m, reached(m, &arrows))).collect();
    let mut found = Vec::new();
    for (from, to) in &arrows {
        for to in to.iter().filter(|to| reach[to].contains(from)) {
            found.push(format!("{} -> {}", from.join("/"), to.join("/")));
        }
    }
    found
}

#[test]
fn no_two_files_need_each_other() {
    let found = circles(&sources());
    assert!(found.is_empty(), "circles of files:\n{}", found.join("\n"));
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let circle = |texts: &[(&str, &str)]| {
        let files = texts.iter().map(|(path, text)| File::new(path, text));
        circles(&files.collect::<Vec<_>>()).len()
    };
    let a = ("room/a.rs", "use super::b::X;");
    assert_eq!(circle(&[a, ("room/b.rs", "use super::{a::Y, c};")]), 2);
    assert_eq!(
        circle(&[a, ("room/b.rs", "fn f(y: crate::room::a::Y) {}")]),
        2
    );
    assert_eq!(
        circle(&[a, ("room/b.rs", "//! [`super::a`]\nuse std::fmt;")]),
        0
    );
    let parent = ("room.rs", "mod b;\nuse self::b::X;");
    assert_eq!(circle(&[parent, ("room/b.rs", "use super::Y;")]), 0);
    let three = [
        ("a.rs", "use crate::b::X;"),
        ("b.rs", "use crate::{c::X, d};"),
        ("c.rs", "use crate::a::X;"),
    ];
    assert_eq!(circle(&three), 3);
}
