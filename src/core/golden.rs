//! Scripts of events and a machine's answers, in text files. A line that begins with `> ` is an event;
//! the lines below it are the answer. `UPDATE_GOLDEN=1` rewrites the answers: read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::Path;

/// Plays each script of a folder below `src/core`, and compares. There are at least `least` scripts.
/// `event` plays one event and writes the machine's answer.
pub(super) fn check<S>(
    folder: &str,
    least: usize,
    begin: impl Fn() -> S,
    event: impl Fn(&mut S, &str, &mut String),
) {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core");
    let mut paths: Vec<_> = std::fs::read_dir(core.join(folder)).unwrap().collect();
    paths.sort_by_key(|entry| entry.as_ref().unwrap().path());
    assert!(paths.len() >= least, "the scripts are missing");
    for entry in paths {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let said = played(&text, begin(), &event);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &said).unwrap();
        } else {
            assert_eq!(said, text, "{}", path.display());
        }
    }
}

/// The script with the machine's answers.
fn played<S>(text: &str, mut script: S, event: &impl Fn(&mut S, &str, &mut String)) -> String {
    let mut all = String::new();
    for line in text.lines() {
        match line.strip_prefix("> ") {
            Some(what) => {
                writeln!(all, "{line}").unwrap();
                event(&mut script, what, &mut all);
            }
            None if line.is_empty() || line.starts_with('#') => writeln!(all, "{line}").unwrap(),
            None => {}
        }
    }
    all
}
