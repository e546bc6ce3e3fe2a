//! The file of `--config`: the flags of `run` by their names, and a table for each effect.
//!
//! What the file sets is handed to the parser of the command line as flags, unless the command line or
//! a variable sets the same, so that a flag means the same everywhere. An effect is more specific than
//! a variable.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Command;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, FromArgMatches as _, Subcommand};

use self::file::{EffectSection, File, FileSetting, Value};
use crate::cli::Cli;
use crate::cli::fault::{Fault, UsageError};

mod file;

/// The variable that names the file.
pub const VARIABLE: &str = "AFTERCOMMIT_CONFIG";

/// Parses the arguments, with the settings of the file if they name one: once, or, of `run`, once for
/// each effect in the file.
pub fn parse<C: Subcommand>(
    command: Command,
    arguments: Vec<OsString>,
) -> Result<Vec<Cli<C>>, UsageError> {
    let parsed = matches(command, arguments)?.into_iter();
    parsed
        .map(|matches| Ok(Cli::from_arg_matches(&matches)?))
        .collect()
}

fn matches(mut command: Command, arguments: Vec<OsString>) -> Result<Vec<ArgMatches>, UsageError> {
    // Only what is set is of interest here; mistakes are found below.
    let lenient = command.clone().ignore_errors(true);
    let Ok(seen) = lenient.try_get_matches_from(&arguments) else {
        return Ok(vec![command.try_get_matches_from(arguments)?]);
    };
    let Some(path) = seen.get_one::<PathBuf>("config") else {
        return Ok(vec![command.try_get_matches_from(arguments)?]);
    };
    command.build();
    let file = File::read(path)?;
    let asked = ParsedCommand::new(&command, &seen, &file)?;
    let end = arguments.iter().position(|argument| argument == "--");
    let end = end.unwrap_or(arguments.len());
    let of_effect = |effect| {
        let added = asked.settings(effect)?;
        let flags = added.iter().flat_map(flags);
        let mut arguments = arguments.clone();
        arguments.splice(end..end, flags.map(OsString::from).collect::<Vec<_>>());
        let parsed = command.clone().try_get_matches_from(arguments);
        parsed.map_err(|error| located(error, &file, &added))
    };
    asked.effects()?.into_iter().map(of_effect).collect()
}

/// The setting as it is written on the command line.
fn flags(setting: &FileSetting) -> Vec<String> {
    let name = &setting.name;
    match &setting.value {
        Value::Switch(false) => Vec::new(),
        Value::Switch(true) => vec![format!("--{name}")],
        Value::One(value) => vec![format!("--{name}={value}")],
        Value::Many(values) => {
            let flag = |value| format!("--{name}={value}");
            values.iter().map(flag).collect()
        }
    }
}

/// An error about a flag that the file sets names the place in the file.
fn located(error: clap::Error, file: &File, added: &[FileSetting]) -> UsageError {
    let named = error
        .context()
        .find_map(|(kind, value)| match (kind, value) {
            (ContextKind::InvalidArg, ContextValue::String(flag)) => flag.split(' ').next(),
            _ => None,
        });
    let name = named.and_then(|flag| flag.strip_prefix("--"));
    match added.iter().find(|setting| Some(&*setting.name) == name) {
        Some(setting) => {
            let why = UsageError::from(error);
            file.wrong(setting.line, &why).into()
        }
        None => error.into(),
    }
}

/// A command, and what the command line and the variables say.
struct ParsedCommand<'a> {
    command: &'a Command,
    matches: &'a ArgMatches,
    /// The command that knows every setting.
    run: &'a Command,
    file: &'a File,
}

impl<'a> ParsedCommand<'a> {
    fn new(root: &'a Command, seen: &'a ArgMatches, file: &'a File) -> Result<Self, Fault> {
        let (mut command, mut matches) = (root, seen);
        while let Some((name, below)) = matches.subcommand() {
            matches = below;
            command = command.find_subcommand(name).unwrap_or(command);
        }
        let run = root.find_subcommand("run").unwrap_or(root);
        let asked = Self {
            command,
            matches,
            run,
            file,
        };
        for setting in &file.settings {
            asked.check(setting)?;
        }
        for effect in &file.effects {
            for setting in &effect.settings {
                asked.check(setting)?;
            }
        }
        Ok(asked)
    }

    /// The settings that apply: those of the effect, and of the others those that neither the command
    /// line nor a variable sets.
    fn settings(&self, effect: Option<&EffectSection>) -> Result<Vec<FileSetting>, Fault> {
        let mut all = Vec::new();
        if let Some(effect) = effect {
            for setting in &effect.settings {
                let source = self.arg(&setting.name).and_then(|arg| self.source(arg));
                if source == Some(ValueSource::CommandLine) {
                    return Err(self.file.wrong(
                        setting.line,
                        &format!(
                            "the effect {} sets {name}, and so does --{name} on the command line: \
                             remove one of them",
                            effect.name.value_as_text(),
                            name = setting.name
                        ),
                    ));
                }
                all.push(setting.clone());
            }
            all.push(effect.name.clone());
        }
        for setting in &self.file.settings {
            if !all.iter().any(|other| other.name == setting.name) && !self.is_set(setting) {
                all.push(setting.clone());
            }
        }
        all.retain(|setting| self.fits(setting));
        Ok(all)
    }

    /// The effects that are asked for: `run` performs all of them. `None`: the command does not work on
    /// an effect, or the file has none.
    fn effects(&self) -> Result<Vec<Option<&'a EffectSection>>, Fault> {
        let Some(arg) = self.arg("effect") else {
            return Ok(vec![None]);
        };
        let asked = self
            .source(arg)
            .filter(|it| *it != ValueSource::DefaultValue);
        let asked = asked.and_then(|_| self.matches.get_raw("effect")?.next());
        let asked = asked.map(|name| name.to_string_lossy());
        let effects = &self.file.effects;
        let all: Vec<_> = effects.iter().map(|it| it.name.value_as_text()).collect();
        match (asked, &**effects) {
            (_, []) => Ok(vec![None]),
            (None, [one]) => Ok(vec![Some(one)]),
            (None, several) if self.command.get_name() == self.run.get_name() => {
                Ok(several.iter().map(Some).collect())
            }
            (Some(name), _) => {
                let found = effects.iter().find(|it| it.name.value_as_text() == name);
                found.map(|one| vec![Some(one)]).ok_or_else(|| {
                    Fault::wrong(format!(
                        "--effect {name}: {} has no such effect, but {}",
                        self.file.path.display(),
                        all.join(", ")
                    ))
                })
            }
            (None, [_, second, ..]) => Err(self.file.wrong(
                second.name.line,
                &format!(
                    "there are several effects ({}): name one with --effect",
                    all.join(", ")
                ),
            )),
        }
    }

    fn arg(&self, name: &str) -> Option<&'a Arg> {
        find(self.command, name)
    }

    fn source(&self, arg: &Arg) -> Option<ValueSource> {
        self.matches.value_source(arg.get_id().as_str())
    }

    /// Whether the command line or a variable sets it.
    fn is_set(&self, setting: &FileSetting) -> bool {
        let source = self.arg(&setting.name).and_then(|arg| self.source(arg));
        source.is_some_and(|source| source != ValueSource::DefaultValue)
    }

    /// Whether the command has this flag, and the flag takes so many values.
    fn fits(&self, setting: &FileSetting) -> bool {
        self.arg(&setting.name)
            .is_some_and(|arg| takes(arg, &setting.value))
    }

    /// Every setting is a flag of `run`.
    fn check(&self, setting: &FileSetting) -> Result<(), Fault> {
        let arg = find(self.run, &setting.name).filter(|_| setting.name != "config");
        let wrong = match arg {
            None => "no flag of `run` has this name: see run --help".to_owned(),
            Some(arg) if takes(arg, &setting.value) => return Ok(()),
            Some(arg) => match arg.get_action() {
                ArgAction::SetTrue => "write true or false".to_owned(),
                ArgAction::Append => "write a text, or an array of texts".to_owned(),
                _ => "write one text or number".to_owned(),
            },
        };
        let wrong = format!("{}: {wrong}", setting.key);
        Err(self.file.wrong(setting.line, &wrong))
    }
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let mut args = command.get_arguments();
    args.find(|arg| arg.get_long() == Some(name))
}

fn takes(arg: &Arg, value: &Value) -> bool {
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, value) => matches!(value, Value::Switch(_)),
        (_, Value::Switch(_)) => false,
        (ArgAction::Append, Value::Many(_)) | (_, Value::One(_)) => true,
        (_, Value::Many(values)) => values.len() == 1,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(file: &str, more: &[&str]) -> Result<ArgMatches, UsageError> {
        let arguments = ["aftercommit", "run", "--config", file];
        let arguments = arguments.iter().chain(more).map(OsString::from);
        let matches = matches(crate::cli::command(), arguments.collect())?;
        Ok(matches[0].subcommand_matches("run").unwrap().clone())
    }

    fn texts(matches: &ArgMatches, id: &str) -> Vec<String> {
        let raw = matches.get_raw(id).into_iter().flatten();
        raw.map(|text| text.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn the_file_in_the_examples_is_understood() {
        let run = run("examples/aftercommit.toml", &["--group", "other"]).unwrap();
        for (id, value) in [
            ("table", "orders"),
            ("group", "other"),
            ("effect", "paid"),
            ("mail_from", "Shop <orders@example.com>"),
            ("max_age", "12h"),
        ] {
            assert_eq!(texts(&run, id), [value], "{id}");
        }
        assert!(texts(&run, "filters")[0].contains("anything-but"));
    }

    #[test]
    fn every_flag_of_run_can_be_written_in_a_file() {
        let mut command = crate::cli::command();
        command.build();
        let run = command.find_subcommand("run").unwrap();
        for arg in run.get_arguments().filter(|arg| arg.get_id() != "help") {
            let name = arg.get_long().unwrap();
            assert_eq!(find(run, name), Some(arg));
            let switch = matches!(arg.get_action(), ArgAction::SetTrue);
            assert_eq!(takes(arg, &Value::Switch(true)), switch, "{name}");
            assert_eq!(takes(arg, &Value::One(String::new())), !switch, "{name}");
        }
    }
}
