//! Between an ECM and a node: forwards links, and breaks them.
//!
//! ```text
//!   conductor: at random times picks a link and a fault ──► that link's task
//!   link:      two pumps (ECM to node, node to ECM), each with its own gate
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cli::Cli;
use crate::plan::rng;
use crate::report::Counters;
use crate::stamp::mix;

/// The most that a pump reads at once.
const CHUNK: usize = 65_536;

/// A cut waits so long for the byte at which it is to be made; then it is made where things are.
const CUT_WITHIN: Duration = Duration::from_secs(2);

/// One proxy. It forwards from its start to the end of the program.
#[derive(Debug)]
pub struct Proxy {
    /// Where the ECM dials: a free port of 127.0.0.1.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: SocketAddr,
    number: u64,
    seed: u64,
    outage: Duration,
    started: Instant,
    counters: Arc<Counters>,
    links: Mutex<Vec<Running>>,
    /// Dials are refused until then, in microseconds since the start.
    refuse_until: AtomicU64,
}

#[derive(Debug)]
struct Running {
    link: u64,
    faults: mpsc::UnboundedSender<Fault>,
}

/// What is done to a link.
#[derive(Debug, Clone)]
enum Fault {
    /// One side is cut after so many more bytes, or both are.
    Cut {
        direction: usize,
        bytes: u64,
        how: Cut,
    },
    /// Nothing is forwarded for a while; then it goes on, or is cut.
    Freeze {
        directions: [bool; 2],
        time: Duration,
        then: Option<Cut>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Cut {
    /// A reset; otherwise a FIN.
    reset: bool,
    /// Which sides are told at once: the ECM's, the node's.
    sides: [bool; 2],
    /// How long the side that is not told still believes in its link.
    other_after: Duration,
}

/// What the two pumps of a link are told.
struct Gate {
    frozen: [watch::Sender<bool>; 2],
    /// The byte before which each direction ends.
    cut_at: [AtomicU64; 2],
    moved: [AtomicU64; 2],
}

/// Why a pump stopped.
enum Stop {
    /// It came to the byte of its cut.
    Cut,
    /// A side's own end or error.
    Ended,
}

impl Proxy {
    /// Begins to forward.
    pub async fn start(
        node: SocketAddr,
        number: u64,
        cli: &Cli,
        seed: u64,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let shared = Arc::new(Shared {
            node,
            number,
            seed,
            outage: cli.outage,
            started: Instant::now(),
            counters,
            links: Mutex::default(),
            refuse_until: AtomicU64::new(0),
        });
        let address = listener.local_addr()?;
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// Breaks something `cuts` times in a while; the pauses between vary.
    pub async fn break_links(self, cuts: u32, time: Duration) {
        let Self { shared, .. } = self;
        let mut rng = rng(shared.seed, mix(shared.number));
        for _ in 0..cuts {
            // All is drawn whether there is a link or not, so that the next one is the same.
            sleep((time / cuts).mul_f64(0.5 + rng.f64())).await;
            let (fault, which) = (Fault::draw(&mut rng, shared.outage), rng.f64());
            let refuse = shared.outage.mul_f64(rng.f64() * rng.f64());
            if rng.u32(0..4) == 0 && matches!(fault, Fault::Cut { .. }) {
                shared
                    .refuse_until
                    .store(micros(shared.started.elapsed() + refuse), Relaxed);
            }
            let links = lock(&shared.links);
            if !links.is_empty() {
                let _ = links[(links.len() as f64 * which) as usize]
                    .faults
                    .send(fault);
            }
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    for number in 0.. {
        match listener.accept().await {
            Ok((ecm, _)) => _ = tokio::spawn(Arc::clone(&shared).link(number, ecm)),
            // Out of file descriptors, say.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

impl Fault {
    fn draw(rng: &mut Rng, outage: Duration) -> Self {
        // Short ones are the more frequent.
        let time = outage.mul_f64(rng.f64() * rng.f64());
        let how = Cut {
            reset: rng.bool(),
            sides: *rng
                .choice(&[[true, true], [true, true], [true, false], [false, true]])
                .unwrap_or(&[true, true]),
            other_after: outage.mul_f64(rng.f64()),
        };
        let most = *rng.choice(&[40, 4_000, 400_000]).unwrap_or(&0);
        let bytes = rng.u64(0..=most);
        let direction = rng.usize(..2);
        let directions = *rng
            .choice(&[[true, true], [true, false], [false, true]])
            .unwrap_or(&[true, true]);
        match rng.u32(0..3) {
            0 => Self::Freeze {
                directions,
                time,
                then: rng.bool().then_some(how),
            },
            _ => Self::Cut {
                direction,
                bytes,
                how,
            },
        }
    }
}

impl Shared {
    /// Carries one link from its dial to its end.
    async fn link(self: Arc<Self>, link: u64, mut ecm: TcpStream) {
        if micros(self.started.elapsed()) < self.refuse_until.load(Relaxed) {
            self.counters.dials_refused.fetch_add(1, Relaxed);
            let _ = ecm.set_zero_linger();
            return;
        }
        let Ok(mut node) = TcpStream::connect(self.node).await else {
            return;
        };
        self.counters.dials.fetch_add(1, Relaxed);
        let _ = ecm.set_nodelay(true);
        let _ = node.set_nodelay(true);
        let (faults, orders) = mpsc::unbounded_channel();
        lock(&self.links).push(Running { link, faults });
        let cut = self.carry(link, &mut ecm, &mut node, orders).await;
        lock(&self.links).retain(|running| running.link != link);
        if let Some(cut) = cut {
            self.say(format_args!("cuts link {link}: {cut:?}"));
            self.counters.cuts.fetch_add(1, Relaxed);
            cut.make(ecm, node).await;
        }
    }
    /// Forwards until an end, or until the faults that come in cut it: then says how.
    async fn carry(
        &self,
        link: u64,
        ecm: &mut TcpStream,
        node: &mut TcpStream,
        mut orders: mpsc::UnboundedReceiver<Fault>,
    ) -> Option<Cut> {
        let gate = Gate::default();
        let (from_ecm, to_ecm) = ecm.split();
        let (from_node, to_node) = node.split();
        let mut rng = rng(self.seed, mix(self.number) ^ link);
        let mut cut = None;
        // When the freeze ends or the cut is made at the latest.
        let mut latest: Option<(Instant, Option<Cut>)> = None;
        let (to_rng, back_rng) = (rng.fork(), rng.fork());
        let pumps = async {
            tokio::try_join!(
                pump(&gate, 0, from_ecm, to_node, &self.counters.to_node, to_rng),
                pump(&gate, 1, from_node, to_ecm, &self.counters.to_ecm, back_rng),
            )
        };
        tokio::pin!(pumps);
        loop {
            tokio::select! {
                ended = &mut pumps => return match ended {
                    Err(Stop::Cut) => cut,
                    Err(Stop::Ended) | Ok(_) => None,
                },
                Some(fault) = orders.recv() => match fault {
                    Fault::Cut { direction, bytes, how } => {
                        gate.cut_after(direction, bytes);
                        cut = Some(how);
                        latest = Some((Instant::now() + CUT_WITHIN, cut));
                    }
                    Fault::Freeze { directions, time, then } => {
                        self.say(format_args!("freezes link {link}: {directions:?} for {time:?}"));
                        self.counters.freezes.fetch_add(1, Relaxed);
                        gate.freeze(directions);
                        latest = Some((Instant::now() + time, then));
                    }
                },
                () = sleep_until(latest.map_or_else(Instant::now, |(at, _)| at)), if latest.is_some() => {
                    if let Some((_, Some(cut))) = latest.take() {
                        return Some(cut);
                    }
                    gate.freeze([false, false]);
                }
            }
        }
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        println!(
            "{:.3} s: proxy {} {what}",
            self.started.elapsed().as_secs_f64(),
            self.number
        );
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            frozen: [watch::Sender::new(false), watch::Sender::new(false)],
            cut_at: [u64::MAX.into(), u64::MAX.into()],
            moved: Default::default(),
        }
    }
}

impl Gate {
    fn freeze(&self, directions: [bool; 2]) {
        for (gate, frozen) in self.frozen.iter().zip(directions) {
            gate.send_replace(frozen);
        }
    }

    fn cut_after(&self, direction: usize, bytes: u64) {
        let at = self.moved[direction].load(Relaxed).saturating_add(bytes);
        self.cut_at[direction].store(at, Relaxed);
    }
}

impl Cut {
    /// Ends both sockets, one of them later where only the other is told.
    async fn make(self, ecm: TcpStream, node: TcpStream) {
        let (told, other) = match self.sides {
            [true, true] => (vec![ecm, node], vec![]),
            [true, false] => (vec![ecm], vec![node]),
            _ => (vec![node], vec![ecm]),
        };
        told.into_iter().for_each(|socket| self.end(socket));
        if !other.is_empty() {
            sleep(self.other_after).await;
            other.into_iter().for_each(|socket| self.end(socket));
        }
    }

    /// Closing makes a FIN, or a reset where something was not read; lingering for no time a reset.
    fn end(self, socket: TcpStream) {
        if self.reset {
            let _ = socket.set_zero_linger();
        }
    }
}

async fn pump(
    gate: &Gate,
    direction: usize,
    mut reader: ReadHalf<'_>,
    mut writer: WriteHalf<'_>,
    count: &AtomicU64,
    mut rng: Rng,
) -> Result<(), Stop> {
    let mut frozen = gate.frozen[direction].subscribe();
    let mut buffer = vec![0; CHUNK];
    loop {
        let most = if rng.u32(0..4) == 0 {
            rng.usize(1..=CHUNK)
        } else {
            CHUNK
        };
        let read = reader
            .read(&mut buffer[..most])
            .await
            .map_err(|_| Stop::Ended)?;
        // Also what was read just now stays here: a freeze is like a full pipe.
        let _ = frozen.wait_for(|frozen| !frozen).await;
        if read == 0 {
            let _ = writer.shutdown().await;
            return Ok(());
        }
        let moved = gate.moved[direction].load(Relaxed);
        let left = gate.cut_at[direction].load(Relaxed).saturating_sub(moved);
        let part = read.min(usize::try_from(left).unwrap_or(read));
        write_oddly(&mut writer, &buffer[..part], &mut rng).await?;
        gate.moved[direction].fetch_add(part as u64, Relaxed);
        count.fetch_add(part as u64, Relaxed);
        if part < read {
            return Err(Stop::Cut);
        }
    }
}

/// Now and then in two writes, some with a delay between.
async fn write_oddly(writer: &mut WriteHalf<'_>, bytes: &[u8], rng: &mut Rng) -> Result<(), Stop> {
    let split = match rng.u32(0..8) {
        0 => rng.usize(..=bytes.len()),
        1 => bytes.len().min(rng.usize(..64)),
        _ => bytes.len(),
    };
    let (first, second) = bytes.split_at(split);
    writer.write_all(first).await.map_err(|_| Stop::Ended)?;
    if !second.is_empty() {
        if rng.u32(0..4) == 0 {
            sleep(Duration::from_millis(rng.u64(1..=20))).await;
        }
        writer.write_all(second).await.map_err(|_| Stop::Ended)?;
    }
    Ok(())
}

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}
