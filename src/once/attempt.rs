//! What this process remembers of its own attempts, so that it never has to doubt them.
//!
//! A future may be dropped at any await. What it leaves behind is written down by the attempt's
//! `Drop`: a claim that never began may be taken back, and an outcome that the ledger did not take is
//! written by the next attempt. One that began is seen through ([`super::late`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::claim::Happened;
use crate::gate::left_out;
use crate::stores::ledger::EffectKey;

/// More than this many effects are not remembered; a forgotten one waits for its deadline.
const MOST: usize = 10_000;

/// What earlier attempts at one effect left behind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past {
    /// Nonces of claims whose effect never began.
    pub(crate) abandoned: Vec<u64>,
    /// Outcomes that the ledger does not have yet.
    pub(crate) unwritten: Vec<Happened>,
}

/// The effects that are not settled.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<BTreeMap<EffectKey, Past>>);

impl Memory {
    /// What is remembered of an effect; `None`: nothing.
    pub(crate) fn past(&self, key: &EffectKey) -> Option<Past> {
        self.map().get(key).cloned()
    }

    /// The outcome is in the ledger now.
    pub(crate) fn written(&self, key: &EffectKey, happened: &Happened) {
        if let Some(past) = self.map().get_mut(key) {
            past.unwritten.retain(|one| one != happened);
        }
    }

    /// Somebody else is at it: the next attempt looks first.
    pub(crate) fn busy(&self, key: &EffectKey) {
        let mut map = self.map();
        if map.len() < MOST {
            map.entry(key.clone()).or_default();
        }
    }

    /// Nothing more can come of this effect's claims. Outcomes that are not written yet stay: the
    /// order may have come twice.
    pub(crate) fn forget(&self, key: &EffectKey) {
        let mut map = self.map();
        if map.get(key).is_some_and(|past| past.unwritten.is_empty()) {
            map.remove(key);
        }
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<EffectKey, Past>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far an attempt got.
#[derive(Debug)]
enum Point {
    /// No claim of its own stands, or ever will.
    Nowhere,
    /// A claim may be on its way to the ledger, or stand there.
    Claiming,
    /// It is known what became of it.
    Known(Happened),
}

/// One attempt at one effect. Dropping it leaves in the memory what the next one must know.
#[derive(Debug)]
pub(crate) struct Attempt {
    memory: Arc<Memory>,
    pub(crate) key: EffectKey,
    pub(crate) nonce: u64,
    point: Point,
    begun: Arc<AtomicBool>,
}

impl Attempt {
    pub(crate) fn new(memory: &Arc<Memory>, key: &EffectKey, nonce: u64) -> Self {
        Self {
            memory: memory.clone(),
            key: key.clone(),
            nonce,
            point: Point::Nowhere,
            begun: Arc::default(),
        }
    }

    /// Turns true where it must be seen through: from here on the mail may be accepted, or what
    /// became of it is known.
    pub(crate) fn must_be_seen_through(&self) -> Arc<AtomicBool> {
        self.begun.clone()
    }

    /// The claim goes to the ledger.
    pub(crate) fn claiming(&mut self) {
        self.point = Point::Claiming;
    }

    /// The ledger did not take the claim, and never will; or it has the outcome.
    pub(crate) fn over(&mut self) {
        self.point = Point::Nowhere;
    }

    /// It is known what became of it.
    pub(crate) fn known(&mut self, happened: Happened) {
        self.point = Point::Known(happened);
        self.begun.store(true, Ordering::SeqCst);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if matches!(self.point, Point::Nowhere) {
            return;
        }
        let mut map = self.memory.map();
        if map.len() >= MOST && !map.contains_key(&self.key) {
            map.pop_first();
        }
        let past = map.entry(self.key.clone()).or_default();
        match std::mem::replace(&mut self.point, Point::Nowhere) {
            Point::Nowhere => {}
            // The process ends: its claim stands until others hold it dead.
            Point::Claiming if self.begun.load(Ordering::SeqCst) && !left_out!(BegunForgotten) => {}
            Point::Claiming => past.abandoned.push(self.nonce),
            Point::Known(happened) => past.unwritten.push(happened),
        }
    }
}
