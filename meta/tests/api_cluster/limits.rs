//! What is refused because there is enough of it.

use ankole_proto::rpc::v1::admin_client::AdminClient;
use tonic::Code;

use crate::cluster::{attach, cluster, create, snapshot};

#[tokio::test]
async fn the_snapshot_after_the_254th_is_refused_with_the_limit_and_what_to_do() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel);
    admin.create_volume(create("data", "")).await.unwrap();
    admin.attach_volume(attach("data", "n1")).await.unwrap();
    for number in 1..=254 {
        let request = snapshot("data", &format!("s{number}"));
        admin.create_snapshot(request).await.unwrap();
    }
    let refused = admin
        .create_snapshot(snapshot("data", "s255"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    // The same words stand in the test of what the command line makes of a refusal.
    assert_eq!(
        refused.message(),
        "volume \"data\" has 254 sealed layers, the most there may be; delete a snapshot"
    );
}
