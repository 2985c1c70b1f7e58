//! Sockets against a server in a thread, over loopback.

use std::io::BufRead;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::target::Transport;

/// Nothing here takes as long as this, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn target(address: SocketAddr, tls: Tls) -> Target {
    Target {
        transport: Transport::C2s,
        tls,
        addresses: vec![address],
        authority: address.to_string(),
        path: String::new(),
        domain: "localhost".into(),
        insecure: true,
    }
}

/// An address that nobody listens on, and that nobody else gets as long as the socket is there.
pub fn nobody() -> (socket2::Socket, SocketAddr) {
    let held = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    held.bind(&any.into()).unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap();
    (held, address)
}

/// A server for one connection.
fn serve<T: Send + 'static>(
    server: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (
        address,
        std::thread::spawn(move || server(listener.accept().unwrap().0)),
    )
}

/// A client's side, with a loop around it.
struct Client {
    socket: Socket,
    poll: Poll,
    traffic: Traffic,
}

impl Client {
    fn new(mut socket: Socket) -> Self {
        let poll = Poll::new().unwrap();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(socket.stream(), Token(0), interest)
            .unwrap();
        Self {
            socket,
            poll,
            traffic: Traffic::default(),
        }
    }

    fn connect(target: &Target) -> Self {
        Self::new(Connector::new(target, &[]).unwrap().connect(None).unwrap())
    }

    fn wait(&mut self) {
        let mut events = Events::with_capacity(4);
        self.poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(!events.is_empty(), "nothing came");
    }

    fn ready(&mut self) -> io::Result<()> {
        while !self.socket.advance(&mut self.traffic)? {
            self.wait();
        }
        Ok(())
    }

    /// Reads until there are so many bytes, or the end.
    fn read(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = [0; 7];
        while all.len() < count {
            match self.socket.read(&mut buffer, &mut self.traffic)? {
                Received::Bytes(count) => all.extend_from_slice(&buffer[..count]),
                Received::Nothing => self.wait(),
                Received::End => break,
            }
        }
        Ok(all)
    }

    fn flush(&mut self) {
        while self.socket.has_unsent() {
            self.wait();
            self.socket.flush(&mut self.traffic).unwrap();
        }
    }
}

#[test]
fn bytes_go_both_ways_and_are_counted() {
    let (address, server) = serve(|mut stream| {
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(b"and you?").unwrap();
        (asked, stream.peer_addr().unwrap())
    });
    let source: IpAddr = "127.0.0.9".parse().unwrap();
    let mut connector = Connector::new(&target(address, Tls::None), &[source]).unwrap();
    let mut client = Client::new(connector.connect(None).unwrap());
    client.ready().unwrap();
    client.socket.write(b"hello", &mut client.traffic).unwrap();
    assert_eq!(client.read(100).unwrap(), b"and you?");
    assert_eq!(
        client.traffic,
        Traffic {
            read: 8,
            written: 5
        }
    );
    let (asked, peer) = server.join().unwrap();
    assert_eq!((&asked, peer.ip()), (b"hello", source));
}

#[test]
fn what_the_kernel_does_not_take_is_kept_and_goes_later() {
    const MUCH: usize = 8 << 20;
    let (go, wait) = std::sync::mpsc::channel();
    let (address, server) = serve(move |mut stream| {
        wait.recv().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    let mut client = Client::connect(&target(address, Tls::None));
    client.ready().unwrap();
    let bytes: Vec<u8> = (0..MUCH).map(|at| (at / 7) as u8).collect();
    for part in bytes.chunks(MUCH / 4) {
        client.socket.write(part, &mut client.traffic).unwrap();
    }
    assert!(client.socket.has_unsent());
    go.send(()).unwrap();
    client.flush();
    assert_eq!(client.socket.unsent.capacity(), 0);
    assert_eq!(client.traffic.written, MUCH as u64);
    drop(client);
    assert!(server.join().unwrap() == bytes);
}

#[test]
fn nobody_there_is_an_error() {
    let (_held, address) = nobody();
    let target = target(address, Tls::None);
    let result = Connector::new(&target, &[]).unwrap().connect(None);
    let error = match result {
        Ok(socket) => Client::new(socket).ready().unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn addresses_and_sources_are_taken_in_turn_and_all_together() {
    let mut target = target(([127, 0, 0, 1], 1).into(), Tls::None);
    target.addresses.push(([127, 0, 0, 1], 2).into());
    let sources: Vec<IpAddr> = vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into()];
    let mut connector = Connector::new(&target, &sources).unwrap();
    let turns: Vec<_> = (0..5)
        .map(|_| {
            let (address, source) = connector.next();
            format!("{} {}", address.port(), source.unwrap())
        })
        .collect();
    assert_eq!(
        turns,
        [
            "1 127.0.0.2",
            "2 127.0.0.2",
            "1 127.0.0.3",
            "2 127.0.0.3",
            "1 127.0.0.2"
        ]
    );
    let other: IpAddr = "::1".parse().unwrap();
    assert!(Connector::new(&target, &[other]).is_err());
    target.addresses.clear();
    assert!(Connector::new(&target, &[]).is_err());
}

#[test]
fn a_second_connection_goes_where_the_first_went() {
    let here = || TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (one, other) = (here(), here());
    let mut target = target(one.local_addr().unwrap(), Tls::None);
    target.addresses.push(other.local_addr().unwrap());
    let sources: Vec<IpAddr> = vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into()];
    let mut connector = Connector::new(&target, &sources).unwrap();
    let mut first = Client::new(connector.connect(None).unwrap());
    first.ready().unwrap();
    let mut second = Client::new(connector.connect(Some(&first.socket)).unwrap());
    second.ready().unwrap();
    let peers = [one.accept().unwrap().1, one.accept().unwrap().1];
    assert_eq!(peers.map(|peer| peer.ip()), [sources[0]; 2]);
}

#[test]
fn a_plain_socket_is_small() {
    // mio adds something to a stream where debug assertions are on.
    assert!(size_of::<Socket>() <= 64, "{}", size_of::<Socket>());
}

// --- TLS

fn tls_server() -> Arc<ServerConfig> {
    let names = vec!["localhost".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key);
    Arc::new(config.unwrap())
}

/// Answers a line with the same line in TLS.
fn echo_in_tls(stream: std::net::TcpStream) -> io::Result<()> {
    let tls = ServerConnection::new(tls_server()).unwrap();
    let mut stream = io::BufReader::new(StreamOwned::new(tls, stream));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    stream.get_mut().write_all(line.as_bytes())?;
    stream.get_mut().flush()
}

#[test]
fn tls_begins_at_once_and_any_certificate_will_do() {
    let (address, server) = serve(echo_in_tls);
    let mut client = Client::connect(&target(address, Tls::Direct));
    assert!(!client.socket.is_ready());
    client.ready().unwrap();
    client
        .socket
        .write(b"hello\n", &mut client.traffic)
        .unwrap();
    assert_eq!(client.read(100).unwrap(), b"hello\n");
    let Traffic { read, written } = client.traffic;
    assert!(
        read > 100 && written > 100,
        "the handshake counts: {read} {written}"
    );
    server.join().unwrap().unwrap();
}

#[test]
fn tls_begins_later_on_the_same_connection() {
    let (address, server) = serve(|mut stream| {
        stream.write_all(b"plain").unwrap();
        echo_in_tls(stream)
    });
    let target = target(address, Tls::Starttls);
    let mut connector = Connector::new(&target, &[]).unwrap();
    let mut client = Client::new(connector.connect(None).unwrap());
    client.ready().unwrap();
    assert_eq!(client.read(5).unwrap(), b"plain");
    client.socket.start_tls(&connector).unwrap();
    assert!(!client.socket.is_ready());
    client.ready().unwrap();
    client
        .socket
        .write(b"hello\n", &mut client.traffic)
        .unwrap();
    assert_eq!(client.read(6).unwrap(), b"hello\n");
    server.join().unwrap().unwrap();
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (address, server) = serve(echo_in_tls);
    let target = Target {
        insecure: false,
        ..target(address, Tls::Direct)
    };
    match Connector::new(&target, &[]) {
        Ok(mut connector) => {
            let mut client = Client::new(connector.connect(None).unwrap());
            let error = client.ready().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        // A system without any certificates says so at once.
        Err(message) => {
            assert!(message.contains("--insecure"), "{message}");
            drop(std::net::TcpStream::connect(address));
        }
    }
    assert!(server.join().unwrap().is_err());
}

#[test]
fn a_server_without_tls_is_an_error() {
    let (address, server) = serve(|mut stream| stream.write_all(b"<stream:error/>").unwrap());
    let mut client = Client::connect(&target(address, Tls::Direct));
    assert!(client.ready().is_err());
    server.join().unwrap();
    let mut connector = Connector::new(&target(address, Tls::None), &[]).unwrap();
    let mut plain = connector.connect(None).unwrap();
    assert!(plain.start_tls(&connector).is_err());
}
