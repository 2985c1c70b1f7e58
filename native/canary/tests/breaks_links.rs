//! The proxy with clients straight on it: what it does to links, clients must see.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

/// A proxy in front of an echo: what it says, and where it listens.
fn proxy(arguments: &[&str]) -> (Child, BufReader<ChildStdout>, String) {
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = node.local_addr().unwrap().to_string();
    thread::spawn(move || {
        node.incoming()
            .flatten()
            .for_each(|stream| _ = thread::spawn(|| echo(stream)))
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_megaphone-canary"))
        .args(["--node", &address, "--seed", "5"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("proxy ") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0);
    }
    let address = line.split(' ').nth(1).unwrap().to_owned();
    (child, said, address)
}

fn echo(mut stream: TcpStream) -> Option<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).ok()? {
            0 => return stream.shutdown(Shutdown::Write).ok(),
            read => stream.write_all(&buffer[..read]).ok()?,
        }
    }
}

/// Runs clients against `address`; their exit status and report.
fn clients(address: &str, seconds: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_megaphone-canary"))
        .args([
            "--ecm",
            address,
            "--clients",
            "20",
            "--seconds",
            seconds,
            "--pause",
            "20",
            "--seed",
            "5",
        ])
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn what_is_only_split_and_delayed_arrives() {
    let (mut child, _said, address) = proxy(&["--cuts", "0", "--seconds", "60"]);
    let (status, report) = clients(&address, "2");
    assert_eq!(status, Some(0), "{report}");
    assert!(!report.contains(r#""finished":0,"#), "{report}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_cut_is_seen() {
    let (mut child, mut said, address) =
        proxy(&["--cuts", "60", "--seconds", "3", "--outage", "200"]);
    let (status, report) = clients(&address, "3");
    assert_eq!(status, Some(1), "{report}");
    assert!(
        report.contains("ended too early") || report.contains("refused"),
        "{report}"
    );
    let mut told = String::new();
    said.read_to_string(&mut told).unwrap();
    child.wait().unwrap();
    assert!(
        told.contains(" cuts link ") && told.contains(" freezes link "),
        "{told}"
    );
    assert!(
        !told.contains(r#""cuts":0,"#) && !told.contains(r#""freezes":0,"#),
        "{told}"
    );
}
