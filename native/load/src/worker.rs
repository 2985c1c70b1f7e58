//! One worker process: up to some 19,000 users in one thread, with one epoll set.
//!
//! ```text
//!   orders (stdin) ─► task ─► crowd ─► sessions and sockets
//!   answers (stdout) ◄─ task ◄─ logged in, message, gone
//! ```
//!
//! The loop wakes for a socket, an order, or the next thing that is due, by one timer for all:
//! users who are held cost nothing until the server speaks to them.

mod alarm;
mod chatter;
mod crowd;
mod orders;
mod present;
mod task;

use std::io::{self, Write};
use std::mem;

use mio::{Events, Poll, Token};

use crate::clock;
use crate::errno;
use crate::wire::{Answer, Order};
use crate::worker::alarm::Alarm;
use crate::worker::chatter::Chatter;
use crate::worker::crowd::Crowd;
use crate::worker::orders::Orders;
use crate::worker::task::{Idle, LogIn, LogOut, Task};

/// A message that is sent later than this after it was due is the generator's fault, and counted.
pub const LATE: u64 = 1_000_000;

/// How often it says how far it is while it works on an order, in nanoseconds.
const TICK: u64 = 1_000_000_000;

/// Events that one call of epoll_wait returns.
const EVENTS: usize = 512;

const ORDERS: Token = Token(usize::MAX - 1);
const ALARM: Token = Token(usize::MAX - 2);

/// Does what the fleet says on standard input, until that ends. The error is for a person.
pub fn run() -> Result<(), String> {
    raise_open_files();
    let result = Poll::new()
        .map_err(|error| error.to_string())
        .and_then(work);
    if let Err(error) = &result {
        // Nobody may be there to hear it.
        let _ = say(&Answer::Failed(error.clone()));
    }
    result
}

fn work(mut poll: Poll) -> Result<(), String> {
    let io = |error: io::Error| errno::kind("worker", &error);
    let mut orders = Orders::new(poll.registry(), ORDERS).map_err(io)?;
    let Some(begin) = orders.first()? else {
        return Ok(());
    };
    let registry = poll.registry().try_clone().map_err(io)?;
    let alarm = Alarm::new(poll.registry(), ALARM).map_err(io)?;
    let mut worker = Worker {
        crowd: Crowd::new(&begin, registry)?,
        task: Box::new(Idle),
        alarm,
        tick: 0,
        conversations: 0,
        seed: begin.seed,
        body: begin.body,
        patience: clock::from_seconds(begin.patience),
    };
    say(&Answer::Done).map_err(io)?;
    let mut events = Events::with_capacity(EVENTS);
    loop {
        while let Some(order) = orders.next()? {
            worker.obey(order).map_err(io)?;
        }
        if orders.ended() {
            return Ok(());
        }
        worker.turn().map_err(io)?;
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(io(error)),
            _ => {}
        }
        for event in &events {
            match event.token() {
                ORDERS => orders.read()?,
                ALARM => worker.alarm.rang(),
                _ => {
                    worker.crowd.ready(event, worker.task.as_mut());
                    worker.task.hurry(&mut worker.crowd);
                }
            }
        }
    }
}

struct Worker {
    crowd: Crowd,
    task: Box<dyn Task>,
    alarm: Alarm,
    /// When to say next how far it is.
    tick: u64,
    /// Number of the next chatter's first conversation.
    conversations: u32,
    seed: u64,
    body: usize,
    patience: u64,
}

impl Worker {
    fn obey(&mut self, order: Order) -> io::Result<()> {
        let now = clock::now();
        self.tick = now + TICK;
        match order {
            // The first was taken; there is no second.
            Order::Begin(_) => say(&Answer::Failed("begun twice".into()))?,
            Order::LogIn {
                users,
                rate,
                offset,
                at_once,
            } => {
                let start = now + clock::from_seconds(offset);
                self.task = Box::new(LogIn::new(&self.crowd, users, rate, at_once, start));
            }
            Order::Chatter {
                rate,
                count,
                seconds,
                churn,
                offset,
            } => {
                self.seed = self.seed.wrapping_add(1);
                let asked = chatter::Asked {
                    rate,
                    count,
                    churn,
                    start: now + clock::from_seconds(offset),
                    time: clock::from_seconds(seconds),
                    patience: self.patience,
                    body: self.body,
                    seed: self.seed,
                    first: self.conversations,
                };
                self.task = Box::new(Chatter::new(&mut self.crowd, &asked));
            }
            Order::LogOut { users } => self.task = Box::new(LogOut::new(&self.crowd, users)),
            Order::Look => say(&Answer::Look {
                online: self.crowd.online(),
                faults: mem::take(self.crowd.faults()),
            })?,
        }
        Ok(())
    }

    /// Does what is due, and sets the alarm for what is due next.
    fn turn(&mut self) -> io::Result<()> {
        let now = clock::now();
        self.crowd.expire(now, self.task.as_mut());
        self.task.step(&mut self.crowd);
        if let Some(answer) = self.task.answer(&mut self.crowd, clock::now()) {
            if let Some(conversations) = self.task.conversations() {
                self.conversations = conversations;
            }
            self.task = Box::new(Idle);
            say(&answer)?;
        }
        let mut next = self.crowd.next_deadline();
        if self.task.works() {
            if now >= self.tick {
                self.tick = now + TICK;
                let tick = self.task.tick(&self.crowd);
                say(&Answer::Tick(tick))?;
            }
            next = sooner(next, Some(self.tick));
            next = sooner(next, self.task.next_due());
        }
        self.alarm.set(next)
    }
}

fn sooner(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn say(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()
}

/// As many descriptors as may be had.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where this fails, the limit is as it was, and EMFILE tells.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}
