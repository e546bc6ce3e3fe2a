//! How a command fails: told in one line, with an exit code that a script can act on.

use std::fmt;
use std::process::ExitCode;

use aftercommit::internal::aws_error::AwsError;
use aftercommit::stores::source::SourceError;
use aftercommit::stores::tables::dynamodb::ResolveError;

use crate::render::out::report;

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Fault {
    /// Something that was set is wrong or missing: exit code 2, nothing was done. Exit code 1 where
    /// AWS was out of reach, which is nobody's setting.
    Setting(anyhow::Error),
    /// Something is missing that comes back by itself or with somebody else's work: `run` waits for
    /// it, and every other command ends with exit code 1.
    Missing(anyhow::Error),
    /// The work went wrong: exit code 1.
    Work(anyhow::Error),
    /// The answer to what was asked is no, and standard output tells why: exit code 1.
    No,
    /// What was asked cannot be told, and standard output tells why: exit code 2.
    Unknown,
    /// What was asked cannot be told: exit code 2.
    Unanswered(anyhow::Error),
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
        let told = self.to_string();
        if !told.is_empty() {
            report(&format!("error: {told}"));
        }
        match self {
            Self::Setting(_) if self.passes() => ExitCode::from(1),
            Self::Setting(_) | Self::Unknown | Self::Unanswered(_) => ExitCode::from(2),
            Self::Missing(_) | Self::Work(_) | Self::No => ExitCode::from(1),
        }
    }

    /// The same, where a command was asked for an answer and has none.
    pub fn unanswered(self) -> Self {
        match self {
            Self::Setting(error) | Self::Missing(error) | Self::Work(error) => {
                Self::Unanswered(error)
            }
            other => other,
        }
    }

    /// Whether the same may succeed later with no setting changed: AWS was out of reach, or
    /// something is missing for now.
    pub fn passes(&self) -> bool {
        if let Self::Missing(_) = self {
            return true;
        }
        let (Self::Setting(error) | Self::Work(error)) = self else {
            return false;
        };
        let away = |cause: &(dyn std::error::Error + 'static)| {
            let found = match (cause.downcast_ref(), cause.downcast_ref()) {
                (Some(ResolveError::Call(call)), _) => Some(call),
                (_, Some(SourceError::Throttled(_))) => return true,
                (_, Some(SourceError::Other(error))) => error.downcast_ref(),
                _ => cause.downcast_ref(),
            };
            found.is_some_and(|call: &AwsError| call.kind().passes())
        };
        error.chain().any(away)
    }
}

/// One line; nothing where standard output has said it.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(error)
            | Self::Missing(error)
            | Self::Work(error)
            | Self::Unanswered(error) => f.write_str(&one_line(&format!("{error:#}"))),
            Self::No | Self::Unknown => Ok(()),
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
            report(&format!("{}; see --help", told.join("; ")));
            ExitCode::from(2)
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
