//! The managers' orders, checked and typed. Pure.

use ankole_proto::rpc::v1;
use ankole_proto::{ClusterId, Credential, DiskId, LayerId, ReplicaId, VolumeId, VolumeSize};

/// What this node is to have.
#[derive(Debug, Clone)]
pub struct Orders {
    /// To be named in the next report.
    pub revision: u64,
    /// Whose orders these are.
    pub cluster: ClusterId,
    /// Replicas that are to exist.
    pub replicas: Vec<ReplicaOrder>,
    /// Replicas that are to go.
    pub delete: Vec<ReplicaId>,
    /// Orders that make no sense, in words. The others are carried out.
    pub rejected: Vec<String>,
}

/// A replica that is to exist.
#[derive(Debug, Clone)]
pub struct ReplicaOrder {
    /// Which.
    pub replica: ReplicaId,
    /// Of which volume.
    pub volume: VolumeId,
    /// On which disk.
    pub disk: DiskId,
    /// Of which size.
    pub size: VolumeSize,
    /// What opens it.
    pub credential: Credential,
    /// What to do when it does not exist.
    pub absent: WhenAbsent,
    /// Sealed layers that are to be merged away.
    pub remove_layers: Vec<LayerId>,
    /// The last scrub that was asked for; 0: none.
    pub scrub_request: u64,
}

/// What to do about a replica that is to exist and does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAbsent {
    /// Create it empty with this head.
    Create {
        /// The empty head.
        base: LayerId,
    },
    /// Begin as a sealed layer of another replica on the same disk.
    Clone {
        /// The empty head that stands on it.
        base: LayerId,
        /// Of which replica.
        source: ReplicaId,
        /// Which layer.
        layer: LayerId,
    },
    /// Report it missing: it had data once, an empty one would be a lie.
    ReportMissing,
}

/// Orders without which nothing can be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the managers' orders are of no known cluster: {0:?}")]
pub struct NoCluster(pub String);

impl Orders {
    /// Reads the managers' answer.
    ///
    /// # Errors
    ///
    /// [`NoCluster`] when it does not say whose it is.
    pub fn from_message(message: v1::BlockdOrders) -> Result<Self, NoCluster> {
        let cluster = message
            .cluster_id
            .parse()
            .map_err(|_| NoCluster(message.cluster_id))?;
        let mut rejected = Vec::new();
        let mut replicas = Vec::with_capacity(message.replicas.len());
        for order in message.replicas {
            let id = order.id.clone();
            match replica_order(order) {
                Ok(order) => replicas.push(order),
                Err(reason) => rejected.push(format!("order for replica {id:?}: {reason}")),
            }
        }
        let mut delete = Vec::with_capacity(message.delete_replicas.len());
        for id in message.delete_replicas {
            match id.parse() {
                Ok(id) => delete.push(id),
                Err(error) => rejected.push(format!("order to delete: {error}")),
            }
        }
        Ok(Self {
            revision: message.revision,
            cluster,
            replicas,
            delete,
            rejected,
        })
    }
}

fn replica_order(order: v1::ReplicaOrder) -> Result<ReplicaOrder, String> {
    let words = |error: ankole_proto::id::ParseIdError| error.to_string();
    let absent = match (order.create, &order.clone) {
        (true, None) => WhenAbsent::Create {
            base: order.base_layer.parse().map_err(words)?,
        },
        (true, Some(origin)) => WhenAbsent::Clone {
            base: order.base_layer.parse().map_err(words)?,
            source: origin.replica_id.parse().map_err(words)?,
            layer: origin.layer.parse().map_err(words)?,
        },
        (false, _) => WhenAbsent::ReportMissing,
    };
    Ok(ReplicaOrder {
        replica: order.id.parse().map_err(words)?,
        volume: order.volume_id.parse().map_err(words)?,
        disk: order.disk_id.parse().map_err(words)?,
        size: VolumeSize::from_bytes(order.size_bytes).map_err(|error| error.to_string())?,
        credential: Credential::from_slice(&order.credential)
            .ok_or_else(|| "the credential is not 32 bytes long".to_owned())?,
        absent,
        remove_layers: order
            .remove_layers
            .iter()
            .map(|layer| layer.parse().map_err(words))
            .collect::<Result<_, _>>()?,
        scrub_request: order.scrub_request,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> v1::ReplicaOrder {
        v1::ReplicaOrder {
            id: ReplicaId::from_bits(1).to_string(),
            volume_id: VolumeId::from_bits(2).to_string(),
            disk_id: DiskId::from_bits(3).to_string(),
            size_bytes: 1 << 20,
            base_layer: "0000000000000001".to_owned(),
            credential: vec![5; 32],
            create: true,
            remove_layers: vec!["0000000000000002".to_owned()],
            ..Default::default()
        }
    }

    fn orders(replicas: Vec<v1::ReplicaOrder>) -> v1::BlockdOrders {
        v1::BlockdOrders {
            revision: 9,
            cluster_id: ClusterId::from_bits(4).to_string(),
            replicas,
            delete_replicas: vec![ReplicaId::from_bits(6).to_string(), "?".to_owned()],
        }
    }

    #[test]
    fn good_orders_are_kept_beside_bad_ones() {
        let bad = [
            v1::ReplicaOrder {
                id: "x".to_owned(),
                ..order()
            },
            v1::ReplicaOrder {
                size_bytes: 5,
                ..order()
            },
            v1::ReplicaOrder {
                credential: vec![1; 31],
                ..order()
            },
            v1::ReplicaOrder {
                base_layer: String::new(),
                ..order()
            },
            v1::ReplicaOrder {
                remove_layers: vec!["0".to_owned()],
                ..order()
            },
            v1::ReplicaOrder {
                clone: Some(v1::CloneSource {
                    replica_id: ReplicaId::from_bits(7).to_string(),
                    layer: String::new(),
                }),
                ..order()
            },
        ];
        let mut all = vec![order()];
        all.extend(bad);
        let read = Orders::from_message(orders(all)).unwrap();
        assert_eq!(read.replicas.len(), 1);
        assert_eq!(read.delete, [ReplicaId::from_bits(6)]);
        assert_eq!(read.rejected.len(), 7, "{:?}", read.rejected);
        assert_eq!(read.revision, 9);
    }

    #[test]
    fn a_base_layer_is_only_needed_to_create() {
        let mut missing = order();
        missing.create = false;
        missing.base_layer.clear();
        let read = Orders::from_message(orders(vec![missing])).unwrap();
        assert_eq!(read.replicas[0].absent, WhenAbsent::ReportMissing);
    }

    #[test]
    fn a_clone_is_created_once_and_reported_missing_ever_after() {
        let mut clone = order();
        clone.clone = Some(v1::CloneSource {
            replica_id: ReplicaId::from_bits(7).to_string(),
            layer: "0000000000000002".to_owned(),
        });
        let mut later = clone.clone();
        later.create = false;
        let read = Orders::from_message(orders(vec![clone, later])).unwrap();
        let wanted = WhenAbsent::Clone {
            base: LayerId::from_raw(1).unwrap(),
            source: ReplicaId::from_bits(7),
            layer: LayerId::from_raw(2).unwrap(),
        };
        assert_eq!(read.replicas[0].absent, wanted);
        assert_eq!(read.replicas[1].absent, WhenAbsent::ReportMissing);
    }

    #[test]
    fn orders_of_nobody_are_refused() {
        let mut message = orders(vec![]);
        message.cluster_id.clear();
        assert_eq!(
            Orders::from_message(message).unwrap_err(),
            NoCluster(String::new())
        );
    }
}
