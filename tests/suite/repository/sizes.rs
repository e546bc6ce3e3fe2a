//! No file is longer than a reader keeps in mind.

use std::path::Path;

use super::arrows::files;

/// How many lines a file may have.
const LINES: usize = 400;

#[test]
fn no_file_has_more_than_400_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests", "examples"] {
        files(&root.join(folder), &mut paths);
    }
    let long = paths.iter().filter_map(|path| {
        let lines = std::fs::read_to_string(path).unwrap().lines().count();
        let path = path.strip_prefix(root).unwrap().display();
        (lines > LINES).then(|| format!("{path}: {lines} lines"))
    });
    let long: Vec<_> = long.collect();
    assert!(
        long.is_empty(),
        "find the second concept in each, and give it a file of its own:\n{}",
        long.join("\n")
    );
}
