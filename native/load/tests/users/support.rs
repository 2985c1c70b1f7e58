//! The two programs, and what they say.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use megaphone_load::fleet::{Chatter, Logins};
use megaphone_load::stand_in::Report as Done;
use megaphone_load::users::Report;
use tempfile::NamedTempFile;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_megaphone-load");

/// A transport's name as stand-in has it, and a URL for an address.
#[derive(Debug, Clone, Copy)]
pub struct Transport {
    pub name: &'static str,
    scheme: &'static str,
    path: &'static str,
}

pub const C2S: Transport = Transport {
    name: "c2s",
    scheme: "xmpp",
    path: "",
};
pub const WEBSOCKET: Transport = Transport {
    name: "websocket",
    scheme: "ws",
    path: "/ws",
};
pub const BOSH: Transport = Transport {
    name: "bosh",
    scheme: "http",
    path: "/bosh",
};

/// A stand-in that serves until this is dropped or asked to end.
pub struct StandIn {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub transport: Transport,
    pub address: SocketAddr,
}

impl StandIn {
    pub fn start(transport: Transport, more: &[&str]) -> Self {
        let listener = format!("--{}=127.0.0.1:0", transport.name);
        let mut child = Command::new(PROGRAM)
            .args(["stand-in", &listener])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let ["listening", name, address] = words[..] else {
            panic!("{line:?}");
        };
        assert_eq!(name, transport.name);
        Self {
            input: child.stdin.take(),
            output,
            transport,
            address: address.parse().unwrap(),
            child,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it; the answer is what it did.
    pub fn done(mut self) -> Done {
        drop(self.input.take());
        let mut json = String::new();
        self.output.read_to_string(&mut json).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&json).unwrap()
    }

    /// `megaphone-load users` against it, with these arguments, not started yet.
    pub fn users(&self, arguments: &str) -> Users {
        self.users_by(Command::new(PROGRAM), arguments)
    }

    /// As [`StandIn::users`], by a command that runs the program.
    pub fn users_by(&self, command: Command, arguments: &str) -> Users {
        Users::new(self.transport, self.address, command, arguments)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Fails where it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A load.
pub struct Users {
    command: Command,
    json: NamedTempFile,
}

/// What came of a load.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub report: Report,
    /// The report as it was written.
    pub json: serde_json::Value,
    pub text: String,
    pub complaint: String,
}

impl Users {
    /// By a command that runs the program, not started yet.
    pub fn new(
        transport: Transport,
        address: SocketAddr,
        mut command: Command,
        arguments: &str,
    ) -> Self {
        let json = NamedTempFile::new().unwrap();
        let Transport { scheme, path, .. } = transport;
        command
            .arg("users")
            .arg(format!("{scheme}://{address}{path}"))
            .args(["--domain=localhost", "--quiet", "--seed=7"])
            .args(arguments.split_whitespace())
            .arg("--json")
            .arg(json.path())
            .stdin(Stdio::null());
        Self { command, json }
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Outcome {
        let output = self.command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, complaint) = (text(output.stdout), text(output.stderr));
        let json = std::fs::read_to_string(self.json.path()).unwrap();
        let read = serde_json::from_str(&json);
        Outcome {
            code: output.status.code(),
            report: read.unwrap_or_else(|_| panic!("no report: {complaint}\n{out}")),
            json: serde_json::from_str(&json).unwrap(),
            text: out,
            complaint,
        }
    }

    /// Starts it, for a test that does something to it meanwhile.
    pub fn start(mut self) -> Child {
        let piped = self.command.stdout(Stdio::null()).stderr(Stdio::piped());
        piped.spawn().unwrap()
    }
}

impl Outcome {
    pub fn logins(&self) -> &Logins {
        &self.report.steps[0].logins
    }

    pub fn chatter(&self) -> &Chatter {
        self.report.steps[0].chatter.as_ref().unwrap()
    }

    /// All went well, and the program says so.
    pub fn assert_clean(&self) {
        assert_eq!((self.code, self.report.faults), (Some(0), 0), "{self:?}");
        assert_eq!(self.complaint, "");
    }

    /// Each message's fault was found, as the one that it was, and nothing else.
    pub fn assert_saw(&self, done: &Done) {
        let chatter = self.chatter();
        let saw = [
            ("sent", chatter.sent),
            ("lost", chatter.lost),
            ("doubled", chatter.doubled),
            ("disordered", chatter.disordered),
            ("damaged", chatter.damaged),
        ];
        let did = [
            ("sent", done.messages),
            ("lost", done.lost),
            ("doubled", done.doubled),
            ("disordered", done.swapped),
            ("damaged", done.damaged + done.misdelivered),
        ];
        assert_eq!(saw, did, "{done:?}");
        let unwell = chatter.lost + chatter.disordered + chatter.damaged;
        assert_eq!(chatter.arrived + unwell, chatter.sent, "{chatter:?}");
        assert_eq!(self.report.faults, unwell + chatter.doubled);
        assert_eq!(self.code, Some(i32::from(self.report.faults > 0)));
    }
}
