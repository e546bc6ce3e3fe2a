//! The dead-letter table, and the queue or topic that gets copies of dead letters.

#[cfg(feature = "lambda")]
use std::sync::Arc;

use crate::Consumer;
#[cfg(feature = "lambda")]
use crate::stores::dead_letter::DeadLetters;
use crate::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
#[cfg(feature = "sqs")]
use crate::stores::dead_letter::sqs::{Copied, Destination};
use crate::stores::leases::LeaseStore;
use crate::stores::source::StreamSource;
use clap::Args;

use crate::cli::fault::Fault;
use crate::cli::host::aws::Clients;

/// Where copies of dead letters are sent.
#[derive(Debug, Args)]
#[command(next_help_heading = "Records")]
pub struct CopyArgs {
    /// SQS queue or SNS topic that gets a copy of every dead letter, in the format of Lambda's on-failure
    /// destinations
    #[cfg(feature = "sqs")]
    #[arg(long, value_name = "ARN", env = "AFTERCOMMIT_DEAD_LETTER_COPY")]
    dead_letter_copy: Option<String>,
}

/// The dead letters that a worker writes.
pub struct Letters {
    table: DynamoDbDeadLetters,
    #[cfg(feature = "sqs")]
    copy: Option<Destination>,
}

impl CopyArgs {
    /// Opens the table, and the queue or topic. An error if one of them does not exist.
    #[cfg_attr(not(feature = "sqs"), expect(clippy::unused_async))]
    pub async fn letters(&self, clients: &Clients, table: &str) -> Result<Letters, Fault> {
        #[cfg(feature = "sqs")]
        let copy = match &self.dead_letter_copy {
            Some(arn) => {
                let to = Destination::open(&clients.config, arn).await;
                let to = to.map_err(|error| error.context("--dead-letter-copy"));
                Some(to.map_err(Fault::Setting)?)
            }
            None => None,
        };
        Ok(Letters {
            table: DynamoDbDeadLetters::new(clients.dynamodb.clone(), table),
            #[cfg(feature = "sqs")]
            copy,
        })
    }
}

impl Letters {
    /// The consumer, with this table and this queue or topic.
    pub fn given_to<S: StreamSource, L: LeaseStore>(
        &self,
        consumer: Consumer<S, L>,
    ) -> Consumer<S, L> {
        let table = self.table.clone();
        #[cfg(feature = "sqs")]
        if let Some(to) = &self.copy {
            return consumer.dead_letters(Copied::new(table, to.clone()));
        }
        consumer.dead_letters(table)
    }

    /// The dead-letter store for a function of AWS Lambda.
    #[cfg(feature = "lambda")]
    pub fn open(&self) -> Arc<dyn DeadLetters> {
        let table = self.table.clone();
        #[cfg(feature = "sqs")]
        if let Some(to) = &self.copy {
            return Arc::new(Copied::new(table, to.clone()));
        }
        Arc::new(table)
    }
}
