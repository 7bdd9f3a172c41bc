//! One replica as the mirror sees it: how far it is, and what it counts for.

use std::collections::BTreeSet;

use ankole_proto::ReplicaId;
use ankole_proto::wire::body::LayerLink;
use ankole_proto::wire::{Frame, Header};
use bytes::Bytes;

use super::event::{Effect, LinkId, Member, Role};
use super::rebuild::Rebuild;
pub(super) use super::session::{Ask, SLOTS_MAX, Session, Slot, SlotSet};
use crate::volume::Moment;

/// How far a replica is.
///
/// ```text
///              ┌──────────────────────────────────────────────┐
///              ▼                                              │ link lost, error, deadline
///  orders ──▶ Down ──────▶ Connecting ──┬──▶ Live ────────────┤
///              │ ▲             │        ├──▶ Doubtful ────────┤
///              │ │             └──▶ Down└──▶ Rebuilding ──────┘
///              │ │ not recorded            Doubtful ──▶ Live   (the best that is left)
///              ▼ │                         Rebuilding ──▶ Live (recorded in sync, INV-9)
///            Leaving ──▶ gone with the next orders
/// ```
#[derive(Debug)]
pub(super) enum State {
    /// No link. In-sync and down for too long: its loss will be recorded.
    Down(Down),
    /// A link was asked for.
    Connecting {
        link: LinkId,
        since: Moment,
        before: Down,
    },
    /// Open, but not known to hold everything: counts only when none better is left.
    Doubtful(Doubtful),
    /// Open and in sync.
    Live(Session),
    /// Open and being made equal.
    Rebuilding(Session, Rebuild),
    /// The managers have been asked to record its loss; what it owes is held until they answer.
    Leaving { reason: String },
}

/// A replica without link.
#[derive(Debug, Clone)]
pub(super) struct Down {
    pub(super) retry_at: Moment,
    /// From then on its loss may be recorded.
    pub(super) drop_at: Moment,
    /// It answered that it cannot be opened, so nobody waits for it.
    pub(super) refused: bool,
    pub(super) reason: String,
}

impl Down {
    /// Without link from now on, to be tried and lost at these moments.
    pub(super) fn new(retry_at: Moment, drop_at: Moment, reason: impl Into<String>) -> Self {
        Self {
            retry_at,
            drop_at,
            refused: false,
            reason: reason.into(),
        }
    }
}

/// An open replica that is not known to hold everything.
#[derive(Debug)]
pub(super) struct Doubtful {
    pub(super) session: Session,
    pub(super) doubt: Doubt,
}

/// Why a replica may not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// Its blockd restarted: it has what was acknowledged, but what was in flight is unknown.
    Restarted,
    /// Its host may have restarted: what was not flushed may be gone.
    Forgetful,
    /// Its size, head, tree or state is not the volume's: it never counts.
    Unfit(String),
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Restarted => "its blockd restarted and forgot what was in flight",
            Self::Forgetful => "its host may have lost what was not flushed",
            Self::Unfit(reason) => reason,
        })
    }
}

/// The kinds of states, for the table of legal transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Down,
    Connecting,
    Doubtful,
    Live,
    Rebuilding,
    Leaving,
}

const TRANSITIONS: [(Kind, Kind); 12] = [
    (Kind::Down, Kind::Connecting),
    (Kind::Down, Kind::Leaving),
    (Kind::Connecting, Kind::Down),
    (Kind::Connecting, Kind::Live),
    (Kind::Connecting, Kind::Doubtful),
    (Kind::Connecting, Kind::Rebuilding),
    (Kind::Doubtful, Kind::Live),
    (Kind::Doubtful, Kind::Down),
    (Kind::Live, Kind::Down),
    (Kind::Rebuilding, Kind::Live),
    (Kind::Rebuilding, Kind::Down),
    (Kind::Leaving, Kind::Down),
];

impl State {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Down(_) => Kind::Down,
            Self::Connecting { .. } => Kind::Connecting,
            Self::Doubtful(_) => Kind::Doubtful,
            Self::Live(_) => Kind::Live,
            Self::Rebuilding(..) => Kind::Rebuilding,
            Self::Leaving { .. } => Kind::Leaving,
        }
    }
}

/// Whether the managers were asked to record a rebuilt replica in sync. From the first time on it
/// counts for acknowledgements, until they have clearly refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promotion {
    /// Not asked, or answered.
    None,
    /// Asked and not answered.
    Asked,
    /// Nobody answered: asked again then.
    Pause(Moment),
}

/// One replica of the orders.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) member: Member,
    pub(super) slot: Slot,
    state: State,
    /// When the newest request was sent that it has answered: its lease counts from here.
    pub(super) answered: Option<Moment>,
    /// It has forgotten what was in flight, and has not heard yet that all of it is complete.
    pub(super) forgetful: bool,
    pub(super) promotion: Promotion,
    /// Since when its loss is in question: it is recorded once another has answered what was sent
    /// after that.
    pub(super) questioned: Option<Moment>,
    /// On record as in sync without this engine having made it so: it missed writes, and its loss
    /// will be recorded.
    pub(super) missed: bool,
    /// Opens that failed since the last that worked.
    pub(super) attempts: u32,
    /// Its layers, as far as known.
    pub(super) tree: Vec<LayerLink>,
    /// Replicas that could not give a chunk of its rebuild.
    pub(super) unable_sources: BTreeSet<ReplicaId>,
    /// Bad blocks that were rewritten.
    pub(super) repaired_blocks: u64,
}

impl Replica {
    pub(super) fn new(member: Member, slot: Slot, down: Down) -> Self {
        Self {
            member,
            slot,
            state: State::Down(down),
            answered: None,
            forgetful: false,
            promotion: Promotion::None,
            questioned: None,
            missed: false,
            attempts: 0,
            tree: Vec::new(),
            unable_sources: BTreeSet::new(),
            repaired_blocks: 0,
        }
    }

    pub(super) fn id(&self) -> ReplicaId {
        self.member.replica
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Changes the state.
    ///
    /// # Panics
    ///
    /// When the table has no such transition: a bug.
    pub(super) fn enter(&mut self, next: State) -> State {
        let step = (self.state.kind(), next.kind());
        assert!(
            TRANSITIONS.contains(&step),
            "replica {} cannot go from {:?} to {:?}",
            self.member.replica,
            step.0,
            step.1
        );
        if matches!(next.kind(), Kind::Live | Kind::Leaving) {
            self.questioned = None;
        }
        std::mem::replace(&mut self.state, next)
    }

    /// Its rebuild is done and on record: it serves from now on (INV-9).
    pub(super) fn become_live(&mut self, now: Moment) {
        let session = match &mut self.state {
            State::Rebuilding(session, _) => {
                std::mem::replace(session, Session::new(session.link, now))
            }
            _ => return,
        };
        self.unable_sources.clear();
        self.enter(State::Live(session));
    }

    pub(super) fn rebuild(&self) -> Option<&Rebuild> {
        match &self.state {
            State::Rebuilding(_, rebuild) => Some(rebuild),
            _ => None,
        }
    }

    pub(super) fn rebuild_mut(&mut self) -> Option<&mut Rebuild> {
        match &mut self.state {
            State::Rebuilding(_, rebuild) => Some(rebuild),
            _ => None,
        }
    }

    pub(super) fn connecting_mut(&mut self) -> Option<&mut Down> {
        match &mut self.state {
            State::Down(down) => Some(down),
            State::Connecting { before, .. } => Some(before),
            _ => None,
        }
    }

    /// On record as in sync.
    pub(super) fn is_in_sync(&self) -> bool {
        self.member.role == Role::InSync
    }

    /// Whether the managers may have recorded it in sync, whatever the orders at hand say.
    pub(super) fn may_be_in_sync(&self) -> bool {
        self.promotion != Promotion::None
    }

    /// Whether every acknowledgement needs it: it is in sync, may be, or is about to be.
    pub(super) fn counts(&self) -> bool {
        self.is_in_sync()
            || self.may_be_in_sync()
            || self.rebuild().is_some_and(Rebuild::is_settling)
    }

    /// Whether it serves reads (INV-9).
    pub(super) fn is_readable(&self) -> bool {
        self.is_in_sync() && self.state.kind() == Kind::Live
    }

    /// Whether it is open but not known to hold everything.
    pub(super) fn is_doubtful(&self) -> bool {
        self.state.kind() == Kind::Doubtful
    }

    /// Whether mutations go to it.
    pub(super) fn receives(&self) -> bool {
        match &self.state {
            State::Live(_) => true,
            State::Rebuilding(_, rebuild) => rebuild.is_attached(),
            _ => false,
        }
    }

    pub(super) fn link(&self) -> Option<LinkId> {
        match &self.state {
            State::Connecting { link, .. } => Some(*link),
            _ => self.session().map(|session| session.link),
        }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        match &self.state {
            State::Live(session) | State::Rebuilding(session, _) => Some(session),
            State::Doubtful(doubtful) => Some(&doubtful.session),
            _ => None,
        }
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Live(session) | State::Rebuilding(session, _) => Some(session),
            State::Doubtful(doubtful) => Some(&mut doubtful.session),
            _ => None,
        }
    }

    /// Sends a request over the open link; `false` when there is none.
    pub(super) fn send(
        &mut self,
        ask: Ask,
        mut header: Header,
        payload: Bytes,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let replica = self.member.replica;
        let Some(session) = self.session_mut() else {
            return false;
        };
        header.request_id = session.add(ask, now);
        effects.push(Effect::Send {
            replica,
            link: session.link,
            frame: Frame { header, payload },
        });
        true
    }
}
