//! The README shows what is there.

use std::path::Path;

use aftercommit::status::metrics::{METRICS, Metric};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_handler_in_the_readme_is_the_one_that_runs() {
    let example = read("examples/webhook.rs");
    let (_, rest) = example
        .split_once("// The handler, as the README shows it.\n")
        .unwrap();
    let (handler, _) = rest.split_once("// So far the handler.\n").unwrap();
    assert!(read("README.md").contains(handler), "copy this:\n{handler}");
}

#[tokio::test]
async fn the_real_table_in_the_readme_becomes_the_mail_that_is_shown() {
    let readme = read("README.md");
    let (_, rest) = readme
        .split_once("<!-- From a real table to a mail; a test runs it. -->\n")
        .unwrap();
    let (example, _) = rest.split_once("<!-- So far the example. -->").unwrap();
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
    let told = crate::cli::text(&output.stderr);
    assert!(output.status.success(), "{told}");
    let shown = crate::cli::text(&output.stdout).replace('\r', "");
    assert_eq!(shown, block("text"), "{told}");
}

#[test]
fn the_metrics_in_the_readme_are_those_of_the_code() {
    let readme = read("README.md");
    let (_, rest) = readme
        .split_once("<!-- The metrics; a test compares them. -->\n")
        .unwrap();
    let (table, _) = rest.split_once("<!-- So far the metrics. -->").unwrap();
    let told: Vec<_> = table.lines().skip(2).map(str::to_owned).collect();
    let row = |metric: &Metric| {
        let name = metric.name.strip_prefix("aftercommit_").unwrap();
        format!("| `{name}` | {} | {} |", metric.kind(), metric.help)
    };
    let rows: Vec<_> = METRICS.iter().map(row).collect();
    assert_eq!(told, rows, "copy this:\n{}", rows.join("\n"));
}

#[tokio::test]
async fn the_settings_in_the_readme_are_those_of_the_command() {
    let output = crate::cli::aftercommit().args(["run", "--help"]).output();
    let help = crate::cli::text(&output.await.unwrap().stdout);
    let (options, _) = help.split_once("Examples:").unwrap();
    let readme = read("README.md");
    let mut count = 0;
    for line in options.lines() {
        let Some(flag) = line.trim_start().strip_prefix("--") else {
            continue;
        };
        let flag = flag.split(' ').next().unwrap();
        assert!(readme.contains(&format!("`--{flag}`")), "--{flag}");
        count += 1;
    }
    assert!(count > 20, "{help}");
    for line in readme.lines() {
        let Some(flag) = line
            .strip_prefix("| `--")
            .and_then(|rest| rest.split('`').next())
        else {
            continue;
        };
        assert!(
            options.contains(&format!("--{flag}")),
            "--{flag} is no setting"
        );
    }
}
