//! Checks of what callers send.

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::{NodeName, VolumeSize};
use tonic::Status;

use crate::state::{Chap, REPLICAS_MAX};

/// What no replica count stands for.
const REPLICAS_DEFAULT: u32 = 3;

/// The slowest rebuild that may be asked for, in bytes per second.
const REBUILD_RATE_MIN: u64 = 1 << 20;

const NAME_CHARS_MAX: usize = 63;
const REQUEST_ID_CHARS_MAX: usize = 64;

/// The longest reason or message that a daemon may have recorded; the rest is cut.
const REASON_CHARS_MAX: usize = 512;

/// The name of a new volume or snapshot.
pub(super) fn name(what: &str, name: &str) -> Result<String, Status> {
    let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
    if (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(name.to_owned());
    }
    let shown: String = name.chars().take(80).collect();
    let text = format!("{shown:?} cannot name a {what}: use 1 to 63 of a-z, 0-9, '-', '.', '_'");
    Err(Status::invalid_argument(text))
}

/// The size of a new volume.
pub(super) fn size(bytes: u64) -> Result<VolumeSize, Status> {
    VolumeSize::from_bytes(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// How many replicas a new volume gets.
pub(super) fn replica_count(count: u32) -> Result<usize, Status> {
    let count = if count == 0 { REPLICAS_DEFAULT } else { count };
    if count > REPLICAS_MAX {
        let text = format!("a volume has 1 to {REPLICAS_MAX} replicas, not {count}");
        return Err(Status::invalid_argument(text));
    }
    Ok(count as usize)
}

/// What logins have to prove; `None`: nothing. The refusal never tells a secret.
pub(super) fn chap(chap: Option<&rpc::Chap>) -> Result<Option<rpc::Chap>, Status> {
    let checked = chap.map(Chap::from_message).transpose();
    let checked = checked.map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(checked.as_ref().map(Chap::to_message))
}

/// What a rebuild copies at most; 0: no limit.
pub(super) fn rebuild_rate(bytes_per_second: u64) -> Result<(), Status> {
    if bytes_per_second == 0 || bytes_per_second >= REBUILD_RATE_MIN {
        return Ok(());
    }
    let text = format!(
        "a rebuild at {bytes_per_second} bytes a second would hardly end: give {REBUILD_RATE_MIN} \
         (1 MiB) or more, or 0 for no limit"
    );
    Err(Status::invalid_argument(text))
}

/// A request id; empty for none.
pub(super) fn request_id(id: &str) -> Result<(), Status> {
    if id.len() <= REQUEST_ID_CHARS_MAX && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let text = "a request id has at most 64 visible ASCII characters; a UUID is a good one";
    Err(Status::invalid_argument(text))
}

/// The name of a node.
pub(super) fn node(name: &str) -> Result<NodeName, Status> {
    name.parse()
        .map_err(|error: ankole_proto::id::ParseIdError| {
            Status::invalid_argument(error.to_string())
        })
}

/// A daemon's reason, cut to what is worth keeping.
pub(super) fn reason(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}
