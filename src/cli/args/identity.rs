//! The group and its effect, and the settings with which the group was started.

use std::collections::{BTreeMap, BTreeSet};

use crate::confirmation::mapping::Mapping;
use crate::confirmation::wanted::Wanted;
use crate::engine::Identity;
use crate::filter::Filters;
use crate::stores::leases::LeaseStore;
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use crate::stores::ledger::registration::Registration;
use crate::stores::source::StreamSource;
use crate::{Consumer, EffectName, Group, GroupTable};
use anyhow::Context as _;
use clap::Args;

use crate::cli::args::means::{HANDLER, ID, Means};
use crate::cli::args::order::OrderArgs;
use crate::cli::args::records::{WantedArgs, filters_of};
use crate::cli::fault::Fault;

/// The group, and the effect under which it sends.
#[derive(Debug, Args)]
#[command(next_help_heading = "Group")]
pub struct GroupArgs {
    /// Name of this application on a table's stream; groups on one table share nothing
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_GROUP", default_value_t)]
    pub group: Group,
    #[command(flatten)]
    pub effect: EffectArg,
}

/// The effect under which emails are sent.
#[derive(Debug, Args)]
#[command(next_help_heading = "Group")]
pub struct EffectArg {
    /// Name of the effect, the first part of each effect key: two effects of one order need two names
    /// [default: the group's; `confirmation` for a new group]
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_EFFECT")]
    effect: Option<EffectName>,
}

impl EffectArg {
    /// The name, if the flag is set.
    pub fn named(&self) -> Option<&EffectName> {
        self.effect.as_ref()
    }

    /// The name, or the default of a new group.
    pub fn or_default(&self) -> EffectName {
        self.effect.clone().unwrap_or_default()
    }
}

/// How to start a group that shares an effect or has new settings.
#[derive(Debug, Args)]
#[command(next_help_heading = "Group")]
pub struct StartArgs {
    /// Share the effect of another group, so that only one of them handles each order: for a move
    /// between a fleet and Lambda
    #[arg(long, env = "AFTERCOMMIT_JOIN_EFFECT")]
    join_effect: bool,
    /// Replace the settings with which the group was started: effect, order id, filters
    #[arg(long, env = "AFTERCOMMIT_ACCEPT_NEW_IDENTITY")]
    accept_new_identity: bool,
}

impl StartArgs {
    /// The consumer, which replaces its group's identity if `--new-identity` was given.
    pub fn given_to<S: StreamSource, L: LeaseStore>(
        &self,
        consumer: Consumer<S, L>,
    ) -> Consumer<S, L> {
        if self.accept_new_identity {
            return consumer.accept_new_identity();
        }
        consumer
    }

    /// Registers the group and its effect on a table. Fails if another group has the effect, or if the
    /// group was started with other settings.
    pub async fn register(
        &self,
        ledger: &DynamoDbLedger,
        group: &GroupArgs,
        (arn, identity): (&str, Identity),
    ) -> Result<(), Fault> {
        let registration = Registration {
            of: GroupTable::new(group.group.clone(), arn),
            effect: group.effect.or_default(),
            identity,
            join_effect: self.join_effect,
            accept_new_identity: self.accept_new_identity,
        };
        let registered = ledger.register(&registration).await;
        let registered = registered.context("cannot register the group in the ledger")?;
        registered.map_err(|refused| Fault::Setting(refused.into()))
    }
}

impl GroupArgs {
    /// The effect that the group sends under: the one in the flag, else the one that the group was
    /// started with, on any table.
    pub async fn known_effect(&self, ledger: &DynamoDbLedger) -> Result<EffectName, Fault> {
        if let Some(effect) = &self.effect.effect {
            return Ok(effect.clone());
        }
        let tables = ledger.effects_of(&self.group).await?;
        let effects: BTreeSet<_> = tables.values().flat_map(BTreeMap::keys).collect();
        let only = self.only(&effects.into_iter().collect::<Vec<_>>())?;
        Ok(only.cloned().unwrap_or_default())
    }

    /// An effect of the group on this table, given by its ARN or its stream's ARN: the one that --effect
    /// names, else the only one. `None` if no group of this name was ever started there.
    pub async fn known(&self, ledger: &DynamoDbLedger, arn: &str) -> Result<Option<Known>, Fault> {
        self.known_as(ledger, arn, self.effect.effect.as_ref())
            .await
    }

    /// The same, for this effect.
    pub async fn known_as(
        &self,
        ledger: &DynamoDbLedger,
        arn: &str,
        named: Option<&EffectName>,
    ) -> Result<Option<Known>, Fault> {
        let of = GroupTable::new(self.group.clone(), arn);
        let mut tables = ledger.effects_of(&self.group).await?;
        let Some(mut effects) = tables.remove(of.table()) else {
            return Ok(None);
        };
        let effect = match named {
            Some(named) => Some(named),
            None => self.only(&effects.keys().collect::<Vec<_>>())?,
        };
        let Some(effect) = effect.cloned() else {
            return Ok(None);
        };
        let Some(identity) = effects.remove(&effect) else {
            let known: Vec<_> = effects.keys().map(EffectName::as_str).collect();
            return Err(Fault::wrong(format!(
                "the group {} does not perform effect {effect} on this table, but {}: name one of \
                 these with --effect",
                self.group,
                known.join(", ")
            )));
        };
        Ok(Some(Known { identity }))
    }

    /// The only one of the group's effects, if it has any. An error if there are several.
    fn only<'a>(&self, effects: &[&'a EffectName]) -> Result<Option<&'a EffectName>, Fault> {
        if let [_, _, ..] = effects {
            let names: Vec<_> = effects.iter().map(|effect| effect.as_str()).collect();
            return Err(Fault::wrong(format!(
                "the group {} performs several effects ({}): name one with --effect",
                self.group,
                names.join(", ")
            )));
        }
        Ok(effects.first().copied())
    }
}

/// What is known about a group on a table.
#[derive(Debug, Clone)]
pub struct Known {
    identity: Identity,
}

impl Known {
    /// How the group's items become orders. Fails if a flag contradicts the group's settings.
    pub fn mapping(&self, args: &OrderArgs) -> Result<Option<Mapping>, Fault> {
        let Some(id) = self.identity.get(ID) else {
            return Ok(None);
        };
        match args.named()? {
            Some(named) if named.id() != id => Err(Fault::wrong(format!(
                "--id is {:?}, but the group takes the order's id from {id:?}, and another id \
                 would mean another email: remove the setting",
                named.id()
            ))),
            _ => args.with_default_id(id).map(Some),
        }
    }

    /// Refused where a handler takes the place of the confirmation.
    pub fn must_send_mails(&self) -> Result<(), Fault> {
        if self.identity.get(HANDLER).is_none() {
            return Ok(());
        }
        Err(Fault::wrong(
            "the group's records go to a handler, so the group sends no email: name another group with \
             --group, or call the handler yourself",
        ))
    }

    /// Refused where the group's records are handled by other means than these.
    pub fn must_be(&self, means: &Means) -> Result<(), Fault> {
        let (group, here) = (self.identity.get(HANDLER), means.setting());
        if group == here {
            return Ok(());
        }
        Err(Fault::wrong(match group {
            _ if here == Some("own") => {
                "another program handles the group's records: use that program, or name another group"
            }
            Some("own") => "a program of yours handles the group's records: use that program",
            Some(_) => {
                "the group's records go to a handler: name it with --handler or --handler-command"
            }
            None => "the group sends emails: remove --handler and --handler-command",
        }))
    }

    /// Which changes the group handles.
    pub fn filters(&self) -> Result<Filters, Fault> {
        filters_of(&self.identity)
    }

    /// Which items of the table are the group's orders.
    pub fn wanted(&self) -> Result<Wanted, Fault> {
        WantedArgs::of(&self.identity).wanted()
    }
}
