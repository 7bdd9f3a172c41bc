//! The rules one by one, and all of them under random schedules.

mod comparing;
mod copies;
mod history;
mod random;
mod rebuilds;
mod repairs;
mod replica;
mod rules;
mod salvage;
mod tasks;
mod world;
