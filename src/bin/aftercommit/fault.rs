//! How a command fails: told in one line, with an exit code that a script can act on.

use std::fmt;
use std::process::ExitCode;

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Fault {
    /// Something that was set is wrong or missing: exit code 2, nothing was done.
    Setting(anyhow::Error),
    /// The work went wrong: exit code 1.
    Work(anyhow::Error),
    /// The answer to what was asked is no, and standard output tells why: exit code 1.
    No,
    /// What was asked cannot be told, and standard output tells why: exit code 2.
    Unknown,
}

impl Fault {
    /// A wrong setting.
    pub fn setting(error: impl Into<anyhow::Error>) -> Self {
        Self::Setting(error.into())
    }

    /// A wrong setting, told in words.
    pub fn wrong(message: impl fmt::Display) -> Self {
        Self::Setting(anyhow::anyhow!("{message}"))
    }

    /// Tells it on standard error, in one line.
    pub fn tell(&self) -> ExitCode {
        if let Self::Setting(error) | Self::Work(error) = self {
            eprintln!("error: {}", one_line(&format!("{error:#}")));
        }
        match self {
            Self::Setting(_) | Self::Unknown => ExitCode::from(2),
            Self::Work(_) | Self::No => ExitCode::from(1),
        }
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Work(error)
    }
}

/// A mistake in the command line, told in one line; help and version as they are.
pub fn tell_usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    match error.kind() {
        DisplayHelp | DisplayVersion => {
            // A reader that closed the pipe has seen enough.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            let text = error.render().to_string();
            let told: Vec<_> = text
                .split("\n\n")
                .take_while(|part| !part.trim_start().starts_with("Usage:"))
                .filter(|part| !part.starts_with("For more information"))
                .map(|part| one_line(part.trim_start().trim_start_matches("tip: ")))
                .collect();
            eprintln!("{}; --help tells more", told.join("; "));
            ExitCode::from(2)
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
