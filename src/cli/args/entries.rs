//! Which rows of the ledger a command selects, and how it opens the ledger.

use std::time::{Duration, SystemTime};

use crate::core::claim::{Attention, Entry, State};
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use crate::stores::ledger::{EntryPage, Ledger as _};
use anyhow::anyhow;
use clap::Args;

use crate::cli::args::note::moment;
use crate::cli::args::tables::LedgerName;
use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, must_exist};
use crate::cli::render::progress::ListingProgress;

/// The orders that a command selects.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which orders")]
pub struct FilterArgs {
    /// Only orders in this state: ambiguous, released, sending, sent, failed, retry or suppressed.
    /// `released`: an operator released them, and they are not sent yet
    #[arg(long, value_name = "STATE", value_parser = wanted)]
    pub state: Option<WantedState>,
    /// Only orders that changed at this time or later: 2026-11-27T09:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<SystemTime>,
    /// Only orders that changed before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<SystemTime>,
    /// Only orders with this text in the last reply or reason
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// The selected state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedState {
    /// A state of the ledger.
    State(State),
    /// Released by an operator, and not sent yet.
    Released,
}

fn wanted(word: &str) -> Result<WantedState, String> {
    if word.eq_ignore_ascii_case("released") {
        return Ok(WantedState::Released);
    }
    let state = State::from_word(word).map(WantedState::State);
    state.ok_or_else(|| {
        "write ambiguous, released, sending, sent, failed, retry or suppressed".to_owned()
    })
}

impl FilterArgs {
    /// Whether only some orders are selected.
    pub fn is_set(&self) -> bool {
        self.state.is_some()
            || self.since.is_some()
            || self.until.is_some()
            || self.reason.is_some()
    }

    /// The reasons for which the index lists these orders, in the order of the output. `None` if the
    /// index does not have them.
    fn attention(&self) -> &'static [Attention] {
        match self.state {
            Some(WantedState::State(State::Ambiguous)) => {
                &[Attention::Ambiguous, Attention::Resending]
            }
            Some(WantedState::Released) => &[Attention::Released],
            _ => &[],
        }
    }

    fn allows(&self, entry: &Entry) -> bool {
        let reply = entry.reply.as_deref().unwrap_or_default().to_lowercase();
        let says = |text: &String| reply.contains(&text.to_lowercase());
        self.since.is_none_or(|since| entry.changed >= since)
            && self.until.is_none_or(|until| entry.changed < until)
            && self.reason.as_ref().is_none_or(says)
    }

    /// A page of the selected orders.
    pub async fn page(
        &self,
        ledger: &DynamoDbLedger,
        from: Option<&str>,
    ) -> anyhow::Result<EntryPage> {
        let mut page = match (self.attention(), self.state) {
            ([], Some(WantedState::State(state))) => ledger.list(Some(state), from).await?,
            ([], _) => ledger.list(None, from).await?,
            (reasons, _) => indexed(ledger, reasons, from).await?,
        };
        page.entries.retain(|(_, entry)| self.allows(entry));
        Ok(page)
    }

    /// Reports if the whole table is read.
    pub fn progress(&self, table: &str) -> ListingProgress {
        let whole = self.attention().is_empty();
        ListingProgress::new(whole.then(|| format!("reading the whole table {table}")))
    }
}

/// A page of the orders that need attention, one reason after the other. The next page starts at a
/// reason's place and an order's key.
async fn indexed(
    ledger: &DynamoDbLedger,
    reasons: &[Attention],
    from: Option<&str>,
) -> anyhow::Result<EntryPage> {
    let (place, key) = from.and_then(|from| from.split_once(' ')).unzip();
    let place: usize = place.map_or(Ok(0), str::parse)?;
    let Some(reason) = reasons.get(place) else {
        return Ok(EntryPage::default());
    };
    let key = key.filter(|key| !key.is_empty());
    let mut page = ledger.list_needing(*reason, key).await?;
    page.next = match page.next {
        Some(key) => Some(format!("{place} {key}")),
        None if place + 1 < reasons.len() => Some(format!("{} ", place + 1)),
        None => None,
    };
    Ok(page)
}

/// The error for an order without a row.
pub fn unknown(order: &str, table: &str) -> Fault {
    Fault::Work(anyhow!(
        "order {order} is not in the ledger {table}: nothing was ever started for it, or its row has \
         expired. An email is sent with `aftercommit send {order}`"
    ))
}

/// The ledger, to read from.
pub async fn open(name: &LedgerName) -> Result<DynamoDbLedger, Fault> {
    // This command writes no row, so the retention does not matter.
    open_to_write(name, Duration::MAX).await
}

/// The ledger, to write to. Rows are kept for `retention` after a change.
pub async fn open_to_write(
    name: &LedgerName,
    retention: Duration,
) -> Result<DynamoDbLedger, Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    must_exist(&clients, &name.ledger_table).await?;
    Ok(DynamoDbLedger::new(
        clients.dynamodb,
        &name.ledger_table,
        retention,
    ))
}
