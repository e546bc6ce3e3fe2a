//! The writes that take a lease.

use super::DynamoDbLeases;
use crate::stores::leases::fence::is_taken;
use crate::stores::leases::row::{ROW, lease_key, worker_key};
use crate::stores::leases::{Incarnation, LeaseRow, Sighting, Take};
use crate::stores::rows::dynamodb::Write;
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fields::number;
use crate::stores::rows::transaction::Part;

impl DynamoDbLeases {
    pub(super) async fn take_undisputed(&self, take: &Take) -> anyhow::Result<Option<LeaseRow>> {
        let key = self.key(&lease_key(&take.shard));
        let (Write::Applied(item) | Write::Refused(item)) =
            self.table.update(key, &self.formats.taking(take)).await?;
        let lease = item.and_then(|item| self.read(&take.shard, item));
        Ok(lease.filter(|lease| is_taken(lease, take)))
    }

    /// A transaction does not return the rows, so the lease is read afterwards. That also decides a
    /// take whose answer was lost.
    pub(super) async fn take_from(
        &self,
        take: &Take,
        owner: &Incarnation,
        sighting: Sighting,
    ) -> anyhow::Result<Option<LeaseRow>> {
        let still = match sighting {
            Sighting::Beat(beat) => RowExpression::default().when("beat", Some(number(beat))),
            Sighting::Missing => RowExpression::on_none(ROW),
        };
        let parts = vec![
            Part::Update(self.key(&lease_key(&take.shard)), self.formats.taking(take)),
            Part::Demand(self.key(&worker_key(owner)), still),
        ];
        self.table.transact(parts).await?;
        let lease = self.standing(&take.shard).await?;
        Ok(lease.filter(|lease| is_taken(lease, take)))
    }
}
