//! Noting how far a rebuild is.

use ankole_proto::wire::cursor::RebuildCursor;

use super::{Occupant, Slot};
use crate::replica::Refusal;

impl Slot {
    /// Syncs what a rebuild has made equal, without holding the replica, and notes it.
    ///
    /// # Errors
    ///
    /// [`super::Barred`] for everybody but the occupant, and what the replica refuses.
    pub fn mark_rebuilt(
        &self,
        occupant: Occupant,
        cursor: RebuildCursor,
    ) -> Result<(), Box<dyn Refusal>> {
        let epoch = occupant.epoch;
        let entered = self
            .enter(occupant)
            .map_err(boxed)?
            .plan_mark(epoch, cursor);
        let plan = entered.map_err(boxed)?;
        let synced = plan.run();
        // A failed sync counts, whoever holds the replica by now (INV-10).
        let mut replica = self.loaded().map_err(boxed)?.lock();
        replica.finish_mark(epoch, plan, synced).map_err(boxed)
    }
}

fn boxed(error: impl Refusal + 'static) -> Box<dyn Refusal> {
    Box::new(error)
}
