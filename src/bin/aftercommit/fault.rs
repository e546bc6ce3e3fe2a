//! How a command fails: one line on standard error, and an exit code that a script can act on.

use std::fmt;
use std::process::ExitCode;

use aftercommit::internal::aws_error::AwsError;
use aftercommit::stores::source::SourceError;
use aftercommit::stores::tables::dynamodb::ResolveError;

use crate::render::out::report;

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Fault {
    /// A setting is wrong or missing: exit code 2, nothing was done. Exit code 1 if AWS was out of
    /// reach, because no setting is wrong then.
    Setting(anyhow::Error),
    /// Something is missing that comes back by itself or with somebody else's work: `run` waits for
    /// it, and every other command ends with exit code 1.
    Missing(anyhow::Error),
    /// The work failed: exit code 1.
    Work(anyhow::Error),
    /// The answer is no, and standard output says why: exit code 1.
    No,
    /// The answer is unknown, and standard output says why: exit code 2.
    Unknown,
    /// The answer is unknown: exit code 2.
    Unanswered(anyhow::Error),
}

impl Fault {
    /// A wrong setting.
    pub fn setting(error: impl Into<anyhow::Error>) -> Self {
        Self::Setting(error.into())
    }

    /// A wrong setting, in words.
    pub fn wrong(message: impl fmt::Display) -> Self {
        Self::Setting(anyhow::anyhow!("{message}"))
    }

    /// Reports it on standard error, in one line.
    pub fn report(&self) -> ExitCode {
        let text = self.to_string();
        if !text.is_empty() {
            report(&format!("error: {text}"));
        }
        match self {
            Self::Setting(_) if self.passes() => ExitCode::from(1),
            Self::Setting(_) | Self::Unknown | Self::Unanswered(_) => ExitCode::from(2),
            Self::Missing(_) | Self::Work(_) | Self::No => ExitCode::from(1),
        }
    }

    /// The same, for a command whose answer is unknown now.
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

/// One line; empty if standard output has said it.
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

/// Reports a mistake in the command line in one line; prints help and version as they are.
pub fn report_usage(error: &clap::Error) -> ExitCode {
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
            let parts: Vec<_> = text
                .split("\n\n")
                .take_while(|part| !part.trim_start().starts_with("Usage:"))
                .filter(|part| !part.starts_with("For more information"))
                .map(|part| one_line(part.trim_start().trim_start_matches("tip: ")))
                .collect();
            report(&format!("{}; see --help", parts.join("; ")));
            ExitCode::from(2)
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
