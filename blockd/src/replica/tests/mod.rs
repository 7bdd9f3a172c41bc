//! Tests of whole replicas.

mod basic;
mod cloning;
mod contents;
mod crash;
mod damage;
mod interrupted;
mod merging;
mod model;
mod old_names;
mod operations;
mod preparing;
mod rebuilding;
mod repairing;
mod salvaging;
mod scrubbing;
mod space;
mod support;
