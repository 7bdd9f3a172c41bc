//! A replica and a clone of it on the same disk, one step at a time.

use ankole_proto::{Epoch, LayerId};

use super::cloning::{HEAD as CLONE_HEAD, clone_at};
use super::model::Model;
use super::refused::Refused;
use super::steps::Step;
use super::support::{Place, Rig, layer, new_disk};
use super::world::World;
use crate::disk::sim::SimDisk;
use crate::replica::{CloneError, LoadError, Replica, destroy};

/// The second replica.
pub(super) enum Second {
    Absent,
    /// It is being made of this layer, and will be this.
    Coming(u64, Model),
    /// It is there, and nobody has loaded it.
    Made(Model),
    Loaded(Box<World>),
    /// A sync failed while it was loaded.
    Faulted(Model),
    /// It is being removed.
    Going(Model),
}

/// A replica, and a clone on the same disk when there is one.
pub(super) struct Pair {
    pub(super) disk: SimDisk,
    pub(super) original: World,
    pub(super) second: Second,
}

impl Pair {
    pub(super) fn new(blocks: u64) -> Self {
        let disk = new_disk(blocks);
        let rig = Rig::load(&disk, blocks, 1);
        Self {
            original: World::new(disk.clone(), rig),
            disk,
            second: Second::Absent,
        }
    }

    /// Carries the step out. One that needs a clone when there is none, or none when there is one, is
    /// nothing; an operation on the clone is one on the original then.
    pub(super) fn apply(&mut self, step: &Step) -> Result<(), Refused> {
        self.load_second()?;
        match step {
            Step::Operate {
                on_clone,
                operation,
            } => {
                let world = match &mut self.second {
                    Second::Loaded(clone) if *on_clone => clone,
                    _ => &mut self.original,
                };
                world.apply(operation)
            }
            Step::Clone { which } => self.make_second(*which),
            Step::Destroy => self.destroy_second(),
        }
    }

    /// A clone of a sealed layer, if there is one.
    fn make_second(&mut self, which: usize) -> Result<(), Refused> {
        let at = match &self.second {
            Second::Absent => self.original.model.choose(which),
            // As it was asked for before.
            Second::Coming(at, _) => Some(*at),
            _ => None,
        };
        let Some(at) = at else { return Ok(()) };
        if !self.original.model.sealed.contains_key(&at) {
            return self.destroy_second();
        }
        self.original.settle()?;
        let original = &mut self.original;
        let chain: Vec<u64> = original
            .rig
            .replica
            .tree
            .chain_from(layer(at))
            .into_iter()
            .map(LayerId::raw)
            .collect();
        let new = original.model.cloned(at, &chain, CLONE_HEAD);
        let before = std::mem::replace(&mut self.second, Second::Coming(at, new.clone()));
        let blocks = original.rig.blocks;
        let model = match (clone_at(&mut original.rig, blocks, at), before) {
            // Made by a call whose answer was an error.
            (Err(CloneError::Exists), Second::Coming(_, old)) => old,
            (Err(error), before) => {
                if matches!(before, Second::Coming(..)) {
                    self.second = before;
                }
                return Err(error.into());
            }
            (Ok(()), _) => new,
        };
        self.second = Second::Made(model);
        self.load_second()
    }

    fn load_second(&mut self) -> Result<(), Refused> {
        let Second::Made(model) = &self.second else {
            return Ok(());
        };
        let place = Place::Clone;
        let replica = match Replica::load(&self.disk, place.directory()) {
            Err(LoadError::Faulted { .. }) if !self.disk.is_stopped() => {
                self.second = Second::Faulted(model.clone());
                return Ok(());
            }
            loaded => loaded?,
        };
        let rig = Rig {
            place,
            blocks: replica.size().blocks(),
            replica,
            epoch: Epoch::ZERO,
            sequence: 0,
        };
        let world = World::loaded(self.disk.clone(), rig, model.clone());
        self.second = Second::Loaded(Box::new(world));
        Ok(())
    }

    fn destroy_second(&mut self) -> Result<(), Refused> {
        match std::mem::replace(&mut self.second, Second::Absent) {
            Second::Loaded(clone) => self.second = Second::Going(clone.model),
            Second::Going(model) | Second::Faulted(model) | Second::Coming(_, model) => {
                self.second = Second::Going(model);
            }
            other => {
                self.second = other;
                return Ok(());
            }
        }
        destroy(&self.disk, Place::Clone.directory())?;
        self.second = Second::Absent;
        Ok(())
    }

    /// Those that are loaded.
    pub(super) fn worlds(&mut self) -> Vec<&mut World> {
        let mut worlds = vec![&mut self.original];
        if let Second::Loaded(clone) = &mut self.second {
            worlds.push(clone);
        }
        worlds
    }
}
