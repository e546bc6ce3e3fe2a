//! An effect that is no mail, by the public interface of `once`, in a whole simulated fleet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aftercommit::once::{EffectAttempt, OnAmbiguous, Once, OnceSettings, Outcome as Effect};
use aftercommit::simulation::{Scenario, SimulationOutcome, simulate_handler};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::stores::ledger::{EffectKey, Entry, EntryPage, Ledger, State, Swap, item_ref};
use aftercommit::{Context, EffectName, Failure, Record, RecordHandler};
use anyhow::bail;
use tokio::time::{Instant, sleep};

use crate::handler::numbered;

const SEEDS: u64 = 20;

/// For how long things go wrong.
const WEATHER: Duration = Duration::from_mins(1);

/// What outlives the workers: a provider that charges, a ledger, and chance.
struct World {
    /// Whether a second charge under a key is the first one again.
    recognises: bool,
    charges: BTreeMap<String, u32>,
    rng: fastrand::Rng,
    began: Option<Instant>,
}

type Shared = Arc<Mutex<World>>;

fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Whether something happens that happens once in so many times while the weather is bad.
    fn strikes(&mut self, of: u32) -> bool {
        let began = *self.began.get_or_insert_with(Instant::now);
        began.elapsed() < WEATHER && self.rng.u32(..of) == 0
    }

    fn charge(&mut self, key: &str) {
        let times = self.charges.entry(key.to_owned()).or_default();
        if !self.recognises || *times == 0 {
            *times += 1;
        }
    }
}

/// A ledger whose requests and answers get lost.
#[derive(Clone)]
struct Lossy(MemoryLedger, Shared);

impl Lossy {
    async fn passes(&self) -> anyhow::Result<()> {
        sleep(Duration::from_millis(3)).await;
        if lock(&self.1).strikes(20) {
            bail!("lost");
        }
        Ok(())
    }
}

impl Ledger for Lossy {
    async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
        self.passes().await?;
        self.0.read(key).await
    }

    async fn swap(
        &self,
        key: &EffectKey,
        expected: Option<u64>,
        entry: &Entry,
    ) -> anyhow::Result<Swap> {
        self.passes().await?;
        let swap = self.0.swap(key, expected, entry).await;
        self.passes().await?;
        swap
    }

    async fn list(&self, state: Option<State>, from: Option<&str>) -> anyhow::Result<EntryPage> {
        self.0.list(state, from).await
    }
}

struct Cashier {
    once: Once<Lossy>,
    effect: EffectName,
    world: Shared,
}

impl RecordHandler for Cashier {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let key = EffectKey::new(&self.effect, record.key().as_str());
        let item = item_ref(context.stream(), &record.keys, None);
        let charge = |attempt: EffectAttempt| {
            let (world, key) = (self.world.clone(), key.clone());
            async move {
                sleep(Duration::from_millis(20)).await;
                attempt
                    .keeping(b"19.99".to_vec())
                    .point_of_no_return()
                    .await?;
                sleep(Duration::from_millis(50)).await;
                let world = &mut *lock(&world);
                if world.strikes(12) {
                    return Ok(Effect::Unknown("lost before".to_owned()));
                }
                world.charge(key.as_str());
                if world.strikes(12) {
                    return Ok(Effect::Unknown("lost after".to_owned()));
                }
                Ok(Effect::Done("charged".to_owned()))
            }
        };
        self.once.perform(&key, &item, context, charge).await
    }
}

/// How the charges of a seed went.
struct Run {
    outcome: SimulationOutcome,
    charges: BTreeMap<String, u32>,
    rows: BTreeMap<String, Entry>,
}

fn run(seed: u64, policy: OnAmbiguous, recognises: bool) -> Run {
    let world = Arc::new(Mutex::new(World {
        recognises,
        charges: BTreeMap::new(),
        rng: fastrand::Rng::with_seed(seed),
        began: None,
    }));
    let (ledger, shared) = (MemoryLedger::new(), world.clone());
    let rows = ledger.clone();
    let handler = move || {
        let mut settings = OnceSettings::default();
        settings.on_ambiguous = policy;
        settings.longest_effect = Duration::from_secs(10);
        settings.provider_remembers = recognises.then_some(Duration::from_hours(24));
        let rng = fastrand::Rng::with_seed(lock(&shared).rng.u64(..));
        Cashier {
            once: Once::new(Lossy(ledger.clone(), shared.clone()), settings, rng),
            effect: EffectName::new("charge").unwrap(),
            world: shared.clone(),
        }
    };
    let scenario = Scenario {
        weather: WEATHER,
        ..Scenario::seeded(seed)
    };
    let order = |rng: &mut fastrand::Rng, created| numbered(rng.u32(..30), created);
    let outcome = simulate_handler(&scenario, handler, order);
    let listed = futures_util::FutureExt::now_or_never(rows.list(None, None));
    let page = listed.unwrap().unwrap();
    assert_eq!(page.next, None);
    let rows = page.entries.into_iter();
    Run {
        outcome,
        charges: std::mem::take(&mut lock(&world).charges),
        rows: rows
            .map(|(key, row)| (key.as_str().to_owned(), row))
            .collect(),
    }
}

#[test]
fn a_charge_takes_place_once_unless_the_ledger_says_that_it_is_in_doubt() {
    for policy in [OnAmbiguous::Resend, OnAmbiguous::Park] {
        let (mut doubts, mut twice) = (0, 0);
        for seed in 0..SEEDS {
            let run = run(seed, policy, false);
            assert_eq!(run.outcome.violation, None, "seed {seed}");
            for (key, row) in &run.rows {
                let times = run.charges.get(key).copied().unwrap_or_default();
                let doubted = if policy == OnAmbiguous::Park {
                    0
                } else {
                    row.ambiguities
                };
                assert!(
                    times <= (1 + doubted).min(2),
                    "seed {seed}, {key}: {times}, {row:?}"
                );
                let of = || format!("seed {seed}, {key}: {times} charges, {row:?}");
                match row.state {
                    State::Sent => assert!(times > 0, "{}", of()),
                    State::Ambiguous => doubts += 1,
                    _ => panic!("{}", of()),
                }
                twice += u32::from(times > 1);
            }
            assert!(run.charges.keys().all(|key| run.rows.contains_key(key)));
        }
        assert!(doubts > 0, "nothing came into doubt under {policy:?}");
        assert_eq!(twice > 0, policy == OnAmbiguous::Resend);
    }
}

#[test]
fn a_provider_that_recognises_a_repeat_charges_everything_once_under_either_policy() {
    for policy in [OnAmbiguous::Resend, OnAmbiguous::Park] {
        let mut doubted = 0;
        for seed in 0..SEEDS {
            let run = run(seed, policy, true);
            assert_eq!(run.outcome.violation, None, "seed {seed}");
            for (key, row) in &run.rows {
                let of = || format!("seed {seed}, {key}: {row:?}");
                assert_eq!(run.charges.get(key), Some(&1), "{}", of());
                assert_eq!(
                    (row.state, row.effects_in_doubt()),
                    (State::Sent, 0),
                    "{}",
                    of()
                );
                assert_eq!(row.second_acceptances(), 0, "{}", of());
                doubted += row.ambiguities;
            }
        }
        assert!(doubted > 0, "nothing came into doubt under {policy:?}");
    }
}
