//! One connection through a proxy.

use std::net::SocketAddr;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::rules::{Rules, Way};
use super::way::{End, Pump};

/// How long the one that listens may take to accept; on one host it does at once or never.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// What holds for the connections of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Order {
    pub(super) rules: Rules,
    /// Grows with each cut: a connection from before is over.
    pub(super) cuts: u64,
}

/// Serves a connection until it ends, one way or the other.
pub(super) async fn serve(
    mut client: TcpStream,
    target: SocketAddr,
    mut orders: watch::Receiver<Order>,
    seed: u64,
) {
    let cuts = orders.borrow_and_update().cuts;
    let server = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(target)).await;
    let Ok(Ok(mut server)) = server else {
        // As if nobody listened: the one that connects is told at once.
        reset(&client);
        return;
    };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let rules = orders.borrow().rules;
    let (out_rules, out) = watch::channel(rules.out);
    let (back_rules, back) = watch::channel(rules.back);
    let ended_whole = {
        let (client_from, client_to) = client.split();
        let (server_from, server_to) = server.split();
        let random = |number| StdRng::seed_from_u64(seed.wrapping_mul(2).wrapping_add(number));
        let pumps = both(
            Pump {
                from: client_from,
                to: server_to,
                rules: out,
                random: random(0),
            },
            Pump {
                from: server_from,
                to: client_to,
                rules: back,
                random: random(1),
            },
        );
        tokio::select! {
            whole = pumps => whole,
            () = follow(&mut orders, cuts, &out_rules, &back_rules) => false,
        }
    };
    if !ended_whole {
        reset(&client);
        reset(&server);
    }
}

/// Whether both directions ended in order.
async fn both(out: Pump<'_>, back: Pump<'_>) -> bool {
    let whole = |end| match end {
        Ok(End::Finished) => Ok(()),
        Ok(End::Lossy) | Err(_) => Err(()),
    };
    let out = async { whole(out.run().await) };
    let back = async { whole(back.run().await) };
    tokio::try_join!(out, back).is_ok()
}

/// Passes new rules on; ends when the connection is cut.
async fn follow(
    orders: &mut watch::Receiver<Order>,
    cuts: u64,
    out: &watch::Sender<Way>,
    back: &watch::Sender<Way>,
) {
    while orders.changed().await.is_ok() {
        let order = *orders.borrow_and_update();
        if order.cuts != cuts {
            return;
        }
        out.send_replace(order.rules.out);
        back.send_replace(order.rules.back);
    }
}

/// Has the socket end with a reset when it is dropped.
fn reset(socket: &TcpStream) {
    // A socket that cannot be set up so ends in order instead: just as well.
    let _ = socket.set_zero_linger();
}
