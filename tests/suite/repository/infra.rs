//! What stands beside the Terraform code is in step with it: the modules' READMEs, the runbook, and the
//! names of metrics.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aftercommit::engine::Timing;
use aftercommit::monitor::FindingKind;
use aftercommit::monitor::metrics::METRICS;

const MODULES: &[&str] = &[
    "alarms",
    "confirmation",
    "network",
    "tables",
    "worker-ecs",
    "worker-lambda",
];

fn infra() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("infra")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(infra().join(path)).expect(path)
}

/// The blocks of this kind in a file, such as every `variable`: name and lines.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<(&'a str, &'a str)> {
    let begin = format!("{kind} \"");
    let blocks = text.split("\n}\n").map(str::trim_start);
    let named = blocks.filter_map(|block| block.strip_prefix(&begin)?.split_once("\" {\n"));
    named.collect()
}

/// What an attribute of a block says, on one line.
fn said<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = block.lines().map(str::trim_start);
    lines.find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim_end() == name).then(|| value.trim())
    })
}

fn text(quoted: &str) -> String {
    quoted.trim_matches('"').replace("\\\"", "\"")
}

/// The part of a module's README that follows from its code.
fn reference(module: &str) -> String {
    let mut all = "| Variable | Default | |\n|---|---|---|\n".to_owned();
    let variables = read(&format!("modules/{module}/variables.tf"));
    for (name, block) in blocks(&variables, "variable") {
        let default = said(block, "default");
        let default = default.map_or("to be given".to_owned(), |value| format!("`{value}`"));
        let description = text(said(block, "description").expect(name));
        writeln!(all, "| `{name}` | {default} | {description} |").unwrap();
    }
    all += "\n| Output | |\n|---|---|\n";
    let outputs = read(&format!("modules/{module}/outputs.tf"));
    for (name, block) in blocks(&outputs, "output") {
        let description = text(said(block, "description").expect(name));
        writeln!(all, "| `{name}` | {description} |").unwrap();
    }
    all
}

#[test]
fn each_modules_readme_lists_its_variables_and_outputs() {
    let folders = std::fs::read_dir(infra().join("modules")).unwrap();
    let folders = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap());
    let folders: BTreeSet<_> = folders.collect();
    assert_eq!(
        folders,
        MODULES.iter().map(|name| (*name).to_owned()).collect()
    );
    for module in MODULES {
        let reference = reference(module);
        let readme = read(&format!("modules/{module}/README.md"));
        assert!(
            readme.ends_with(&reference),
            "infra/modules/{module}/README.md ends with:\n{reference}"
        );
    }
}

#[test]
fn every_alarm_has_its_paragraph_in_the_runbook() {
    let alarms = read("modules/alarms/main.tf");
    assert!(alarms.contains("${var.runbook}#${each.key}\""));
    let keys = alarms.lines().filter_map(|line| {
        let key = line.strip_prefix("    ")?.strip_suffix(" = {")?;
        (!key.starts_with(' ')).then(|| key.to_owned())
    });
    let alarms: BTreeSet<_> = keys.collect();
    let runbook = read("RUNBOOK.md");
    let paragraphs: BTreeSet<_> = runbook
        .split("\n## ")
        .skip(1)
        .map(|paragraph| {
            for word in ["**It means**", "**Look at**", "**Do**", "**It is over**"] {
                assert!(paragraph.contains(word), "{word} in {paragraph}");
            }
            paragraph.lines().next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(paragraphs, alarms);
    assert!(alarms.len() > 6, "{alarms:?}");
}

#[test]
fn what_waits_for_a_person_has_an_alarm_and_the_trim_alarm_comes_before_the_rescue() {
    let alarms = read("modules/alarms/main.tf");
    for kind in FindingKind::ALL {
        let Some(alarm) = kind.alarm() else {
            continue;
        };
        let begin = format!("    {alarm} = {{\n");
        assert!(alarms.contains(&begin), "{kind:?}: {alarm}");
    }
    let variables = read("modules/alarms/variables.tf");
    let (_, trim) = blocks(&variables, "variable")
        .into_iter()
        .find(|(name, _)| *name == "until_trim_seconds")
        .unwrap();
    let warned: u64 = said(trim, "default").unwrap().parse().unwrap();
    let rescued = Timing::default().rescue_before_trim;
    assert!(Duration::from_secs(warned) >= rescued + Duration::from_hours(1));
}

/// The commands in a text in Markdown: the subcommand's words, and the flags.
fn commands(text: &str) -> BTreeSet<(Vec<&str>, Vec<&str>)> {
    let begins = ["`aftercommit ", "\naftercommit "];
    let found = begins.iter().flat_map(|begin| text.split(begin).skip(1));
    let reported = found.map(|rest| rest.split(['`', '#']).next().unwrap());
    let commands = reported.map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_name = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let names = words
            .iter()
            .take_while(|word| is_name(word) && !word.starts_with("--"));
        let flags = words.iter().filter(|word| word.starts_with("--"));
        (names.copied().collect(), flags.copied().collect())
    });
    commands.collect()
}

#[tokio::test]
async fn every_command_in_the_runbook_is_there() {
    let runbook = read("RUNBOOK.md");
    let commands = commands(&runbook);
    assert!(commands.len() > 8, "{commands:?}");
    for (names, flags) in commands {
        let help = crate::cli::start::aftercommit()
            .args(&names)
            .arg("--help")
            .output();
        let help = help.await.unwrap();
        let reported = crate::cli::start::text(&help.stdout);
        let usage = format!("Usage: aftercommit {}", names.join(" "));
        assert!(reported.contains(&usage), "{names:?}: {reported}");
        for flag in flags {
            assert!(reported.contains(&format!(" {flag}")), "{names:?} {flag}");
        }
    }
}

/// The names after `aftercommit_` in a text. Prometheus has three series for a histogram.
fn named(text: &str) -> BTreeSet<String> {
    let names = text.split("aftercommit_").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
        let name = &rest[..end.unwrap_or(rest.len())];
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        name.to_owned()
    });
    names.collect()
}

#[test]
fn dashboards_alarms_and_the_runbook_name_metrics_that_there_are() {
    let known = METRICS.iter().map(|metric| metric.name);
    let known: BTreeSet<_> = known
        .map(|name| name.replacen("aftercommit_", "", 1))
        .collect();
    for (path, at_least) in [
        ("grafana/aftercommit.json", METRICS.len()),
        ("modules/alarms/dashboard.tf", 15),
        ("modules/alarms/main.tf", 6),
        ("modules/worker-ecs/main.tf", 1),
        ("RUNBOOK.md", 3),
    ] {
        let named = named(&read(path));
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "infra/{path}: {unknown:?}");
        assert!(named.len() >= at_least, "infra/{path} names only {named:?}");
    }
}

#[test]
fn the_documentation_for_lambda_names_metrics_that_lambda_has() {
    let on_lambda = METRICS.iter().filter(|metric| metric.source.on_lambda());
    let on_lambda: BTreeSet<_> = on_lambda
        .map(|metric| metric.name.replacen("aftercommit_", "", 1))
        .collect();
    let lacks = |text: &str| {
        let named = named(text);
        let unknown = named.difference(&on_lambda).cloned();
        unknown.collect::<Vec<_>>()
    };
    let dashboard = read("modules/alarms/dashboard.tf");
    let (both, fleet) = dashboard.split_once("var.lambda != null ? []").unwrap();
    assert_eq!(lacks(both), [""; 0]);
    assert!(!lacks(fleet).is_empty());
    let alarms = read("modules/alarms/main.tf");
    let (both, rest) = alarms.split_once("  on_ecs = {\n").unwrap();
    let (fleet, lambda) = rest.split_once("  on_lambda = {\n").unwrap();
    assert_eq!(lacks(&format!("{both}{lambda}")), [""; 0]);
    assert!(named(both).contains("parked_keys_rescued"));
    let runbook = read("RUNBOOK.md");
    for paragraph in runbook.split("\n## ").skip(1) {
        let (alarm, words) = paragraph.split_once('\n').unwrap();
        if fleet.contains(&format!("    {alarm} = {{")) {
            continue;
        }
        let words = words.replace("in a fleet `aftercommit_", "");
        assert_eq!(lacks(&words), [""; 0], "{alarm}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_reads() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("grafana/aftercommit.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let places: BTreeSet<_> = panels
        .iter()
        .map(|panel| panel["gridPos"].to_string())
        .collect();
    assert_eq!(places.len(), panels.len(), "no panel hides another");
    for panel in panels {
        assert!(panel["title"].is_string());
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
    }
}
