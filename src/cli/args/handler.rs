//! A handler in another language, which takes the place of the confirmation.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::confirmation::smtp::Secret;
use crate::engine::BatchLimits;
use crate::engine::dependency::{Dependency, Limits};
use crate::handlers::Program;
use crate::handlers::function::{FunctionHandler, FunctionSettings};
use crate::handlers::http::{BodyFormat, HandlerUrl, HttpHandler, HttpSettings, WebhookSecret};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use crate::cli::args::password::secret;
use crate::cli::fault::Fault;

/// So many calls at a time, unless it is set.
const AT_ONCE: usize = 64;

/// The handler that takes the place of the confirmation.
#[derive(Debug, Args)]
#[command(next_help_heading = "Handler")]
pub struct HandlerArgs {
    /// Handler that gets each change as a POST and takes the place of the confirmation, so that no mail
    /// setting is needed: http://HOST:PORT/PATH, https://..., or unix:/path/to/socket:/PATH
    #[arg(
        long,
        value_name = "URL",
        env = "AFTERCOMMIT_HANDLER",
        hide_env_values = true,
        value_parser = secret
    )]
    handler: Option<Secret>,
    /// Command that starts an AWS Lambda function on this machine, such as "python -m awslambdaric
    /// app.handler", in place of --handler: each change is an invocation
    #[arg(
        long,
        value_name = "COMMAND",
        env = "AFTERCOMMIT_HANDLER_COMMAND",
        conflicts_with = "handler"
    )]
    handler_command: Option<String>,
    /// Number of processes of --handler-command; each handles one call at a time
    #[arg(
        long,
        value_name = "NUMBER",
        env = "AFTERCOMMIT_PROCESSES",
        default_value = "1"
    )]
    processes: NonZeroUsize,
    /// Body of the POST
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        env = "AFTERCOMMIT_HANDLER_FORMAT",
        default_value = "lambda"
    )]
    handler_format: HandlerFormat,
    /// Secret (whsec_...) that signs each POST as Standard Webhooks does. Prefer the environment variable,
    /// which does not show in the process list
    #[arg(
        long,
        value_name = "SECRET",
        env = "AFTERCOMMIT_HANDLER_SECRET",
        hide_env_values = true,
        value_parser = secret,
        conflicts_with = "handler_secret_file"
    )]
    handler_secret: Option<Secret>,
    /// File with that secret
    #[arg(long, value_name = "FILE", env = "AFTERCOMMIT_HANDLER_SECRET_FILE")]
    handler_secret_file: Option<PathBuf>,
    /// File with certificates (PEM) that an https handler may have, besides those that the platform trusts
    #[arg(long, value_name = "FILE", env = "AFTERCOMMIT_HANDLER_CA_FILE")]
    handler_ca_file: Option<PathBuf>,
    /// Maximum number of calls at a time [default: 64; 1 for the runtime emulator of a Lambda container,
    /// which serves one]
    #[arg(long, value_name = "NUMBER", env = "AFTERCOMMIT_HANDLER_CALLS")]
    handler_calls: Option<NonZeroUsize>,
    /// Maximum number of changes in a call, at most one of each item. Above 1 a call carries several: a
    /// Lambda event with several records, or an array with --handler-format json
    #[arg(
        long,
        value_name = "NUMBER",
        env = "AFTERCOMMIT_BATCH",
        default_value = "1"
    )]
    batch: NonZeroUsize,
    /// How long a change waits for others to share its call, at most a second
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_WINDOW",
        default_value = "20ms",
        value_parser = window
    )]
    window: Duration,
    /// Call the handler once for each effect key (that of the change, or with --id that of the id): the key
    /// is claimed in the ledger before the call, and the answer is recorded after it. If no definite
    /// answer comes, --on-ambiguous decides
    #[arg(long, env = "AFTERCOMMIT_ONCE")]
    pub once: bool,
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HandlerFormat {
    /// The event that AWS Lambda hands to a function, with one record
    Lambda,
    /// An object with the item's images as plain JSON
    Json,
}

impl HandlerArgs {
    /// Whether a handler is named.
    pub fn is_set(&self) -> bool {
        self.handler.is_some() || self.handler_command.is_some()
    }

    /// The handler, if there is one. Processes of a command are started.
    pub async fn program(&self) -> Result<Option<Program>, Fault> {
        if self.once && !self.is_set() {
            return Err(Fault::wrong(
                "--once is for a handler: name it with --handler or --handler-command, or remove the \
                 flag. Emails are sent once in any case",
            ));
        }
        if self.batch.get() > 1 && !self.is_set() {
            return Err(Fault::wrong(
                "--batch is for a handler: name it with --handler or --handler-command, or remove the flag",
            ));
        }
        if self.batch.get() > 1 && self.once {
            return Err(Fault::wrong(
                "--once calls the handler for one change at a time: remove --once or --batch",
            ));
        }
        if let Some(command) = &self.handler_command {
            let mut settings = FunctionSettings::new(command);
            settings.processes = self.processes;
            let started = FunctionHandler::start(settings).await;
            let started = started.context("--handler-command: no port on the loopback interface");
            return Ok(Some(Program::Function(started?)));
        }
        let http = self.http().await?;
        Ok(http.map(|http| Program::Http(Box::new(http))))
    }

    /// Refused on AWS Lambda, where this process is the function.
    #[cfg(feature = "lambda")]
    pub fn must_not_be_command(&self) -> Result<(), Fault> {
        if self.handler_command.is_none() {
            return Ok(());
        }
        Err(Fault::wrong(
            "--handler-command starts a Lambda function outside of Lambda: here, give your function the \
             event source mapping, or run aftercommit as a fleet",
        ))
    }

    /// The handler, if a URL is named. An error if its host has no address now.
    async fn http(&self) -> Result<Option<HttpHandler>, Fault> {
        let Some(url) = &self.handler else {
            return Ok(None);
        };
        // An error never shows the URL as it was written, because it may hold a secret.
        let url: HandlerUrl = url
            .reveal()
            .parse()
            .context("--handler")
            .map_err(Fault::Setting)?;
        let mut settings = HttpSettings::new(url.clone());
        settings.format = match self.handler_format {
            HandlerFormat::Lambda => BodyFormat::Lambda,
            HandlerFormat::Json => BodyFormat::Json,
        };
        settings.secret = self.secret()?;
        if let Some(path) = &self.handler_ca_file {
            let read = std::fs::read(path);
            let read = read.with_context(|| format!("--handler-ca-file {}", path.display()));
            settings.extra_roots = read.map_err(Fault::Setting)?;
        }
        let handler = HttpHandler::new(settings).map_err(Fault::setting)?;
        if let Some((host, port)) = url.host() {
            let found = tokio::net::lookup_host((host, port)).await;
            let context = || format!("--handler {url}: host {host} has no address");
            // It may have one in a moment, as a container beside this one does.
            found
                .with_context(context)
                .map(drop)
                .map_err(Fault::Missing)?;
        }
        Ok(Some(handler))
    }

    fn secret(&self) -> Result<Option<WebhookSecret>, Fault> {
        let parsed = |flag: String, text: &str| {
            let secret = text.trim().parse().context(flag);
            secret.map(Some).map_err(Fault::Setting)
        };
        if let Some(path) = &self.handler_secret_file {
            let flag = format!("--handler-secret-file {}", path.display());
            let text = std::fs::read_to_string(path).map(Zeroizing::new);
            let text = text.with_context(|| flag.clone()).map_err(Fault::Setting)?;
            return parsed(flag, &text);
        }
        match &self.handler_secret {
            Some(secret) => parsed("--handler-secret".to_owned(), secret.reveal()),
            None => Ok(None),
        }
    }

    /// How changes are gathered into calls, if a call carries more than one. `partition_key`: that of the
    /// table.
    pub fn batches(&self, program: &Program, partition_key: Option<String>) -> Option<BatchLimits> {
        if self.batch.get() == 1 {
            return None;
        }
        Some(BatchLimits {
            max_records: self.batch.get(),
            max_wait: self.window,
            in_flight: self.calls(program),
            partition_key,
            ..BatchLimits::default()
        })
    }

    /// How many calls the handler bears at a time.
    pub fn calls(&self, program: &Program) -> usize {
        match program {
            Program::Function(function) => function.processes().get(),
            Program::Http(http) => {
                let most = if http.url().is_emulator() { 1 } else { AT_ONCE };
                self.handler_calls.map_or(most, NonZeroUsize::get)
            }
        }
    }

    /// The handler as a dependency with its limits.
    pub fn dependency(&self, program: &Program) -> Dependency {
        let name = match program {
            Program::Http(http) => format!("the handler {}", http.url()),
            _ => "the processes of the handler".to_owned(),
        };
        let limits = Limits {
            name: Some(name),
            at_once: self.calls(program) * self.batch.get(),
            ..Limits::default()
        };
        Dependency::new(&limits, fastrand::Rng::new())
    }
}

/// How long a change may wait for others: less than people notice.
fn window(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(1);
    let window = humantime::parse_duration(text).ok();
    window
        .filter(|window| *window <= LONGEST)
        .ok_or_else(|| "write a time of at most a second, such as 20ms".to_owned())
}
