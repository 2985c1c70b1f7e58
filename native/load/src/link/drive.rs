//! All links of a measurement: the opening, the rounds, the end.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::dial::dial;
use super::edge::{Edge, Share};
use super::peer::Payload;
use super::prompt::Prompt;
use super::shared::Shared;
use super::{Args, Report, Round};
use crate::fleet::Errors;
use crate::generator::{Begun, histogram};

/// Bytes read at a time, by all links in turn; as an edge does.
const READ_SIZE: usize = 128 * 1024;

/// How often what came is acknowledged at least (docs/protocol.md, "Resume").
const TICK: Duration = Duration::from_secs(1);

/// How long the last words may take to be written.
const LEAVE: Duration = Duration::from_secs(2);

const PROMPT: Token = Token(usize::MAX);

struct Drive<'a> {
    args: &'a Args,
    poll: Poll,
    events: Events,
    edges: Vec<Edge>,
    shared: Shared,
    prompt: Prompt,
    tick: Instant,
    /// Some link has more to do at once.
    busy: bool,
}

/// Opens, goes through the rounds, ends. Blocks until it is over. The error is for a person.
pub fn run(args: &Args) -> Result<Report, String> {
    let mut drive = Drive::dial(args)?;
    let opening = drive.round()?;
    let mut report = Report {
        connections: args.connections,
        links: args.links,
        payload: args.payload,
        opened: drive.edges.iter().map(Edge::open).sum(),
        generator_cpu: opening.window.generator_cpu,
        open: opening.window,
        open_latency: opening.latency,
        ..Report::default()
    };
    drive.pause("open")?;
    for _ in 0..args.rounds {
        if drive.shared.errors.contains_key(UNANSWERED) {
            break;
        }
        drive.edges.iter_mut().for_each(Edge::begin_round);
        let round = drive.round()?;
        report.generator_cpu += round.window.generator_cpu;
        report.rounds.push(round);
    }
    drive.pause("done")?;
    report.overflowed = drive.edges.iter().any(Edge::overflowed);
    report.errors = drive.leave()?;
    Ok(report)
}

/// Frames that did not come back.
const UNANSWERED: &str = "unanswered";

impl<'a> Drive<'a> {
    fn dial(args: &'a Args) -> Result<Self, String> {
        let poll = Poll::new().map_err(text)?;
        let now = Instant::now();
        let mut shared = Shared {
            service: args.service.clone(),
            payload: Payload::new(args.payload),
            begin: now,
            heard: now,
            answered: 0,
            latency: histogram(),
            errors: Errors::new(),
            buffer: vec![0; READ_SIZE].into(),
        };
        let mut edges = Vec::with_capacity(args.links);
        for number in 0..args.links {
            let share = Share {
                first: number,
                step: args.links,
                end: args.connections,
                opening: args.opening.div_ceil(args.links),
            };
            let mut edge = Edge::new(dial(args)?, share, &mut shared)?;
            edge.register(poll.registry(), Token(number))
                .map_err(text)?;
            edges.push(edge);
        }
        Ok(Self {
            prompt: Prompt::new(args.pause, &poll, PROMPT).map_err(text)?,
            args,
            poll,
            events: Events::with_capacity(args.links + 1),
            edges,
            shared,
            tick: now,
            busy: true,
        })
    }

    /// Has every connection's frame sent and waits until all are back, or nothing comes any more.
    fn round(&mut self) -> Result<Round, String> {
        let begun = Begun::now(&self.args.server_pids)?;
        let shared = &mut self.shared;
        shared.payload.next_round();
        (shared.begin, shared.heard) = (begun.at(), begun.at());
        shared.answered = 0;
        shared.latency.reset();
        self.busy = true;
        while self.waiting() > 0 {
            // Before the clock is looked at: what came while this was held up has come in time.
            self.turn()?;
            let waiting = self.waiting() as u64;
            if waiting > 0 && self.shared.heard.elapsed() > self.args.patience {
                self.shared.errors.insert(UNANSWERED.into(), waiting);
                break;
            }
        }
        Ok(Round {
            window: begun.end()?,
            answered: self.shared.answered,
            latency: (&self.shared.latency).into(),
        })
    }

    fn waiting(&self) -> usize {
        self.edges.iter().map(Edge::waiting).sum()
    }

    /// Says where things stand, where somebody wants to know, and keeps the links up until they
    /// have been told to go on.
    fn pause(&mut self, word: &str) -> Result<(), String> {
        self.prompt.say(word).map_err(text)?;
        while !self.prompt.heard() {
            self.turn()?;
        }
        Ok(())
    }

    /// Ends all in good order.
    fn leave(mut self) -> Result<Errors, String> {
        let give_up = Instant::now() + LEAVE;
        self.edges.iter_mut().for_each(Edge::leave);
        self.busy = true;
        while !self.edges.iter().all(Edge::is_written) && Instant::now() < give_up {
            self.turn()?;
        }
        Ok(self.shared.errors)
    }

    /// Waits until some link has something to do, and gives each its turn.
    fn turn(&mut self) -> Result<(), String> {
        let wait = match self.busy {
            true => Duration::ZERO,
            false => TICK
                .saturating_sub(self.tick.elapsed())
                .min(self.args.patience),
        };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(text(error)),
            _ => {}
        }
        for event in &self.events {
            if let Some(edge) = self.edges.get_mut(event.token().0) {
                edge.woken(event.is_readable(), event.is_writable());
            }
        }
        if self.tick.elapsed() >= TICK {
            self.tick = Instant::now();
            self.edges.iter_mut().for_each(Edge::tick);
        }
        self.busy = false;
        for edge in &mut self.edges {
            self.busy |= edge.turn(&mut self.shared)?;
        }
        Ok(())
    }
}

fn text(error: io::Error) -> String {
    error.to_string()
}
