//! From a command's outcome to Data-In and response PDUs (RFC 7143 §11.4, 11.7).

use bytes::Bytes;

use super::Wire;
use super::feature::Feature;
use super::task::Task;
use crate::iscsi::pdu::{DataIn, Residual, ScsiResponse};
use crate::iscsi::transfer::TransferFault;
use crate::scsi::{Done, Status};

/// Sense data of a command that ended because its data broke the rules (RFC 7143 §11.4.7.2):
/// ABORTED COMMAND with WRITE ERROR, unexpected unsolicited data or incorrect amount of data.
fn fault_sense(fault: TransferFault) -> [u8; 18] {
    let qualifier = match fault {
        TransferFault::Unsolicited => 0x0c,
        TransferFault::Amount => 0x0d,
    };
    let mut sense = [0; 18];
    sense[0] = 0x70;
    sense[2] = 0x0b;
    sense[7] = 10;
    sense[12] = 0x0c;
    sense[13] = qualifier;
    sense
}

impl Feature {
    /// Answers a command whose data broke the rules.
    pub(super) fn answer_fault(&mut self, task: &Task, fault: TransferFault, wire: &mut Wire<'_>) {
        let sense = fault_sense(fault);
        let response = ScsiResponse {
            tag: task.tag,
            status: Status::CheckCondition.code(),
            sense: &sense,
            residual: Residual::None,
            expected_data: task.r2ts,
        };
        self.send(wire, response.pdu());
    }

    /// Answers a command. GOOD with data goes with the last Data-In.
    pub(super) fn answer(&mut self, task: &Task, done: Done, wire: &mut Wire<'_>) {
        let residual = task.residual(done.data_in.len());
        let mut data = done.data_in;
        data.truncate(task.data_in_room() as usize);
        let collapses = done.status == Status::Good && done.sense.is_empty() && !data.is_empty();
        let good = collapses.then_some(residual);
        let data_pdus = self.send_data(task, data, good, wire);
        if !collapses {
            let response = ScsiResponse {
                tag: task.tag,
                status: done.status.code(),
                sense: &done.sense,
                residual,
                expected_data: data_pdus + task.r2ts,
            };
            self.send(wire, response.pdu());
        }
    }

    /// Cuts the data into PDUs as the initiator takes them, and bursts as negotiated, without
    /// copying it. Returns how many PDUs there are.
    fn send_data(
        &mut self,
        task: &Task,
        mut data: Bytes,
        good: Option<Residual>,
        wire: &mut Wire<'_>,
    ) -> u32 {
        let segment_bytes = self.parameters.send_segment_bytes;
        let burst_bytes = self.parameters.rules.burst_bytes;
        let (mut number, mut offset, mut burst_left) = (0, 0, burst_bytes);
        while !data.is_empty() {
            let bytes = segment_bytes.min(burst_left);
            let piece = data.split_to(data.len().min(bytes as usize));
            // No longer than `bytes`, so it fits.
            let piece_bytes = u32::try_from(piece.len()).unwrap_or(bytes);
            burst_left -= piece_bytes;
            let is_last = data.is_empty();
            let pdu = DataIn {
                tag: task.tag,
                is_final: is_last || burst_left == 0,
                number,
                offset,
                data: piece,
                good: good.filter(|_| is_last),
            };
            if pdu.good.is_some() {
                self.send(wire, pdu.pdu());
            } else {
                self.send_unnumbered(wire, pdu.pdu());
            }
            number += 1;
            offset += piece_bytes;
            if burst_left == 0 {
                burst_left = burst_bytes;
            }
        }
        number
    }
}
