//! What an idle fleet costs.

use std::time::Duration;

use super::calls::Heard;
use super::stage::{Stage, eventually, pass, secs};

const WORKERS: u64 = 4;
const SHARDS: u64 = 100;
/// Over an hour, so that every shard is noted as idle once.
const MINUTES: u64 = 70;

/// With `W` workers, `S` shards, a heartbeat every `h` seconds and a stream that keeps `r` hours:
///
/// - writes a day = `W * 86,400 / h` heartbeats `+ S * 24 * 24 / r` notes that an idle shard is
///   still idle. Here `4 * 43,200 + 100 * 24 = 175,200`.
/// - reads: one Query a look, and `W * 86,400 / l` looks a day with a look every `l` seconds (here
///   1). A look that is due earlier (after a listing, a take) comes in place of the next.
#[tokio::test(start_paused = true)]
async fn a_hundred_idle_shards_on_four_workers_cost_fewer_than_200_000_writes_a_day() {
    let mut stage = Stage::new(SHARDS);
    // How often the stream is read does not concern the lease table.
    stage.settings.timing.idle_max = secs(30);
    let leases = Heard::new(&stage.leases);
    let names = ["a", "b", "c", "d"];
    let _fleet = names.map(|name| stage.worker_on(name, stage.stream.clone(), leases.clone()));
    eventually(secs(60), "the fair share", || {
        names.iter().all(|name| stage.owned_by(name) == 25)
    })
    .await;
    pass(secs(60)).await;
    let (writes, looks) = (leases.writes(), leases.count("look"));
    let notes = leases.count("checkpoint");
    pass(Duration::from_mins(MINUTES)).await;
    let daily = |count: u64| count * 24 * 60 / MINUTES;
    let (writes, looks) = (
        daily(leases.writes() - writes),
        daily(leases.count("look") - looks),
    );
    assert_eq!(leases.count("checkpoint") - notes, SHARDS, "one each");
    assert!(writes < 200_000, "{writes} writes a day");
    let formula = WORKERS * 43_200 + SHARDS * 24;
    assert!(
        writes.abs_diff(formula) * 50 <= formula,
        "{writes} writes, not {formula}"
    );
    assert!(writes > WORKERS * 43_000, "the heartbeats are counted");
    let formula = WORKERS * 86_400;
    assert!(
        looks.abs_diff(formula) * 20 <= formula,
        "{looks} looks, not {formula}"
    );
}
