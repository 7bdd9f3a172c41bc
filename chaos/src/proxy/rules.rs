//! What a proxy does to the bytes that go through it.

use std::time::Duration;

/// Whether bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passage {
    /// They do.
    #[default]
    Open,
    /// Not now: they wait, and so does the sender once the buffers are full. As in a partition
    /// that TCP outlives.
    Held,
    /// Never: they are taken and thrown away. As behind a dead router; the connection is reset
    /// when this ends.
    Swallowed,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// How long each byte is under way.
    pub delay: Duration,
    /// Up to so much longer, another each time; order is kept.
    pub jitter: Duration,
    /// So many bytes get through per second; `None`: as many as come.
    pub bytes_per_second: Option<u64>,
    /// Whether they get through at all.
    pub passage: Passage,
}

/// Both directions, seen from the one that connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// From the one that connects to the one that listens.
    pub out: Way,
    /// And back.
    pub back: Way,
}

impl Rules {
    /// The same in both directions.
    pub const fn both(way: Way) -> Self {
        Self {
            out: way,
            back: way,
        }
    }

    /// Nothing but this passage, in both directions.
    pub fn passage(passage: Passage) -> Self {
        Self::both(Way {
            passage,
            ..Way::default()
        })
    }
}
