use std::io::{Read, Write};
use std::net::TcpStream;

use megaphone_proto::control::Open;
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::handshake::Step;
use megaphone_proto::{Event, Handshake, LinkConfig, Role};

use super::support::{PATIENCE, StandIn};

/// A link over a socket: one that could be resumed, so that what came is acknowledged.
#[test]
fn a_link_is_answered_and_acknowledged_within_a_second() {
    let stand_in = StandIn::start("link", &[]);
    let mut socket = TcpStream::connect(stand_in.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut handshake = Handshake::new(LinkConfig {
        resume_timeout: 30,
        ..LinkConfig::new(Role::Edge, "edge", "00")
    });
    let hello = handshake.hello().unwrap().to_frame();
    socket.write_all(&hello).unwrap();
    let mut buffer = [0; 4096];
    let mut up = None;
    while up.is_none() {
        let read = socket.read(&mut buffer).unwrap();
        assert!(read > 0);
        up = handshake.next(&mut &buffer[..read]).unwrap();
    }
    assert_eq!(up, Some(Step::Up { version: 2 }));
    assert_eq!(handshake.resume_timeout(), 30);
    let mut link = handshake.finish();

    let id = ConnectionId::new(u64::MAX);
    let open = megaphone_proto::control::Control::Open(Open {
        id,
        service: "http".into(),
        peer: "192.0.2.1:5".parse().unwrap(),
        local: "192.0.2.2:5".parse().unwrap(),
        tls: None,
    });
    let mut sent = open.to_frame();
    put_frame(id, b"GET / HTTP/1.1\r\n\r\n", &mut sent);
    socket.write_all(&sent).unwrap();
    let (mut came, mut acknowledged) = (Vec::new(), None);
    while acknowledged.is_none() {
        let read = socket.read(&mut buffer).unwrap();
        let mut input = &buffer[..read];
        assert!(read > 0);
        while let Some(event) = link.next(&mut input).unwrap() {
            match event {
                Event::Content { bytes, .. } => came.extend_from_slice(bytes),
                Event::Ack { bytes } => acknowledged = Some(bytes),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(acknowledged, Some(sent.len() as u64));
    assert!(came.ends_with(b"\r\n\r\nok"));
}
