//! `http`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use megaphone_load::http::{Idle, Report};
use socket2::{Domain, Socket, Type};

use crate::{errors, load, report};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a server saw.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

/// A server that gives `answer` the number of each request, from 1, and its connection. It lives
/// as long as the test.
fn serve(answer: fn(usize, &mut TcpStream)) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&shared);
            seen.connections.fetch_add(1, SeqCst);
            thread::spawn(move || serve_one(stream, &seen, answer));
        }
    });
    (address, seen)
}

fn serve_one(mut stream: TcpStream, seen: &Seen, answer: fn(usize, &mut TcpStream)) {
    let mut requests = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while requests.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        if line == "\r\n" {
            answer(seen.requests.fetch_add(1, SeqCst) + 1, &mut stream);
        }
        line.clear();
    }
}

fn ok(_: usize, stream: &mut TcpStream) {
    let _ = stream.write_all(OK);
}

fn http(address: SocketAddr, options: &[&str]) -> (Report, bool) {
    let url = format!("http://{address}/ok");
    let args = ["http", &url, "--json", "--warm-up", "50ms"];
    report(&load(&args).args(options).output().unwrap())
}

#[test]
fn a_closed_loop_has_each_connection_busy() {
    let (address, seen) = serve(ok);
    let (report, well) = http(address, &["--connections", "8", "--for", "200ms"]);
    assert!(well && report.errors.is_empty(), "{report:?}");
    assert!(report.answered > 8, "{report:?}");
    assert_eq!(report.latency.count, report.answered);
    assert!(report.window.seconds >= 0.2 && report.window.generator_cpu > 0.0);
    assert_eq!(seen.connections.load(SeqCst), 8);
    assert!(seen.requests.load(SeqCst) as u64 > report.answered);
}

#[test]
fn at_a_rate_all_that_was_due_is_sent_and_answered() {
    let (address, seen) = serve(ok);
    let options = ["--connections", "4", "--for", "500ms", "--rate", "200"];
    let (report, well) = http(address, &options);
    assert!(well && report.errors.is_empty(), "{report:?}");
    // 10 were due before the window.
    assert_eq!(report.answered, 100, "{report:?}");
    assert_eq!(seen.requests.load(SeqCst), 110);
}

#[test]
fn a_request_that_waits_behind_a_slow_one_has_waited() {
    // In half a second of 100 requests a second, the first behind the warm-up takes 300 ms.
    let (address, _) = serve(|number, stream| {
        if number == 6 {
            thread::sleep(Duration::from_millis(300));
        }
        ok(number, stream);
    });
    let options = ["--connections", "1", "--for", "500ms", "--rate", "100"];
    let (report, _) = http(address, &options);
    assert_eq!(report.answered, 50, "{report:?}");
    // Some thirty were due meanwhile, and waited half of it in the middle.
    assert!(report.latency.max >= 290_000, "{report:?}");
    assert!(report.latency.p90 >= 200_000, "{report:?}");
    assert!(report.latency.p50 >= 10_000, "{report:?}");
    assert!(report.queued >= 25, "{report:?}");
}

#[test]
fn what_goes_wrong_is_counted_by_kind() {
    let (address, seen) = serve(|number, stream| match number % 4 {
        1 => stream
            .write_all(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
            .unwrap_or(()),
        2 => stream.shutdown(std::net::Shutdown::Both).unwrap_or(()),
        _ => ok(number, stream),
    });
    let options = ["--connections", "2", "--for", "400ms", "--rate", "50"];
    let (report, well) = http(address, &options);
    assert!(well, "{report:?}");
    assert!(report.errors.contains_key("status 500"), "{report:?}");
    assert!(report.errors.contains_key("closed"), "{report:?}");
    assert!(seen.connections.load(SeqCst) > 2, "none was opened again");
}

#[test]
fn a_server_that_never_answers_well_is_an_error() {
    let (address, _) = serve(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    });
    let (report, well) = http(address, &["--connections", "1", "--for", "50ms"]);
    assert!(!well && report.answered == 0, "{report:?}");
}

#[test]
fn nobody_there_is_said() {
    // Bound, so that nobody else takes the port meanwhile, and not listening.
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap();
    let url = format!("http://{address}/");
    let output = load(&["http", &url, "--patience", "200ms"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(errors(&output).contains("refused: "), "{}", errors(&output));
}

/// Holds ten connections and says what the server saw before and after they were let go.
fn idle(options: &[&str]) -> (Idle, usize) {
    let (address, seen) = serve(ok);
    let url = format!("http://{address}/ok");
    let mut command = load(&["http", &url, "--json", "--idle", "10"]);
    command.args(options);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(
        child.try_wait().unwrap().is_none(),
        "it holds them until it is told"
    );
    let requests = seen.requests.load(SeqCst);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    (serde_json::from_str(&line).unwrap(), requests)
}

#[test]
fn idle_connections_are_held_and_send_nothing() {
    let (idle, requests) = idle(&[]);
    assert_eq!((idle.held, requests), (10, 0));
}

#[test]
fn warm_ones_have_had_one_request_each() {
    let (idle, requests) = idle(&["--warm"]);
    assert_eq!((idle.held, requests), (10, 10));
    assert!(idle.errors.is_empty());
}
