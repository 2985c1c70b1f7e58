//! The clients: each makes one connection after the other until the time is over.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fastrand::Rng;
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::Cli;
use crate::plan::{Plan, pause, rng};
use crate::report::{Counters, Fault};
use crate::stamp::Stamp;
use crate::stream::{Stop, Stream};

/// Clients begin within this time, not all at once.
const BEGIN_WITHIN: Duration = Duration::from_secs(1);

/// How many of a client's last connections are looked through for strange bytes.
const LOOK_BACK: u32 = 3;

/// What all clients share.
#[derive(Debug)]
pub struct Clients {
    ecm: SocketAddr,
    cli: Cli,
    seed: u64,
    until: Instant,
    counters: Arc<Counters>,
    /// How many connections each client has begun.
    rounds: Vec<AtomicU32>,
    connected: Barrier,
}

impl Clients {
    pub fn new(ecm: SocketAddr, cli: &Cli, seed: u64, counters: Arc<Counters>) -> Self {
        let clients = cli.clients as usize;
        Self {
            ecm,
            cli: cli.clone(),
            seed,
            until: Instant::now() + cli.seconds,
            counters,
            rounds: (0..clients).map(|_| AtomicU32::new(0)).collect(),
            connected: Barrier::new(clients),
        }
    }

    /// Runs one of the clients, to its end.
    pub async fn run(self: Arc<Self>, client: u32) {
        let mut rng = rng(self.seed, u64::from(client));
        sleep(BEGIN_WITHIN.mul_f64(rng.f64()).min(self.cli.seconds)).await;
        if self.cli.ping_pong {
            // Whatever the time: the others wait for it.
            let plan = Plan::ping_pong(self.cli.pause);
            return self.one(self.begin(client), plan, &mut rng).await;
        }
        while Instant::now() < self.until && self.counters.faults() == 0 {
            let plan = Plan::draw(&mut rng, self.cli.bytes, self.cli.pause);
            self.one(self.begin(client), plan, &mut rng).await;
            sleep(pause(&mut rng, self.cli.pause)).await;
        }
    }

    /// The number of a client's next connection.
    fn begin(&self, client: u32) -> u64 {
        let round = self.rounds[client as usize].fetch_add(1, Relaxed);
        self.connection(client, round)
    }

    /// A connection's number says which client's, and which one of that.
    fn connection(&self, client: u32, round: u32) -> u64 {
        u64::from(round) * u64::from(self.cli.clients) + u64::from(client)
    }

    async fn one(&self, connection: u64, plan: Plan, rng: &mut Rng) {
        let fault = |position, what| Fault {
            connection,
            position,
            what,
        };
        let socket = match timeout(self.cli.patience, TcpStream::connect(self.ecm)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                return self
                    .counters
                    .fault(fault(0, format!("cannot connect: {error}")));
            }
            Err(_) => {
                return self
                    .counters
                    .fault(fault(0, "cannot connect: no answer".to_owned()));
            }
        };
        self.counters.opened.fetch_add(1, Relaxed);
        let mut until = self.until;
        if self.cli.ping_pong {
            self.connected.wait().await;
            until = Instant::now() + self.cli.seconds;
        }
        let address = socket.local_addr();
        let (patience, stamp) = (self.cli.patience, Stamp::new(self.seed, connection));
        let stream = Stream::new(stamp, plan, until, patience, &self.counters);
        let count = |counter: &AtomicU64| _ = counter.fetch_add(1, Relaxed);
        let (position, what) = match stream.run(socket, rng).await {
            Ok(()) => return count(&self.counters.finished),
            Err(Stop::Left) => return count(&self.counters.left),
            Err(Stop::Refused(_)) if self.cli.may_refuse => return count(&self.counters.refused),
            Err(Stop::Refused(what)) => (0, what),
            Err(Stop::Missing { received, what }) => (received, what),
            Err(Stop::Wrong { position, bytes }) => (
                position,
                self.diagnosis(connection, stream.sent(), position, &bytes),
            ),
        };
        // The ECM's log has the address too.
        let from = address.map_or_else(|_| "?".to_owned(), |address| address.to_string());
        self.counters
            .fault(fault(position, format!("{what} (client {from})")));
    }

    /// Where the bytes that came at `position` belong.
    fn diagnosis(&self, connection: u64, sent: u64, position: u64, bytes: &[u8]) -> String {
        if let Some(found) = Stamp::new(self.seed, connection).find(bytes, position, sent) {
            return match found > position {
                true => format!("{} bytes are lost (or come later)", found - position),
                false => format!("{} bytes came twice (or too late)", position - found),
            };
        }
        for (client, rounds) in (0..).zip(&self.rounds) {
            let begun = rounds.load(Relaxed);
            for round in begun.saturating_sub(LOOK_BACK)..begun {
                let other = self.connection(client, round);
                if other == connection {
                    continue;
                }
                if let Some(at) = Stamp::new(self.seed, other).find(bytes, 0, self.cli.bytes) {
                    return format!("these are bytes of connection {other}, from its byte {at} on");
                }
            }
        }
        format!(
            "bytes that were never sent: {:02x?}",
            &bytes[..bytes.len().min(16)]
        )
    }
}

/// Waits until somebody accepts connections there, at most `patience`.
pub async fn wait_for(ecm: SocketAddr, patience: Duration) -> io::Result<()> {
    let started = Instant::now();
    loop {
        match TcpStream::connect(ecm).await {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() > patience => return Err(error),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
