//! Where the handler of the records comes from: the flags name it, or the program has one of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use clap::Args;
use futures_util::future::BoxFuture;

use crate::EffectName;
use crate::cli::args::means::{HANDLER, Handler, Items, Means, MeansArgs, own_dependency};
use crate::cli::args::order::OrderArgs;
use crate::cli::args::records::RecordArgs;
use crate::cli::args::tables::LedgerName;
use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, Clients};
use crate::confirmation::mapping::Mapping;
use crate::confirmation::wanted::Wanted;
use crate::engine::Identity;
use crate::engine::dependency::Dependency;
use crate::engine::effect::ErasedHandler;

/// The arguments of a command that calls the handler, and where the handler comes from.
#[derive(Debug)]
pub struct WithHandler<A> {
    pub args: A,
    pub source: HandlerSource,
}

/// The same on the command line. `M` has the flags of the handler.
#[derive(Debug, Args)]
pub struct WithFlags<A: Args, M: Args> {
    #[command(flatten)]
    args: A,
    #[command(flatten)]
    flags: M,
}

impl<A: Args, M: Args> WithFlags<A, M> {
    /// The handler that the flags lead to.
    pub fn from(self, source: impl FnOnce(M) -> HandlerSource) -> WithHandler<A> {
        WithHandler {
            args: self.args,
            source: source(self.flags),
        }
    }
}

/// Where the handler of the records comes from.
#[derive(Debug)]
pub enum HandlerSource {
    /// The flags name it.
    Flags(Box<MeansArgs>),
    /// The program has it.
    Program(Box<OwnHandler>),
}

impl From<MeansArgs> for HandlerSource {
    fn from(flags: MeansArgs) -> Self {
        Self::Flags(Box::new(flags))
    }
}

impl From<OwnHandler> for HandlerSource {
    fn from(own: OwnHandler) -> Self {
        Self::Program(Box::new(own))
    }
}

/// The handler of a program, once it is opened.
#[derive(Clone)]
pub struct OwnHandler {
    open: Arc<dyn Fn(SdkConfig) -> Opening + Send + Sync>,
    /// Its items have no fields with a name.
    fields: OrderArgs,
}

type Opening = BoxFuture<'static, anyhow::Result<ErasedHandler>>;

impl OwnHandler {
    /// A handler that is opened with the configuration of the AWS SDK.
    pub fn new(open: impl Fn(SdkConfig) -> Opening + Send + Sync + 'static) -> Self {
        Self {
            open: Arc::new(open),
            fields: OrderArgs::default(),
        }
    }
}

impl fmt::Debug for OwnHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnHandler")
    }
}

impl HandlerSource {
    /// Checks what can be checked without a network, and opens the handler.
    pub async fn open(&self) -> Result<Means, Fault> {
        match self {
            Self::Flags(flags) => flags.open().await,
            Self::Program(own) => {
                let config = aws::config().await.map_err(Fault::Setting)?;
                let opened = (own.open)(config).await.map_err(Fault::Setting)?;
                Ok(Means::Own(opened))
            }
        }
    }

    /// How long an attempt may take unless a flag says otherwise.
    pub fn longest_attempt(&self) -> Duration {
        match self {
            Self::Flags(flags) => flags.longest_attempt(),
            Self::Program(_) => Duration::from_mins(1),
        }
    }

    /// What the handler depends on, with its limits.
    pub fn dependency(&self, means: &Means) -> Dependency {
        match self {
            Self::Flags(flags) => flags.dependency(means),
            Self::Program(_) => own_dependency(),
        }
    }

    /// The settings that decide which record becomes which effect.
    pub fn identity(
        &self,
        means: &Means,
        (mapping, records): (&Mapping, &RecordArgs),
    ) -> Result<Identity, Fault> {
        if let Self::Flags(flags) = self {
            return flags.identity(means, (mapping, records));
        }
        let identity = records.identify(Identity::default());
        Ok(identity.with(HANDLER, means.setting().unwrap_or_default()))
    }

    /// The handler for the records of a table.
    pub fn handler(
        &self,
        tables: (&Clients, &LedgerName),
        items: Items<'_>,
        means: &Means,
        (effect, wanted): (EffectName, Wanted),
    ) -> Result<Handler, Fault> {
        match (self, means) {
            (_, Means::Own(handler)) => Ok(Handler::Own(handler.clone(), wanted)),
            (Self::Flags(flags), _) => flags.handler(tables, items, means, (effect, wanted)),
            (Self::Program(_), _) => Err(Fault::wrong("the program has another handler")),
        }
    }

    /// How items become orders.
    pub fn fields(&self) -> &OrderArgs {
        match self {
            Self::Flags(flags) => &flags.mail.fields,
            Self::Program(own) => &own.fields,
        }
    }

    /// The table of addresses that must not be mailed.
    pub fn suppression_table(&self) -> Option<&String> {
        match self {
            Self::Flags(flags) => flags.sending.sparing().suppression_table.as_ref(),
            Self::Program(_) => None,
        }
    }

    /// How long the ledger keeps a row. It keeps a group's settings for as long as the group exists.
    pub fn retention(&self) -> Duration {
        match self {
            Self::Flags(flags) => flags.sending.retention(),
            Self::Program(_) => Duration::MAX,
        }
    }

    /// Whether each order is read again before its email is sent.
    pub fn refetch(&self) -> bool {
        match self {
            Self::Flags(flags) => flags.sending.refetch(),
            Self::Program(_) => false,
        }
    }

    /// Rejected on AWS Lambda, where this process is the function.
    #[cfg(feature = "lambda")]
    pub fn must_not_be_command(&self) -> Result<(), Fault> {
        match self {
            Self::Flags(flags) => flags.handler.must_not_be_command(),
            Self::Program(_) => Ok(()),
        }
    }
}
