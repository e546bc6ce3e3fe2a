//! How a command fails: one line on standard error, and an exit code that a script can act on.

use std::fmt;
use std::process::ExitCode;

use crate::stores::aws_error::AwsError;
use crate::stores::source::SourceError;
use crate::stores::tables::dynamodb::ResolveError;

use crate::cli::render::out::report;

/// Why a command failed.
#[derive(Debug)]
pub enum Fault {
    /// A setting is wrong or missing, and nothing was done: exit code 2. Exit code 1 if AWS was
    /// unreachable, because then no setting is wrong.
    Setting(anyhow::Error),
    /// Something is missing that will come back by itself or that somebody else creates. `run` waits
    /// for it; every other command ends with exit code 1.
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

    /// A wrong setting, described in words.
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

    /// The same, for a command that cannot answer now.
    pub fn unanswered(self) -> Self {
        match self {
            Self::Setting(error) | Self::Missing(error) | Self::Work(error) => {
                Self::Unanswered(error)
            }
            other => other,
        }
    }

    /// Whether a retry without a changed setting may succeed: AWS was unreachable, or something is
    /// missing for now.
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

/// One line, or nothing if standard output has the reason.
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

/// Why nothing was executed.
#[derive(Debug)]
pub enum UsageError {
    /// A mistake in the command line, or a request for help.
    Usage(clap::Error),
    /// A mistake in the file of --config.
    File(Fault),
}

impl From<clap::Error> for UsageError {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<Fault> for UsageError {
    fn from(fault: Fault) -> Self {
        Self::File(fault)
    }
}

impl UsageError {
    /// Reports a mistake in one line. Prints help and version as they are.
    pub fn report(&self) -> ExitCode {
        use clap::error::ErrorKind::{
            DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
        };
        let error = match self {
            Self::File(fault) => return fault.report(),
            Self::Usage(error) => error,
        };
        match error.kind() {
            DisplayHelp | DisplayVersion => {
                // If the reader has closed the pipe, it has seen enough.
                let _ = error.print();
                ExitCode::SUCCESS
            }
            DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                ExitCode::from(2)
            }
            _ => {
                report(&format!("error: {self}; see --help"));
                ExitCode::from(2)
            }
        }
    }
}

/// The mistake in one line.
impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::File(fault) => return fault.fmt(f),
            Self::Usage(error) => error,
        };
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let parts: Vec<_> = text
            .split("\n\n")
            .take_while(|part| !part.trim_start().starts_with("Usage:"))
            .filter(|part| !part.starts_with("For more information"))
            .map(|part| one_line(part.trim_start().trim_start_matches("tip: ")))
            .collect();
        f.write_str(&parts.join("; "))
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
