//! `bulk`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use megaphone_load::bulk::{Direction, Report};

use crate::{load, report};

/// A server in Rust that does what bench/bench_bulk.erl does, for up and down as they are given.
fn serve(up: fn(TcpStream), down: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut direction = [0];
                match stream.read_exact(&mut direction).map(|()| direction) {
                    Ok([b'u']) => up(stream),
                    Ok([b'd']) => down(stream),
                    _ => panic!("no direction"),
                }
            });
        }
    });
    address
}

fn count(stream: &mut TcpStream) -> u64 {
    std::io::copy(stream, &mut std::io::sink()).unwrap()
}

fn up(mut stream: TcpStream) {
    let count = count(&mut stream).to_string();
    stream.write_all(count.as_bytes()).unwrap();
}

fn down(mut stream: TcpStream) {
    let block: Vec<u8> = (0..251 * 256).map(|number| (number % 251) as u8).collect();
    while stream.write_all(&block).is_ok() {}
}

fn never(_: TcpStream) {
    panic!("not asked for");
}

fn bulk(address: SocketAddr, direction: &str, connections: &str) -> (Report, bool) {
    let address = address.to_string();
    let args = ["bulk", &address, "--json", "--direction", direction];
    let more = ["--connections", connections, "--for", "1s"];
    let rest = ["--warm-up", "50ms"];
    report(&load(&args).args(more).args(rest).output().unwrap())
}

fn is_good(report: &Report, connections: usize) {
    let (shares, seconds) = (report.shares, report.window.seconds);
    assert!(report.errors.is_empty() && report.bytes > 0, "{report:?}");
    assert_eq!(report.connections, connections);
    let rate = report.bytes as f64 / 1e6 / seconds;
    assert!((report.megabytes_per_second - rate).abs() < 1e-6 * rate);
    assert!(
        shares.min <= shares.median && shares.median <= shares.max,
        "{report:?}"
    );
    assert!(shares.jain > 0.0 && shares.jain <= 1.000_001, "{report:?}");
}

#[test]
fn bytes_go_up_and_all_arrive() {
    for connections in [1, 20] {
        let address = serve(up, never);
        let (report, well) = bulk(address, "up", &connections.to_string());
        assert!(well && report.direction == Direction::Up);
        is_good(&report, connections);
    }
}

#[test]
fn bytes_come_down_as_they_were_sent() {
    for connections in [1, 20] {
        let address = serve(never, down);
        let (report, well) = bulk(address, "down", &connections.to_string());
        assert!(well && report.direction == Direction::Down);
        is_good(&report, connections);
    }
}

#[test]
fn a_byte_that_never_arrived_is_missed() {
    let fewer = |mut stream: TcpStream| {
        let count = count(&mut stream) - 1;
        stream.write_all(count.to_string().as_bytes()).unwrap();
    };
    let (report, well) = bulk(serve(fewer, never), "up", "3");
    assert!(!well);
    assert_eq!(report.errors["lost"], 3, "{report:?}");
}

#[test]
fn a_byte_that_was_left_out_on_the_way_down_is_seen() {
    let skips = |mut stream: TcpStream| {
        let _ = stream.write_all(&[0, 1, 2, 4, 5]);
        down(stream);
    };
    let (report, well) = bulk(serve(never, skips), "down", "3");
    assert!(!well);
    assert_eq!(report.errors["damaged"], 3, "{report:?}");
}

#[test]
fn a_connection_that_ends_early_is_counted() {
    let (report, well) = bulk(serve(never, drop), "down", "2");
    assert!(!well);
    let ended: u64 = report.errors.values().sum();
    assert_eq!(ended, 2, "{report:?}");
}
