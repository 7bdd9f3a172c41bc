//! All proxies of a run, on one thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use super::connection::{self, Order};
use super::rules::Rules;

/// Connections through one proxy at once; the next one waits to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// The proxies of a run. They end with this.
#[derive(Debug)]
pub struct Network {
    runtime: tokio::runtime::Handle,
    seed: u64,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One listener with a target. What it does to its connections can change at any time.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Order>,
}

impl Network {
    /// A network without proxies; the seed fixes the delays.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(seed: u64) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || {
                // The sender gone means the same as a word from it.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            runtime: handle,
            seed,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Listens, and passes connections on to the target.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub fn proxy(&self, listen: SocketAddr, target: SocketAddr) -> anyhow::Result<Proxy> {
        let _inside = self.runtime.enter();
        let socket = std::net::TcpListener::bind(listen)
            .with_context(|| format!("cannot listen on {listen}"))?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        let address = listener.local_addr()?;
        let (orders, receiver) = watch::channel(Order::default());
        let seed = self.seed.wrapping_add(u64::from(address.port()) << 32);
        self.runtime.spawn(accept(listener, target, receiver, seed));
        Ok(Proxy { address, orders })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

impl Proxy {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on these rules hold, for the connections that there are as well.
    pub fn rule(&self, rules: Rules) {
        self.orders.send_modify(|order| order.rules = rules);
    }

    /// Resets every connection. New ones may come.
    pub fn cut(&self) {
        self.orders.send_modify(|order| order.cuts += 1);
    }

    /// Everything gets through at once again.
    pub fn heal(&self) {
        self.rule(Rules::default());
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    mut orders: watch::Receiver<Order>,
    seed: u64,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    for number in 0.. {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gone(&mut orders) => return,
        };
        while connections.try_join_next().is_some() {}
        // A connection that was gone before it was accepted is nobody's loss.
        let Ok((client, _)) = accepted else { continue };
        let orders = orders.clone();
        connections.spawn(async move {
            connection::serve(client, target, orders, seed.wrapping_add(number)).await;
            drop(permit);
        });
    }
}

/// Ends when the proxy is dropped.
async fn gone(orders: &mut watch::Receiver<Order>) {
    while orders.changed().await.is_ok() {}
}
