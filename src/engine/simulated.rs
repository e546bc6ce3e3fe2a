//! What a simulation changes in a consumer. A real consumer keeps all rules.

use crate::core::fleet::rules::FleetRule;
use crate::core::pipeline::Rule as PipelineRule;
use crate::engine::FEW_PARKED;

/// What a simulation changes in a consumer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Simulated {
    /// The rule of the fleet that is left out.
    pub fleet: Option<FleetRule>,
    /// The rule of the pipeline that is left out.
    pub pipeline: Option<PipelineRule>,
    /// How many leases count as few, instead of the usual number.
    pub few_rows: Option<usize>,
    /// So many parked keys are few, in place of the usual number.
    pub few_parked: Option<usize>,
}

impl Simulated {
    /// So many parked keys are known at the start of a shard's task.
    pub fn few_parked(&self) -> usize {
        self.few_parked.unwrap_or(FEW_PARKED)
    }

    /// Whether this rule of the fleet is left out.
    pub fn leaves_out(&self, rule: FleetRule) -> bool {
        self.fleet == Some(rule)
    }
}
