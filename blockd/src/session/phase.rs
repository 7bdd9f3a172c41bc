//! What a frame means at its point of a connection's life. Pure: no socket, no replica, no clock.
//!
//! ```text
//!            Open granted          Close              answered
//! Greeting ───────────────▶ Serving ─────▶ Closing ───────────▶ Ended
//!     └──────────────────────┴───────────────┴────────────────────▲
//!       refused Open, broken rule, fenced, peer gone, daemon stops
//! ```

use ankole_proto::wire::{ErrorCode, Header, Opcode, REQUESTS_IN_FLIGHT_MAX};

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Connected; nothing but Open is taken.
    Greeting,
    /// Open was granted.
    Serving,
    /// Close was asked for and is not answered yet.
    Closing,
    /// Nothing more is read.
    Ended,
}

impl Phase {
    /// Every transition there is.
    const LEGAL: [(Self, Self); 6] = [
        (Self::Greeting, Self::Serving),
        (Self::Greeting, Self::Ended),
        (Self::Serving, Self::Closing),
        (Self::Serving, Self::Ended),
        (Self::Closing, Self::Ended),
        (Self::Ended, Self::Ended),
    ];

    /// Goes on to another phase.
    ///
    /// # Panics
    ///
    /// When there is no such transition: a bug of the session.
    pub(super) fn advance(&mut self, to: Self) {
        assert!(
            Self::LEGAL.contains(&(*self, to)),
            "a connection cannot go from {self:?} to {to:?}"
        );
        *self = to;
    }
}

/// What is to be done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Read its body as an Open and grant or refuse it; a refusal ends the connection.
    Open,
    /// Carry it out.
    Serve,
    /// Carry it out as the last one.
    Close,
    /// Answer with this error and go on.
    Refuse(ErrorCode),
    /// Answer with this error and end the connection.
    End(ErrorCode),
}

/// Judges a request's header. `unanswered` counts the requests of the connection that are still to
/// be answered, this one not among them (INV-12).
pub(super) fn judge(phase: Phase, header: &Header, unanswered: usize) -> Verdict {
    if header.is_reply() {
        return Verdict::End(ErrorCode::Malformed);
    }
    match (phase, header.opcode) {
        (Phase::Greeting, Opcode::Open) => Verdict::Open,
        (Phase::Greeting, _) | (Phase::Serving, Opcode::Open) => Verdict::End(ErrorCode::NotOpen),
        (Phase::Serving, _) if unanswered >= REQUESTS_IN_FLIGHT_MAX => {
            Verdict::End(ErrorCode::Overloaded)
        }
        (Phase::Serving, Opcode::Close) => Verdict::Close,
        (Phase::Serving, _) => Verdict::Serve,
        (Phase::Closing, _) => Verdict::Refuse(ErrorCode::NotOpen),
        (Phase::Ended, _) => Verdict::End(ErrorCode::NotOpen),
    }
}

#[cfg(test)]
mod tests {
    use ankole_proto::wire::flags;

    use super::*;

    const PHASES: [Phase; 4] = [
        Phase::Greeting,
        Phase::Serving,
        Phase::Closing,
        Phase::Ended,
    ];

    #[test]
    fn only_an_open_passes_the_greeting() {
        for opcode in Opcode::ALL {
            let verdict = judge(Phase::Greeting, &Header::request(opcode, 1), 0);
            if opcode == Opcode::Open {
                assert_eq!(verdict, Verdict::Open);
            } else {
                assert_eq!(verdict, Verdict::End(ErrorCode::NotOpen), "{opcode:?}");
            }
        }
    }

    #[test]
    fn a_second_open_ends_the_connection() {
        let open = Header::request(Opcode::Open, 1);
        assert_eq!(
            judge(Phase::Serving, &open, 0),
            Verdict::End(ErrorCode::NotOpen)
        );
    }

    #[test]
    fn the_request_beyond_the_bound_ends_the_connection() {
        let read = Header::request(Opcode::Read, 1);
        let last = REQUESTS_IN_FLIGHT_MAX - 1;
        assert_eq!(judge(Phase::Serving, &read, last), Verdict::Serve);
        assert_eq!(
            judge(Phase::Serving, &read, last + 1),
            Verdict::End(ErrorCode::Overloaded)
        );
    }

    #[test]
    fn nothing_is_served_after_close() {
        for opcode in Opcode::ALL {
            let header = Header::request(opcode, 1);
            assert_eq!(
                judge(Phase::Closing, &header, 1),
                Verdict::Refuse(ErrorCode::NotOpen)
            );
        }
    }

    #[test]
    fn a_reply_is_no_request_in_any_phase() {
        for phase in PHASES {
            let mut header = Header::request(Opcode::Read, 1);
            header.flags = flags::REPLY;
            assert_eq!(judge(phase, &header, 0), Verdict::End(ErrorCode::Malformed));
        }
    }

    #[test]
    fn the_table_has_no_way_back() {
        for from in PHASES {
            for to in PHASES {
                let legal = Phase::LEGAL.contains(&(from, to));
                let order = |phase: Phase| PHASES.iter().position(|p| *p == phase);
                assert!(!legal || order(from) <= order(to), "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "cannot go from Ended to Serving")]
    fn an_ended_connection_cannot_serve_again() {
        let mut phase = Phase::Ended;
        phase.advance(Phase::Serving);
    }
}
