//! Real sockets through a proxy.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{Network, Passage, Proxy, Rules, Way};

/// Generous: other work loads the machine.
const LIMIT: Duration = Duration::from_secs(30);
/// Long enough to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(200);

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A client and a server that talk through a proxy.
fn connected() -> (Network, Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind(local()).unwrap();
    let network = Network::start(1).unwrap();
    let proxy = network
        .proxy(local(), listener.local_addr().unwrap())
        .unwrap();
    let client = TcpStream::connect(proxy.address()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
    (network, proxy, client, server)
}

fn expect(socket: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    socket.read_exact(&mut bytes).unwrap();
    assert!(bytes == expected, "other bytes than were sent");
}

fn expect_silence(socket: &mut TcpStream) {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let error = socket.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    socket.set_read_timeout(Some(LIMIT)).unwrap();
}

fn expect_reset(socket: &mut TcpStream) {
    let error = socket.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn bytes_pass_unchanged_in_both_directions_and_so_does_the_end() {
    let (_network, _proxy, mut client, mut server) = connected();
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().step_by(3).take(3 << 20).collect();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client
    });
    expect(&mut server, &bytes);
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    let mut client = writer.join().unwrap();
    server.write_all(b"answer").unwrap();
    expect(&mut client, b"answer");
}

#[test]
fn a_delay_is_kept_and_so_is_the_order() {
    let (_network, proxy, mut client, mut server) = connected();
    let delay = Duration::from_millis(120);
    proxy.rule(Rules::both(Way {
        delay,
        jitter: Duration::from_millis(40),
        ..Way::default()
    }));
    let start = Instant::now();
    for number in 0..50_u8 {
        client.write_all(&[number; 100]).unwrap();
    }
    let expected: Vec<u8> = (0..50).flat_map(|number| [number; 100]).collect();
    expect(&mut server, &expected);
    // The rules reach the connection a moment after they are given.
    assert!(start.elapsed() > delay / 2, "{:?}", start.elapsed());
}

#[test]
fn a_narrow_way_takes_its_time() {
    let (_network, proxy, mut client, mut server) = connected();
    proxy.rule(Rules::both(Way {
        bytes_per_second: Some(1 << 20),
        ..Way::default()
    }));
    let bytes = vec![7; 512 << 10];
    let start = Instant::now();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || client.write_all(&sent).map(|()| client).unwrap());
    expect(&mut server, &bytes);
    assert!(start.elapsed() > Duration::from_millis(200));
    drop(writer.join());
}

#[test]
fn held_bytes_arrive_when_the_way_is_open_again() {
    let (_network, proxy, mut client, mut server) = connected();
    client.write_all(b"before").unwrap();
    expect(&mut server, b"before");
    proxy.rule(Rules::passage(Passage::Held));
    std::thread::sleep(SILENCE);
    client.write_all(b"during").unwrap();
    expect_silence(&mut server);
    proxy.heal();
    expect(&mut server, b"during");
}

#[test]
fn swallowed_bytes_are_gone_and_the_connection_with_them() {
    let (_network, proxy, mut client, mut server) = connected();
    let dropped = Way {
        passage: Passage::Swallowed,
        ..Way::default()
    };
    proxy.rule(Rules {
        out: dropped,
        back: Way::default(),
    });
    std::thread::sleep(SILENCE);
    client.write_all(b"lost").unwrap();
    expect_silence(&mut server);
    // Only the one direction is dead.
    server.write_all(b"heard").unwrap();
    expect(&mut client, b"heard");
    proxy.heal();
    expect_reset(&mut client);
    expect_reset(&mut server);
}

#[test]
fn a_cut_resets_what_there_is_and_lets_new_connections_in() {
    let listener = TcpListener::bind(local()).unwrap();
    let network = Network::start(1).unwrap();
    let proxy = network
        .proxy(local(), listener.local_addr().unwrap())
        .unwrap();
    let mut first = TcpStream::connect(proxy.address()).unwrap();
    let (mut first_server, _) = listener.accept().unwrap();
    first.write_all(b"x").unwrap();
    expect(&mut first_server, b"x");
    proxy.cut();
    expect_reset(&mut first);
    expect_reset(&mut first_server);
    let mut second = TcpStream::connect(proxy.address()).unwrap();
    let (mut second_server, _) = listener.accept().unwrap();
    second.write_all(b"y").unwrap();
    expect(&mut second_server, b"y");
}

#[test]
fn a_target_that_does_not_listen_is_a_reset() {
    let target = TcpListener::bind(local()).unwrap().local_addr().unwrap();
    let network = Network::start(1).unwrap();
    let proxy = network.proxy(local(), target).unwrap();
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    expect_reset(&mut client);
}
