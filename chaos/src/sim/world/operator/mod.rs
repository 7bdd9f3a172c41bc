//! The people in front of the cluster: volumes created, cloned, moved, grown, scrubbed, resized in
//! their number of copies, snapshots taken, gone back to and deleted.

mod snapshots;
mod volumes;

use std::time::Duration;

use ankole_meta::state::{Phase, Volume};
use ankole_proto::VolumeId;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{LogAnswer, LogCommand};
use rand::Rng;

use super::super::checker::Verdict;
use super::proposals::Asker;
use super::{Happening, World};

pub(in super::super) use snapshots::Taken;

/// Between two looks at what there is.
const INTERVAL: Duration = Duration::from_millis(200);
/// A detached volume is attached again at one look in so many.
const ATTACH_ONE_IN: u32 = 4;
/// Somebody wants something else at one look in so many.
const WISH_ONE_IN: u32 = 5;

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Any,
    /// A volume is on its way.
    Create,
    Revert,
}

impl World {
    pub(super) fn operate(&mut self) -> Verdict {
        self.schedule.after(INTERVAL, Happening::Operate);
        let now = self.schedule.now();
        if !self.fleet.is_led(now) {
            return Ok(());
        }
        let there = self.fleet.state.volumes().len();
        if there < self.volumes_wanted && !self.creating && (!self.healing || there == 0) {
            self.create_volume();
        }
        let detached: Vec<VolumeId> = self
            .fleet
            .state
            .volumes()
            .values()
            .filter(|volume| volume.phase == Phase::Detached)
            .map(|volume| volume.id)
            .collect();
        for volume in detached {
            if self.healing || self.random.random_ratio(1, ATTACH_ONE_IN) {
                self.attach(volume, false);
            }
        }
        if self.is_sitting_out() {
            self.fetch_from_absent();
        }
        if self.healing {
            self.scrub_each_once();
        } else if self.random.random_ratio(1, WISH_ONE_IN) {
            self.wish();
        }
        Ok(())
    }

    /// Something that people do with a cluster that works.
    fn wish(&mut self) {
        match self.random.random_range(0..100) {
            0..36 => self.take_snapshot(),
            36..48 => self.take_group(),
            48..62 => self.delete_snapshot(),
            62..70 => self.revert(),
            70..77 => self.clone_volume(),
            77..83 => self.expand(),
            83..87 => self.scrub_some(),
            87..92 => self.detach(),
            92..95 => self.delete_volume(),
            _ => self.change_count(),
        }
    }

    /// Under a request id, as people's calls are.
    fn ask_managers(&mut self, act: Act, command: Command) {
        let command = LogCommand {
            request_id: format!("{:032x}", self.random.random::<u128>()),
            ..self.fleet.entry(self.schedule.now(), command)
        };
        self.propose(Asker::Operator(act), command);
    }

    pub(super) fn acted(&mut self, act: &Act, answer: Option<&LogAnswer>) {
        if matches!(act, Act::Create) {
            self.creating = false;
        }
        if let (Act::Revert, Some(answer)) = (act, answer) {
            let refusal = answer.refusal.as_ref();
            self.note(format_args!("revert: {:?} {refusal:?}", answer.task_id));
        }
    }

    /// Some volume.
    fn some_volume(&mut self) -> Option<Volume> {
        let volumes = self.fleet.state.volumes();
        let at = self.random.random_range(0..volumes.len().max(1));
        volumes.values().nth(at).cloned()
    }
}
