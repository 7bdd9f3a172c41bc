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

/// The longest message between daemons and managers. A blockd's report takes about 5 KiB for a replica
/// of 255 layers, and less than 400 bytes for one of few, so it has room for some 3,000 or 40,000.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

impl std::fmt::Debug for v1::Chap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chap")
            .field("user", &self.user)
            .field("mutual_user", &self.mutual_user)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::v1;

    #[test]
    fn no_message_shows_a_chap_secret() {
        let chap = v1::Chap {
            user: "alice".into(),
            secret: "open sesame 1".into(),
            mutual_user: "target".into(),
            mutual_secret: "open sesame 2".into(),
        };
        let request = v1::CreateVolumeRequest {
            chap: Some(chap),
            ..Default::default()
        };
        let shown = format!("{request:?}");
        assert!(
            shown.contains("alice") && !shown.contains("sesame"),
            "{shown}"
        );
    }
}
