//! The proxies between the processes of the attacked cluster, and what can befall them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use rand::rngs::StdRng;

use super::AGENTS;
use super::fault::NODES;
use crate::proxy::{Network, Passage, Proxy, Rules, Way};

/// The longest that a fault of the network lasts: together with what follows shorter than an
/// engine holds I/O for (20 s), so that no initiator sees an error.
const PAUSE_MS_MAX: u64 = 8_000;
const MANAGERS: u16 = 3;

/// A bundle of proxies that something happens to at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Between the engine and the blockd of the node with this index.
    Blockd(usize),
    /// Between the engine and all blockds.
    Blockds,
    /// Between the initiator and the engine.
    Portal,
    /// Between the blockd of the node with this index and all managers.
    BlockdManagers(usize),
    /// Between the agents with their engines and all managers.
    AgentManagers,
    /// From the other managers to the one with this index.
    Manager(usize),
    /// Between all managers.
    Managers,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Every connection is reset; new ones are let in.
    Cut,
    /// Everything arrives late.
    Slow { delay_ms: u64, jitter_ms: u64 },
    /// Little gets through.
    Narrow { bytes_per_second: u64 },
    /// Nothing gets through for a while; then all of it.
    Held,
    /// Everything is lost.
    Swallowed,
    /// Everything that the connecting side says is lost.
    SwallowedOut,
    /// Everything that the listening side says is lost.
    SwallowedBack,
}

impl Wire {
    const fn name(self) -> &'static str {
        match self {
            Self::Blockd(_) => "blockd",
            Self::Blockds => "all-blockds",
            Self::Portal => "portal",
            Self::BlockdManagers(_) => "blockd-managers",
            Self::AgentManagers => "agent-managers",
            Self::Manager(_) => "manager",
            Self::Managers => "all-managers",
        }
    }
}

impl Trouble {
    const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Slow { .. } => "slow",
            Self::Narrow { .. } => "narrow",
            Self::Held => "hold",
            Self::Swallowed => "swallow",
            Self::SwallowedOut => "swallow-out",
            Self::SwallowedBack => "swallow-back",
        }
    }

    /// Whether nothing gets through in some direction.
    const fn blocks(self) -> bool {
        match self {
            Self::Cut | Self::Slow { .. } | Self::Narrow { .. } => false,
            Self::Held | Self::Swallowed | Self::SwallowedOut | Self::SwallowedBack => true,
        }
    }

    fn rules(self) -> Rules {
        let swallowed = Way {
            passage: Passage::Swallowed,
            ..Way::default()
        };
        match self {
            Self::Cut => Rules::default(),
            Self::Slow {
                delay_ms,
                jitter_ms,
            } => Rules::both(Way {
                delay: Duration::from_millis(delay_ms),
                jitter: Duration::from_millis(jitter_ms),
                ..Way::default()
            }),
            Self::Narrow { bytes_per_second } => Rules::both(Way {
                bytes_per_second: Some(bytes_per_second),
                ..Way::default()
            }),
            Self::Held => Rules::passage(Passage::Held),
            Self::Swallowed => Rules::both(swallowed),
            Self::SwallowedOut => Rules {
                out: swallowed,
                ..Rules::default()
            },
            Self::SwallowedBack => Rules {
                back: swallowed,
                ..Rules::default()
            },
        }
    }
}

/// A fault of the network, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disturbance {
    pub(super) wire: Wire,
    pub(super) trouble: Trouble,
    pub(super) pause: Duration,
}

impl Disturbance {
    pub(super) fn choose(random: &mut StdRng) -> Self {
        let index = random.random_range(0..NODES.len());
        let wire = match random.random_range(0..12) {
            0..5 => Wire::Blockd(index),
            5 => Wire::Blockds,
            6 => Wire::Portal,
            7 => Wire::BlockdManagers(index),
            8 => Wire::AgentManagers,
            9 | 10 => Wire::Manager(index),
            _ => Wire::Managers,
        };
        let trouble = match random.random_range(0..7) {
            0 => Trouble::Cut,
            1 => Trouble::Slow {
                delay_ms: random.random_range(5..100),
                jitter_ms: random.random_range(0..50),
            },
            2 => Trouble::Narrow {
                bytes_per_second: random.random_range(64..1024) << 10,
            },
            3 => Trouble::Held,
            4 => Trouble::Swallowed,
            5 => Trouble::SwallowedOut,
            _ => Trouble::SwallowedBack,
        };
        Self {
            wire,
            trouble,
            pause: Duration::from_millis(random.random_range(500..PAUSE_MS_MAX)),
        }
    }

    /// Its name in reports.
    pub(super) fn kind(&self) -> String {
        format!("{}-{}", self.trouble.name(), self.wire.name())
    }

    /// The longest gap in I/O that is promised on an idle machine.
    pub(super) fn goal(&self) -> Duration {
        let blocks = self.trouble.blocks();
        match self.wire {
            // A replica that is silent for 5 s is dropped, and so is one that is as slow as that.
            Wire::Blockd(_) if blocks => Duration::from_secs(6),
            Wire::Blockd(_) | Wire::Blockds => match self.trouble {
                Trouble::Narrow { .. } => Duration::from_secs(6),
                Trouble::Slow { .. } => Duration::from_secs(1),
                _ if blocks => self.pause + Duration::from_secs(3),
                _ => Duration::from_millis(500),
            },
            // The initiator notices by itself and logs in again with pauses of its own.
            Wire::Portal => self.pause + Duration::from_secs(15),
            Wire::BlockdManagers(_) | Wire::AgentManagers | Wire::Manager(_) | Wire::Managers => {
                Duration::from_millis(300)
            }
        }
    }

    /// The nodes that the engine may lose by it.
    pub(super) fn nodes_at_risk(&self) -> &'static [&'static str] {
        match self.wire {
            Wire::Blockd(index) => NODES.get(index..=index).unwrap_or_default(),
            // All of them: then none is dropped, they come back together.
            Wire::Blockds => &NODES,
            _ => &[],
        }
    }

    /// Whether the loss of a replica cannot be recorded meanwhile.
    pub(super) const fn keeps_managers_away(&self) -> bool {
        let managers = matches!(
            self.wire,
            Wire::AgentManagers | Wire::Managers | Wire::Manager(_)
        );
        managers && !matches!(self.trouble, Trouble::Cut)
    }
}

/// Every proxy of a run.
pub(super) struct Wires {
    network: Network,
    blockds: Vec<Proxy>,
    portal: Option<Proxy>,
    blockd_managers: Vec<Vec<Proxy>>,
    agent_managers: Vec<Proxy>,
    managers: Vec<Proxy>,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Wires {
    /// Proxies for a cluster at this base port that is forwarded from `first_port`, as
    /// `ankole dev up --forwarded-from` tells.
    pub(super) fn start(base_port: u16, first_port: u16, seed: u64) -> anyhow::Result<Self> {
        let network = Network::start(seed).context("cannot start the proxies' thread")?;
        let forward = |from: u16, to: u16| {
            let proxies = (0..3).map(|index| {
                network.proxy(
                    local(first_port + from + index),
                    local(base_port + to + index),
                )
            });
            proxies.collect::<anyhow::Result<Vec<_>>>()
        };
        Ok(Self {
            managers: forward(0, 0)?,
            blockds: forward(10, 10)?,
            blockd_managers: (0..MANAGERS)
                .map(|node| forward(20 + MANAGERS * node, 0))
                .collect::<anyhow::Result<_>>()?,
            agent_managers: (0..AGENTS)
                .map(|agent| forward(30 + MANAGERS * agent, 0))
                .flat_map(|proxies| match proxies {
                    Ok(proxies) => proxies.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                })
                .collect::<anyhow::Result<_>>()?,
            portal: None,
            network,
        })
    }

    /// Puts a proxy before the portal in this URL; the URL that leads through it.
    pub(super) fn stand_before(&mut self, url: &str) -> anyhow::Result<String> {
        let rest = url.strip_prefix("iscsi://").context("no iSCSI URL")?;
        let (portal, path) = rest.split_once('/').context("no target in the URL")?;
        let proxy = self.network.proxy(local(0), portal.parse()?)?;
        let through = format!("iscsi://{}/{path}", proxy.address());
        self.portal = Some(proxy);
        Ok(through)
    }

    fn of(&self, wire: Wire) -> Vec<&Proxy> {
        match wire {
            Wire::Blockd(index) => self.blockds.get(index).into_iter().collect(),
            Wire::Blockds => self.blockds.iter().collect(),
            Wire::Portal => self.portal.iter().collect(),
            Wire::BlockdManagers(index) => self
                .blockd_managers
                .get(index)
                .into_iter()
                .flatten()
                .collect(),
            Wire::AgentManagers => self.agent_managers.iter().collect(),
            Wire::Manager(index) => self.managers.get(index).into_iter().collect(),
            Wire::Managers => self.managers.iter().collect(),
        }
    }

    /// The fault begins.
    pub(super) fn disturb(&self, disturbance: &Disturbance) {
        for proxy in self.of(disturbance.wire) {
            match disturbance.trouble {
                Trouble::Cut => proxy.cut(),
                trouble => proxy.rule(trouble.rules()),
            }
        }
    }

    /// It ends.
    pub(super) fn heal(&self, disturbance: &Disturbance) {
        for proxy in self.of(disturbance.wire) {
            proxy.heal();
        }
    }
}
