//! The gRPC services and messages, compiled from `proto/ankole/v1/*.proto`, where they are
//! documented.

/// Package `ankole.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::all,
    clippy::too_many_lines,
    clippy::large_futures,
    reason = "generated code; its documentation is in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("ankole.v1");
}
