//! The rules one by one, and all of them under random schedules.

mod history;
mod random;
mod replica;
mod rules;
mod world;
