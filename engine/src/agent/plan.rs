//! What is to be done about the engines of a node, from what is wanted and what is. Pure.
//!
//! Level-triggered: nothing is remembered of how things came to be, only how often an engine was
//! started of late, and since when one is being stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ankole_proto::{Epoch, VolumeId};

use crate::volume::Moment;

/// How long an engine that was told to end may take: it drains and closes its replicas. Then it is
/// killed.
pub const STOP_LIMIT: Duration = Duration::from_secs(18);
/// An engine that ran for this long before it ended starts afresh, without a pause. Longer than
/// [`PAUSE_MAX`], so that one that dies at once does not; not much longer, because starting so seldom
/// harms nobody, and a pause is time without I/O.
const STEADY: Duration = Duration::from_secs(15);
/// Pause before the third start within [`STEADY`]; doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause: what waits is somebody's I/O.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// An engine that the managers want on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The last epoch granted; an engine of an older one is to be replaced.
    pub epoch: Epoch,
    /// The target's port; `None` for an engine that only does the tasks of a detached volume.
    pub port: Option<u16>,
    /// An engine of this epoch or an older one is to be replaced.
    pub replace_through: Epoch,
}

/// What is known of a volume's engine on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// Its epoch is being asked for.
    Starting,
    /// A process lives.
    Running {
        /// Its epoch.
        epoch: Epoch,
        /// Its target's port, `None` without one.
        port: Option<u16>,
    },
    /// No process lives.
    Ended {
        /// The epoch of the last one.
        epoch: Epoch,
        /// Because of a newer engine.
        fenced: bool,
        /// No older engine can still believe in a lease.
        alone: bool,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask for the next epoch and start an engine under it.
    Start {
        /// Of this volume.
        volume: VolumeId,
        /// The last epoch that is known here.
        expected: Epoch,
        /// The epoch of the last engine here, which has been seen dead.
        ended: Option<Epoch>,
    },
    /// Tell the engine to end in order.
    Terminate(VolumeId),
    /// End the engine.
    Kill(VolumeId),
}

/// How often a volume's engine was started, and since when it is being stopped.
#[derive(Debug, Default)]
struct Memory {
    started: Option<Moment>,
    /// Starts within [`STEADY`] of the one before.
    in_a_row: u32,
    not_before: Moment,
    stopping_since: Option<Moment>,
}

impl Memory {
    fn start(&mut self, now: Moment) {
        let again = self
            .started
            .is_some_and(|before| now.since(before) < STEADY);
        self.in_a_row = if again {
            self.in_a_row.saturating_add(1)
        } else {
            0
        };
        self.started = Some(now);
        self.not_before = now + pause_after(self.in_a_row);
    }

    /// Terminates at first, kills when that took too long.
    fn stop(&mut self, volume: VolumeId, now: Moment) -> Option<Action> {
        match self.stopping_since {
            None => {
                self.stopping_since = Some(now);
                Some(Action::Terminate(volume))
            }
            Some(since) if now.since(since) >= STOP_LIMIT => Some(Action::Kill(volume)),
            Some(_) => None,
        }
    }
}

fn pause_after(in_a_row: u32) -> Duration {
    match in_a_row {
        0 => Duration::ZERO,
        n => PAUSE_MAX.min(PAUSE_MIN.saturating_mul(1 << (n - 1).min(10))),
    }
}

/// The supervision of one node's engines.
#[derive(Debug, Default)]
pub struct Supervision {
    volumes: BTreeMap<VolumeId, Memory>,
}

impl Supervision {
    /// What brings `observed` nearer to `wanted`. Every action returned must be carried out before
    /// the next call.
    pub fn plan(
        &mut self,
        wanted: &BTreeMap<VolumeId, Wanted>,
        observed: &BTreeMap<VolumeId, Observed>,
        now: Moment,
    ) -> Vec<Action> {
        let known: BTreeSet<VolumeId> = wanted.keys().chain(observed.keys()).copied().collect();
        self.volumes.retain(|volume, _| known.contains(volume));
        known
            .into_iter()
            .filter_map(|volume| {
                let memory = self.volumes.entry(volume).or_default();
                one(
                    memory,
                    volume,
                    wanted.get(&volume),
                    observed.get(&volume),
                    now,
                )
            })
            .collect()
    }
}

fn one(
    memory: &mut Memory,
    volume: VolumeId,
    wanted: Option<&Wanted>,
    observed: Option<&Observed>,
    now: Moment,
) -> Option<Action> {
    match (wanted, observed) {
        (_, Some(Observed::Starting)) => None,
        (Some(wanted), Some(Observed::Running { epoch, port })) => {
            // A newer epoch than ordered is one that was just granted: the order is late.
            let right = *epoch > wanted.epoch || (*epoch == wanted.epoch && *port == wanted.port);
            let stays = *epoch > wanted.replace_through;
            if right && stays && memory.stopping_since.is_none() {
                None
            } else {
                memory.stop(volume, now)
            }
        }
        (None, Some(Observed::Running { .. })) => memory.stop(volume, now),
        (Some(wanted), ended) => {
            memory.stopping_since = None;
            start(memory, volume, wanted, ended, now)
        }
        (None, _) => {
            *memory = Memory::default();
            None
        }
    }
}

fn start(
    memory: &mut Memory,
    volume: VolumeId,
    wanted: &Wanted,
    ended: Option<&Observed>,
    now: Moment,
) -> Option<Action> {
    let (last, ended) = match ended {
        Some(Observed::Ended {
            epoch,
            fenced,
            alone,
        }) => {
            // The one that fenced it was granted a newer epoch: the order is late (INV-1 holds
            // either way, but two hosts must not take turns).
            if *fenced && wanted.epoch <= *epoch {
                return None;
            }
            (Some(*epoch), alone.then_some(*epoch))
        }
        _ => (None, None),
    };
    if now < memory.not_before {
        return None;
    }
    memory.start(now);
    Some(Action::Start {
        volume,
        expected: last.map_or(wanted.epoch, |last| last.max(wanted.epoch)),
        ended,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId::from_bits(1);

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    fn epoch(raw: u64) -> Epoch {
        Epoch::from_raw(raw)
    }

    fn wanted(raw: u64) -> Option<Wanted> {
        Some(Wanted {
            epoch: epoch(raw),
            port: Some(3260),
            replace_through: Epoch::ZERO,
        })
    }

    fn running(raw: u64) -> Option<Observed> {
        Some(Observed::Running {
            epoch: epoch(raw),
            port: Some(3260),
        })
    }

    fn ended(raw: u64, fenced: bool) -> Option<Observed> {
        Some(Observed::Ended {
            epoch: epoch(raw),
            fenced,
            alone: true,
        })
    }

    fn start(expected: u64, ended: Option<u64>) -> Vec<Action> {
        vec![Action::Start {
            volume: VOLUME,
            expected: epoch(expected),
            ended: ended.map(epoch),
        }]
    }

    fn plan(
        supervision: &mut Supervision,
        wanted: Option<Wanted>,
        observed: Option<Observed>,
        now: Moment,
    ) -> Vec<Action> {
        let wanted = wanted.map(|wanted| (VOLUME, wanted)).into_iter().collect();
        let observed = observed.map(|observed| (VOLUME, observed));
        supervision.plan(&wanted, &observed.into_iter().collect(), now)
    }

    #[test]
    fn a_wanted_engine_is_started_once_and_then_left_alone() {
        let mut supervision = Supervision::default();
        assert_eq!(
            plan(&mut supervision, wanted(4), None, at(1)),
            start(4, None)
        );
        let starting = Some(Observed::Starting);
        assert_eq!(plan(&mut supervision, wanted(4), starting, at(1)), []);
        for order in [4, 5] {
            assert_eq!(plan(&mut supervision, wanted(order), running(5), at(2)), []);
        }
    }

    #[test]
    fn a_crashed_engine_is_replaced_at_once_and_then_ever_more_slowly() {
        let mut supervision = Supervision::default();
        assert_eq!(
            plan(&mut supervision, wanted(1), None, at(0)),
            start(1, None)
        );
        let (mut starts, mut last) = (Vec::new(), 2);
        for second in 0..40 {
            if !plan(
                &mut supervision,
                wanted(last),
                ended(last, false),
                at(second),
            )
            .is_empty()
            {
                starts.push(second);
                last += 1;
            }
        }
        assert_eq!(starts, [0, 1, 3, 7, 15, 25, 35]);
    }

    #[test]
    fn an_engine_that_ran_steadily_is_restarted_without_a_pause() {
        let mut supervision = Supervision::default();
        for now in [0, 1, 2] {
            plan(&mut supervision, wanted(1), ended(1, false), at(now));
        }
        for now in [100, 100] {
            assert_eq!(
                plan(&mut supervision, wanted(2), ended(2, false), at(now)),
                start(2, Some(2))
            );
        }
    }

    #[test]
    fn an_engine_of_an_older_epoch_is_stopped_and_then_replaced() {
        let mut supervision = Supervision::default();
        let terminate = vec![Action::Terminate(VOLUME)];
        assert_eq!(
            plan(&mut supervision, wanted(6), running(5), at(0)),
            terminate
        );
        assert_eq!(plan(&mut supervision, wanted(6), running(5), at(1)), []);
        assert_eq!(
            plan(&mut supervision, wanted(6), ended(5, false), at(2)),
            start(6, Some(5))
        );
    }

    #[test]
    fn an_engine_that_is_to_be_replaced_ends_in_order_and_the_next_one_stays() {
        let mut supervision = Supervision::default();
        let replaced = || {
            wanted(5).map(|wanted| Wanted {
                replace_through: epoch(5),
                ..wanted
            })
        };
        let terminate = vec![Action::Terminate(VOLUME)];
        assert_eq!(
            plan(&mut supervision, replaced(), running(5), at(0)),
            terminate
        );
        assert_eq!(
            plan(&mut supervision, replaced(), ended(5, false), at(1)),
            start(5, Some(5))
        );
        assert_eq!(plan(&mut supervision, replaced(), running(6), at(2)), []);
    }

    #[test]
    fn an_engine_that_nobody_wants_is_told_to_end_and_killed_when_it_does_not() {
        let mut supervision = Supervision::default();
        let limit = STOP_LIMIT.as_secs();
        let terminate = vec![Action::Terminate(VOLUME)];
        assert_eq!(plan(&mut supervision, None, running(5), at(0)), terminate);
        assert_eq!(plan(&mut supervision, None, running(5), at(limit - 1)), []);
        let kill = vec![Action::Kill(VOLUME)];
        assert_eq!(plan(&mut supervision, None, running(5), at(limit)), kill);
        assert_eq!(plan(&mut supervision, None, ended(5, false), at(limit)), []);
    }

    #[test]
    fn an_engine_that_is_wanted_again_while_it_ends_ends_first() {
        let mut supervision = Supervision::default();
        plan(&mut supervision, None, running(5), at(0));
        assert_eq!(plan(&mut supervision, wanted(5), running(5), at(1)), []);
        assert_eq!(
            plan(&mut supervision, wanted(5), ended(5, false), at(2)),
            start(5, Some(5))
        );
    }

    #[test]
    fn a_fenced_engine_waits_for_a_newer_order() {
        let mut supervision = Supervision::default();
        assert_eq!(plan(&mut supervision, wanted(5), ended(5, true), at(0)), []);
        assert_eq!(
            plan(&mut supervision, wanted(7), ended(5, true), at(1)),
            start(7, Some(5))
        );
    }

    #[test]
    fn a_crash_before_serving_does_not_vouch_for_older_engines() {
        let mut supervision = Supervision::default();
        let crashed = Some(Observed::Ended {
            epoch: epoch(2),
            fenced: false,
            alone: false,
        });
        let actions = plan(&mut supervision, wanted(2), crashed, at(1));
        assert_eq!(actions, start(2, None));
    }

    #[test]
    fn an_engine_without_a_target_is_replaced_when_the_volume_is_attached() {
        let mut supervision = Supervision::default();
        let without = Some(Observed::Running {
            epoch: epoch(5),
            port: None,
        });
        let terminate = vec![Action::Terminate(VOLUME)];
        assert_eq!(plan(&mut supervision, wanted(5), without, at(0)), terminate);
    }
}
