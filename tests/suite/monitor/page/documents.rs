//! Documents as a worker serves them.

use serde_json::{Value, json};

/// The name of shard `n`.
pub fn id(n: u32) -> String {
    format!(
        "shardId-{:020}-{n:08x}",
        1_571_234_567_000_u64 + u64::from(n)
    )
}

/// A shard with a reader.
pub fn shard(n: u32, parent: Option<u32>) -> Value {
    json!({
        "shard": id(n), "parent": parent.map(id), "children": [], "state": "reading",
        "owner": "worker-1/a1b2", "epoch": 3, "checkpoint": "100000000000000000001",
        "lag_seconds": 0.4, "until_trim_seconds": 86_400.0, "per_minute": 1840.2, "last_error": null,
    })
}

/// The same, read to its end.
pub fn ended(n: u32, parent: Option<u32>) -> Value {
    let mut shard = shard(n, parent);
    shard["state"] = json!("ended");
    shard["owner"] = Value::Null;
    shard["checkpoint"] = json!("SHARD_END");
    shard["lag_seconds"] = Value::Null;
    shard["until_trim_seconds"] = Value::Null;
    shard["per_minute"] = json!(0.0);
    shard
}

fn worker(name: &str, alive: bool) -> Value {
    json!({
        "worker": name, "alive": alive, "heartbeat_age_seconds": if alive { 1.2 } else { 4830.0 },
        "draining": false, "version": "0.1.0", "zone": "eu-central-1a", "status_address": null,
        "shards": 2,
    })
}

fn at(second: u32) -> String {
    let (minute, second) = (second / 60, second % 60);
    format!("2026-11-25T07:{minute:02}:{second:02}.000Z")
}

/// Half an hour to 07:59:55; its lag rises to 9 s at 07:45:00 and falls again.
fn history() -> Value {
    let points = (360..720).map(|n: u32| {
        let lag = 9.0 - f64::from(n.abs_diff(540)) / 20.0;
        json!({
            "at": at(n * 5), "lag_seconds": lag, "until_trim_seconds": 86_400.0 - lag,
            "finished_total": n * 50, "accepted_total": n * 10,
        })
    });
    points.collect()
}

/// A fleet of two that is well: one shard was split into two.
pub fn well() -> Value {
    json!({
        "format": 1, "at": at(3599), "verdict": "well", "advice": [], "findings": [],
        "streams": [{
            "group_table": "confirmation#arn:aws:dynamodb:eu-central-1:123456789012:table/orders",
            "group": "confirmation", "effects": [{"name": "order-mail", "workers": 2}],
            "table": "orders", "verdict": "well",
            "workers": [worker("worker-1/a1b2", true), worker("worker-2/c3d4", true)],
            "shards": [ended(1, None), shard(2, Some(1)), shard(3, Some(1))],
            "gaps": [], "unreadable": [], "parked_keys": 0, "dead_letters": {},
        }],
        "ambiguous": 0,
        "process": {
            "version": "0.1.0", "worker": "worker-1", "since": "2026-11-25T06:00:00.000Z",
            "ready": true, "not_ready_because": null,
            "buffered_bytes": 123_456, "buffer_limit_bytes": 67_108_864,
            "mails": {"accepted": 12_345, "failed": 0, "ambiguous": 0, "parked": 0, "suppressed": 4,
                "deferred": 3},
            "dependency_down_seconds": 0.0, "history": history(),
        },
    })
}

/// The same fleet, with all that can be wrong. Every text of it holds `text`.
pub fn troubled(text: &str) -> Value {
    let mut document = well();
    document["verdict"] = json!("attention");
    document["advice"] = json!([
        format!("Start a worker. {text}"),
        format!("Resolve it. {text}")
    ]);
    document["ambiguous"] = json!(2);
    let process = &mut document["process"];
    process["ready"] = json!(false);
    process["not_ready_because"] = json!(format!("no heartbeat {text}"));
    process["dependency_down_seconds"] = json!(75.0);
    process["mails"]["failed"] = json!(1);
    let stream = &mut document["streams"][0];
    stream["table"] = json!(format!("orders {text}"));
    stream["verdict"] = json!("attention");
    let mut second = worker("worker-2/c3d4", false);
    second["zone"] = json!(text);
    second["version"] = json!(text);
    stream["workers"][1] = second;
    let shard = &mut stream["shards"][2];
    shard["state"] = json!("orphaned");
    shard["owner"] = json!(format!("worker-2/c3d4 {text}"));
    shard["lag_seconds"] = json!(4830.0);
    shard["until_trim_seconds"] = json!(9000.0);
    shard["per_minute"] = json!(0.0);
    shard["last_error"] = json!(format!("smtp: connection refused {text}"));
    stream["gaps"] = json!([{
        "shard": id(1), "last_handled": format!("100000000000000000007 {text}"),
        "last_handled_time": "2026-11-24T07:00:00.000Z", "first_after": null,
        "detected": "2026-11-25T07:30:00.000Z", "resolved": null,
    }, {
        "shard": id(2), "last_handled": null, "last_handled_time": null, "first_after": "100",
        "detected": "2026-11-20T07:30:00.000Z",
        "resolved": {"by": "ada", "at": "2026-11-20T09:00:00.000Z", "note": format!("mailed {text}")},
    }]);
    stream["unreadable"] =
        json!([{"row": format!("shard#9 {text}"), "why": format!("no epoch {text}")}]);
    stream["parked_keys"] = json!(2);
    stream["dead_letters"] = json!({"rejected": 1, "exhausted": 1200, "rescued": 0});
    document
}

/// A worker that has found nothing yet.
pub fn empty() -> Value {
    let mut document = well();
    document["verdict"] = json!("unknown");
    document["streams"][0]["workers"] = json!([]);
    document["streams"][0]["shards"] = json!([]);
    document["streams"][0]["parked_keys"] = Value::Null;
    document["streams"][0]["dead_letters"] = Value::Null;
    document["ambiguous"] = Value::Null;
    document["process"]["history"] = json!([]);
    document
}

/// Many shards: this many have ended, each with one child.
pub fn many(ended_ones: u32, living: u32) -> Value {
    let mut document = well();
    let parent = |n| (n > living).then(|| n - living);
    let all = (1..=ended_ones + living).map(|n| {
        if n <= ended_ones {
            ended(n, parent(n))
        } else {
            shard(n, parent(n))
        }
    });
    document["streams"][0]["shards"] = all.collect();
    document
}
