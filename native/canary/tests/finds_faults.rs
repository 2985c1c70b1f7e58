//! The canary against echo servers that do wrong: it must say what, and end with 1.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::{Domain, Socket, Type};

/// What an echo server does wrong, once, with the first connection that is long enough.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    LosesAByte,
    DoublesAByte,
    ChangesAByte,
    SwapsTwoBlocks,
    /// Gives a connection what belongs to another.
    MixesConnections,
    ForgetsTheEnd,
    ForgetsTheRest,
    FallsSilent,
    RefusesAll,
}

/// Where in a connection it happens.
const AT: usize = 300;

struct Echo {
    wrong: Wrong,
    done: AtomicBool,
    /// What another connection brought, for `MixesConnections`.
    strange: Mutex<VecDeque<u8>>,
}

impl Echo {
    fn start(wrong: Wrong) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let echo = Arc::new(Self {
            wrong,
            done: false.into(),
            strange: Mutex::default(),
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let echo = Arc::clone(&echo);
                thread::spawn(move || echo.serve(stream));
            }
        });
        address
    }

    /// Ends with the connection, and with whatever error that has.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        if self.wrong == Wrong::RefusesAll {
            return None;
        }
        let mut buffer = [0; 4096];
        let mut count = 0;
        loop {
            let read = stream.read(&mut buffer).ok()?;
            if read == 0 && self.wrong == Wrong::ForgetsTheEnd {
                loop {
                    thread::park();
                }
            }
            if read == 0 {
                return stream.shutdown(Shutdown::Write).ok();
            }
            let mut bytes = buffer[..read].to_vec();
            if (count..count + read).contains(&AT) && read > 64 {
                self.spoil(&mut bytes);
            }
            if self.wrong == Wrong::MixesConnections {
                self.strange.lock().unwrap().extend(&bytes);
            }
            count += read;
            stream.write_all(&bytes).ok()?;
            if bytes.len() < read && self.wrong == Wrong::ForgetsTheRest {
                return None;
            }
        }
    }

    fn first(&self) -> bool {
        !self.done.swap(true, SeqCst)
    }

    fn spoil(&self, bytes: &mut Vec<u8>) {
        if self.wrong == Wrong::MixesConnections {
            let mut strange = self.strange.lock().unwrap();
            if strange.len() >= bytes.len() && self.first() {
                bytes.clear();
                let wanted = strange.len().min(64);
                bytes.extend(strange.drain(..wanted));
            }
            return;
        }
        if self.wrong == Wrong::Nothing || !self.first() {
            return;
        }
        match self.wrong {
            Wrong::LosesAByte => _ = bytes.remove(20),
            Wrong::DoublesAByte => bytes.insert(20, bytes[20]),
            Wrong::ChangesAByte => bytes[20] ^= 1,
            Wrong::SwapsTwoBlocks => bytes[..64].rotate_left(32),
            Wrong::ForgetsTheRest => bytes.truncate(32),
            Wrong::FallsSilent => loop {
                thread::park();
            },
            _ => {}
        }
    }
}

fn canary(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_megaphone-canary"))
        .args([
            "--clients",
            "20",
            "--pause",
            "5",
            "--seed",
            "1",
            "--bytes",
            "20000",
        ])
        .args(arguments)
        .output()
        .unwrap()
}

/// Exit status and what was said.
fn run(echo: SocketAddr, seconds: &str, more: &[&str]) -> (Option<i32>, String) {
    let ecm = echo.to_string();
    let output = canary(&[&["--ecm", &ecm, "--seconds", seconds], more].concat());
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[track_caller]
fn finds(wrong: Wrong, what: &str) {
    // It ends soon after the fault.
    let (status, said) = run(Echo::start(wrong), "30", &["--patience", "4"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("FAULT connection ") && said.contains(what),
        "{said}"
    );
    assert!(
        said.lines()
            .last()
            .unwrap()
            .contains(r#""first_fault":{"connection":"#),
        "{said}"
    );
}

#[test]
fn an_honest_echo_passes() {
    let (status, said) = run(Echo::start(Wrong::Nothing), "3", &[]);
    assert_eq!(status, Some(0), "{said}");
    let json = said.lines().last().unwrap();
    assert!(json.contains(r#""faults":0,"first_fault":null"#), "{said}");
    assert!(
        !json.contains(r#""finished":0,"#) && !json.contains(r#""left":0,"#),
        "{said}"
    );
    assert!(!json.contains(r#""bytes_received":0,"#), "{said}");
}

#[test]
fn ping_pong_measures_and_ends() {
    let (status, said) = run(Echo::start(Wrong::Nothing), "1", &["--ping-pong"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains(r#""connections":20,"finished":20,"#),
        "{said}"
    );
    assert!(!said.contains(r#""p99_us":0"#), "{said}");
}

#[test]
fn a_lost_byte() {
    finds(Wrong::LosesAByte, ": 1 bytes are lost");
}

#[test]
fn a_doubled_byte() {
    finds(Wrong::DoublesAByte, ": 1 bytes came twice");
}

#[test]
fn a_changed_byte() {
    finds(Wrong::ChangesAByte, "bytes that were never sent");
}

#[test]
fn blocks_out_of_order() {
    finds(Wrong::SwapsTwoBlocks, ": 32 bytes are lost (or come later)");
}

#[test]
fn bytes_of_another_connection() {
    finds(Wrong::MixesConnections, "these are bytes of connection ");
}

#[test]
fn an_end_that_does_not_come() {
    finds(
        Wrong::ForgetsTheEnd,
        ": nothing came for 4s; 0 bytes and the end are missing",
    );
}

#[test]
fn an_end_that_comes_too_early() {
    finds(Wrong::ForgetsTheRest, ": ended too early");
}

#[test]
fn silence() {
    finds(Wrong::FallsSilent, ": nothing came for 4s");
}

#[test]
fn refusals_are_faults_unless_they_are_expected() {
    finds(Wrong::RefusesAll, ": refused");
    let (status, said) = run(Echo::start(Wrong::RefusesAll), "1", &["--may-refuse"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(!said.contains(r#""refused":0,"#), "{said}");
}

#[test]
fn nobody_there() {
    // Bound, so that nobody else takes the port meanwhile, and not listening.
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap();
    let output = canary(&["--ecm", &address.to_string(), "--patience", "0.2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("nobody listens on")
    );
}
