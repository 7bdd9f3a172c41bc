//! Tests of whole replicas.

mod basic;
mod cloning;
mod crash;
mod damage;
mod model;
mod operations;
mod rebuilding;
mod support;
