//! Which orders are confirmed, and what to do about an email whose outcome is unknown.

use std::time::Duration;

use crate::Clock;
use crate::confirmation::dynamodb::{DynamoDbLookup, SuppressionList};
use crate::confirmation::expression::Expression;
use crate::confirmation::mapping::Mapping;
use crate::confirmation::{Confirmation, ConfirmationSettings, Transport};
use crate::engine::dependency::{Dependency, Limits};
use crate::once::{OnAmbiguous, OnceSettings};
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use aws_sdk_dynamodb::Client;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::cli::args::mail::LetterArgs;
use crate::cli::args::tables::LedgerName;
use crate::cli::fault::Fault;
use crate::cli::host::aws::Clients;

/// The shortest memory of a provider that is of use.
const LEAST_MEMORY: Duration = Duration::from_hours(1);

impl ValueEnum for OnAmbiguous {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Resend, Self::Park]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Resend => ("resend", "Send the same bytes once more"),
            Self::Park => ("park", "Never send them twice: leave it to an operator"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// When an email is sent again, and when none is sent.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sending")]
pub struct SendingArgs {
    /// What to do when it is unknown whether an effect took place: whether an email was accepted, or a
    /// handler called with --once acted
    #[arg(
        long,
        value_enum,
        env = "AFTERCOMMIT_ON_AMBIGUOUS",
        default_value = "resend"
    )]
    on_ambiguous: OnAmbiguous,
    /// How long the other side recognises a repeat by the effect key, such as 24h: a mail server by
    /// --idempotency-header, a handler by the header Idempotency-Key. What is in doubt for a shorter time is
    /// repeated until an answer comes, whatever --on-ambiguous says [default: it does not]
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_PROVIDER_REMEMBERS",
        value_parser = humantime::parse_duration
    )]
    provider_remembers: Option<Duration>,
    /// Read each order from its table before sending; an order that is gone is not confirmed
    #[arg(long, env = "AFTERCOMMIT_REFETCH")]
    refetch: bool,
    #[command(flatten)]
    sparing: SparingArgs,
    #[command(flatten)]
    retention: RetentionArgs,
}

impl SendingArgs {
    /// How orders are confirmed. Fails if the ledger would forget an order too soon.
    pub fn settings(&self, mapping: Mapping) -> Result<ConfirmationSettings, Fault> {
        let mut settings = self.retention.settings(mapping, self.on_ambiguous)?;
        settings.provider_remembers = self.provider_remembers()?;
        Ok(settings)
    }

    /// How long the other side recognises a repeat, if it does. Less than the time that an effect may
    /// take would mean nothing.
    pub fn provider_remembers(&self) -> Result<Option<Duration>, Fault> {
        match self.provider_remembers {
            Some(time) if time < LEAST_MEMORY => Err(Fault::wrong(
                "--provider-remembers is shorter than 1h, the least that helps: a repeat may take half an \
                 hour to arrive. Remove the flag",
            )),
            remembers => Ok(remembers),
        }
    }

    /// How a handler is called once, that bears so many calls at a time. Fails if the ledger would forget
    /// an effect too soon.
    pub fn once(&self, clock: Clock, at_a_time: usize) -> Result<OnceSettings, Fault> {
        self.retention.checked()?;
        Ok(OnceSettings {
            on_ambiguous: self.on_ambiguous,
            provider_remembers: self.provider_remembers()?,
            clock,
            at_a_time,
            ..OnceSettings::default()
        })
    }

    /// The ledger of the effects.
    pub fn ledger(&self, clients: &Clients, name: &LedgerName) -> DynamoDbLedger {
        let retention = self.retention.ledger_retention;
        DynamoDbLedger::new(clients.dynamodb.clone(), &name.ledger_table, retention)
    }

    /// How long the ledger keeps a row.
    pub fn retention(&self) -> Duration {
        self.retention.ledger_retention
    }

    /// Whether each order is read again before its email is sent.
    pub fn refetch(&self) -> bool {
        self.refetch
    }

    /// Which orders get no email.
    pub fn sparing(&self) -> &SparingArgs {
        &self.sparing
    }

    /// The handler for the orders of a table.
    pub fn confirmation(
        &self,
        (clients, ledger): (&Clients, &LedgerName),
        (orders, mapping): (&str, Mapping),
        letter: &LetterArgs,
        transport: &Transport,
    ) -> Result<Confirmation<DynamoDbLedger, DynamoDbLookup>, Fault> {
        let client = &clients.dynamodb;
        let mut settings = self.settings(mapping)?;
        settings.clock = clients.clock();
        let handler = Confirmation::new(
            self.ledger(clients, ledger),
            transport.clone(),
            letter.letterhead()?,
            settings,
            fastrand::Rng::new(),
        );
        // Filters decide which changes are confirmed.
        let handler = handler.of_modified_orders_too();
        let handler = handler.looking_up(self.lookup(client, orders));
        Ok(match self.sparing.suppress_when()? {
            Some(when) => handler.suppressing(when),
            None => handler,
        })
    }

    /// What is looked up before an email to a customer of this table.
    fn lookup(&self, client: &Client, orders: &str) -> DynamoDbLookup {
        let lookup = self.sparing.lookup(client);
        if self.refetch {
            return lookup.refetching(client.clone(), orders);
        }
        lookup
    }
}

/// Which orders get no email.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sending")]
pub struct SparingArgs {
    /// Do not confirm orders for which this is true, such as "status == 'CANCELLED'" (a Jinja
    /// expression over the order's attributes)
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_SUPPRESS_WHEN")]
    suppress_when: Option<String>,
    /// Table of addresses that must not be mailed [default: none]
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_SUPPRESSION_TABLE")]
    pub suppression_table: Option<String>,
}

impl SparingArgs {
    /// The parsed expression.
    pub fn suppress_when(&self) -> Result<Option<Expression>, Fault> {
        let parsed = self.suppress_when.as_deref().map(Expression::parse);
        let parsed = parsed.transpose();
        parsed.map_err(|error| Fault::wrong(format!("--suppress-when: {error}")))
    }

    /// The suppression list, if one is named.
    pub fn lookup(&self, client: &Client) -> DynamoDbLookup {
        match &self.suppression_table {
            Some(table) => {
                DynamoDbLookup::new().sparing(SuppressionList::new(client.clone(), table))
            }
            None => DynamoDbLookup::new(),
        }
    }
}

/// How long the ledger keeps rows.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sending")]
pub struct RetentionArgs {
    /// How long the ledger keeps a row; an order that comes again later is rejected
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_LEDGER_RETENTION",
        default_value = "401d",
        value_parser = humantime::parse_duration
    )]
    pub ledger_retention: Duration,
    /// How far back orders may be replayed; the ledger must keep rows for this and the stream's 24 hours
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_REPLAY_HORIZON",
        default_value = "400d",
        value_parser = humantime::parse_duration
    )]
    replay_horizon: Duration,
}

impl RetentionArgs {
    /// How orders are confirmed. Fails if the ledger would forget an order too soon.
    pub fn settings(
        &self,
        mapping: Mapping,
        on_ambiguous: OnAmbiguous,
    ) -> Result<ConfirmationSettings, Fault> {
        let mut settings = ConfirmationSettings::new(mapping);
        settings.on_ambiguous = on_ambiguous;
        settings.retention = self.ledger_retention;
        let checked = settings.check_retention(self.replay_horizon);
        let problem = "--ledger-retention is shorter than --replay-horizon and 24 h";
        checked.map_err(|short| Fault::Setting(anyhow::Error::new(short).context(problem)))?;
        Ok(settings)
    }

    /// How long the ledger keeps a row. Fails if that is too short.
    pub fn checked(&self) -> Result<Duration, Fault> {
        let mapping = Mapping::new("id").map_err(Fault::setting)?;
        Ok(self.settings(mapping, OnAmbiguous::Park)?.retention)
    }
}

/// Limits on the use of the mail server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Mail server")]
pub struct MailServerArgs {
    /// Maximum number of emails per second, on average
    #[arg(long, value_name = "NUMBER", env = "AFTERCOMMIT_MAIL_RATE", value_parser = rate)]
    mail_rate: Option<f64>,
}

impl MailServerArgs {
    /// The mail server as a dependency with these limits.
    pub fn dependency(&self, name: &impl std::fmt::Display) -> Dependency {
        let limits = Limits {
            name: Some(format!("the mail server {name}")),
            per_second: self.mail_rate,
            ..Limits::default()
        };
        Dependency::new(&limits, fastrand::Rng::new())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok();
    rate.filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "write a number per second, such as 14 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_rate_is_a_number_above_zero() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "NaN", "inf", "many"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
