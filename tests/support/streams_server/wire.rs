//! The operations of the DynamoDB Streams protocol: JSON in, JSON or a typed error out.
//!
//! Source: [DynamoDB Streams API](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Operations_Amazon_DynamoDB_Streams.html).

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::shards::Shard;
use super::state::Server;
use super::{Children, FILTER_IGNORED, Fault, HIDDEN_CHILD, NO_CHILDREN, Operation};

/// An error as the service spells it: the type's name and a message.
struct Refusal(&'static str, &'static str);

type Answer = Result<Value, Refusal>;

const NOT_FOUND: Refusal = Refusal(
    "ResourceNotFoundException",
    "Requested resource not found: Stream or shard not found",
);
const EXPIRED: Refusal = Refusal("ExpiredIteratorException", "Iterator has expired");
const TRIMMED: Refusal = Refusal(
    "TrimmedDataAccessException",
    "The requested data has been trimmed from the stream",
);
const INVALID: Refusal = Refusal("ValidationException", "The request is not valid");

impl Fault {
    fn refusal(self) -> Refusal {
        match self {
            Self::LimitExceeded => {
                Refusal("LimitExceededException", "Rate exceeded for the stream")
            }
            Self::Throttling => Refusal("ThrottlingException", "Rate exceeded"),
            Self::Internal => Refusal("InternalServerError", "Internal server error"),
        }
    }
}

/// Answers one HTTP request.
pub fn answer(server: &mut Server, headers: &HeaderMap, body: &Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|t| t.to_str().ok());
    let operation = match target.and_then(|t| t.strip_prefix("DynamoDBStreams_20120810.")) {
        Some("ListStreams") => Operation::ListStreams,
        Some("DescribeStream") => Operation::DescribeStream,
        Some("GetShardIterator") => Operation::GetShardIterator,
        Some("GetRecords") => Operation::GetRecords,
        _ => return respond(Err(Refusal("UnknownOperationException", ""))),
    };
    server.calls.push((operation, std::time::Instant::now()));
    let fault = server.faults.entry(operation).or_default().pop_front();
    let answer = match fault {
        Some(fault) => Err(fault.refusal()),
        None => carry_out(server, operation, body),
    };
    if let Err(Refusal(kind, _)) = &answer {
        server.met(kind);
    }
    respond(answer)
}

fn carry_out(server: &mut Server, operation: Operation, body: &Bytes) -> Answer {
    server.pull();
    let not_json = |_| Refusal("SerializationException", "not JSON");
    let request = serde_json::from_slice(body).map_err(not_json)?;
    match operation {
        Operation::ListStreams => Ok(list_streams(server, &request)),
        Operation::DescribeStream => describe_stream(server, &request),
        Operation::GetShardIterator => get_shard_iterator(server, &request),
        Operation::GetRecords => get_records(server, &request),
    }
}

fn respond(answer: Answer) -> Response {
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(Refusal(kind, message)) => {
            let status = match kind {
                "InternalServerError" => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            };
            let kind = format!("com.amazonaws.dynamodb.v20120810#{kind}");
            (status, json!({ "__type": kind, "message": message }))
        }
    };
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "00000000-0000-0000-0000-000000000000")
        .body(Body::from(body.to_string()))
        .expect("a response")
}

fn list_streams(server: &Server, request: &Value) -> Value {
    let own = server.streams.iter().map(|stream| &stream.arn);
    let all = own.chain(&server.strangers);
    let mut arns: Vec<_> = all.filter(|arn| !server.unlisted.contains(*arn)).collect();
    arns.sort();
    let after = request["ExclusiveStartStreamArn"].as_str().unwrap_or("");
    arns.retain(|arn| arn.as_str() > after);
    let page = &arns[..server.streams_per_page.min(arns.len())];
    let summary = |arn: &&String| {
        json!({
            "StreamArn": arn,
            "StreamLabel": arn.rsplit('/').next(),
            "TableName": arn.split('/').nth(1),
        })
    };
    let mut answer = json!({ "Streams": page.iter().map(summary).collect::<Vec<_>>() });
    if page.len() < arns.len() {
        answer["LastEvaluatedStreamArn"] = json!(page.last());
    }
    answer
}

fn describe_stream(server: &mut Server, request: &Value) -> Answer {
    let at = server.place_of(&request["StreamArn"]).ok_or(NOT_FOUND)?;
    let parent = match &request["ShardFilter"] {
        Value::Null => None,
        filter if filter["Type"] == "CHILD_SHARDS" => Some(filter["ShardId"].as_str()),
        _ => return Err(INVALID),
    };
    if let (Some(parent), Children::Filtered) = (parent, server.children) {
        // The service refuses to look for the children of a shard that it does not list.
        let listed = parent.and_then(|id| server.streams[at].shards.all.get(id));
        if listed.is_none_or(|shard| shard.hidden) {
            return Err(NOT_FOUND);
        }
    }
    let empty = parent.is_some() && server.empty_children > 0;
    if empty {
        server.empty_children -= 1;
        server.met(NO_CHILDREN);
    }
    let hidden = |shard: &Shard| shard.hidden && shard.parent.as_deref() == parent.flatten();
    let mut all = server.streams[at].shards.all.values();
    if parent.is_some() && all.any(hidden) {
        server.met(HIDDEN_CHILD);
    }
    if parent.is_some() && server.children == Children::FilterIgnored {
        server.met(FILTER_IGNORED);
    }
    let wanted = |shard: &Shard| match (parent, server.children) {
        (None, _) | (Some(_), Children::FilterIgnored) => true,
        (Some(parent), Children::Filtered) => shard.parent.as_deref() == parent,
    };
    let after = request["ExclusiveStartShardId"].as_str().unwrap_or("");
    let limit = request["Limit"].as_u64().unwrap_or(100);
    let limit = server
        .page_size
        .min(usize::try_from(limit).expect("a limit"));
    let stream = &server.streams[at];
    let listed = stream
        .shards
        .all
        .iter()
        .filter(|(id, shard)| !empty && !shard.hidden && id.as_str() > after && wanted(shard));
    let listed: Vec<_> = listed.collect();
    let page = &listed[..limit.min(listed.len())];
    let last = (page.len() < listed.len()).then(|| page[page.len() - 1].0);
    let shards: Vec<_> = page
        .iter()
        .map(|(id, shard)| shard_json(id, shard))
        .collect();
    let mut description = json!({
        "StreamArn": stream.arn,
        "StreamLabel": stream.arn.rsplit('/').next(),
        "StreamStatus": if stream.is_on() { "ENABLED" } else { "DISABLED" },
        "StreamViewType": stream.view,
        "TableName": stream.arn.split('/').nth(1),
        "CreationRequestDateTime": 1_795_000_000.0,
        "Shards": shards,
    });
    if let Some(last) = last {
        description["LastEvaluatedShardId"] = json!(last);
    }
    Ok(json!({ "StreamDescription": description }))
}

fn shard_json(id: &str, shard: &Shard) -> Value {
    let mut range = json!({});
    if let Some((first, last)) = shard.range() {
        range["StartingSequenceNumber"] = json!(first);
        if shard.closed {
            range["EndingSequenceNumber"] = json!(last);
        }
    }
    let mut described = json!({ "ShardId": id, "SequenceNumberRange": range });
    if let Some(parent) = &shard.parent {
        described["ParentShardId"] = json!(parent);
    }
    described
}

fn get_shard_iterator(server: &mut Server, request: &Value) -> Answer {
    let at = server.place_of(&request["StreamArn"]).ok_or(NOT_FOUND)?;
    let stream = &server.streams[at];
    let id = request["ShardId"].as_str().ok_or(INVALID)?;
    let shard = stream.shards.all.get(id).ok_or(NOT_FOUND)?;
    let named = || {
        let digits = request["SequenceNumber"].as_str().ok_or(INVALID)?;
        let named: u128 = digits.parse().map_err(|_| INVALID)?;
        if shard.is_trimmed_at(named) {
            return Err(TRIMMED);
        }
        Ok(named)
    };
    let place = match request["ShardIteratorType"].as_str() {
        Some("TRIM_HORIZON") => shard.trimmed,
        Some("LATEST") => shard.records.len(),
        Some("AT_SEQUENCE_NUMBER") => shard.place_after(named()?.saturating_sub(1)),
        Some("AFTER_SEQUENCE_NUMBER") => shard.place_after(named()?),
        _ => return Err(INVALID),
    };
    Ok(json!({ "ShardIterator": iterator(server.iterators_of, (&stream.arn, id), place) }))
}

/// Opaque to clients: the generation that it expires with, the place, the stream and the shard.
fn iterator(generation: u32, (arn, shard): (&str, &str), place: usize) -> String {
    format!("{generation}|{place}|{arn}|{shard}")
}

fn get_records(server: &mut Server, request: &Value) -> Answer {
    let token = request["ShardIterator"].as_str().unwrap_or_default();
    let mut parts = token.splitn(4, '|');
    let mut next = || parts.next().ok_or(INVALID);
    let generation: u32 = next()?.parse().map_err(|_| INVALID)?;
    let place: usize = next()?.parse().map_err(|_| INVALID)?;
    let (arn, id) = (next()?, next()?);
    let limit = request["Limit"].as_u64().unwrap_or(1000);
    if !(1..=1000).contains(&limit) {
        return Err(INVALID);
    }
    if generation != server.iterators_of {
        return Err(EXPIRED);
    }
    let stream = server.stream(arn).ok_or(NOT_FOUND)?;
    let shard = stream.shards.all.get(id).ok_or(NOT_FOUND)?;
    if place < shard.trimmed {
        return Err(TRIMMED);
    }
    let limit = server
        .batch_size
        .min(usize::try_from(limit).expect("a limit"));
    let end = shard.records.len().min(place + limit);
    let mut answer = json!({ "Records": shard.records[place..end] });
    if !(shard.closed && end == shard.records.len()) {
        answer["NextShardIterator"] = json!(iterator(generation, (arn, id), end));
    }
    server
        .read
        .send_if_modified(|read| read.insert(id.to_owned()));
    Ok(answer)
}
