//! Persistent reservations, as an engine tells them.

use ankole_proto::Epoch;
use ankole_proto::rpc::v1::{LogAnswer, RecordReservationsCommand};

use super::{Apply, answer};
use crate::state::changes::Key;
use crate::state::{PhaseKind, RESERVATIONS_BYTES_MAX, Refusal, Reservations};

impl Apply<'_> {
    /// Under the volume's present epoch, so that an engine that was replaced changes nothing
    /// (INV-1); in the order in which that engine made its changes, so that a call which comes late
    /// replaces nothing that is newer.
    pub(super) fn record_reservations(
        &mut self,
        c: &RecordReservationsCommand,
    ) -> Result<LogAnswer, Refusal> {
        let volume = self.volume_of_engine(&c.volume_id, c.epoch)?;
        let epoch = Epoch::from_raw(c.epoch);
        if volume.phase.kind() == PhaseKind::Deleting {
            return Err(volume.wrong_phase("reserved"));
        }
        let bytes = c.reservations.len();
        if bytes > RESERVATIONS_BYTES_MAX {
            return Err(Refusal::ReservationsTooLarge { bytes });
        }
        let known = self.state.reservations.get(&volume.id);
        if let Some(known) = known.filter(|known| known.epoch == epoch) {
            if c.number == known.number && c.reservations == known.bytes {
                return Ok(answer(&volume));
            }
            if c.number <= known.number {
                let (number, newest) = (c.number, known.number);
                return Err(Refusal::ReservationsStale { number, newest });
            }
        }
        self.state.reservations.insert(
            volume.id,
            Reservations {
                epoch,
                number: c.number,
                bytes: c.reservations.clone(),
                revision: self.index,
            },
        );
        self.touched.note(Key::Reservations(volume.id));
        Ok(answer(&volume))
    }
}
