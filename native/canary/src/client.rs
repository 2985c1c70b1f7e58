//! The clients: each connection sends its own stream and checks that exactly this comes back.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Barrier, Notify};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cli::Cli;
use crate::plan::{End, Plan, pause, rng};
use crate::report::{Counters, Fault};
use crate::stamp::Stamp;

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

/// Why a connection ended before its plan did.
enum Stop {
    /// By the plan itself.
    Left,
    /// Before a byte came back.
    Refused(String),
    Fault(Fault),
}

/// What the two halves of a connection know of each other.
struct Shared {
    connection: u64,
    stamp: Stamp,
    plan: Plan,
    sent: AtomicU64,
    received: AtomicU64,
    /// No more bytes will be sent.
    complete: AtomicBool,
    /// Where writes ended that are not back yet, and when they were made.
    under_way: Mutex<VecDeque<(u64, Instant)>>,
    came_back: Notify,
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
        while Instant::now() < self.until && self.counters.faults() == 0 {
            let round = self.rounds[client as usize].fetch_add(1, Relaxed);
            let connection = self.connection(client, round);
            let plan = match self.cli.ping_pong {
                true => Plan::ping_pong(self.cli.pause),
                false => Plan::draw(&mut rng, self.cli.bytes, self.cli.pause),
            };
            self.one(connection, plan, &mut rng).await;
            sleep(pause(&mut rng, self.cli.pause)).await;
        }
    }

    /// A connection's number says which client's, and which one of that.
    fn connection(&self, client: u32, round: u32) -> u64 {
        u64::from(round) * u64::from(self.cli.clients) + u64::from(client)
    }

    async fn one(&self, connection: u64, plan: Plan, rng: &mut Rng) {
        let stream = match timeout(self.cli.patience, TcpStream::connect(self.ecm)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return self.end(
                    connection,
                    Err(fault(connection, 0, format!("cannot connect: {error}"))),
                );
            }
            Err(_) => {
                return self.end(
                    connection,
                    Err(fault(connection, 0, "cannot connect: no answer".to_owned())),
                );
            }
        };
        self.counters.opened.fetch_add(1, Relaxed);
        if self.cli.ping_pong {
            self.connected.wait().await;
        }
        let ended = self.exchange(stream, connection, plan, rng).await;
        self.end(connection, ended);
    }

    fn end(&self, connection: u64, ended: Result<(), Stop>) {
        match ended {
            Ok(()) => _ = self.counters.finished.fetch_add(1, Relaxed),
            Err(Stop::Left) => _ = self.counters.left.fetch_add(1, Relaxed),
            Err(Stop::Refused(_)) if self.cli.may_refuse => {
                _ = self.counters.refused.fetch_add(1, Relaxed)
            }
            Err(Stop::Refused(what)) => self.counters.fault(Fault {
                connection,
                position: 0,
                what,
            }),
            Err(Stop::Fault(fault)) => self.counters.fault(fault),
        }
    }

    async fn exchange(
        &self,
        mut stream: TcpStream,
        connection: u64,
        plan: Plan,
        rng: &mut Rng,
    ) -> Result<(), Stop> {
        let _ = stream.set_nodelay(true);
        let reset = matches!(plan.end, End::Reset(_));
        let shared = Shared {
            connection,
            stamp: Stamp::new(self.seed, connection),
            plan,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            complete: false.into(),
            under_way: Mutex::default(),
            came_back: Notify::new(),
        };
        let (reader, writer) = stream.split();
        let (mut to_read, mut to_write) = (rng.fork(), rng.fork());
        let ended = tokio::try_join!(
            self.write(writer, &shared, &mut to_write),
            self.read(reader, &shared, &mut to_read)
        );
        if reset && matches!(ended, Err(Stop::Left)) {
            let _ = stream.set_zero_linger();
        }
        ended.map(|_| ())
    }

    async fn write(
        &self,
        mut writer: WriteHalf<'_>,
        shared: &Shared,
        rng: &mut Rng,
    ) -> Result<(), Stop> {
        let mut buffer = Vec::new();
        let mut sent = 0;
        while sent < shared.plan.total && Instant::now() < self.until {
            let piece = shared
                .plan
                .next_piece(rng)
                .min(usize::try_from(shared.plan.total - sent).unwrap_or(usize::MAX));
            buffer.resize(piece, 0);
            shared.stamp.fill(sent, &mut buffer);
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let written = writer
                    .write(rest)
                    .await
                    .map_err(|error| self.ended(shared, &error.to_string()))?;
                rest = &rest[written..];
                sent += written as u64;
                // Noted before it is known to the reader, which measures by it.
                lock(&shared.under_way).push_back((sent, Instant::now()));
                shared.sent.store(sent, Relaxed);
                self.counters.sent.fetch_add(written as u64, Relaxed);
            }
            if shared.plan.lockstep {
                self.all_back(shared, sent).await;
            }
            tokio::select! {
                () = sleep(pause(rng, shared.plan.pause)) => {}
                () = sleep_until(self.until) => {}
            }
        }
        if shared.plan.end == End::WhenBack {
            self.all_back(shared, sent).await;
        }
        shared.complete.store(true, Relaxed);
        writer
            .shutdown()
            .await
            .map_err(|error| self.ended(shared, &error.to_string()))
    }

    async fn all_back(&self, shared: &Shared, sent: u64) {
        while shared.received.load(Relaxed) < sent {
            shared.came_back.notified().await;
        }
    }

    async fn read(
        &self,
        mut reader: ReadHalf<'_>,
        shared: &Shared,
        rng: &mut Rng,
    ) -> Result<(), Stop> {
        let mut buffer = Vec::new();
        let mut received = 0;
        let leave_at = match shared.plan.end {
            End::Close(at) | End::Reset(at) => at,
            _ => u64::MAX,
        };
        loop {
            if received >= leave_at {
                return Err(Stop::Left);
            }
            if let Some(dawdle) = shared.plan.dawdle {
                sleep(pause(rng, dawdle)).await;
            }
            buffer.resize(shared.plan.next_read(rng), 0);
            let asked = Instant::now();
            let count = self.next(&mut reader, &mut buffer, shared).await?;
            if count == 0 {
                return self.at_end(shared);
            }
            self.check(shared, received, &buffer[..count])?;
            received += count as u64;
            self.took_back(shared, received, asked);
            self.counters.received.fetch_add(count as u64, Relaxed);
            shared.received.store(received, Relaxed);
            shared.came_back.notify_one();
        }
    }

    /// The next bytes, or 0 for the end. Waits for ever while nothing is due.
    async fn next(
        &self,
        reader: &mut ReadHalf<'_>,
        buffer: &mut [u8],
        shared: &Shared,
    ) -> Result<usize, Stop> {
        loop {
            let due_before = shared.due();
            match timeout(self.cli.patience, reader.read(buffer)).await {
                Ok(Ok(count)) => return Ok(count),
                Ok(Err(error)) => return Err(self.ended(shared, &error.to_string())),
                Err(_) if due_before => {
                    let missing = shared
                        .sent
                        .load(Relaxed)
                        .saturating_sub(shared.received.load(Relaxed));
                    let what = format!(
                        "nothing came for {:?}; {missing} bytes and the end are missing",
                        self.cli.patience
                    );
                    return Err(fault(
                        shared.connection,
                        shared.received.load(Relaxed),
                        what,
                    ));
                }
                Err(_) => {}
            }
        }
    }

    fn took_back(&self, shared: &Shared, received: u64, asked: Instant) {
        let now = Instant::now();
        let mut under_way = lock(&shared.under_way);
        if let Some((_, written)) = under_way.front() {
            self.counters.pause(now - asked.max(*written));
        }
        while let Some(&(end, written)) = under_way.front()
            && end <= received
        {
            under_way.pop_front();
            // The time of a client that does not keep up is its own.
            if shared.plan.dawdle.is_none() {
                self.counters.latency(now - written);
            }
        }
    }

    fn check(&self, shared: &Shared, received: u64, bytes: &[u8]) -> Result<(), Stop> {
        let sent = shared.sent.load(Relaxed);
        match shared.stamp.first_wrong(received, bytes) {
            Some(wrong) => {
                let position = received + wrong as u64;
                Err(fault(
                    shared.connection,
                    position,
                    self.diagnosis(shared, position, &bytes[wrong..]),
                ))
            }
            // Never true of an echo, and so a sign that the canary itself is wrong.
            None if received + bytes.len() as u64 > sent + shared.plan.piece => Err(fault(
                shared.connection,
                sent,
                "more came back than was sent".to_owned(),
            )),
            None => Ok(()),
        }
    }

    /// The other side's end, in order only when all is back.
    fn at_end(&self, shared: &Shared) -> Result<(), Stop> {
        let all_back = shared.received.load(Relaxed) == shared.sent.load(Relaxed);
        match shared.complete.load(Relaxed) && all_back {
            true => Ok(()),
            false => Err(self.ended(shared, "end of stream")),
        }
    }

    fn ended(&self, shared: &Shared, how: &str) -> Stop {
        let (sent, received) = (shared.sent.load(Relaxed), shared.received.load(Relaxed));
        match received {
            0 => Stop::Refused(format!("refused ({how}): none of {sent} bytes came back")),
            _ => fault(
                shared.connection,
                received,
                format!(
                    "ended too early ({how}): {} of {sent} bytes did not come back",
                    sent.saturating_sub(received)
                ),
            ),
        }
    }

    /// Where the bytes that came at `position` belong.
    fn diagnosis(&self, shared: &Shared, position: u64, bytes: &[u8]) -> String {
        let sent = shared.sent.load(Relaxed);
        if let Some(found) = shared.stamp.find(bytes, position, sent) {
            return match found > position {
                true => format!("{} bytes are lost (or come later)", found - position),
                false => format!("{} bytes came twice (or too late)", position - found),
            };
        }
        for (client, rounds) in (0..).zip(&self.rounds) {
            let begun = rounds.load(Relaxed);
            for round in begun.saturating_sub(LOOK_BACK)..begun {
                let other = self.connection(client, round);
                let stamp = Stamp::new(self.seed, other);
                if let Some(at) = (other != shared.connection)
                    .then(|| stamp.find(bytes, 0, self.cli.bytes))
                    .flatten()
                {
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

impl Shared {
    /// Is there something that must come, bytes or the end?
    fn due(&self) -> bool {
        self.complete.load(Relaxed) || self.received.load(Relaxed) < self.sent.load(Relaxed)
    }
}

fn fault(connection: u64, position: u64, what: String) -> Stop {
    Stop::Fault(Fault {
        connection,
        position,
        what,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
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
