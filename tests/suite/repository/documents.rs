//! The README and the pages in docs/ show what exists.

use std::path::{Path, PathBuf};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_program_in_the_readme_is_the_one_that_runs() {
    let example = read("examples/projection.rs");
    let (_, rest) = example
        .split_once("// The program, as the README shows it.\n")
        .unwrap();
    let (program, _) = rest.split_once("// End of the program.\n").unwrap();
    assert!(read("README.md").contains(program), "copy this:\n{program}");
}

#[tokio::test]
async fn the_real_table_in_the_guide_becomes_the_mail_that_is_shown() {
    let guide = read("docs/orders.md");
    let (_, rest) = guide
        .split_once("<!-- A test runs this example. -->\n")
        .unwrap();
    let (example, _) = rest.split_once("<!-- End of the example. -->").unwrap();
    let block = |kind: &str| {
        let (_, rest) = example.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("item.json"), block("json")).unwrap();
    let folder = Path::new(env!("CARGO_BIN_EXE_aftercommit"))
        .parent()
        .unwrap();
    let mut command = tokio::process::Command::new("/bin/sh");
    command.env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
    command.args(["-c", block("sh")]).current_dir(dir.path());
    let output = command.output().await.unwrap();
    let reported = crate::cli::start::text(&output.stderr);
    assert!(output.status.success(), "{reported}");
    let shown = crate::cli::start::text(&output.stdout).replace('\r', "");
    assert_eq!(shown, block("text"), "{reported}");
}

/// Rows of tables, without the links and paths of a module's page.
fn rows(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.trim_start_matches("//! "));
    let rows = lines.filter(|line| line.starts_with("| "));
    rows.map(|row| row.replace(['[', ']'], "").replace("Failure::", ""))
        .collect()
}

#[test]
fn what_a_handler_gets_and_what_it_may_answer_is_the_same_in_the_guide_and_beside_the_code() {
    let guide = rows(&read("docs/handlers.md"));
    let mut code = rows(&read("src/handlers/http.rs"));
    assert!(code.len() > 14, "{code:?}");
    let once = read("src/handlers/program.rs").replace("/// | ", "| ");
    code.extend(rows(&once));
    assert!(code.len() > 22, "{code:?}");
    for row in code {
        assert!(guide.contains(&row), "docs/handlers.md lacks {row}");
    }
}

/// The pages that people read: at the top, and in docs/.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.to_owned(), root.join("docs"), root.join("infra")];
    let entries = folders
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).unwrap());
    let pages = entries.map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    pages.collect()
}

/// As GitHub makes it of a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    let text: String = heading.to_lowercase().chars().filter(kept).collect();
    text.replace(' ', "-")
}

fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let text = |line: &str| anchor(line.trim_start_matches('#').trim());
    headings.map(text).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let pages = pages();
    assert!(pages.len() > 8, "{pages:?}");
    for path in pages {
        let text = std::fs::read_to_string(&path).unwrap();
        let links = text.split("](").skip(1);
        let links = links.map(|rest| rest.split(')').next().unwrap());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{} links to {link}", path.display());
            if !part.is_empty() {
                let page = std::fs::read_to_string(&target).unwrap();
                let found = anchors(&page).contains(&part.to_owned());
                assert!(found, "{} links to {link}", path.display());
            }
        }
    }
}

#[test]
fn the_readme_can_be_read_in_five_minutes() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 200, "{lines} lines: move details to docs/");
}
