//! Tests of whole replicas.

mod basic;
mod cloning;
mod contents;
mod crash;
mod damage;
mod faults;
mod interrupted;
mod merging;
mod model;
mod old_names;
mod operations;
mod pair;
mod preparing;
mod rebuilding;
mod refused;
mod repairing;
mod salvaging;
mod scrubbing;
mod space;
mod steps;
mod support;
mod world;
