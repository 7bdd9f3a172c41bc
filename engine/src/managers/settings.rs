//! What of the managers' orders only the target needs: when a write is durable, who may log in.

use ankole_proto::rpc::v1;

use super::orders::OrdersError;
use crate::iscsi::login::{Chap, Credentials, Secret};

/// A volume's settings. They may change at any time; what is logged in goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether a write is durable only when it is flushed: the target's WCE.
    pub write_cache: bool,
    /// What initiators must prove; `None`: nothing.
    pub chap: Option<Chap>,
}

impl Settings {
    /// The settings in the orders.
    ///
    /// # Errors
    ///
    /// [`OrdersError::Chap`]: what cannot be read must not let everybody in.
    pub(super) fn from_orders(orders: &v1::EngineOrders) -> Result<Self, OrdersError> {
        Ok(Self {
            write_cache: orders.write_cache() != v1::WriteCache::Off,
            chap: orders.chap.as_ref().map(chap).transpose()?,
        })
    }
}

fn chap(message: &v1::Chap) -> Result<Chap, OrdersError> {
    let target = match (&message.mutual_user, &message.mutual_secret) {
        (user, secret) if user.is_empty() && secret.is_empty() => None,
        (user, secret) => Some(credentials(user, secret)?),
    };
    Ok(Chap {
        initiator: credentials(&message.user, &message.secret)?,
        target,
    })
}

fn credentials(name: &str, secret: &str) -> Result<Credentials, OrdersError> {
    if name.is_empty() || secret.is_empty() {
        return Err(OrdersError::Chap);
    }
    Ok(Credentials {
        name: name.to_owned(),
        secret: Secret::new(secret),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(chap: Option<v1::Chap>, write_cache: v1::WriteCache) -> v1::EngineOrders {
        v1::EngineOrders {
            chap,
            write_cache: write_cache.into(),
            ..Default::default()
        }
    }

    #[test]
    fn settings_are_taken_and_nobody_gets_in_by_a_half() {
        let open = Settings::from_orders(&orders(None, v1::WriteCache::Unspecified)).unwrap();
        assert!(open.write_cache && open.chap.is_none());
        let mut asked = v1::Chap {
            user: "alice".to_owned(),
            secret: "open sesame 1".to_owned(),
            ..Default::default()
        };
        let one_way = Settings::from_orders(&orders(Some(asked.clone()), v1::WriteCache::Off));
        let one_way = one_way.unwrap();
        assert!(!one_way.write_cache);
        assert_eq!(one_way.chap.as_ref().unwrap().target, None);
        assert!(!format!("{one_way:?}").contains("sesame"));
        asked.mutual_user = "target".to_owned();
        let half = Settings::from_orders(&orders(Some(asked.clone()), v1::WriteCache::On));
        assert_eq!(half.unwrap_err(), OrdersError::Chap);
        asked.mutual_secret = "open sesame 2".to_owned();
        let mutual = Settings::from_orders(&orders(Some(asked), v1::WriteCache::On)).unwrap();
        assert_eq!(mutual.chap.unwrap().target.unwrap().name, "target");
        let nobody = Settings::from_orders(&orders(Some(v1::Chap::default()), v1::WriteCache::On));
        assert_eq!(nobody.unwrap_err(), OrdersError::Chap);
    }
}
