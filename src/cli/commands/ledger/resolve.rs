//! `aftercommit ledger resolve`: an operator decides about one order, or about all orders of an
//! incident.

use std::io::{IsTerminal as _, Write as _};
use std::time::SystemTime;

use crate::Clock;
use crate::core::claim::{Decision, Entry, Resolution};
use crate::stores::ledger::EffectKey;
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use crate::stores::ledger::resolve::{Resolved, resolve};
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;

use crate::cli::args::entries::{FilterArgs, open_to_write, unknown};
use crate::cli::args::identity::GroupArgs;
use crate::cli::args::note::{ByArgs, note};
use crate::cli::args::sending::RetentionArgs;
use crate::cli::args::tables::LedgerName;
use crate::cli::commands::send::{ByHandArgs, OrderSender, Sending};
use crate::cli::fault::Fault;
use crate::cli::render::ledger::{ShownEntry, advice};
use crate::cli::render::out::{json_line, print, print_all};
use crate::cli::render::progress::CommandProgress;

pub const EXAMPLES: &str = "\
Examples:
  # One order: the mail server's log shows it, does not show it, or the customer no longer wants it
  aftercommit ledger resolve 1042 --sent --note \"queued as 4F2A\"
  aftercommit ledger resolve 1042 --send --note \"not in mail.log\" --mail-from ... --smtp-url ...
  aftercommit ledger resolve 1042 --skip --note \"cancelled by phone\"

  # All orders of an incident; --yes for scripts
  aftercommit ledger resolve --state ambiguous --since 2026-11-27T09:00:00Z --until 2026-11-27T10:00:00Z \\
      --reason \"connection reset\" --sent --note \"all in mail.log\" --dry-run

Without mail settings --send only releases the order: `aftercommit status` reports it until it is sent with
`aftercommit send`.

Exit codes: 0 done, 1 nothing found, or some could not be resolved or sent, 2 a setting is wrong or it was
not confirmed.";

/// How long rows are kept, and how a released email is sent at once.
pub trait Resolving {
    /// How long the ledger keeps a row.
    fn retention(&self) -> &RetentionArgs;

    /// The settings with which an email is sent, if they are set.
    fn by_hand(&self) -> Option<&ByHandArgs>;
}

impl Resolving for ByHandArgs {
    fn retention(&self) -> &RetentionArgs {
        &self.retention
    }

    fn by_hand(&self) -> Option<&ByHandArgs> {
        self.mail.is_set().then_some(self)
    }
}

/// A program with a handler of its own sends no email.
impl Resolving for RetentionArgs {
    fn retention(&self) -> &RetentionArgs {
        self
    }

    fn by_hand(&self) -> Option<&ByHandArgs> {
        None
    }
}

/// Arguments of `ledger resolve`.
#[derive(Debug, Args)]
pub struct LedgerResolveArgs<M: Args> {
    /// Order id [default: all orders that --state, --since, --until and --reason select]
    order: Option<String>,
    #[command(flatten)]
    decision: DecisionArgs,
    /// Reason, kept in the order's history
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: String,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    which: FilterArgs,
    /// Only show what would be resolved
    #[arg(long)]
    dry_run: bool,
    /// Resolve several orders without asking
    #[arg(long)]
    yes: bool,
    /// Print what was done to several orders as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    name: LedgerName,
    #[command(flatten)]
    means: M,
}

/// The operator's decision.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct DecisionArgs {
    /// The email was accepted, or the handler acted: never again
    #[arg(long)]
    sent: bool,
    /// It was not accepted: an email is sent at once with mail settings, else with `aftercommit send`; a
    /// handler may perform it again. Also for what was refused or suppressed
    #[arg(long)]
    send: bool,
    /// It must not take place
    #[arg(long)]
    skip: bool,
}

impl DecisionArgs {
    fn decision(&self) -> Decision {
        match (self.sent, self.send) {
            (true, _) => Decision::Sent,
            (_, true) => Decision::Send,
            _ => Decision::Skip,
        }
    }
}

impl<M: Args> LedgerResolveArgs<M> {
    fn resolution(&self, now: SystemTime) -> Resolution {
        Resolution {
            by: self.by.name(),
            at: now,
            note: self.note.clone(),
            decision: self.decision.decision(),
        }
    }

    fn word(&self) -> &'static str {
        match self.decision.decision() {
            Decision::Sent => "sent",
            Decision::Send => "to be sent",
            Decision::Skip => "not to be sent",
        }
    }
}

/// What was done to the orders of an incident.
#[derive(Serialize)]
struct ResolveSummary {
    selected: usize,
    resolved: usize,
    sent: usize,
    #[serde(skip)]
    as_word: &'static str,
    #[serde(skip)]
    sends: bool,
}

impl ResolveSummary {
    fn text(&self) -> String {
        let Self {
            resolved,
            selected,
            as_word,
            ..
        } = self;
        let sent = if self.sends {
            format!(", {} sent", self.sent)
        } else {
            String::new()
        };
        format!("{resolved} of {selected} resolved as {as_word}{sent}\n")
    }
}

/// Resolves one order, or all selected orders.
pub async fn execute<M: Args + Resolving>(args: &LedgerResolveArgs<M>) -> Result<(), Fault> {
    let ledger = open_to_write(&args.name, args.means.retention().checked()?).await?;
    // Checks all mail settings before it writes a decision.
    let mailer = match args.means.by_hand().filter(|_| args.decision.send) {
        Some(by_hand) => Some(OrderSender::new(by_hand, &args.name).await?),
        None => None,
    };
    let done = match &args.order {
        Some(order) => one(args, &ledger, mailer.as_ref(), order).await,
        None => all(args, &ledger, mailer.as_ref()).await,
    };
    if let Some(mailer) = mailer {
        mailer.smtp.close().await;
    }
    done
}

async fn one<M: Args>(
    args: &LedgerResolveArgs<M>,
    ledger: &DynamoDbLedger,
    mailer: Option<&OrderSender<'_>>,
    order: &str,
) -> Result<(), Fault> {
    let key = EffectKey::new(&args.group.known_effect(ledger).await?, order);
    let entry = decided(args, ledger, &key).await?;
    if let Some(mailer) = mailer {
        print_all(&mailer.send(&sending(args, order)).await?)?;
        return Ok(());
    }
    print_all(&format!(
        "order {order} is now {}\n{}\n",
        entry.state,
        advice(&key, &entry)
    ))?;
    Ok(())
}

fn sending<'a, M: Args>(args: &'a LedgerResolveArgs<M>, order: &'a str) -> Sending<'a> {
    Sending {
        order,
        group: &args.group,
        note: &args.note,
        by: args.by.name(),
    }
}

/// Writes the decision about one order.
async fn decided<M: Args>(
    args: &LedgerResolveArgs<M>,
    ledger: &DynamoDbLedger,
    key: &EffectKey,
) -> Result<Entry, Fault> {
    let (order, now) = (key.id(), Clock::system().now());
    match resolve(ledger, key, args.resolution(now), now).await? {
        Resolved::Written(entry) => Ok(entry),
        Resolved::Illegal(entry, _) => Err(Fault::Work(anyhow!(
            "order {order} is {}, which cannot be resolved as {}: nothing was changed. {}",
            entry.state,
            args.word(),
            advice(key, &entry)
        ))),
        Resolved::Unknown => Err(unknown(order, &args.name.ledger_table)),
        Resolved::Contended => Err(Fault::Work(anyhow!(
            "order {order} keeps changing, because a worker is processing it: look again with `aftercommit \
             ledger show {order}`"
        ))),
    }
}

/// Resolves all selected orders.
async fn all<M: Args>(
    args: &LedgerResolveArgs<M>,
    ledger: &DynamoDbLedger,
    mailer: Option<&OrderSender<'_>>,
) -> Result<(), Fault> {
    if args.which.state.is_none() {
        return Err(Fault::wrong(
            "no order is named: give its id, or select several with --state",
        ));
    }
    let effect = args.group.known_effect(ledger).await?;
    let mut selected = selected(args, ledger).await?;
    selected.retain(|(key, _)| key.effect() == effect.as_str());
    if selected.is_empty() {
        return Err(Fault::Work(anyhow!("no order in the ledger matches")));
    }
    if args.dry_run {
        for (key, entry) in &selected {
            let line = format!(
                "would resolve as {}\t{}",
                args.word(),
                ShownEntry::new(key, entry).line()
            );
            if print(&line)?.is_break() {
                break;
            }
        }
        return Ok(());
    }
    confirm(args, selected.len())?;
    let mut progress = CommandProgress::towards(selected.len());
    let (mut resolved, mut sent) = (0_usize, 0_usize);
    for (key, _) in &selected {
        match decided(args, ledger, key).await {
            Ok(_) => resolved += 1,
            Err(fault) => progress.say(&fault.to_string()),
        }
        if let Some(mailer) = mailer {
            match mailer.send(&sending(args, key.id())).await {
                Ok(_) => sent += 1,
                Err(fault) => progress.say(&fault.to_string()),
            }
        }
        progress.step();
    }
    progress.end();
    let of = selected.len();
    let summary = ResolveSummary {
        selected: of,
        resolved,
        sent,
        as_word: args.word(),
        sends: mailer.is_some(),
    };
    print_all(&if args.json {
        json_line(&summary)?
    } else {
        summary.text()
    })?;
    if resolved < of || (mailer.is_some() && sent < of) {
        return Err(Fault::Work(anyhow!(
            "some orders could not be resolved or sent: the reasons are above"
        )));
    }
    Ok(())
}

async fn selected<M: Args>(
    args: &LedgerResolveArgs<M>,
    ledger: &DynamoDbLedger,
) -> Result<Vec<(EffectKey, Entry)>, Fault> {
    let mut progress = args.which.progress(&args.name.ledger_table);
    let (mut selected, mut from) = (Vec::new(), None);
    loop {
        let page = args.which.page(ledger, from.as_deref()).await?;
        let found = page.entries.len();
        selected.extend(page.entries);
        from = page.next;
        if from.is_none() {
            return Ok(selected);
        }
        progress.page(found);
    }
}

/// Asks the operator to type the count, which nobody types by mistake.
fn confirm<M: Args>(args: &LedgerResolveArgs<M>, count: usize) -> Result<(), Fault> {
    if args.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Fault::wrong(format!(
            "{count} orders would be resolved as {}: use --yes, or --dry-run to see which",
            args.word()
        )));
    }
    let mut out = std::io::stderr();
    // Without a terminal there is no answer, and the command fails below.
    let _ = write!(
        out,
        "{count} orders will be resolved as {}. Type {count} to confirm: ",
        args.word()
    );
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.context("cannot read standard input")?;
    if answer.trim() == count.to_string() {
        return Ok(());
    }
    Err(Fault::wrong("not confirmed: nothing was changed"))
}
