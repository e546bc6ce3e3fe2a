//! What must hold of a run.

use std::collections::BTreeSet;

use aftercommit::stores::dead_letter::{DeadLetters as _, Reason, Selection};

use super::plan::Poison;
use super::{ATTEMPTS, HOUR, KEYS, MINUTE, Run, number};

impl Run {
    fn committed(&self) -> BTreeSet<(usize, usize)> {
        let mut numbers = [0; KEYS];
        let commits = self.world.plan.commits.iter().map(|(_, key)| {
            numbers[*key] += 1;
            (*key, numbers[*key] - 1)
        });
        commits.collect()
    }

    /// Every healthy record, handled; how late the latest one was in a calm world.
    pub async fn check_healthy(&self) -> Result<(), String> {
        let plan = &self.world.plan;
        let handled = self.world.journal.lock().unwrap().handled.clone();
        let mut numbers = [0; KEYS];
        for (at, key) in &plan.commits {
            let number = numbers[*key];
            numbers[*key] += 1;
            if plan.poison.contains_key(key) {
                continue;
            }
            let Some(done) = handled.get(&(*key, number)) else {
                let parked = self
                    .letters
                    .parked(&super::letters_place())
                    .await
                    .unwrap()
                    .keys;
                let rows = self.leases.snapshot().leases;
                return Err(format!(
                    "record {number} of key {key} is not handled; {parked:?} {rows:#?}"
                ));
            };
            // A minute until it is committed, one until it is read, and retries.
            let late = done.saturating_sub(*at);
            if plan.is_calm() && plan.ends.is_empty() && late > 4 * MINUTE {
                return Err(format!("record {number} of key {key} took {late:?}"));
            }
        }
        Ok(())
    }

    /// Answers why there were letters.
    pub async fn check_letters(&self) -> Result<BTreeSet<Reason>, String> {
        let plan = &self.world.plan;
        let all = Selection {
            closed_too: true,
            ..Selection::default()
        };
        let page = self.letters.list(&all, None).await.unwrap();
        for letter in &page.letters {
            let letter = self.letters.read(&letter.id).await.unwrap().unwrap();
            let key = number(letter.record.new_image.as_ref().unwrap(), "key");
            let reason = letter.envelope.reason;
            let expected = match reason {
                Reason::Rejected => plan.poison.get(&key) == Some(&Poison::Rejects),
                Reason::Rescued => plan.outage.end > plan.outage.start + 20 * HOUR,
                // A key that fails does not hold the children of its shard.
                Reason::Deferred => !plan.ends.is_empty(),
                Reason::TooOld => plan.poison.get(&key) == Some(&Poison::Fails),
                Reason::Exhausted => {
                    let poison = plan.poison.get(&key);
                    poison.is_some_and(|poison| matches!(poison, Poison::Panics | Poison::Hangs))
                }
                Reason::Followed => true,
                _ => false,
            };
            if !expected {
                return Err(format!("key {key} has a letter: {reason}"));
            }
        }
        let reasons = page.letters.iter().map(|letter| letter.reason);
        Ok(reasons.collect())
    }

    pub fn check_all(&self) -> Result<(), String> {
        let journal = self.world.journal.lock().unwrap();
        let missing: Vec<_> = self
            .committed()
            .into_iter()
            .filter(|place| !journal.handled.contains_key(place))
            .collect();
        if !missing.is_empty() {
            return Err(format!("lost: {missing:?}"));
        }
        // One owner's attempts for each start, and the operator's.
        let most = ATTEMPTS * (u32::try_from(self.starts).unwrap() + 2);
        // One that fails is tried for hours, ever more rarely.
        let over = |((key, _), failed): &(&(usize, usize), &u32)| {
            **failed > most && self.world.plan.poison.get(key) != Some(&Poison::Fails)
        };
        if let Some((place, failed)) = journal.failed.iter().find(over) {
            return Err(format!("{place:?} failed {failed} times, more than {most}"));
        }
        let gaps = self.leases.snapshot().gaps;
        if !gaps.is_empty() {
            return Err(format!("gaps: {gaps:?}"));
        }
        Ok(())
    }
}
