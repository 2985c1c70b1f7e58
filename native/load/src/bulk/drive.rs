//! All connections of a measurement, each in its turn.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::flow::{Flow, TURN, Turn, pattern};
use super::{Args, Direction, Report, Shares};
use crate::fleet::Errors;
use crate::generator::{Begun, Window, kind, resolve};

/// The longest wait for something to happen.
const WAIT: Duration = Duration::from_millis(50);

/// Events taken at a time.
const EVENTS: usize = 1024;

/// Turns, or one for each who can move, before the kernel is asked who else can.
const TURNS: usize = 16;

struct Drive<'a> {
    args: &'a Args,
    poll: Poll,
    events: Events,
    /// `None` has failed.
    flows: Vec<Option<Flow>>,
    /// Those that may be able to move, in turn.
    ready: VecDeque<usize>,
    /// Whether each is among them.
    queued: Vec<bool>,
    pattern: Vec<u8>,
    buffer: Vec<u8>,
    errors: Errors,
}

/// Moves bytes, and says how it went. Blocks until it is over. The error is for a person.
pub fn run(args: &Args) -> Result<Report, String> {
    let address = resolve(&args.address)?;
    let text = |error: io::Error| error.to_string();
    let mut drive =
        Drive::open(args, &address).map_err(|error| format!("{}: {error}", args.address))?;
    drive.load(args.warm_up).map_err(text)?;
    let before = drive.bytes();
    let begun = Begun::now(&args.server_pids)?;
    drive.load(args.time).map_err(text)?;
    let window = begun.end()?;
    let moved = drive.bytes().into_iter().zip(before);
    let moved = moved
        .map(|(now, before)| now.saturating_sub(before))
        .collect();
    if args.direction == Direction::Up {
        drive.finish().map_err(text)?;
    }
    Ok(report(args, window, moved, drive.errors))
}

fn report(args: &Args, window: Window, moved: Vec<u64>, errors: Errors) -> Report {
    let bytes = moved.iter().sum();
    Report {
        direction: args.direction,
        connections: args.connections,
        bytes,
        megabytes_per_second: bytes as f64 / 1e6 / window.seconds,
        shares: Shares::of(moved),
        errors,
        window,
    }
}

impl<'a> Drive<'a> {
    fn open(args: &'a Args, address: &SocketAddr) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut flows = Vec::with_capacity(args.connections);
        for number in 0..args.connections {
            let mut flow = Flow::open(address, args.direction, args.connections, args.patience)?;
            let interest = match args.direction {
                Direction::Up => Interest::READABLE | Interest::WRITABLE,
                Direction::Down => Interest::READABLE,
            };
            let token = Token(number);
            poll.registry()
                .register(&mut flow.stream, token, interest)?;
            flows.push(Some(flow));
        }
        Ok(Self {
            args,
            poll,
            events: Events::with_capacity(EVENTS),
            flows,
            ready: VecDeque::new(),
            queued: vec![false; args.connections],
            pattern: pattern(),
            buffer: vec![0; TURN],
            errors: Errors::new(),
        })
    }

    /// What has moved over each so far.
    fn bytes(&self) -> Vec<u64> {
        let bytes = |flow: &Option<Flow>| flow.as_ref().map_or(0, |flow| flow.bytes);
        self.flows.iter().map(bytes).collect()
    }

    /// Moves bytes for `time`.
    fn load(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let wait = match self.ready.is_empty() {
                true => left.min(WAIT),
                false => Duration::ZERO,
            };
            let up = self.args.direction == Direction::Up;
            for number in self.wait(wait)? {
                // Each is queued once, or some would have more turns than others.
                if !std::mem::replace(&mut self.queued[number], true) {
                    self.ready.push_back(number);
                }
            }
            for _ in 0..(TURNS / self.ready.len().max(1)).max(1) {
                self.round(up);
            }
        }
    }

    /// Gives each that may move one turn.
    fn round(&mut self, up: bool) {
        for _ in 0..self.ready.len() {
            let Some(number) = self.ready.pop_front() else {
                return;
            };
            let Some(flow) = &mut self.flows[number] else {
                continue;
            };
            let turn = match up {
                true => flow.send(&self.pattern),
                false => flow.take(&mut self.buffer),
            };
            match turn {
                Ok(Turn::Moved(_)) => self.ready.push_back(number),
                Ok(Turn::Blocked) => self.queued[number] = false,
                Err(error) => self.fail(number, &error),
            }
        }
    }

    /// Ends all and waits for the server's counts, up to the patience.
    fn finish(&mut self) -> io::Result<()> {
        let give_up = Instant::now() + self.args.patience;
        let mut waiting: Vec<usize> = (0..self.flows.len()).collect();
        for number in 0..self.flows.len() {
            let finished = self.flows[number].as_ref().map(Flow::finish);
            if let Some(Err(error)) = finished {
                self.fail(number, &error);
            }
        }
        loop {
            // What came before is no event any more.
            waiting.retain(|number| self.is_counting(*number));
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() >= give_up {
                self.errors.insert("no count".into(), waiting.len() as u64);
                return Ok(());
            }
            self.wait(WAIT)?;
        }
    }

    fn is_counting(&mut self, number: usize) -> bool {
        let arrived = self.flows[number].as_mut().map(Flow::arrived);
        match arrived {
            Some(Ok(None)) => return true,
            Some(Ok(Some(false))) => *self.errors.entry("lost".into()).or_default() += 1,
            Some(Ok(Some(true))) | None => {}
            Some(Err(error)) => self.fail(number, &error),
        }
        false
    }

    fn fail(&mut self, number: usize, error: &io::Error) {
        self.flows[number] = None;
        let kind = match error.kind() {
            ErrorKind::InvalidData => "damaged".into(),
            ErrorKind::UnexpectedEof => "closed".into(),
            _ => kind(error),
        };
        *self.errors.entry(kind).or_default() += 1;
    }

    /// Those that something happened to within `time`.
    fn wait(&mut self, time: Duration) -> io::Result<Vec<usize>> {
        match self.poll.poll(&mut self.events, Some(time)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(()) => Ok(self.events.iter().map(|event| event.token().0).collect()),
        }
    }
}
