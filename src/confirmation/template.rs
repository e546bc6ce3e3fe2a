//! The text of the mail: three templates, built in or custom.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use lettre::Address;
use lettre::message::Mailbox;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, context};

use super::expression::add_filters;
use super::order::Order;
use super::setting::Setting;
use super::text::{clean_body, clean_line};
use super::values;

const SUBJECT: &str = "subject.txt";
const TEXT: &str = "body.txt";
const HTML: &str = "body.html";

const BUILT_IN: [(&str, &str); 3] = [
    (SUBJECT, include_str!("templates/subject.txt")),
    (TEXT, include_str!("templates/body.txt")),
    (HTML, include_str!("templates/body.html")),
];

/// The longest subject, in characters: well below the 998 bytes of a line ([RFC
/// 5322](https://www.rfc-editor.org/rfc/rfc5322#section-2.1.1)) with any characters.
const SUBJECT_CHARS: usize = 200;
/// The largest body, in bytes. Mail readers cut much earlier: Gmail at about 100 KB.
const BODY_BYTES: usize = 512 * 1024;

/// The templates of the confirmation, in [minijinja](https://docs.rs/minijinja) (Jinja2).
///
/// `subject.txt` (one line), `body.txt` and `body.html`; for an order whose language is `de-AT`,
/// `body.de-AT.txt` or `body.de.txt` replaces `body.txt` if it exists. They see `order` (every
/// attribute of the item, overridden by what the mapping read: `id`, `email`, `name`, `total`,
/// `currency`, `language`, `lines` with `name`, `quantity`, `unit_price`, `price`, and `more_lines`,
/// the number of lines that are not listed), `item` (the item from the table) and `shop` (`name`,
/// `email`). `order.shipping|money` shows an attribute of your own as an amount in the order's
/// currency, from minor units; use `order.shipping|decimal|money` for `4.90`.
/// `order.placed_at|date("%d.%m.%Y", tz="Europe/Berlin")` shows a date. `body.html` is escaped
/// automatically. Printing an undefined value is an error; testing for it (`{% if order.coupon %}`) is
/// not. Line breaks after a `{% block %}`, and spaces before one, are not part of the text.
pub struct Templates {
    environment: Environment<'static>,
    /// The directory of the templates that are not built in.
    files: BTreeMap<String, PathBuf>,
    /// The names that they use, such as `order.total`.
    names: BTreeSet<String>,
}

/// The three texts of one mail.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// One line.
    pub subject: String,
    /// The plain text, lines ending in CRLF.
    pub text: String,
    /// The same in HTML, lines ending in CRLF.
    pub html: String,
}

/// Shows the sizes, and none of the text.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("text_bytes", &self.text.len())
            .field("html_bytes", &self.html.len())
            .finish_non_exhaustive()
    }
}

/// An error in a template. One line, with the file, the line and the problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TemplateError {
    /// The file, or the name of a built-in template.
    pub file: String,
    /// The line, from 1, if one is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template {}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Templates")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Templates {
    /// The built-in templates: plain, friendly, in English.
    ///
    /// # Errors
    ///
    /// None, unless this program is defective.
    pub fn built_in() -> Result<Self, TemplateError> {
        let mut templates = Self {
            environment: environment().map_err(|error| TemplateError {
                file: "(built in)".to_owned(),
                line: None,
                message: error.to_string(),
            })?,
            files: BTreeMap::new(),
            names: BTreeSet::new(),
        };
        for (name, source) in BUILT_IN {
            templates.add(name, source.to_owned())?;
        }
        templates.probe()?;
        Ok(templates)
    }

    /// Templates from a directory. `subject.txt`, `body.txt` and `body.html` each replace the built-in
    /// template. Other `.txt` and `.html` files can be included by them.
    ///
    /// # Errors
    ///
    /// [`TemplateError`] for a directory that cannot be read or has none of the three files, for a file
    /// that is not UTF-8, and for the first error that can be found without an order.
    pub fn from_dir(dir: &Path) -> Result<Self, TemplateError> {
        let mut templates = Self::built_in()?;
        let blame = |path: &Path, message: String| TemplateError {
            file: path.display().to_string(),
            line: None,
            message,
        };
        let unreadable =
            |path: &Path, error: std::io::Error| blame(path, format!("cannot be read: {error}"));
        for entry in fs::read_dir(dir).map_err(|error| unreadable(dir, error))? {
            let path = entry.map_err(|error| unreadable(dir, error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if !path
                .extension()
                .is_some_and(|end| end == "txt" || end == "html")
            {
                continue;
            }
            let source = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
            templates.files.insert(name.to_owned(), path.clone());
            templates.add(name, source)?;
        }
        if !BUILT_IN
            .iter()
            .any(|(name, _)| templates.files.contains_key(*name))
        {
            return Err(blame(
                dir,
                format!("the directory has none of {SUBJECT}, {TEXT}, {HTML}"),
            ));
        }
        templates.probe()?;
        Ok(templates)
    }

    /// Whether a template shows the value of this setting, or may do so.
    pub(super) fn use_of(&self, setting: Setting) -> bool {
        let names = |what: &str| {
            self.names.iter().any(|name| {
                let rest = name.strip_prefix("order");
                rest.is_some_and(|rest| {
                    let rest = rest.strip_prefix('.').unwrap_or(rest);
                    rest.is_empty() || rest.split('.').next() == Some(what)
                })
            })
        };
        match setting {
            Setting::Currency => names("currency") || names("total"),
            Setting::Language => names("language") || self.bodies().any(is_localized),
            Setting::ReplyTo | Setting::BouncesTo => true,
            setting => names(setting.name()),
        }
    }

    /// Renders the templates.
    ///
    /// # Errors
    ///
    /// [`TemplateError`] if a template uses a value that the order does not have, or renders an empty
    /// subject or a body of more than 512 KiB.
    pub fn render(&self, order: &Order, shop: &Shop) -> Result<Content, TemplateError> {
        let name = self.in_language(SUBJECT, order);
        let subject = clean_line(&self.fill(&name, order, shop)?, SUBJECT_CHARS);
        if subject.is_empty() {
            return Err(self.blame(&name, None, "makes an empty subject"));
        }
        Ok(Content {
            subject,
            text: self.body(TEXT, order, shop)?,
            html: self.body(HTML, order, shop)?,
        })
    }

    fn body(
        &self,
        name: &'static str,
        order: &Order,
        shop: &Shop,
    ) -> Result<String, TemplateError> {
        let name = &self.in_language(name, order);
        let body = clean_body(&self.fill(name, order, shop)?);
        if body.len() > BODY_BYTES {
            let message = format!("makes {} bytes; at most {BODY_BYTES} are sent", body.len());
            return Err(self.blame(name, None, &message));
        }
        Ok(body)
    }

    fn add(&mut self, name: &str, source: String) -> Result<(), TemplateError> {
        self.environment
            .add_template_owned(name.to_owned(), source)
            .map_err(|error| self.error(name, &error))
    }

    fn fill(&self, name: &str, order: &Order, shop: &Shop) -> Result<String, TemplateError> {
        self.try_fill(name, order, shop)
            .map_err(|error| self.error(name, &error))
    }

    fn try_fill(&self, name: &str, order: &Order, shop: &Shop) -> Result<String, minijinja::Error> {
        let context = context! {
            order => values::order(order),
            item => values::item(order),
            shop => context! { name => shop.name.as_str(), email => shop.email.as_str() },
        };
        self.environment.get_template(name)?.render(context)
    }

    /// The templates for a part of a mail, including those for single languages.
    fn bodies(&self) -> impl Iterator<Item = &str> {
        let files = self.files.keys().map(String::as_str);
        let localized = files.filter(|name| is_localized(name));
        BUILT_IN.iter().map(|(name, _)| *name).chain(localized)
    }

    /// The name of the template in the order's language, or of the general one.
    fn in_language(&self, name: &'static str, order: &Order) -> String {
        let (stem, end) = name.split_once('.').unwrap_or((name, ""));
        let tag = order.language.as_deref().unwrap_or_default();
        let language = tag.split(['-', '_']).next().unwrap_or_default();
        let names = [tag, language].map(|tag| format!("{stem}.{tag}.{end}"));
        let found = names.into_iter().find(|name| self.files.contains_key(name));
        found.unwrap_or_else(|| name.to_owned())
    }

    /// Renders a sample order, to find errors that do not depend on the order: an unknown filter, a
    /// missing included file. An attribute that the sample lacks is not an error.
    fn probe(&mut self) -> Result<(), TemplateError> {
        let (order, shop) = (
            Order::sample(Address::new_dangerous("ada", "example.com")),
            Shop::sample(),
        );
        self.environment
            .set_undefined_behavior(UndefinedBehavior::Chainable);
        let result = self.bodies().try_for_each(|name| {
            let Err(error) = self.try_fill(name, &order, &shop) else {
                return Ok(());
            };
            match innermost(&error).kind() {
                ErrorKind::UnknownFilter
                | ErrorKind::UnknownTest
                | ErrorKind::UnknownFunction
                | ErrorKind::UnknownBlock
                | ErrorKind::TemplateNotFound
                | ErrorKind::SyntaxError => Err(self.error(name, &error)),
                _ => Ok(()),
            }
        });
        self.environment
            .set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let all = self.environment.templates();
        self.names = all
            .flat_map(|(_, template)| template.undeclared_variables(true))
            .collect();
        result
    }

    fn error(&self, name: &str, error: &minijinja::Error) -> TemplateError {
        let cause = innermost(error);
        let message = match cause.detail() {
            Some(detail) => format!("{}: {detail}", cause.kind()),
            None => cause.kind().to_string(),
        };
        self.blame(cause.name().unwrap_or(name), cause.line(), &message)
    }

    fn blame(&self, name: &str, line: Option<usize>, message: &str) -> TemplateError {
        let file = match self.files.get(name) {
            Some(path) => path.display().to_string(),
            None => name.to_owned(),
        };
        let message = clean_line(message, 500);
        TemplateError {
            file,
            line,
            message,
        }
    }
}

/// Whether this is the name of a template for one language, such as `body.de.txt`.
fn is_localized(name: &str) -> bool {
    let parts: Vec<_> = name.split('.').collect();
    let [stem, _, end] = *parts else { return false };
    BUILT_IN
        .iter()
        .any(|(base, _)| base.split_once('.') == Some((stem, end)))
}

/// Printing an undefined value is an error, and an error shows no data.
fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    environment.set_syntax(syntax.trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    add_filters(&mut environment);
    // Debug information would show the order in error messages.
    environment.set_debug(false);
    environment.set_auto_escape_callback(|name| match name.rsplit_once('.') {
        Some((_, "html")) => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    Ok(environment)
}

/// The error of the included template, not of the one that includes it.
fn innermost(error: &minijinja::Error) -> &minijinja::Error {
    let mut inner = error;
    while let Some(source) = inner.source().and_then(|source| source.downcast_ref()) {
        inner = source;
    }
    inner
}

/// The shop, for templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shop {
    /// The sender's display name, or its domain if there is none.
    pub name: String,
    /// Where a reply goes.
    pub email: String,
}

impl Shop {
    /// The sender's name, and where a reply goes.
    pub fn new(from: &Mailbox, reply_to: Option<&Mailbox>) -> Self {
        let name = from.name.as_deref().unwrap_or(from.email.domain());
        Self {
            name: name.to_owned(),
            email: reply_to.unwrap_or(from).email.to_string(),
        }
    }

    fn sample() -> Self {
        Self {
            name: "Shop".to_owned(),
            email: "orders@example.com".to_owned(),
        }
    }
}
