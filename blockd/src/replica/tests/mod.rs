//! Tests of whole replicas.

mod basic;
mod crash;
mod model;
mod operations;
mod support;
