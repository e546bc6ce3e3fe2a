//! The ECS task of this process, from the task metadata endpoint.
//!
//! Source: [task metadata endpoint, version 4](https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html).

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tracing::warn;
use url::Url;

use crate::cli::host::web;

/// The variable with the endpoint, set in a container of ECS.
const ENDPOINT: &str = "ECS_CONTAINER_METADATA_URI_V4";

/// The endpoint is on the task's own host.
const LIMIT: Duration = Duration::from_secs(2);

/// The task that this process belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcsTask {
    /// Its id, the last part of its ARN.
    pub id: String,
    /// The availability zone that it runs in.
    pub zone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    #[serde(rename = "TaskARN")]
    task_arn: String,
    availability_zone: Option<String>,
}

/// The task, if this process runs in one. Its names are only for people: the worker runs without them.
pub async fn task() -> Option<EcsTask> {
    let endpoint = std::env::var(ENDPOINT).ok()?;
    match ask(&endpoint).await {
        Ok(task) => Some(task),
        Err(error) => {
            warn!(
                error = format!("{error:#}"),
                "cannot read the ECS task's metadata"
            );
            None
        }
    }
}

async fn ask(endpoint: &str) -> anyhow::Result<EcsTask> {
    let url = Url::parse(endpoint).with_context(|| format!("{ENDPOINT} is not a URL"))?;
    let host = url
        .host_str()
        .with_context(|| format!("{ENDPOINT} names no host"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let path = format!("{}/task", url.path().trim_end_matches('/'));
    let (status, body) = web::get(&format!("{host}:{port}"), &path, LIMIT).await?;
    if status != 200 {
        bail!("{endpoint}/task answers {status}");
    }
    read(&body)
}

fn read(body: &str) -> anyhow::Result<EcsTask> {
    let metadata: Metadata = serde_json::from_str(body).context("the task's metadata")?;
    let id = metadata.task_arn.rsplit('/').next().unwrap_or_default();
    Ok(EcsTask {
        id: id.to_owned(),
        zone: metadata.availability_zone,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_task_is_known_by_the_end_of_its_arn() {
        let task = read(
            r#"{"Cluster": "c", "TaskARN": "arn:aws:ecs:eu-central-1:1:task/shop/4f2a", "Revision": "5",
                "AvailabilityZone": "eu-central-1b", "Containers": []}"#,
        );
        let expected = EcsTask {
            id: "4f2a".to_owned(),
            zone: Some("eu-central-1b".to_owned()),
        };
        assert_eq!(task.unwrap(), expected);
        assert!(read("{}").is_err());
    }
}
