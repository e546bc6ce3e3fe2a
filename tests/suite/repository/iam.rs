//! The worker's roles allow exactly the calls that it makes: on each table, queue and secret nothing is
//! missing and nothing is more. Calls are read out of the source, permissions out of the policies in
//! `infra/modules/*/iam.tf`.

mod calls;
mod granted;
mod made;

use std::collections::BTreeSet;
use std::path::Path;

/// An action on what a policy names, such as (`var.orders.arn`, `dynamodb:GetItem`).
type Permissions = BTreeSet<(String, String)>;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// What ECS and Lambda do themselves in the role's name, besides what the worker calls.
fn by_lambda() -> Permissions {
    let stream = [
        "DescribeStream",
        "GetRecords",
        "GetShardIterator",
        "ListStreams",
    ];
    let stream = stream.map(|name| (made::STREAM, format!("dynamodb:{name}")));
    let rest = [
        ("aws_sqs_queue.given_up.arn", "sqs:SendMessage".to_owned()),
        (made::LOGS, "logs:CreateLogStream".to_owned()),
        (made::LOGS, "logs:PutLogEvents".to_owned()),
    ];
    let all = stream.into_iter().chain(rest);
    all.map(|(on, action)| (on.to_owned(), action)).collect()
}

fn assert_same(role: &str, granted: &Permissions, made: &Permissions) {
    let missing: Vec<_> = made.difference(granted).collect();
    let more: Vec<_> = granted.difference(made).collect();
    assert!(
        missing.is_empty() && more.is_empty(),
        "{role}: the policy lacks {missing:#?} and has in vain {more:#?}"
    );
}

#[test]
fn a_worker_on_ecs_may_do_what_it_does_and_nothing_else() {
    let policies = [
        ("infra/modules/confirmation/iam.tf", "this"),
        ("infra/modules/worker-ecs/iam.tf", "worker"),
    ];
    let made = made::by(|source| source.ecs);
    assert_same("ECS", &granted::by(&policies), &made);
}

#[test]
fn the_function_may_do_what_it_and_lambda_do_and_nothing_else() {
    let policies = [
        ("infra/modules/confirmation/iam.tf", "this"),
        ("infra/modules/worker-lambda/iam.tf", "worker"),
    ];
    let mut made = made::by(|source| source.lambda);
    made.append(&mut by_lambda());
    assert_same("Lambda", &granted::by(&policies), &made);
}

#[test]
fn every_call_in_the_source_is_somebodys() {
    let forgotten = made::nobodys();
    assert!(
        forgotten.is_empty(),
        "say in `made.rs` who makes these calls: {forgotten:#?}"
    );
}

/// The token of ECR belongs to no resource
/// ([ECR](https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerregistry.html)).
/// In the policy of a key, `*` is that key.
#[test]
fn nothing_is_allowed_on_everything_where_it_is_known_on_what() {
    let mut wide = Vec::new();
    for module in ["confirmation", "tables", "worker-ecs", "worker-lambda"] {
        let path = format!("infra/modules/{module}/iam.tf");
        for statement in granted::statements(&read(&path)) {
            let everything = statement.resources.iter().any(|on| on == "\"*\"");
            let actions = statement.actions.iter();
            if everything || actions.clone().any(|action| action.ends_with('*')) {
                wide.push(format!("{module}/{}", statement.sid));
            }
        }
    }
    let known = [
        "tables/Account",
        "tables/ThroughDynamoDB",
        "worker-ecs/ImageToken",
    ];
    assert_eq!(wide, known);
}
