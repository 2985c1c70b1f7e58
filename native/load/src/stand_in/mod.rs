//! A stand-in for a server: what generator and kernel cost by themselves, and every fault that the
//! tool must see.
//!
//! ```text
//!   c2s, websocket, bosh ─► xml ─► user ─► users (faults, delay) ─► the other user's socket
//!   http, link ────────────────► `ok`
//! ```
//!
//! [`wire`] reads and writes a TCP connection; each of [`c2s`], [`websocket`], [`bosh`], [`http`]
//! and [`link`] is a [`wire::Protocol`] on it. A chat message costs one read, one look through its
//! XML and one write: no task is woken for it and, without faults, nothing is allocated but what
//! finds its receiver.

mod accounts;
mod bosh;
mod bosh_session;
mod c2s;
mod faults;
mod http;
mod link;
mod report;
mod server;
mod stall;
mod user;
mod users;
mod websocket;
mod wire;
mod xml;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::sleep;

use accounts::Accounts;
use bosh_session::Sessions;
use faults::{Faults, Odds};
pub use report::Report;
use report::count;
use server::Server;
use stall::Stall;
use users::Users;

/// Connections that may wait to be accepted: a burst of logins must not be slowed by this.
const BACKLOG: i32 = 4096;

/// After an accept that failed, for want of descriptors as a rule, it is tried again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const AFTER_HELP: &str = "\
In a benchmark it stands in a server's place and shows what generator and kernel cost by
themselves. With faults it shows that the tool sees them: a message suffers one at most, and what
was done is printed as one JSON object at the end.

Users log in by SASL ANONYMOUS to any domain, or with an account (PLAIN, SCRAM-SHA-1,
SCRAM-SHA-256), and stanzas are routed by full JID. There is no TLS and no roster, and nothing is
stored.

For each listener it prints a line \"listening TRANSPORT ADDRESS\". It serves until its standard
input ends: keep that open, or nothing is served at all. P is a probability from 0 to 1.

Example, in two terminals:
  megaphone-load stand-in --c2s 127.0.0.1:5222 --lose 0.01
  megaphone-load users xmpp://127.0.0.1 --domain localhost --users 100 --chatter 200 --for 10s";

/// See `megaphone-load stand-in --help`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Be a small server, to see what generator and kernel cost, or to lose messages on purpose",
    after_help = AFTER_HELP
)]
pub struct Args {
    /// Threads; more than one costs more processor time a message
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,

    /// Serve XMPP over TCP here; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", help_heading = "Listeners")]
    c2s: Vec<SocketAddr>,
    /// Serve XMPP over WebSocket here, on any path
    #[arg(long, value_name = "ADDRESS", help_heading = "Listeners")]
    websocket: Vec<SocketAddr>,
    /// Serve XMPP over BOSH here, on any path
    #[arg(long, value_name = "ADDRESS", help_heading = "Listeners")]
    bosh: Vec<SocketAddr>,
    /// Answer every HTTP request here with `ok`
    #[arg(long, value_name = "ADDRESS", help_heading = "Listeners")]
    http: Vec<SocketAddr>,
    /// Be a node for megaphone-ecm here: HTTP requests are answered with `ok`, connections for
    /// the service `echo` are echoed
    #[arg(long, value_name = "ADDRESS", help_heading = "Listeners")]
    link: Vec<SocketAddr>,

    /// Accounts: with `user%`, user12 may log in, and so any number
    #[arg(long, value_name = "PATTERN", help_heading = "Users")]
    accounts: Option<String>,
    /// Their password; `%` stands for the user's number
    #[arg(
        long,
        value_name = "PATTERN",
        default_value = "secret",
        help_heading = "Users"
    )]
    password: String,

    /// Ping every user again and again, such as each 30s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Users")]
    ping: Option<Duration>,

    #[command(flatten)]
    odds: Odds,
    /// Deliver every message so much later, such as 50ms
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    delay: Option<Duration>,
    /// Read nothing for so long, again and again, such as 500ms
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    stall: Option<Duration>,
    /// Stalls are the last part of each such time, counted from the first message or HTTP request
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    stall_every: Duration,
    /// End after so many messages, in the middle of everything, as a server does that dies
    #[arg(long, value_name = "N")]
    end_after: Option<u64>,
    /// Draw the faults from this number: the same draws for the same number
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs it until standard input ends. The error is for a person.
pub fn run(args: &Args) -> Result<(), String> {
    args.odds.check()?;
    raise_open_files();
    let mut builder = match args.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .worker_threads(args.threads.max(1))
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let report = runtime.block_on(serve(args))?;
    let json = serde_json::to_string(&report).map_err(|error| error.to_string())?;
    println!("{json}");
    Ok(())
}

async fn serve(args: &Args) -> Result<Report, String> {
    let (server, listeners) = start(args)?;
    // Whoever started this waits for these lines: they must not stay in a buffer.
    let mut out = io::stdout().lock();
    for (transport, address) in listeners {
        writeln!(out, "listening {transport} {address}").map_err(|error| error.to_string())?;
    }
    out.flush().map_err(|error| error.to_string())?;
    drop(out);
    tokio::select! {
        () = end_of_input() => {}
        () = server.users.had_enough() => {}
    }
    Ok(server.report())
}

/// Where it listens, by transport.
type Listeners = Vec<(&'static str, SocketAddr)>;

/// Listens, in the runtime that this is called in.
fn start(args: &Args) -> Result<(Arc<Server>, Listeners), String> {
    let server = Arc::new(server(args));
    let mut listeners = Listeners::new();
    if let Some(every) = args.ping {
        tokio::spawn(Arc::clone(&server.users).ping(every));
    }
    let sessions = Arc::new(Sessions::default());
    let none_stalled = |_: &Arc<Server>| None;
    let stalled = |server: &Arc<Server>| server.stall.clone();

    for address in &args.c2s {
        let bound = listen(*address, &server, stalled, c2s::C2s::new)?;
        listeners.push(("c2s", bound));
    }
    for address in &args.websocket {
        let bound = listen(*address, &server, stalled, websocket::WebSocket::new)?;
        listeners.push(("websocket", bound));
    }
    for address in &args.bosh {
        let sessions = Arc::clone(&sessions);
        let bosh = move |server: &Arc<Server>| bosh::Bosh::new(server, &sessions);
        let bound = listen(*address, &server, stalled, bosh)?;
        listeners.push(("bosh", bound));
    }
    for address in &args.http {
        let bound = listen(*address, &server, stalled, http::Http::new)?;
        listeners.push(("http", bound));
    }
    for address in &args.link {
        let bound = listen(*address, &server, none_stalled, link::NodeLink::new)?;
        listeners.push(("link", bound));
    }
    Ok((server, listeners))
}

fn server(args: &Args) -> Server {
    let counts = Arc::default();
    let faults = (args.odds != Odds::default()).then(|| Faults::new(args.odds, args.seed));
    let accounts = args.accounts.as_deref();
    let accounts = accounts.map(|user| Accounts::new(user, &args.password));
    let stall = args.stall.map(|time| Stall::new(time, args.stall_every));
    let users = Users::new(faults, args.delay, args.end_after, Arc::clone(&counts));
    Server::new(users, accounts, stall, counts)
}

/// Listens, and serves whoever comes. The answer is where: port 0 has become a real one.
fn listen<P: wire::Protocol + 'static>(
    address: SocketAddr,
    server: &Arc<Server>,
    stall: impl Fn(&Arc<Server>) -> Option<Arc<Stall>> + Send + 'static,
    protocol: impl Fn(&Arc<Server>) -> P + Send + 'static,
) -> Result<SocketAddr, String> {
    let failed = |error: io::Error| format!("cannot listen on {address}: {error}");
    let listener = bind(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let server = Arc::clone(server);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => {
                    count(&server.counts.connections);
                    tokio::spawn(wire::serve(socket, stall(&server), protocol(&server)));
                }
                Err(_) => sleep(ACCEPT_AGAIN).await,
            }
        }
    });
    Ok(address)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Waits until nobody can write to standard input any more.
async fn end_of_input() {
    let (ended, end) = oneshot::channel();
    // Not a task: reading standard input blocks, and nothing ends that but its end.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

/// As many open files as the hard limit has. See setrlimit(2), `RLIMIT_NOFILE`.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // As it is, it is enough for some.
    let _ = setrlimit(Resource::Nofile, raised);
}

#[cfg(test)]
mod tests;
