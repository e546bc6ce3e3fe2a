//! Who makes which calls, and on what.

use super::Permissions;
use super::calls::{self, ROWS};

pub const STREAM: &str = "\"${var.orders.arn}/stream/*\"";
pub const LOGS: &str = "\"${aws_cloudwatch_log_group.worker.arn}:*\"";
const ORDERS: &str = "var.orders.arn";
const LEASES: &str = "var.tables.leases.arn";
const LEDGER: &str = "var.tables.ledger.arn";
const ATTENTION: &str = "\"${var.tables.ledger.arn}/index/attention\"";
const LETTERS: &str = "var.tables.dead_letters.arn";
const SUPPRESSION: &str = "var.tables.suppression.arn";
const REFETCHED: &str = "var.refetch ? [var.orders.arn] : []";
const PASSWORD: &str = "var.smtp_password_secret_arn[*]";
const SES: &str = "var.ses_arns == null ? [] : [var.ses_arns]";
const QUEUE: &str = "local.queue[*]";
const TOPIC: &str = "local.topic[*]";

/// A file that makes calls, and its functions that others call. What those call in the same file is
/// theirs, too.
pub struct Source {
    file: &'static str,
    /// By what it reaches a table of rows.
    table: Option<&'static str>,
    /// On what its calls are, by the service.
    on: &'static [(&'static str, &'static str)],
    /// What `aftercommit run` calls on ECS.
    pub ecs: &'static [&'static str],
    /// What it calls as a function: without leases, and Lambda reads the stream.
    pub lambda: &'static [&'static str],
    /// What only other commands call, with the rights of who gives them.
    operators: &'static [&'static str],
}

const SOURCES: &[Source] = &[
    Source {
        file: "src/stores/source/dynamodb.rs",
        table: None,
        on: &[("dynamodb:", STREAM)],
        ecs: &["describe", "children", "iterator", "read"],
        lambda: &[],
        operators: &[],
    },
    Source {
        file: "src/stores/source/dynamodb/streams.rs",
        table: None,
        on: &[("dynamodb:", STREAM)],
        ecs: &["listed"],
        lambda: &[],
        operators: &[],
    },
    Source {
        file: "src/stores/source/dynamodb/streams.rs",
        table: None,
        on: &[("dynamodb:", ORDERS)],
        ecs: &["table"],
        lambda: &[],
        operators: &[],
    },
    Source {
        file: "src/stores/leases/dynamodb.rs",
        table: Some(".table."),
        on: &[("dynamodb:", LEASES)],
        ecs: &[
            "archive",
            "look_at",
            "create",
            "heal",
            "take",
            "hand_over",
            "checkpoint",
            "finish",
            "remove_ended",
        ],
        lambda: &[],
        operators: &[],
    },
    Source {
        file: "src/stores/leases/dynamodb/workers.rs",
        table: Some(".table."),
        on: &[("dynamodb:", LEASES)],
        ecs: &["registered", "raised", "removed"],
        lambda: &[],
        operators: &[],
    },
    Source {
        file: "src/stores/leases/dynamodb/bootstrap.rs",
        table: Some(".table."),
        on: &[("dynamodb:", LEASES)],
        ecs: &["bootstrapped", "effects_changed", "stream_noted"],
        lambda: &[],
        operators: &[],
    },
    Source {
        file: "src/stores/leases/dynamodb/gaps.rs",
        table: Some(".table."),
        on: &[("dynamodb:", LEASES)],
        ecs: &["write_gap"],
        // Where the event source fell behind.
        lambda: &["write_gap"],
        operators: &["resolve_gap"],
    },
    Source {
        file: "src/stores/ledger/dynamodb.rs",
        table: Some(".table."),
        on: &[("dynamodb:", LEDGER)],
        ecs: &["read", "swap", "row", "replace"],
        lambda: &["read", "swap", "row", "replace"],
        operators: &["list"],
    },
    Source {
        file: "src/stores/ledger/dynamodb.rs",
        table: Some(".reads."),
        on: &[("dynamodb:", LEDGER)],
        ecs: &["read"],
        lambda: &["read"],
        operators: &[],
    },
    Source {
        file: "src/stores/ledger/dynamodb.rs",
        table: Some(".table."),
        on: &[("dynamodb:", ATTENTION)],
        ecs: &["needing"],
        lambda: &["needing"],
        operators: &["list_needing"],
    },
    Source {
        file: "src/stores/dead_letter/dynamodb.rs",
        table: Some(".table."),
        on: &[("dynamodb:", LETTERS)],
        // It redrives what it rescued from an outage.
        ecs: &[
            "parked_page",
            "is_parked",
            "next_of",
            "close",
            "note",
            "claim",
            "release",
            "unpark_if_empty",
        ],
        lambda: &["parked_page", "is_parked"],
        operators: &["read", "of_key", "list"],
    },
    Source {
        file: "src/stores/dead_letter/dynamodb/write.rs",
        table: Some(".table."),
        on: &[("dynamodb:", LETTERS)],
        ecs: &["write_letter"],
        lambda: &["write_letter"],
        operators: &[],
    },
    Source {
        file: "src/stores/dead_letter/dynamodb/parts.rs",
        table: Some(".table."),
        on: &[("dynamodb:", LETTERS)],
        ecs: &["letter", "expire_parts"],
        lambda: &[],
        operators: &[],
    },
    Source {
        file: "src/confirmation/dynamodb.rs",
        table: Some(".table."),
        on: &[("dynamodb:", SUPPRESSION)],
        ecs: &["is_suppressed", "find"],
        lambda: &["is_suppressed", "find"],
        operators: &["add", "remove", "page"],
    },
    Source {
        file: "src/confirmation/dynamodb.rs",
        table: Some("orders."),
        on: &[("dynamodb:", REFETCHED)],
        ecs: &["order"],
        lambda: &["order"],
        operators: &[],
    },
    Source {
        file: "src/confirmation/ses.rs",
        table: None,
        on: &[("ses:", SES)],
        ecs: &["call"],
        lambda: &["call"],
        operators: &[],
    },
    Source {
        file: "src/stores/dead_letter/sqs.rs",
        table: None,
        on: &[("sqs:", QUEUE), ("sns:", TOPIC)],
        ecs: &["open", "send"],
        lambda: &["open", "send"],
        operators: &[],
    },
    Source {
        file: "src/stores/tables/dynamodb.rs",
        table: None,
        on: &[],
        ecs: &[],
        lambda: &[],
        operators: &[
            "create_lease_table",
            "create_ledger_table",
            "create_dead_letter_table",
            "create_suppression_table",
            "create_orders_table",
        ],
    },
    Source {
        file: "src/stores/tables/found/dynamodb.rs",
        table: None,
        on: &[("dynamodb:", ORDERS)],
        ecs: &["describe"],
        lambda: &["describe"],
        operators: &["table_arn", "table_key", "sample"],
    },
    Source {
        file: "src/cli/host/aws.rs",
        table: None,
        on: &[("dynamodb:", LEASES)],
        ecs: &["must_exist"],
        lambda: &[],
        operators: &[],
    },
    Source {
        file: "src/cli/host/aws.rs",
        table: None,
        on: &[
            ("dynamodb:", LEDGER),
            ("dynamodb:", LETTERS),
            ("dynamodb:", SUPPRESSION),
        ],
        ecs: &["must_exist"],
        lambda: &["must_exist"],
        operators: &[],
    },
    Source {
        file: "src/cli/host/aws.rs",
        table: None,
        on: &[("secretsmanager:", PASSWORD)],
        ecs: &["secret"],
        lambda: &["secret"],
        operators: &[],
    },
    Source {
        file: "src/stores/tables/index/dynamodb.rs",
        table: None,
        on: &[],
        ecs: &[],
        lambda: &[],
        operators: &["add_to"],
    },
];

/// Everything that one role calls.
pub fn by(role: impl Fn(&Source) -> &'static [&'static str]) -> Permissions {
    SOURCES
        .iter()
        .flat_map(|source| source.permissions(role(source)))
        .collect()
}

/// Functions that make calls and are in no list, or files with calls that are in no list.
pub fn nobodys() -> Vec<String> {
    let mut forgotten = Vec::new();
    for file in calls::sources() {
        if ROWS.contains(&&*file) {
            continue;
        }
        let of_file = SOURCES.iter().filter(|source| source.file == file);
        let of_file: Vec<_> = of_file.collect();
        for (name, body) in calls::functions(&file) {
            let mut of_tables = of_file.iter().filter_map(|source| source.table);
            let calls = !calls::operations(&body).is_empty()
                || of_tables.any(|table| !calls::rows(&body, table).is_empty());
            let known = of_file.iter().any(|source| source.is_used(&name));
            if calls && !known {
                forgotten.push(format!("{file}: {name}"));
            }
        }
    }
    forgotten
}

impl Source {
    fn permissions(&self, entries: &[&str]) -> Permissions {
        let functions = calls::functions(self.file);
        let mut all = Permissions::new();
        for name in calls::reached(&functions, entries) {
            let body = &functions[&name];
            let mut actions = calls::operations(body);
            if let Some(table) = self.table {
                actions.extend(calls::rows(body, table));
            }
            for action in actions {
                let on = self
                    .on
                    .iter()
                    .filter(|(service, _)| action.starts_with(service));
                all.extend(on.map(|(_, on)| ((*on).to_owned(), action.clone())));
            }
        }
        all
    }

    fn is_used(&self, name: &str) -> bool {
        let lists = [self.ecs, self.lambda, self.operators];
        let functions = calls::functions(self.file);
        lists
            .iter()
            .any(|entries| calls::reached(&functions, entries).contains(name))
    }
}
