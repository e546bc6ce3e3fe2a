//! The document that shows people and scripts how a fleet is doing.

use std::time::SystemTime;

use serde::Serialize;

use super::findings::{self, Finding, ResolvedBy};
use super::stream::{StatusVerdict, StreamStatus, rfc3339};
use crate::stores::ledger::Needed;

/// The version of the document. It is raised when a field changes its meaning, not when a field is
/// added.
pub const FORMAT: u32 = 1;

/// How a fleet is doing on all its streams.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetStatus {
    /// The version of this document: [`FORMAT`].
    pub format: u32,
    /// When the rows were read.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// The verdict from the findings.
    pub verdict: StatusVerdict,
    /// What a person has to do next, the most urgent first. Empty if there is nothing to do.
    pub advice: Vec<String>,
    /// Everything that is wrong, the most urgent first, including what the workers resolve
    /// automatically.
    pub findings: Vec<Finding>,
    /// Each stream.
    pub streams: Vec<StreamStatus>,
    /// Orders that wait for a person, because it is unknown whether their mail was accepted. `None`:
    /// not queried, or no answer (then the advice says so).
    pub ambiguous: Option<u64>,
    /// Such orders that the workers will send once more; `None` as above.
    pub resending: Option<u64>,
    /// Orders that an operator released and that are not sent yet; `None` as above.
    pub released: Option<u64>,
}

impl FleetStatus {
    /// The status of the streams. `needed`: how many orders need attention, if that was counted.
    pub fn new(at: SystemTime, mut streams: Vec<StreamStatus>, needed: Option<Needed>) -> Self {
        let several = streams.len() > 1;
        let mut all = Vec::new();
        for stream in &mut streams {
            let found = findings::on(stream);
            stream.verdict = stream.verdict.max(of(&found));
            let table = &stream.table;
            let named = |mut finding: Finding| {
                if several {
                    finding.text = format!("{table}: {}", finding.text);
                }
                finding
            };
            all.extend(found.into_iter().map(named));
        }
        all.extend(needed.iter().flat_map(findings::on_orders));
        let worst = streams.iter().map(|stream| stream.verdict).max();
        let worst = worst.unwrap_or(StatusVerdict::Unknown);
        let status = Self {
            format: FORMAT,
            at,
            verdict: worst.max(of(&all)),
            advice: Vec::new(),
            findings: Vec::new(),
            streams,
            ambiguous: needed.map(|needed| needed.ambiguous),
            resending: needed.map(|needed| needed.resending),
            released: needed.map(|needed| needed.released),
        };
        status.with(all)
    }

    /// The same, with these findings.
    fn with(mut self, findings: impl IntoIterator<Item = Finding>) -> Self {
        self.findings.extend(findings);
        self.findings.sort_by_key(|finding| finding.kind);
        self.advice = self.words(ResolvedBy::Person);
        self
    }

    /// The texts of the findings that are resolved this way.
    pub fn words(&self, by: ResolvedBy) -> Vec<String> {
        let of = self.findings.iter().filter(|finding| finding.by == by);
        of.map(|finding| finding.text.clone()).collect()
    }

    /// The same, if something could not be read, for this reason. A fleet that looks well may then not
    /// be.
    #[must_use]
    pub fn without(self, answers: impl IntoIterator<Item = String>) -> Self {
        let findings: Vec<_> = answers
            .into_iter()
            .map(|why| findings::on_silence(&why))
            .collect();
        let verdict = match self.verdict {
            StatusVerdict::Well | StatusVerdict::Recovering if !findings.is_empty() => {
                StatusVerdict::Unknown
            }
            verdict => verdict,
        };
        Self { verdict, ..self }.with(findings)
    }
}

/// The verdict from findings.
fn of(findings: &[Finding]) -> StatusVerdict {
    let verdicts = findings.iter().map(|finding| match finding.by {
        ResolvedBy::Person => StatusVerdict::Attention,
        ResolvedBy::Workers => StatusVerdict::Recovering,
    });
    verdicts.max().unwrap_or(StatusVerdict::Well)
}
