//! Several nodes: which of them a client is given to.

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use megaphone_proto::ConnectionId;
use megaphone_proto::auth::Secret;
use megaphone_proto::control::{CloseReason, Control};
use megaphone_proto::frame::put_frame;
use socket2::{Domain, Socket, Type};
use support::*;

/// An ECM with one link to each of two backends, and these.
fn two(lines: &str) -> (Ecm, [Backend; 2], [Node; 2]) {
    let backends = [Backend::new(), Backend::new()];
    let other = format!(
        "[[backends]]\naddress = \"{}\"\nreconnect_min = \"10ms\"\nreconnect_max = \"50ms\"\n[[backends]]",
        backends[0].address()
    );
    let text = config(&backends[1].address(), lines).replacen("[backend]", &other, 1);
    let ecm = Ecm::start(&text);
    let nodes = [0, 1].map(|n: usize| backends[n].accept_kept());
    ecm.lines(["link 1 up to ", "link 2 up to "]);
    (ecm, backends, nodes)
}

/// The number of the link that the next client is opened on.
fn link_of_next(ecm: &Ecm) -> usize {
    let line = ecm.line(" open link=");
    let after = line.split_once(" link=").unwrap().1;
    after.split(' ').next().unwrap().parse().unwrap()
}

fn goaway() -> Control {
    Control::Goaway {
        reason: CloseReason::Shutdown,
        retry_after: None,
        within: None,
    }
}

#[test]
fn clients_go_to_the_node_that_has_the_fewest() {
    let (ecm, _backends, mut nodes) = two("links = 1");
    let mut clients = HashMap::new();
    for _ in 0..6 {
        let client = ecm.tcp_client();
        let link = link_of_next(&ecm);
        clients.entry(link).or_insert_with(Vec::new).push(client);
    }
    assert_eq!((clients[&1].len(), clients[&2].len()), (3, 3));
    // Two leave one node: the next two are its.
    for _ in 0..2 {
        let client = clients.get_mut(&1).unwrap().pop().unwrap();
        socket2::SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client);
        ecm.line(" closed peer=");
    }
    let _next: Vec<_> = (0..2)
        .map(|_| {
            let client = ecm.tcp_client();
            assert_eq!(link_of_next(&ecm), 1);
            client
        })
        .collect();
    assert_eq!(nodes[1].opened().service, "c2s");
}

#[test]
fn a_node_that_said_goaway_is_parked_or_gone_gets_nobody() {
    let (ecm, backends, [mut one, mut two]) = two("");
    let next_is_on = |link: usize| {
        let client = ecm.tcp_client();
        assert_eq!(link_of_next(&ecm), link);
        client
    };
    let (mut stays, _other) = (next_is_on(1), next_is_on(2));
    let id = one.opened().id;

    // Parked: the other gets all, also where it has more.
    one.cut();
    ecm.line("link 1 parked: ");
    let more: Vec<_> = (0..3).map(|_| next_is_on(2)).collect();
    backends[0].resume(&mut one);
    ecm.line("link 1 resumed to ");
    let back = next_is_on(1);
    assert_eq!(one.opened().peer, back.local_addr().unwrap());

    // It wants no more, and who is there stays.
    one.say(&goaway());
    ecm.line("link 1 takes no new connections: ");
    let after = next_is_on(2);
    one.send(id, b"still here");
    assert_eq!(read_exact(&mut stays, 10), b"still here");

    // Gone.
    drop((one, stays));
    ecm.line("link 1 ended: ");
    drop((next_is_on(2), more, after));
    two.opened();
}

/// A client that comes from 127.0.0.`host`.
fn client_from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn by_client_address_each_client_comes_back_to_its_node() {
    let (ecm, backends, [mut one, two]) =
        two("balance = \"client_address\"\nconnect_wait = \"30s\"");
    let link_of = |host| {
        let client = client_from(host, ecm.listeners[1]);
        (link_of_next(&ecm), client)
    };
    let hosts = 1..=40;
    let of: HashMap<u8, usize> = hosts.clone().map(|host| (host, link_of(host).0)).collect();
    let of_one = of.values().filter(|link| **link == 1).count();
    assert!((5..=35).contains(&of_one), "{of_one} of 40");
    for host in hosts.clone() {
        assert_eq!(link_of(host).0, of[&host]);
    }
    // A node that goes moves its own clients, and has them again when it is
    // back.
    one.say(&goaway());
    ecm.line("link 1 takes no new connections: ");
    for host in hosts.clone() {
        assert_eq!(link_of(host).0, 2);
    }
    drop(one);
    let _one = backends[0].accept_kept();
    ecm.line("link 1 up to ");
    for host in hosts {
        assert_eq!(link_of(host).0, of[&host]);
    }
    drop(two);
}

const SECRET: &[u8] = b"fifty bytes that nobody outside of this test knows";

/// An ECM that has [`SECRET`] in a file, and its backend.
fn with_secret() -> (Ecm, Backend, tempfile::NamedTempFile) {
    let secret = file(std::str::from_utf8(SECRET).unwrap());
    let backend = Backend::new();
    let line = format!(
        "secret_file = \"{}\"\n[[listeners]]",
        secret.path().display()
    );
    let text = config(&backend.address(), "").replacen("[[listeners]]", &line, 1);
    (Ecm::start(&text), backend, secret)
}

#[test]
fn both_ends_prove_that_they_know_the_secret() {
    let (ecm, backend, _file) = with_secret();
    let mut node = backend.accept_with(|config| config.secret = Some(Secret::new(SECRET).unwrap()));
    ecm.line("link 1 up to ");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.send(id, b"hello");
    assert_eq!(read_exact(&mut client, 5), b"hello");
}

#[test]
fn a_node_that_does_not_know_the_secret_is_refused_and_the_secret_not_shown() {
    let (ecm, backend, file) = with_secret();
    // One without any, which is what a thief of the address would be.
    let mut thief = backend.accept_raw();
    // Renewing the secret needs no restart: it is read again at each dial.
    let renewed = b"another one that nobody outside of this test knows";
    std::fs::write(file.path(), renewed).unwrap();
    let hello = format!(
        "hello version=2 name=thief nonce={} window=16384 max_frame=65536 link=x\n",
        "0".repeat(32)
    );
    let mut frame = Vec::new();
    put_frame(ConnectionId::new(0), hello.as_bytes(), &mut frame);
    thief.write_all(&frame).unwrap();
    let line = ecm.line("link 1 cannot come up: the handshake failed: ");
    assert!(!line.contains("nobody outside"), "{line}");
    let _node = backend.accept_with(|config| config.secret = Some(Secret::new(renewed).unwrap()));
    ecm.line("link 1 up to ");
}
