//! What operators change of a volume that exists.

use ankole_proto::VolumeSize;
use ankole_proto::rpc::v1::{
    ExpandVolumeCommand, LogAnswer, ScrubVolumeCommand, UpdateVolumeCommand,
};

use super::snapshot::works_on_tasks;
use super::volume::checked_count;
use super::{Apply, answer};
use crate::state::record::write_cache_from;
use crate::state::{Chap, PhaseKind, Refusal, Severity, TaskKind, WriteCache};

impl Apply<'_> {
    pub(super) fn update_volume(&mut self, c: &UpdateVolumeCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume_at(&c.volume_id, c.revision)?;
        if volume.phase.kind() == PhaseKind::Deleting {
            return Err(volume.wrong_phase("changed"));
        }
        let before = volume.clone();
        let mut changes = Vec::new();
        if c.replica_count != 0 {
            volume.replica_count = checked_count(c.replica_count)?;
        }
        if volume.replica_count != before.replica_count {
            changes.push(format!("{} replicas are wanted", volume.replica_count));
        }
        if let Some(set) = write_cache_from(c.write_cache()) {
            volume.write_cache = set;
        }
        if volume.write_cache != before.write_cache {
            let is = match volume.write_cache {
                WriteCache::On => "on",
                WriteCache::Off => "off",
            };
            changes.push(format!("its write cache is {is}"));
        }
        if let Some(bytes) = c.rebuild_bytes_per_second {
            volume.rebuild_bytes_per_second = bytes;
        }
        if volume.rebuild_bytes_per_second != before.rebuild_bytes_per_second {
            changes.push(match volume.rebuild_bytes_per_second {
                0 => "its rebuilds are not limited".to_owned(),
                bytes => format!("each rebuild copies at most {bytes} bytes a second"),
            });
        }
        if c.change_chap {
            let chap = c.chap.as_ref().map(Chap::from_message).transpose();
            volume.chap = chap.map_err(|error| Refusal::Invalid(error.to_string()))?;
        }
        if volume.chap != before.chap {
            changes.push(match &volume.chap {
                Some(chap) => format!("initiators must log in as {}", chap.user),
                None => "anybody may log in".to_owned(),
            });
        }
        if changes.is_empty() {
            return Ok(answer(&volume));
        }
        let message = changes.join(", ");
        self.volume_event(Severity::Info, "VolumeChanged", &volume.name, message);
        Ok(self.put(volume))
    }

    /// The size on record changes when the engine has done the task: until then nobody may count on
    /// it.
    pub(super) fn expand_volume(&mut self, c: &ExpandVolumeCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume_at(&c.volume_id, c.revision)?;
        works_on_tasks(&volume, "expanded")?;
        let size = VolumeSize::from_bytes(c.size_bytes)
            .map_err(|error| Refusal::Invalid(error.to_string()))?;
        let wanted = volume.size_wanted();
        if size < wanted {
            return Err(Refusal::Shrinks {
                volume: volume.name,
                is: wanted.bytes(),
                wanted: size.bytes(),
            });
        }
        let kind = TaskKind::Expand { size };
        if size == wanted {
            let waiting = volume.tasks.iter().find(|task| task.kind == kind);
            return Ok(LogAnswer {
                task_id: waiting.map_or(0, |task| task.id),
                ..answer(&volume)
            });
        }
        let task_id = volume.enqueue(kind)?;
        Ok(LogAnswer {
            task_id,
            ..self.put(volume)
        })
    }

    pub(super) fn scrub_volume(&mut self, c: &ScrubVolumeCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        if matches!(
            volume.phase.kind(),
            PhaseKind::Creating | PhaseKind::Deleting
        ) {
            return Err(volume.wrong_phase("scrubbed"));
        }
        volume.scrub.request += 1;
        volume.scrub.asked_at_ms = self.at_ms;
        volume.comparison.request += 1;
        volume.comparison.ordered_at_ms = self.at_ms;
        let why = if c.periodic {
            "the last one was long ago"
        } else {
            "somebody asked for it"
        };
        let message = format!(
            "every replica is to compare its blocks with their checksums, and then with the other \
             replicas: {why}"
        );
        self.volume_event(Severity::Info, "ScrubOrdered", &volume.name, message);
        Ok(self.put(volume))
    }
}
