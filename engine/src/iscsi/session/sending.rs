//! What a session sends of its own accord, and the numbers that everything it sends carries.

use bytes::Bytes;

use super::Wire;
use super::feature::{Feature, next_transfer};
use crate::iscsi::pdu::{Header, NopIn, Reject, RejectReason, ResponsePdu, Tag, TransferTag};

impl Feature {
    /// Asks for a sign of life.
    pub(super) fn ping(&mut self, wire: &mut Wire<'_>) {
        let transfer = TransferTag(self.next_transfer);
        self.next_transfer = next_transfer(self.next_transfer);
        self.send_nop(transfer, wire);
    }

    /// Tells the command window, with a NOP-In that wants no answer.
    pub(super) fn tell_window(&self, wire: &mut Wire<'_>) {
        self.send_nop(TransferTag::NONE, wire);
    }

    fn send_nop(&self, transfer: TransferTag, wire: &mut Wire<'_>) {
        let nop = NopIn {
            tag: Tag::NONE,
            transfer,
            lun: [0; 8],
            data: Bytes::new(),
        };
        self.send_current(wire, nop.pdu());
    }

    pub(super) fn reject(&self, reason: RejectReason, header: Header, wire: &mut Wire<'_>) {
        self.send(wire, Reject { reason, header }.pdu());
    }

    /// Sends a response that takes a status number.
    pub(super) fn send(&self, wire: &mut Wire<'_>, pdu: ResponsePdu) {
        let status = wire.status.take();
        let pdu = pdu.numbered(Some(status), self.window.expected(), self.window.max());
        wire.output.push(pdu, self.digests());
    }

    /// Sends what tells the next status number without taking it.
    pub(super) fn send_current(&self, wire: &mut Wire<'_>, pdu: ResponsePdu) {
        let pdu = pdu.numbered(
            Some(*wire.status),
            self.window.expected(),
            self.window.max(),
        );
        wire.output.push(pdu, self.digests());
    }

    /// Sends what has no status number.
    pub(super) fn send_unnumbered(&self, wire: &mut Wire<'_>, pdu: ResponsePdu) {
        let pdu = pdu.numbered(None, self.window.expected(), self.window.max());
        wire.output.push(pdu, self.digests());
    }
}
