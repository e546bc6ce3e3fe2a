//! The file of `--config`, as a shell sees it.

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::process::Command;

use crate::cli::start::complaint;
use crate::cli::tables::{against, create};
use crate::support::embedded::Embedded;

struct Files {
    server: Embedded,
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            server: Embedded::start(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn write(&self, content: &str) -> PathBuf {
        let path = self.folder.path().join("aftercommit.toml");
        std::fs::write(&path, content).unwrap();
        path
    }

    fn command(&self, content: &str, arguments: &[&str]) -> Command {
        let mut command = against(&self.server);
        command.env("AFTERCOMMIT_CONFIG", self.write(content));
        command.args(arguments);
        command
    }

    async fn complaint(&self, content: &str, arguments: &[&str]) -> String {
        let output = self.command(content, arguments).output().await.unwrap();
        let folder = format!("{}/", self.folder.path().display());
        complaint(&output).replace(&folder, "")
    }
}

const MAIL: &str = "mail-from = 'shop@example.com'\nsmtp_url = 'smtp://localhost:1025'\n";

#[tokio::test]
async fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
    let files = Files::new();
    create(&files.server).await;
    let file = format!("table = ['of-file']\n{MAIL}");
    let run = files.complaint(&file, &["run"]).await;
    assert!(run.contains("of-file"), "{run}");
    let mut command = files.command(&file, &["run"]);
    command.env("AFTERCOMMIT_TABLE", "of-variable");
    let run = complaint(&command.output().await.unwrap());
    assert!(run.contains("of-variable"), "{run}");
    command.args(["--table", "of-flag"]);
    let run = complaint(&command.output().await.unwrap());
    assert!(run.contains("of-flag"), "{run}");
    let status = files.complaint(&file, &["status"]).await;
    assert!(status.contains("of-file"), "{status}");
}

#[tokio::test]
async fn an_effect_goes_before_a_variable_and_no_flag_contradicts_it() {
    let files = Files::new();
    create(&files.server).await;
    let effect = "table = 'orders'\n[[effect]]\nname = 'index'\nhandler = 'not a URL'\n";
    let mut command = files.command(effect, &["run"]);
    command.env("AFTERCOMMIT_HANDLER", "http://localhost:1/");
    let run = complaint(&command.output().await.unwrap());
    assert!(run.contains("--handler"), "{run}");
    let flag = files.complaint(effect, &["run", "--handler", "http://localhost:1/"]);
    assert_eq!(
        flag.await,
        "error: aftercommit.toml:4: the effect index sets handler, and so does --handler on the \
         command line: remove one of them\n"
    );
}

#[tokio::test]
async fn a_mistake_in_the_file_is_reported_with_its_line() {
    let files = Files::new();
    let effect = "[[effect]]\nname = 'a'\n";
    for (content, reported) in [
        ("table = ", "aftercommit.toml:1: "),
        (
            "\ntabel = 'orders'",
            "aftercommit.toml:2: tabel: no flag of `run` has this name",
        ),
        (
            "config = 'other.toml'",
            "aftercommit.toml:1: config: no flag of `run` has this name",
        ),
        (
            "refetch = 'yes'",
            "aftercommit.toml:1: refetch: write true or false",
        ),
        (
            "concurrency = [1, 2]",
            "aftercommit.toml:1: concurrency: write one text or number",
        ),
        (
            "[group]\nname = 'x'",
            "aftercommit.toml:1: group: write a text, a number, true, false, or an array of texts",
        ),
        (
            "max_age = '1h'\nmax-age = '2h'",
            "max-age is set twice: remove one",
        ),
        (
            "table = 'orders'\nconcurrency = 'many'",
            "aftercommit.toml:2: invalid value 'many' for '--concurrency <NUMBER>'",
        ),
        (
            "[[effect]]\nconcurrency = 1",
            "aftercommit.toml:1: an effect needs a name",
        ),
        (
            &format!("{effect}{effect}"),
            "aftercommit.toml:4: there is an effect a already: give this one another name",
        ),
        (
            &format!("{effect}group = 'b'"),
            "aftercommit.toml:3: group: all effects share this setting: write it above the first \
             [[effect]]",
        ),
        (
            &format!("{effect}tabel = 'b'"),
            "aftercommit.toml:3: tabel: no flag of `run` has this name",
        ),
    ] {
        let run = files.complaint(content, &["run"]).await;
        assert!(run.contains(reported), "{content}: {run}");
    }
    let both = format!("{effect}[[effect]]\nname = 'b'");
    let redrive = ["dead-letters", "redrive", "--all"];
    let wrong = files.complaint(&both, &redrive).await;
    let reported = "aftercommit.toml:4: there are several effects (a, b): name one with --effect";
    assert!(wrong.contains(reported), "{wrong}");
    let wrong = files.complaint(effect, &["run", "--effect", "c"]).await;
    assert!(wrong.contains("has no such effect, but a"), "{wrong}");
    let missing = files.command("", &["run", "--config", "missing.toml"]);
    let missing = complaint(&{ missing }.output().await.unwrap());
    assert!(missing.contains("--config missing.toml"), "{missing}");
}
