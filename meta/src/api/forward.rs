//! Passing calls on to the leader.

use tonic::Request;
use tonic::metadata::MetadataMap;

use crate::raft::mark_forwarded;

/// Carries a call out here when this manager leads, and has the leader do it otherwise.
macro_rules! on_leader {
    ($desk:expr, $request:expr, $client:ident . $call:ident, $here:ident) => {{
        let (metadata, _, message) = $request.into_parts();
        match $desk.seat.turn(&metadata).await? {
            $crate::api::Turn::Mine => $desk.$here(message).await.map(tonic::Response::new),
            $crate::api::Turn::Leaders(channel) => {
                $client::new(channel)
                    .max_decoding_message_size($crate::api::MESSAGE_BYTES_MAX)
                    .$call($crate::api::forward::passed_on(&metadata, message))
                    .await
            }
        }
    }};
}

pub(super) use on_leader;

/// The call as it goes to the leader: one hop further.
pub(super) fn passed_on<T>(received: &MetadataMap, message: T) -> Request<T> {
    let mut call = Request::new(message);
    mark_forwarded(received, &mut call);
    call
}
