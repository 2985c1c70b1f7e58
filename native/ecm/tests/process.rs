//! The program as a process: its command line, signals, ports and statuses.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::Duration;

use megaphone_proto::control::{CloseReason, Control};
use support::*;

fn run(arguments: &[&str]) -> Output {
    binary().args(arguments).output().unwrap()
}

fn check(text: &str) -> (Option<i32>, String, String) {
    let file = file(text);
    let name = file.path().to_str().unwrap();
    let output = run(&["--config", name, "--check"]);
    let clean = |bytes| String::from_utf8(bytes).unwrap().replace(name, "FILE");
    (
        output.status.code(),
        clean(output.stdout),
        clean(output.stderr),
    )
}

#[test]
fn check_shows_what_was_understood() {
    let text = "max_clients = 7\n[backend]\naddress = \"127.0.0.1:6280\"\n\
                [[listeners]]\nlisten = \"[::]:5280\"\nservice = \"http\"\nkind = \"http\"\nsend_buffer = 65536\n";
    let (code, out, err) = check(text);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for part in [
        "The configuration is valid.\n",
        "protocol          2\n",
        "window            16384 bytes\n",
        "max_clients       7 here, where ",
        "backend           127.0.0.1:6280\n",
        "listener          [::]:5280 service=http kind=http backlog=1024 send_buffer=65536\n",
    ] {
        assert!(out.contains(part), "{part:?} not in\n{out}");
    }
}

#[test]
fn check_shows_each_backend_and_no_secret() {
    let secret = file("a secret that is not to be shown");
    let text = format!(
        "balance = \"client_address\"\nopen_rate = 500\n\
         [[backends]]\naddress = \"one.example.org:6280\"\nsecret_file = \"{}\"\n\
         [[backends]]\naddress = \"unix:/run/two.sock\"\n\
         [[listeners]]\nlisten = \"[::]:5280\"\nservice = \"http\"\n",
        secret.path().display()
    );
    let (code, out, err) = check(&text);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for part in [
        "balance           client_address\n",
        "open_rate         500 a second\n",
        "backend           one.example.org:6280\n",
        "  secret          one is set\n",
        "backend           unix:/run/two.sock\n",
    ] {
        assert!(out.contains(part), "{part:?} not in\n{out}");
    }
    assert_eq!(out.matches("secret").count(), 1, "{out}");
    assert!(!out.contains("not to be shown"), "{out}");
}

#[test]
fn a_wrong_configuration_is_status_2_and_one_clear_line() {
    let (code, out, err) = check("window = 16384\nlinks = 65\n");
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(
        err,
        "megaphone-ecm: FILE:2:9: links: 65 is not a number from 1 to 64\n"
    );

    let file = file("links = 65\n");
    let output = run(&["--config", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));

    let output = run(&["--config", "/does/not/exist.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        err,
        "megaphone-ecm: /does/not/exist.toml: No such file or directory (os error 2)\n"
    );
}

#[test]
fn help_and_version_are_worth_asking_for() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for part in [
        "--config",
        "--check",
        "--port-program",
        "[[listeners]]",
        "Exit status",
    ] {
        assert!(help.contains(part), "{part} not in\n{help}");
    }
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(
        version,
        format!("megaphone-ecm {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn a_port_that_is_taken_is_status_1_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!(
        "[backend]\naddress = \"127.0.0.1:1\"\n[[listeners]]\nlisten = \"{address}\"\nservice = \"http\"\n\
         [log]\nformat = \"plain\"\n"
    );
    let file = file(&text);
    let output = run(&["--config", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        err,
        format!(
            "error cannot listen on {address} service=http: Address already in use (os error 98)\n"
        )
    );
}

#[test]
fn sigterm_ends_it_cleanly() {
    let (mut ecm, _backend, mut node) = linked("drain_time = \"0s\"");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    client.write_all(b"last words").unwrap();
    assert_eq!(node.content(id, 10), b"last words");
    ecm.terminate();
    assert_eq!(node.next(), Got::Goaway(CloseReason::Shutdown));
    assert_eq!(node.next(), Got::Close(id, CloseReason::Shutdown));
    assert_eq!(node.next(), Got::Eof);
    assert_eq!(read_to_end(&mut client), b"");
    assert!(
        ecm.line(&format!("connection {id} closed"))
            .ends_with("reason=shutdown")
    );
    assert_eq!(ecm.exit_code(), Some(0));
}

#[test]
fn sigterm_ends_version_1_cleanly_too() {
    let backend = Backend::new();
    let lines = "protocol = 1\ndrain_time = \"0s\"";
    let mut ecm = Ecm::start(&config(&backend.address(), lines));
    let mut client = ecm.tcp_client();
    client.write_all(b"x").unwrap();
    let mut node = backend.accept_v1();
    let Got::Content(id, _) = node.next() else {
        panic!("no content")
    };
    ecm.terminate();
    assert_eq!(node.next(), Got::End(id));
    assert_eq!(node.next(), Got::Eof);
    assert_eq!(ecm.exit_code(), Some(0));
}

#[test]
fn sigterm_ends_it_without_a_link_and_with_a_stalled_one() {
    let nobody = Nobody::new();
    let mut ecm = Ecm::start(&config(&nobody.address(), ""));
    ecm.terminate();
    assert_eq!(ecm.exit_code(), Some(0));

    // The backend accepts and reads nothing: what is owed to it cannot go.
    let backend = Backend::new();
    let lines = "protocol = 1\ndrain_time = \"0s\"\nshutdown_timeout = \"2s\"";
    let mut ecm = Ecm::start(&config(&backend.address(), lines));
    let _stalled = backend.accept_raw();
    ecm.line("link 1 up to ");
    let mut client = ecm.tcp_client();
    client
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    while client.write(&[0; 65_536]).is_ok() {}
    ecm.terminate();
    ecm.line(" closed peer=");
    assert_eq!(ecm.exit_code(), Some(0));
}

#[test]
fn sigterm_does_not_wait_for_a_client_that_takes_nothing() {
    let lines = "window = 8388608\ndrain_time = \"0s\"\nshutdown_timeout = \"300ms\"";
    let (mut ecm, _backend, mut node) = linked(lines);
    let _stalled = ecm.tcp_client();
    let id = node.opened().id;
    // More than the kernel holds for both sockets.
    for _ in 0..128 {
        node.send(id, &[0; 65_536]);
    }
    node.say(&Control::Close {
        id,
        reason: CloseReason::ServerClosed,
    });
    // Who is opened after that shows that all before was taken in.
    let _other = ecm.tcp_client();
    let other = node.opened().id;
    node.say(&Control::Close {
        id: other,
        reason: CloseReason::Normal,
    });
    ecm.line(&format!("connection {other} closed"));
    ecm.terminate();
    ecm.line("warn shutdown_timeout=300ms is over with 1 clients and 0 links not done");
    assert_eq!(ecm.exit_code(), Some(0));
}

#[test]
fn a_port_program_logs_to_stdout_and_ends_with_its_stdin() {
    let backend = Backend::new();
    let mut ecm = Ecm::start_port(&config(&backend.address(), ""));
    let mut node = backend.accept();
    assert!(
        ecm.line("link 1 up to ")
            .starts_with("info link 1 up to 127.0.0.1:")
    );
    let mut client = ecm.tcp_client();
    node.opened();
    ecm.close_stdin();
    assert_eq!(ecm.exit_code(), Some(0));
    assert_eq!(node.next(), Got::Eof);
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
}

#[test]
fn a_port_program_says_on_stdout_what_is_wrong() {
    let mut child = binary()
        .arg("--port-program")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"\0\0\0\x0alinks = 65").unwrap();
    let mut out = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    assert_eq!(
        out,
        "error (stdin):1:9: links: 65 is not a number from 1 to 64\n"
    );
    assert_eq!(child.wait().unwrap().code(), Some(2));
    drop(stdin);
}

/// The owner is killed with -9: a shell stands for the BEAM, holding the
/// other end of the pipe. It waits for a word that never comes.
#[test]
fn a_port_program_does_not_outlive_its_owner() {
    let backend = Backend::new();
    let config = config(&backend.address(), "");
    let mut input = (config.len() as u32).to_be_bytes().to_vec();
    input.extend_from_slice(config.as_bytes());
    let file = file("");
    std::fs::write(file.path(), input).unwrap();
    let (pipe_out, pipe_in) = std::io::pipe().unwrap();
    let mut ecm = binary();
    ecm.arg("--port-program")
        .stdin(pipe_out)
        .stdout(Stdio::piped());
    let mut ecm = ecm.spawn().unwrap();
    // The owner has the only other end of the pipe.
    let mut owner = std::process::Command::new("sh")
        .args(["-c", r#"cat "$0"; read -r word"#])
        .arg(file.path())
        .stdin(Stdio::piped())
        .stdout(pipe_in)
        .spawn()
        .unwrap();

    let mut log = BufReader::new(ecm.stdout.take().unwrap()).lines();
    let mut node = backend.accept();
    log.find(|line| line.as_ref().unwrap().contains("link 1 up"))
        .unwrap()
        .unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_eq!(node.next(), Got::Eof);
    assert_eq!(ecm.wait().unwrap().code(), Some(0));
}

#[test]
fn no_more_clients_are_held_than_may_be() {
    let (ecm, _backend, mut node) = linked("max_clients = 1");
    let first = ecm.tcp_client();
    let id = node.opened().id;
    let mut second = ecm.tcp_client();
    second.write_all(b"me too").unwrap();
    let line = ecm.line("max_clients=1 reached");
    assert!(line.contains(" service=c2s: "), "{line}");
    drop(first);
    assert_eq!(node.next(), Got::End(id));
    node.send(id, b"");
    let id = node.opened().id;
    assert_eq!(node.content(id, 6), b"me too");
}
