//! Text negotiation in full feature phase: discovery, and what may still be declared
//! (RFC 7143 §4.3, 11.10, 11.11, appendix C).

use super::Wire;
use super::feature::Feature;
use crate::iscsi::limit;
use crate::iscsi::login::{IscsiName, PORTAL_GROUP, Reply, SessionKind};
use crate::iscsi::pdu::{Header, RejectReason, TextRequest, TextResponse, TransferTag};
use crate::iscsi::text::{Answer, Pair, TextError, parse};

/// A negotiation's tag. There is one at a time, so one tag will do.
const EXCHANGE: TransferTag = TransferTag(0x7465_7874);

/// A negotiation over one or more requests.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    open: bool,
    text: Vec<u8>,
    answer: Answer,
}

impl Feature {
    pub(super) fn negotiate(&mut self, request: &TextRequest, header: Header, wire: &mut Wire<'_>) {
        self.end_turn(request.order.immediate);
        if request.transfer == TransferTag::NONE {
            // A new one resets what was going on.
            self.exchange = Exchange::default();
        } else if request.transfer != EXCHANGE || !self.exchange.open {
            return self.reject(RejectReason::InvalidField, header, wire);
        }
        if self.exchange.text.len() + request.text.len() > limit::TEXT_BYTES {
            self.exchange = Exchange::default();
            return self.reject(RejectReason::NoResources, header, wire);
        }
        self.exchange.text.extend_from_slice(&request.text);
        if !request.continues {
            let text = std::mem::take(&mut self.exchange.text);
            if self.settle_pairs(&text).is_err() {
                self.exchange = Exchange::default();
                return self.reject(RejectReason::Protocol, header, wire);
            }
        }
        self.respond_text(request, wire);
    }

    fn respond_text(&mut self, request: &TextRequest, wire: &mut Wire<'_>) {
        let text = self
            .exchange
            .answer
            .take(self.parameters.send_segment_bytes as usize);
        let continues = !self.exchange.answer.is_empty();
        self.exchange.open = continues || !request.is_final;
        let transfer = if self.exchange.open {
            EXCHANGE
        } else {
            TransferTag::NONE
        };
        let response = TextResponse {
            tag: request.tag,
            transfer,
            continues,
            text,
        };
        self.send(wire, response.pdu());
    }

    fn settle_pairs(&mut self, text: &[u8]) -> Result<(), TextError> {
        for pair in parse(text)? {
            self.settle_pair(&pair);
        }
        Ok(())
    }

    fn settle_pair(&mut self, pair: &Pair) {
        let reply = match pair.key.as_str() {
            "SendTargets" => self.list_targets(&pair.value),
            // The one parameter that may be declared again (§13.12).
            "MaxRecvDataSegmentLength" => self.parameters.negotiate(&pair.key, &pair.value),
            // All others were settled at login.
            known => match self.parameters.clone().negotiate(known, &pair.value) {
                Reply::NotUnderstood => Reply::NotUnderstood,
                _ => Reply::Reject,
            },
        };
        if let Some(value) = reply.text() {
            self.exchange.answer.push(&pair.key, value);
        }
    }

    /// Appendix C: `All` in a discovery session, a name, or nothing for the session's own target.
    fn list_targets(&mut self, asked: &str) -> Reply {
        let target = &self.target;
        let is_listed = match (asked, self.kind) {
            ("All", kind) => kind == SessionKind::Discovery,
            ("", kind) => kind == SessionKind::Normal,
            (name, _) => IscsiName::parse(name).as_ref() == Ok(&target.name),
        };
        if !is_listed {
            // Nothing is listed for a name that is not here; `All` is not for a normal session.
            return if asked == "All" {
                Reply::Reject
            } else {
                Reply::Taken
            };
        }
        let address = format!("{},{PORTAL_GROUP}", target.address);
        self.exchange
            .answer
            .push("TargetName", target.name.as_str());
        self.exchange.answer.push("TargetAddress", &address);
        Reply::Taken
    }
}
