//! The file's text: settings by name, with the lines on which they are.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::EffectName;
use crate::cli::fault::Fault;

/// Flags that all effects of a process share.
const SHARED: &[&str] = &[
    "accept-new-identity",
    "dead-letter-copy",
    "dead-letter-table",
    "effect",
    "group",
    "handler-timeout",
    "handover-timeout",
    "home-region",
    "http",
    "lease-duration",
    "lease-table",
    "ledger-table",
    "log",
    "memory-budget",
    "metrics",
    "on-gap",
    "rescue-before-trim",
    "start",
    "stream-arn",
    "streams-endpoint-url",
    "table",
    "worker-id",
    "zone",
];

/// What a file says.
#[derive(Debug)]
pub struct File {
    pub path: PathBuf,
    /// What all effects share, and what they have in common.
    pub settings: Vec<FileSetting>,
    pub effects: Vec<EffectSection>,
}

/// A setting by the name of its flag.
#[derive(Debug, Clone)]
pub struct FileSetting {
    /// As the flag is written.
    pub name: String,
    /// As the file writes it.
    pub key: String,
    pub value: Value,
    pub line: usize,
}

/// The value of a setting, as it would be written on the command line.
#[derive(Debug, Clone)]
pub enum Value {
    Switch(bool),
    One(String),
    Many(Vec<String>),
}

/// One `[[effect]]`.
#[derive(Debug)]
pub struct EffectSection {
    /// The setting `effect`.
    pub name: FileSetting,
    pub settings: Vec<FileSetting>,
}

impl FileSetting {
    /// The value, if it is one text.
    pub fn value_as_text(&self) -> &str {
        match &self.value {
            Value::One(text) => text,
            Value::Switch(_) | Value::Many(_) => "",
        }
    }
}

impl File {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("--config {}", path.display()));
        Self::parse(path, &text.map_err(Fault::Setting)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Fault> {
        let mut file = Self {
            path: path.to_owned(),
            settings: Vec::new(),
            effects: Vec::new(),
        };
        let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let parsed = DeTable::parse(text);
        let table = parsed.map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            file.wrong(line(at), &error.message())
        })?;
        for (key, value) in table.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("effect", DeValue::Array(tables)) => {
                    for table in tables {
                        let effect = file.effect(table, &line)?;
                        file.effects.push(effect);
                    }
                }
                (name, value) => {
                    let at = line(key.span().start);
                    file.settings.push(file.setting((name, at), value)?);
                }
            }
        }
        file.effects.sort_by_key(|effect| effect.name.line);
        file.check_names(&file.settings)?;
        for effect in &file.effects {
            file.check_names(&effect.settings)?;
        }
        let mut names = BTreeSet::new();
        for EffectSection { name, .. } in &file.effects {
            if !names.insert(name.value_as_text()) {
                let wrong = format!("there is an effect {} already", name.value_as_text());
                return Err(file.wrong(name.line, &format!("{wrong}: give this one another name")));
            }
        }
        Ok(file)
    }

    /// A fault at this line.
    pub fn wrong(&self, line: usize, what: &impl Display) -> Fault {
        Fault::wrong(format!("{}:{line}: {what}", self.path.display()))
    }

    fn effect(
        &self,
        table: &Spanned<DeValue>,
        line: &impl Fn(usize) -> usize,
    ) -> Result<EffectSection, Fault> {
        let at = line(table.span().start);
        let DeValue::Table(keys) = table.get_ref() else {
            return Err(self.wrong(at, &"an effect is a table: write [[effect]]"));
        };
        let (mut name, mut settings) = (None, Vec::new());
        for (key, value) in keys {
            let at = line(key.span().start);
            let setting = self.setting((key.get_ref(), at), value.get_ref())?;
            if setting.name == "name" {
                name = Some(setting);
            } else if SHARED.contains(&&*setting.name) {
                let wrong = format!(
                    "{}: all effects share this setting: write it above the first [[effect]]",
                    setting.key
                );
                return Err(self.wrong(at, &wrong));
            } else {
                settings.push(setting);
            }
        }
        let name = name.ok_or_else(|| self.wrong(at, &"an effect needs a name"))?;
        if let Err(error) = EffectName::new(name.value_as_text()) {
            return Err(self.wrong(name.line, &format!("name: {error}")));
        }
        let name = FileSetting {
            name: "effect".to_owned(),
            ..name
        };
        Ok(EffectSection { name, settings })
    }

    fn setting(&self, (key, line): (&str, usize), value: &DeValue) -> Result<FileSetting, Fault> {
        let text = |value: &DeValue| match value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => Some(number.to_string()),
            DeValue::Float(number) => Some(number.to_string()),
            DeValue::Datetime(time) => Some(time.to_string()),
            DeValue::Boolean(_) | DeValue::Array(_) | DeValue::Table(_) => None,
        };
        let value = match value {
            DeValue::Boolean(on) => Some(Value::Switch(*on)),
            DeValue::Array(all) => {
                let texts = all.iter().map(|one| text(one.get_ref()));
                texts.collect::<Option<_>>().map(Value::Many)
            }
            one => text(one).map(Value::One),
        };
        let wrong = || format!("{key}: write a text, a number, true, false, or an array of texts");
        Ok(FileSetting {
            name: key.replace('_', "-"),
            key: key.to_owned(),
            value: value.ok_or_else(|| self.wrong(line, &wrong()))?,
            line,
        })
    }

    /// No setting is written twice, once with hyphens and once with underscores.
    fn check_names(&self, settings: &[FileSetting]) -> Result<(), Fault> {
        let mut names = BTreeSet::new();
        for setting in settings {
            if !names.insert(&setting.name) {
                let wrong = format!("{} is set twice: remove one", setting.name);
                return Err(self.wrong(setting.line, &wrong));
            }
        }
        Ok(())
    }
}
