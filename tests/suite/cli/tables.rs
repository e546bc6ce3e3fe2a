//! The command and its tables, on the embedded DynamoDB.

use std::process::Stdio;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    StreamSpecification, StreamViewType,
};
use tokio::process::Command;

use crate::cli::start::{complaint, on_aws, text};
use crate::support::clients;
use crate::support::embedded::Embedded;

/// The command, pointed at the embedded server.
pub fn against(server: &Embedded) -> Command {
    on_aws(server.url())
}

pub async fn create(server: &Embedded) -> String {
    let mut command = against(server);
    let output = command.args(["tables", "create", "--with-orders"]).output();
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

async fn run(server: &Embedded, arguments: &[&str]) -> String {
    let mut command = against(server);
    command
        .args(["run", "--mail-from", "shop@example.com"])
        .args(["--smtp-url", "smtp://localhost:1025"])
        .args(arguments);
    complaint(&command.output().await.unwrap())
}

/// A table of orders with the given stream.
async fn table(server: &Embedded, name: &str, view: Option<StreamViewType>) -> Option<String> {
    let stream = view.map(|view| {
        let stream = StreamSpecification::builder().stream_enabled(true);
        stream.stream_view_type(view).build().unwrap()
    });
    let key = KeySchemaElement::builder().attribute_name("id");
    let attribute = AttributeDefinition::builder().attribute_name("id");
    let client = clients::dynamodb(server.url());
    let answer = client
        .create_table()
        .table_name(name)
        .key_schema(key.key_type(KeyType::Hash).build().unwrap())
        .attribute_definitions(
            attribute
                .attribute_type(ScalarAttributeType::S)
                .build()
                .unwrap(),
        )
        .billing_mode(BillingMode::PayPerRequest)
        .set_stream_specification(stream)
        .send()
        .await
        .unwrap();
    answer.table_description.unwrap().latest_stream_arn
}

#[tokio::test]
async fn the_tables_are_made_once_and_then_left_alone() {
    let server = Embedded::start();
    assert_eq!(
        create(&server).await,
        "aftercommit-leases: created\naftercommit-ledger: created\n\
         aftercommit-dead-letters: created\norders: created\n"
    );
    assert_eq!(
        create(&server).await,
        "aftercommit-leases: exists\naftercommit-ledger: exists\n\
         aftercommit-dead-letters: exists\norders: exists\n"
    );
}

#[tokio::test]
async fn a_reader_that_closes_the_pipe_does_not_break_the_work() {
    let server = Embedded::start();
    let mut command = against(&server);
    command.args(["tables", "create"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    let names = clients::dynamodb(server.url()).list_tables().send().await;
    assert_eq!(names.unwrap().table_names().len(), 3);
}

#[tokio::test]
async fn a_table_that_cannot_be_followed_is_reported_before_anything_is_read() {
    let server = Embedded::start();
    table(&server, "still", None).await;
    let keys = table(&server, "keys", Some(StreamViewType::KeysOnly))
        .await
        .unwrap();
    for (arguments, expected) in [
        (
            ["--table", "orders"],
            "table orders does not exist in this account and Region",
        ),
        (
            ["--table", "still"],
            "table still has no stream: enable one",
        ),
        (["--table", "keys"], "carries KEYS_ONLY, not the new image"),
        (
            ["--stream-arn", "orders"],
            "--stream-arn orders is not the ARN of a stream",
        ),
        (
            ["--stream-arn", &keys],
            "carries KEYS_ONLY, not the new image",
        ),
    ] {
        let reported = run(&server, &arguments).await;
        assert!(reported.contains(expected), "{arguments:?}: {reported}");
    }
}

#[tokio::test]
async fn tables_that_were_not_made_are_reported_with_the_command_that_makes_them() {
    let server = Embedded::start();
    let arn = table(&server, "orders", Some(StreamViewType::NewImage))
        .await
        .unwrap();
    for which in [["--table", "orders"], ["--stream-arn", &arn]] {
        let reported = run(&server, &which).await;
        assert!(
            reported.contains(
                "table aftercommit-leases does not exist: create it with `aftercommit tables create`"
            ),
            "{reported}"
        );
    }
}

#[tokio::test]
async fn a_ledger_of_an_earlier_build_is_given_its_index() {
    let server = Embedded::start();
    let client = clients::dynamodb(server.url());
    let key = KeySchemaElement::builder().attribute_name("effect");
    let attribute = AttributeDefinition::builder().attribute_name("effect");
    let attribute = attribute.attribute_type(ScalarAttributeType::S);
    let made = client
        .create_table()
        .table_name("aftercommit-ledger")
        .key_schema(key.key_type(KeyType::Hash).build().unwrap())
        .attribute_definitions(attribute.build().unwrap())
        .billing_mode(BillingMode::PayPerRequest);
    made.send().await.unwrap();
    create(&server).await;
    let table = client.describe_table().table_name("aftercommit-ledger");
    let table = table.send().await.unwrap().table.unwrap();
    let index = &table.global_secondary_indexes()[0];
    assert_eq!(index.index_name(), Some("attention"));
    create(&server).await;
}
