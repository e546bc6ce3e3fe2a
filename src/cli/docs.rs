//! The generated pages: `docs/settings.md` from the flags, `docs/metrics.md` from the metrics. The
//! tests compare them with the files; `just docs` writes the files.

use std::path::Path;

use crate::monitor::metrics::{METRICS, Metric};
use clap::builder::StyledStr;
use clap::{Arg, Command};

const SETTINGS: &str = "\
# Settings

<!-- Generated from the command's flags: `just docs` writes this page. -->

Every flag of `aftercommit run` is also an environment variable: `--lease-table` is `AFTERCOMMIT_LEASE_TABLE`. A flag
overrides its variable. Flags that can be given several times take a comma-separated list in their variable, except
`--filter`, whose variable is one pattern. On AWS Lambda only the variables are read, and the file that `AFTERCOMMIT_CONFIG`
names.

`--config FILE` (`AFTERCOMMIT_CONFIG`) reads flags of `run` from a TOML file, by their names without `--`; `lease_table` is
`lease-table` too. A variable overrides the file. Every command takes from it what it has a flag for. An `[[effect]]` table has a `name`
(the flag `--effect`) and the flags that describe one effect: its filter, handler, mail, attempts, `concurrency`. They override
variables, and a flag that contradicts them is rejected. `run` performs all effects of the file from one read of each shard;
with `--effect` it performs one of them, and the other commands work on that one.
[examples/aftercommit.toml](../examples/aftercommit.toml) is such a file.

Credentials, Region, endpoints and proxies are found as every AWS tool finds them: profiles (SSO, `aws login`,
`credential_process`, assumed roles), `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` and `AWS_CA_BUNDLE`. This machine and
link-local addresses never go through a proxy. `RUST_LOG` selects what is logged.

Some flags need a build with a feature: `--mail ses` and `--ses-configuration-set` need `--features ses`,
`--smtp-password-secret` needs `secrets`, `--dead-letter-copy` needs `sqs`.

Exit codes: 0 done; 1 the work failed; 2 a setting is wrong, and one line says which one and what to do.
";

const METRICS_PAGE: &str = "\
# Metrics

<!-- Generated from the table of metrics: `just docs` writes this page. -->

`aftercommit run --http ADDRESS` serves these at `/metrics` for Prometheus. `--metrics emf` writes them to standard output
once a minute, and on Lambda after each event, as lines from which Amazon CloudWatch extracts metrics: namespace
`aftercommit`, dimensions `group`, `effect` and `table`. In these lines a counter is the delta since the previous line, a
gauge of shards reports the worst shard, one by reason reports the sum, and a histogram lists up to a hundred of its times.
The alarms in [infra/](../infra/README.md) use them.

A counter is of one process and ends with it. What waits in the tables is a level: one worker asks for it on behalf of
its group, the one that lists the stream, whoever wrote it and whether or not that process still runs. Asking costs a Query of
the parked keys and three counts in the ledger's index: 2.5 read units while nothing waits, 3,600 a day with `--metrics emf`.

| Metric | Type | Unit | Written by | Meaning |
|---|---|---|---|---|
";

/// Commands in the order of `--help`; `run` comes first.
fn settings() -> String {
    let mut cli = crate::cli::command();
    cli.build();
    let mut page = SETTINGS.to_owned();
    let known: Vec<_> = commands(&cli, "aftercommit");
    let run = known.iter().find(|(name, _)| name == "aftercommit run");
    let of_run: Vec<_> = run.iter().flat_map(|(_, run)| flags(run)).collect();
    for (name, command) in &known {
        let mut args = flags(command);
        page.extend(["\n## ", name, "\n\n"]);
        page += &sentence(command.get_about());
        page += ".\n";
        if name != "aftercommit run" {
            let shared = |arg: &&Arg| of_run.iter().any(|other| same(arg, other));
            let (also, own): (Vec<_>, Vec<_>) = args.into_iter().partition(shared);
            if !also.is_empty() {
                let names: Vec<_> = also.iter().map(|arg| name_of(arg)).collect();
                page.extend(["\nAs for `run`: ", &names.join(", "), ".\n"]);
            }
            args = own;
        }
        page += &tables(&args);
    }
    page
}

/// Every command that can be run, by its full name.
fn commands<'a>(command: &'a Command, name: &str) -> Vec<(String, &'a Command)> {
    let mut all = Vec::new();
    for one in command
        .get_subcommands()
        .filter(|one| one.get_name() != "help")
    {
        let name = format!("{name} {}", one.get_name());
        if one.has_subcommands() {
            all.extend(commands(one, &name));
        } else {
            all.push((name, one));
        }
    }
    all
}

fn flags(command: &Command) -> Vec<&Arg> {
    let shown = |arg: &&Arg| !["help", "version"].contains(&arg.get_id().as_str());
    command.get_arguments().filter(shown).collect()
}

fn same(one: &Arg, other: &Arg) -> bool {
    one.get_long() == other.get_long()
        && one.get_help().map(ToString::to_string) == other.get_help().map(ToString::to_string)
}

/// A table for each heading, in the order of `--help`.
fn tables(args: &[&Arg]) -> String {
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in args {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    let mut page = String::new();
    for heading in headings {
        if let Some(heading) = heading {
            page.extend(["\n### ", heading, "\n"]);
        }
        page += "\n| Flag | Default | Meaning |\n|---|---|---|\n";
        let of_heading = args.iter().filter(|arg| arg.get_help_heading() == heading);
        page.extend(of_heading.map(|arg| row(arg)));
    }
    page
}

fn name_of(arg: &Arg) -> String {
    let value = arg.get_value_names().unwrap_or_default().join(" ");
    match arg.get_long() {
        Some(long) if arg.get_action().takes_values() => format!("`--{long} {value}`"),
        Some(long) => format!("`--{long}`"),
        None => format!("`{value}`"),
    }
}

fn row(arg: &Arg) -> String {
    let help = sentence(arg.get_long_help().or(arg.get_help()));
    let (help, default) = with_default(arg, &help);
    let choices = arg.get_possible_values();
    let choices = choices.iter().filter(|_| arg.get_action().takes_values());
    let choices: Vec<_> = choices
        .map(|choice| {
            let meaning = sentence(choice.get_help());
            format!("<br>`{}`: {meaning}", choice.get_name())
        })
        .collect();
    format!(
        "| {} | {default} | {}{} |\n",
        name_of(arg),
        cell(&help),
        cell(&choices.concat())
    )
}

/// The help and the default. A default in the help's words is cut out of the help.
fn with_default(arg: &Arg, help: &str) -> (String, String) {
    let set = arg.get_default_values().iter();
    let set: Vec<_> = set.filter_map(|value| value.to_str()).collect();
    if let Some((before, rest)) = help.split_once(" [default: ") {
        let (default, after) = rest.split_once(']').unwrap_or((rest, ""));
        return (format!("{before}{after}"), cell(default));
    }
    match &*set {
        _ if !arg.get_action().takes_values() => (help.to_owned(), String::new()),
        [] => (help.to_owned(), String::new()),
        values => (help.to_owned(), format!("`{}`", cell(&values.join(",")))),
    }
}

fn sentence(text: Option<&StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text, escaped for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace("<selector>", "SELECTOR")
        .replace("<domain>", "DOMAIN")
}

fn metrics() -> String {
    let row = |metric: &Metric| {
        let (unit, source) = (metric.unit.words(), metric.source.words());
        let (name, kind) = (metric.name, metric.kind());
        format!(
            "| `{name}` | {kind} | {unit} | {source} | {} |\n",
            cell(metric.help)
        )
    };
    METRICS_PAGE.to_owned() + &METRICS.iter().map(row).collect::<String>()
}

/// Compares a page with its file; with AFTERCOMMIT_WRITE_DOCS set, writes the file.
fn check(path: &str, page: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("AFTERCOMMIT_WRITE_DOCS").is_some() {
        std::fs::write(&file, page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = written.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(
        written == page,
        "{path} differs from the code: run `just docs`. First difference: {differs:?}"
    );
}

#[test]
fn the_page_of_settings_is_that_of_the_flags() {
    check("docs/settings.md", &settings());
}

#[test]
fn the_page_of_metrics_is_that_of_the_code() {
    check("docs/metrics.md", &metrics());
}

#[test]
fn each_flag_of_run_is_the_variable_of_its_name() {
    let mut cli = crate::cli::command();
    cli.build();
    let run = cli.find_subcommand("run").unwrap();
    for arg in flags(run) {
        let long = arg.get_long().unwrap();
        let variable = format!("AFTERCOMMIT_{}", long.replace('-', "_").to_uppercase());
        let env = arg.get_env().and_then(std::ffi::OsStr::to_str);
        assert_eq!(env, Some(&*variable), "--{long}");
    }
}
