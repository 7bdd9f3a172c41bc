//! One replica as the mirror sees it, and the requests that it owes an answer.

use std::collections::BTreeMap;

use ankole_proto::wire::body::LayerLink;
use ankole_proto::wire::{Frame, Header};
use ankole_proto::{ReplicaId, Sequence};
use bytes::Bytes;

use super::event::{Effect, LinkId, Member, Role};
use super::job::JobId;
use super::rebuild::{ChunkKey, Rebuild};
use crate::volume::Moment;

/// Most replicas of a volume, lost ones that are not gone yet included.
pub(super) const SLOTS_MAX: u8 = 64;

/// A small number for a replica, free again once the replica has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(pub(super) u8);

/// A set of replicas, by slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SlotSet(u64);

impl SlotSet {
    pub(super) fn insert(&mut self, slot: Slot) {
        self.0 |= 1 << slot.0;
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.0 &= !(1 << slot.0);
    }

    pub(super) fn contains(self, slot: Slot) -> bool {
        self.0 & (1 << slot.0) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it holds all of the other.
    pub(super) fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a request was sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Mutation(Sequence),
    Read(JobId),
    Flush(JobId),
    /// Flush, Seal or Revert of the task in hand.
    Task,
    Ping,
    /// The last flush before Close.
    StopFlush,
    Close,
    BeginRebuild,
    FinishRebuild,
    /// One step of copying a chunk to the target.
    Copy(ReplicaId, ChunkKey),
}

impl Ask {
    /// Whether it syncs or changes the tree, which takes longer than a write.
    fn is_patient(self) -> bool {
        !matches!(self, Self::Mutation(_) | Self::Read(_) | Self::Ping)
    }
}

/// A request without answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owed {
    pub(super) ask: Ask,
    pub(super) sent: Moment,
}

/// An open link and the requests on it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: LinkId,
    last_request: u64,
    /// In the order in which they were sent, as their ids grow.
    quick: BTreeMap<u64, Owed>,
    patient: BTreeMap<u64, Owed>,
    pub(super) pinged: Moment,
}

impl Session {
    pub(super) fn new(link: LinkId, now: Moment) -> Self {
        Self {
            link,
            last_request: 0,
            quick: BTreeMap::new(),
            patient: BTreeMap::new(),
            pinged: now,
        }
    }

    /// Takes out the request that a reply belongs to.
    pub(super) fn answer(&mut self, request_id: u64) -> Option<Owed> {
        self.quick
            .remove(&request_id)
            .or_else(|| self.patient.remove(&request_id))
    }

    pub(super) fn owed(&self) -> usize {
        self.quick.len() + self.patient.len()
    }

    /// When the oldest quick and the oldest patient request were sent.
    pub(super) fn oldest(&self) -> (Option<Moment>, Option<Moment>) {
        let first = |map: &BTreeMap<u64, Owed>| map.first_key_value().map(|(_, owed)| owed.sent);
        (first(&self.quick), first(&self.patient))
    }

    fn add(&mut self, ask: Ask, now: Moment) -> u64 {
        self.last_request += 1;
        let owed = Owed { ask, sent: now };
        if ask.is_patient() {
            self.patient.insert(self.last_request, owed);
        } else {
            self.quick.insert(self.last_request, owed);
        }
        self.last_request
    }
}

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
    pub(super) reason: String,
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
    pub(super) promotion: Promotion,
    /// On record as in sync without this engine having made it so: it missed writes, and its loss
    /// will be recorded.
    pub(super) missed: bool,
    /// Opens that failed since the last that worked.
    pub(super) attempts: u32,
    /// Its layers, as far as known.
    pub(super) tree: Vec<LayerLink>,
}

impl Replica {
    pub(super) fn new(member: Member, slot: Slot, down: Down) -> Self {
        Self {
            member,
            slot,
            state: State::Down(down),
            answered: None,
            promotion: Promotion::None,
            missed: false,
            attempts: 0,
            tree: Vec::new(),
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
