//! One connection: sends its own stream, and checks that exactly this comes back.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::plan::{End, Plan, pause};
use crate::report::Counters;
use crate::stamp::Stamp;

/// Why a connection ended before its plan did.
#[derive(Debug)]
pub enum Stop {
    /// By the plan itself.
    Left,
    /// Before a byte came back.
    Refused(String),
    /// After so many bytes that were right something was missing.
    Missing { received: u64, what: String },
    /// From `position` on other bytes came than belong there.
    Wrong { position: u64, bytes: Vec<u8> },
}

/// A connection. Its two halves run in turns, so all is shared between them.
#[derive(Debug)]
pub struct Stream<'a> {
    counters: &'a Counters,
    stamp: Stamp,
    plan: Plan,
    /// No more bytes are sent after that.
    until: Instant,
    /// How long may be waited for what is due.
    patience: Duration,
    sent: AtomicU64,
    received: AtomicU64,
    /// No more bytes will be sent.
    complete: AtomicBool,
    /// Where writes ended that are not back yet, and when they were made.
    under_way: Mutex<VecDeque<(u64, Instant)>>,
    came_back: Notify,
}

impl<'a> Stream<'a> {
    pub fn new(
        stamp: Stamp,
        plan: Plan,
        until: Instant,
        patience: Duration,
        counters: &'a Counters,
    ) -> Self {
        Self {
            counters,
            stamp,
            plan,
            until,
            patience,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            complete: false.into(),
            under_way: Mutex::default(),
            came_back: Notify::new(),
        }
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Runs the plan over `socket`.
    pub async fn run(&self, mut socket: TcpStream, rng: &mut Rng) -> Result<(), Stop> {
        let _ = socket.set_nodelay(true);
        let (reader, writer) = socket.split();
        let (mut to_read, mut to_write) = (rng.fork(), rng.fork());
        let ended = tokio::try_join!(
            self.write(writer, &mut to_write),
            self.read(reader, &mut to_read)
        );
        if matches!((&ended, self.plan.end), (Err(Stop::Left), End::Reset(_))) {
            let _ = socket.set_zero_linger();
        }
        ended.map(|_| ())
    }

    async fn write(&self, mut writer: WriteHalf<'_>, rng: &mut Rng) -> Result<(), Stop> {
        let mut buffer = Vec::new();
        while self.sent() < self.plan.total && Instant::now() < self.until {
            let left = self.plan.total - self.sent();
            buffer.resize(self.plan.next_piece(rng).min(left) as usize, 0);
            self.stamp.fill(self.sent(), &mut buffer);
            self.write_all(&mut writer, &buffer)
                .await
                .map_err(|error| self.ended(&error.to_string()))?;
            if self.plan.lockstep {
                self.all_back().await;
            }
            tokio::select! {
                () = sleep(pause(rng, self.plan.pause)) => {}
                () = sleep_until(self.until) => {}
            }
        }
        if self.plan.end == End::WhenBack {
            self.all_back().await;
        }
        self.complete.store(true, Relaxed);
        let ended = writer.shutdown().await;
        ended.map_err(|error| self.ended(&error.to_string()))
    }

    async fn write_all(&self, writer: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = writer.write(rest).await?;
            rest = &rest[written..];
            let sent = self.sent() + written as u64;
            // Noted before it is known to the reader, which measures by it.
            lock(&self.under_way).push_back((sent, Instant::now()));
            self.sent.store(sent, Relaxed);
            self.counters.sent.fetch_add(written as u64, Relaxed);
        }
        Ok(())
    }

    async fn all_back(&self) {
        while self.received.load(Relaxed) < self.sent() {
            self.came_back.notified().await;
        }
    }

    async fn read(&self, mut reader: ReadHalf<'_>, rng: &mut Rng) -> Result<(), Stop> {
        let mut buffer = Vec::new();
        let mut received = 0;
        let leave_at = match self.plan.end {
            End::Close(at) | End::Reset(at) => at,
            End::HalfClose | End::WhenBack => u64::MAX,
        };
        while received < leave_at {
            if let Some(dawdle) = self.plan.dawdle {
                sleep(pause(rng, dawdle)).await;
            }
            buffer.resize(self.plan.next_read(rng), 0);
            let asked = Instant::now();
            let count = self.next(&mut reader, &mut buffer).await?;
            if count == 0 {
                return self.at_end();
            }
            self.check(received, &buffer[..count])?;
            received += count as u64;
            self.took_back(received, asked);
        }
        Err(Stop::Left)
    }

    /// The next bytes, or 0 for the end. Waits for ever while nothing is due.
    async fn next(&self, reader: &mut ReadHalf<'_>, buffer: &mut [u8]) -> Result<usize, Stop> {
        loop {
            let due = self.due();
            match timeout(self.patience, reader.read(buffer)).await {
                Ok(Ok(count)) => return Ok(count),
                Ok(Err(error)) => return Err(self.ended(&error.to_string())),
                Err(_) if due => {
                    let received = self.received.load(Relaxed);
                    let missing = self.sent().saturating_sub(received);
                    let what = format!(
                        "nothing came for {:?}; {missing} bytes and the end are missing",
                        self.patience
                    );
                    return Err(Stop::Missing { received, what });
                }
                Err(_) => {}
            }
        }
    }

    /// Is there something that must come, bytes or the end?
    fn due(&self) -> bool {
        self.complete.load(Relaxed) || self.received.load(Relaxed) < self.sent()
    }

    fn check(&self, received: u64, bytes: &[u8]) -> Result<(), Stop> {
        match self.stamp.first_wrong(received, bytes) {
            Some(wrong) => Err(Stop::Wrong {
                position: received + wrong as u64,
                bytes: bytes[wrong..].to_vec(),
            }),
            None => Ok(()),
        }
    }

    fn took_back(&self, received: u64, asked: Instant) {
        let now = Instant::now();
        let mut under_way = lock(&self.under_way);
        if let Some((_, written)) = under_way.front() {
            self.counters.pause(now - asked.max(*written));
        }
        while let Some(&(end, written)) = under_way.front()
            && end <= received
        {
            under_way.pop_front();
            // The time of a client that does not keep up is its own.
            if self.plan.dawdle.is_none() {
                self.counters.latency(now - written);
            }
        }
        let before = self.received.swap(received, Relaxed);
        self.counters.received.fetch_add(received - before, Relaxed);
        self.came_back.notify_one();
    }

    /// The other side's end, in order only when all is back.
    fn at_end(&self) -> Result<(), Stop> {
        let all_back = self.received.load(Relaxed) == self.sent();
        match self.complete.load(Relaxed) && all_back {
            true => Ok(()),
            false => Err(self.ended("end of stream")),
        }
    }

    fn ended(&self, how: &str) -> Stop {
        let (sent, received) = (self.sent(), self.received.load(Relaxed));
        if received == 0 {
            return Stop::Refused(format!("refused ({how}): none of {sent} bytes came back"));
        }
        let missing = sent.saturating_sub(received);
        let what = format!("ended too early ({how}): {missing} of {sent} bytes did not come back");
        Stop::Missing { received, what }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}
