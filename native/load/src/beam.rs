//! An Erlang node's own account of its memory, by kind and by type of process.
//!
//! The node is asked over Erlang distribution by `beam_account.escript`, which loads a module into
//! it for as long as the account takes. It needs Erlang/OTP 25 or later on the `PATH`, and what it
//! loads must be no newer than the node: have the node's own `erl` there.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use serde::{Deserialize, Serialize};

const PROGRAM: &str = include_str!("beam_account.escript");

/// Where a cookie may be given, since other users can read a command line.
const COOKIE_VARIABLE: &str = "ERLANG_COOKIE";

/// How to reach a node: by Erlang distribution, from an `erl` that is started for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// `name@host`.
    pub name: String,
    /// Its cookie; by default `ERLANG_COOKIE`, or the one in the user's `.erlang.cookie`.
    pub cookie: Option<String>,
    /// The port it listens on, for a node without epmd (`erl -erl_epmd_port`).
    pub port: Option<u16>,
}

/// What a node says of itself. All in bytes unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// `erlang:memory/0`: total, processes, binary, ets, code, system, ...
    pub memory: BTreeMap<String, u64>,
    /// What the allocators hold from the system, whether in use or not (`erts_alloc` carriers).
    /// Code that the emulator's JIT has made is in `memory` and not in here.
    pub allocated: u64,
    /// What of `allocated` is in use; the rest is the allocators' overhead.
    pub used: u64,
    /// The same of each allocator: `eheap_alloc`, `binary_alloc`, `ets_alloc`, ...
    pub allocators: BTreeMap<String, Allocator>,
    /// What a NIF says it holds, by name, where it is one that says it (`megaphone`). It is
    /// in neither `memory` nor `allocated`.
    pub nifs: BTreeMap<String, u64>,
    /// Number and memory of processes by type: `ejabberd_c2s`, `ejabberd_http`, ...
    pub processes: BTreeMap<String, Processes>,
    /// Ports that are open.
    pub ports: u64,
    /// Descriptors that are open in the node's process.
    pub descriptors: u64,
}

/// What one of the node's allocators holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocator {
    /// From the system.
    pub allocated: u64,
    /// In use.
    pub used: u64,
}

/// The processes of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Processes {
    /// How many.
    pub count: u64,
    /// `process_info(Pid, memory)` of all of them.
    pub memory: u64,
}

/// What the program prints: an account without its sums.
#[derive(Deserialize)]
struct Answer {
    memory: BTreeMap<String, u64>,
    allocators: BTreeMap<String, Allocator>,
    nifs: BTreeMap<String, u64>,
    processes: BTreeMap<String, Processes>,
    ports: u64,
    descriptors: u64,
}

impl Node {
    /// Asks the node. With `collect`, it has every process collect its garbage twice before: once
    /// is not enough, since what the first finds to be old is freed by the second.
    ///
    /// Blocks until the node has answered, about a second and some microseconds for each of its
    /// processes. Nothing stays behind in the node. The error says what went wrong, for a person.
    pub fn account(&self, collect: bool) -> Result<Account, String> {
        let cookie = self.find_cookie()?;
        let output = self.run(&cookie, collect)?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let complaint = match text.trim() {
                "" => String::from_utf8_lossy(&output.stderr),
                _ => text,
            };
            return Err(complaint.trim().to_owned());
        }
        let answer: Answer = serde_json::from_str(&text)
            .map_err(|error| format!("what {} answered is not understood: {error}", self.name))?;
        Ok(answer.into())
    }

    fn run(&self, cookie: &str, collect: bool) -> Result<Output, String> {
        let mut file = tempfile::Builder::new()
            .suffix(".escript")
            .tempfile()
            .map_err(|error| format!("cannot make a temporary file: {error}"))?;
        file.write_all(PROGRAM.as_bytes())
            .map_err(|error| format!("{}: {error}", file.path().display()))?;
        let mut command = Command::new("escript");
        command.arg(file.path());
        if let Some(port) = self.port {
            // The one way to say it to an escript. It goes before what the user has there.
            let others = env::var("ERL_AFLAGS").unwrap_or_default();
            command.env("ERL_AFLAGS", format!("-erl_epmd_port {port} {others}"));
        }
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                "there is no `escript` on the PATH: asking an Erlang node needs Erlang/OTP".into()
            }
            _ => format!("cannot start `escript`: {error}"),
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            // If it cannot read this, it says so by ending badly.
            let _ = writeln!(stdin, "{}\n{cookie}\n{collect}", self.name);
        }
        child
            .wait_with_output()
            .map_err(|error| format!("`escript`: {error}"))
    }

    fn find_cookie(&self) -> Result<String, String> {
        if let Some(cookie) = &self.cookie {
            return Ok(cookie.clone());
        }
        if let Ok(cookie) = env::var(COOKIE_VARIABLE) {
            return Ok(cookie);
        }
        let found = cookie_files()
            .into_iter()
            .find_map(|file| fs::read_to_string(file).ok());
        found.map(|cookie| cookie.trim().to_owned()).ok_or(format!(
            "no cookie for {}: it is not given, {COOKIE_VARIABLE} is not set, and there is no ~/.erlang.cookie",
            self.name
        ))
    }
}

/// Where Erlang looks for it.
fn cookie_files() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or(home.as_ref().map(|home| home.join(".config")));
    let files = [
        home.map(|home| home.join(".erlang.cookie")),
        config.map(|config| config.join("erlang/.erlang.cookie")),
    ];
    files.into_iter().flatten().collect()
}

impl From<Answer> for Account {
    fn from(answer: Answer) -> Self {
        let sum = |part: fn(&Allocator) -> u64| answer.allocators.values().map(part).sum();
        Self {
            allocated: sum(|allocator| allocator.allocated),
            used: sum(|allocator| allocator.used),
            memory: answer.memory,
            allocators: answer.allocators,
            nifs: answer.nifs,
            processes: answer.processes,
            ports: answer.ports,
            descriptors: answer.descriptors,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::{Ipv4Addr, TcpListener};
    use std::process::{Child, ChildStdout};

    use super::*;
    use crate::socket::tests::nobody;

    const COOKIE: &str = "not for ps";

    /// A node without epmd, which ends when its standard input does.
    struct Erl {
        node: Node,
        child: Child,
        /// It ends when it cannot write what it logs.
        _stdout: BufReader<ChildStdout>,
    }

    impl Erl {
        /// `program` runs in it before it is said to be up.
        fn start(name: &str, program: &str) -> Self {
            // Somebody else may take the port before it does.
            let mut tries = (0..5).filter_map(|_| Self::start_at(free_port(), name, program));
            tries.next().expect("a node on one of five ports")
        }

        /// `None`: it did not come up.
        fn start_at(port: u16, name: &str, program: &str) -> Option<Self> {
            let mut command = Command::new("erl");
            command.args(["-boot", "no_dot_erlang", "-noshell", "-start_epmd", "false"]);
            command.args(["-name", name, "-setcookie", COOKIE]);
            command.args(["-erl_epmd_port", &port.to_string()]);
            command.args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-eval"]);
            command.arg(format!(
                "{program}, io:put_chars(\"up\\n\"), io:get_line(\"\"), halt()."
            ));
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            stdout.read_line(&mut line).unwrap();
            let node = Node {
                name: name.into(),
                cookie: Some(COOKIE.into()),
                port: Some(port),
            };
            let erl = Self {
                node,
                child,
                _stdout: stdout,
            };
            (line == "up\n").then_some(erl)
        }
    }

    impl Drop for Erl {
        fn drop(&mut self) {
            drop(self.child.stdin.take());
            let _ = self.child.wait();
        }
    }

    fn free_port() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    /// Processes that hold a megabyte each which they no longer need, and one of a behaviour.
    const BUSY: &str =
        "[spawn(fun() -> lists:seq(1, 65536), timer:sleep(infinity) end) || _ <- \"1234567890\"]";

    #[test]
    fn a_node_accounts_for_its_memory() {
        let erl = Erl::start("account@127.0.0.1", BUSY);
        let account = erl.node.account(false).unwrap();
        let total = account.memory["total"];
        assert_eq!(
            total,
            account.memory["processes"] + account.memory["system"]
        );
        assert!(account.used <= account.allocated, "{account:?}");
        assert!(account.used > total / 2, "{account:?}");
        assert_eq!(
            account.allocated,
            account
                .allocators
                .values()
                .map(|a| a.allocated)
                .sum::<u64>()
        );
        assert!(
            account.allocators["eheap_alloc"].used > 10 << 20,
            "{account:?}"
        );
        assert_eq!(account.processes["timer"].count, 10, "{account:?}");
        assert!(account.processes["timer"].memory > 10 << 20, "{account:?}");
        assert_eq!(account.processes["code_server"].count, 1);
        assert!(account.processes["supervisor"].count > 2);
        assert!(account.descriptors > 5);
        assert!(account.nifs.is_empty());

        let collected = erl.node.account(true).unwrap();
        assert_eq!(collected.processes["timer"].count, 10);
        assert!(
            collected.processes["timer"].memory < 1 << 20,
            "{collected:?}"
        );
        assert!(
            collected.memory["processes"] + (10 << 20) < account.memory["processes"],
            "{account:?} {collected:?}"
        );
    }

    /// Nor a connection, a module, or a process.
    #[test]
    fn nothing_stays_behind() {
        let erl = Erl::start("clean@127.0.0.1", "ok");
        // What it calls may have to be loaded, once.
        erl.node.account(true).unwrap();
        let first = erl.node.account(true).unwrap();
        let processes =
            |account: &Account| -> u64 { account.processes.values().map(|p| p.count).sum() };
        let open = |account: &Account| (processes(account), account.ports, account.descriptors);
        let code = first.memory["code"];
        // The last connection's processes may take a moment to end.
        assert!((0..10).any(|_| {
            let now = erl.node.account(true).unwrap();
            // A module takes more than a kilobyte.
            assert!(now.memory["code"].abs_diff(code) < 1024);
            open(&now) == open(&first)
        }));
    }

    #[test]
    fn what_goes_wrong_is_said() {
        let erl = Erl::start("wrong@127.0.0.1", "ok");
        let ask = |name: &str, cookie: &str, port: u16| {
            let (name, cookie) = (name.to_owned(), Some(cookie.to_owned()));
            let port = Some(port);
            Node { name, cookie, port }.account(false).unwrap_err()
        };
        let port = erl.node.port.unwrap();
        assert!(ask("wrong@127.0.0.1", "another", port).contains("cookie is another"));
        let (_held, nobody) = nobody();
        let refused = ask("wrong@127.0.0.1", COOKIE, nobody.port());
        assert!(refused.contains("connection refused"), "{refused}");
        assert!(ask("wrong", COOKIE, port).contains("not the name of a node"));
    }
}
