//! `aftercommit send-test`: sends one email with a made-up order, to check the way to a mailbox.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::Clock;
use crate::confirmation::address::{Address, AddressError, Domains, parse_address};
use crate::confirmation::mail::Frozen;
use crate::confirmation::order::Order;
use crate::confirmation::smtp::Delivery;
use crate::stores::ledger::EffectKey;
use anyhow::{Context as _, anyhow};
use clap::Args;

use crate::cli::args::identity::EffectArg;
use crate::cli::args::item::read_item;
use crate::cli::args::mail::MailArgs;
use crate::cli::fault::Fault;
use crate::cli::render::out::print_all;

/// Arguments of `send-test`.
#[derive(Debug, Args)]
pub struct SendTestArgs {
    /// Recipient
    #[arg(long, value_name = "ADDRESS", env = "AFTERCOMMIT_TO", value_parser = recipient)]
    to: Address,
    /// File with the order to show, as plain JSON or DynamoDB's [default: a made-up order]. Its customer
    /// gets no email
    #[arg(long, value_name = "FILE", env = "AFTERCOMMIT_ORDER")]
    order: Option<PathBuf>,
    #[command(flatten)]
    effect: EffectArg,
    #[command(flatten)]
    mail: MailArgs,
}

fn recipient(text: &str) -> Result<Address, AddressError> {
    parse_address(text, Domains::Any)
}

fn of_file(file: &Path) -> String {
    format!("--order {}", file.display())
}

/// The order in the email, as if the recipient had placed it.
fn order(args: &SendTestArgs) -> Result<Order, Fault> {
    let Some(file) = &args.order else {
        return Ok(Order::sample(args.to.clone()));
    };
    let of_file = || of_file(file);
    let item = read_item(file).with_context(of_file);
    let item = item.map_err(Fault::Setting)?;
    let order = args.mail.fields.with_default_id("id")?.order(&item);
    let mut order = order.with_context(of_file).map_err(Fault::Setting)?;
    order.email = args.to.clone();
    Ok(order)
}

/// Sends the email and prints the server's reply. Every run sends another email.
pub async fn send_test(args: &SendTestArgs) -> Result<(), Fault> {
    let letterhead = args.mail.letter.letterhead()?;
    let server = args.mail.transport().await?;
    let order = order(args)?;
    let date = Clock::system().now();
    let since = date.duration_since(SystemTime::UNIX_EPOCH);
    let run = since.unwrap_or_default().as_nanos().to_string();
    let key = EffectKey::new(&args.effect.or_default(), &format!("test-{run}"));
    let mail = letterhead.render(&order, &Frozen { date, key });
    let mail = match &args.order {
        Some(file) => mail.with_context(|| of_file(file)),
        None => mail,
    };
    let mail = mail.map_err(Fault::Setting)?;
    let offer = server.offer(&mail).await;
    let offer = offer.with_context(|| format!("{server}: nothing was sent"))?;
    let delivery = offer.deliver(&mail, &|_| true).await;
    server.close().await;
    match delivery {
        Delivery::Accepted(reply) => {
            print_all(&format!("{server} accepted {}: {reply}\n", mail.message_id))?;
            Ok(())
        }
        Delivery::Refused(reply) => Err(anyhow!("{server} refused it: {reply}").into()),
        Delivery::Deferred(reply) => {
            Err(anyhow!("{server} deferred it: {reply}; try again").into())
        }
        Delivery::NotSent { stage, why } => {
            Err(anyhow!("{server}: nothing was sent: {stage}: {why}").into())
        }
        Delivery::NoReply { stage, why } => Err(anyhow!(
            "{server} may have accepted it or not: {stage}: {why}; look into the mailbox"
        )
        .into()),
    }
}
