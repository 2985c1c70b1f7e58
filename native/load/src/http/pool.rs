//! Kept-alive connections of one thread: who is free, who waits for an answer, who is to be opened
//! again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::answer::{self, Answer};
use super::connection::{Connection, State, opened};
use crate::generator::kind;

/// Connections that are being opened at a time: a backlog is not endless.
const OPENING_MAX: usize = 100;

/// A connection that ended is opened again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes read at a time, by all connections in turn.
const READ_SIZE: usize = 64 * 1024;

/// Events taken in one turn.
const EVENTS: usize = 1024;

/// What happened to a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// It is open and free.
    Opened,
    /// The request that was due then is answered; the connection is free, unless the server
    /// `closes` it.
    Answered {
        /// When the request was due.
        due: Instant,
        /// The answer's status code.
        status: u16,
        /// Whether the connection is at its end.
        closes: bool,
    },
    /// It ended, and will be opened again.
    Failed {
        /// When the request was due that it has not answered.
        due: Option<Instant>,
        /// What it ended with.
        kind: String,
    },
}

/// The connections.
#[derive(Debug)]
pub struct Pool {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    request: Vec<u8>,
    connections: Vec<Connection>,
    opening: usize,
    /// Those to be opened, and not before when.
    closed: VecDeque<(Instant, usize)>,
    buffer: Box<[u8]>,
}

impl Pool {
    /// `count` connections to `address`, none of which is open yet.
    pub fn new(address: SocketAddr, request: Vec<u8>, count: usize) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            address,
            request,
            connections: (0..count).map(|_| Connection::closed()).collect(),
            opening: 0,
            closed: (0..count).map(|number| (now, number)).collect(),
            buffer: vec![0; READ_SIZE].into(),
        })
    }

    /// What else is to be waited for may be registered here, as [`Token`] `usize::MAX`.
    pub fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    /// Whether connection `number` may be given a request.
    pub fn is_free(&self, number: usize) -> bool {
        matches!(self.connections[number].state, State::Free(_))
    }

    /// Opens what is to be opened, waits up to `timeout` for something to happen, and gives
    /// `news` what did, by number of connection.
    pub fn turn(
        &mut self,
        timeout: Duration,
        news: &mut impl FnMut(&mut Self, usize, News),
    ) -> io::Result<()> {
        self.open(news);
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            polled => polled,
        };
        for event in &events {
            let number = event.token().0;
            if number < self.connections.len() {
                self.event(number, event.is_writable(), event.is_readable(), news);
            }
        }
        self.events = events;
        polled
    }

    /// Sends a request that was due at `due`, if the connection is free. What goes wrong is heard
    /// in the next [`Pool::turn`].
    pub fn send(&mut self, number: usize, due: Instant) {
        let connection = &mut self.connections[number];
        match std::mem::replace(&mut connection.state, State::Closed) {
            State::Free(stream) => {
                connection.state = State::Busy(stream, due);
                connection.unsent = self.request.len();
                connection.write(&self.request);
            }
            other => connection.state = other,
        }
    }

    fn open(&mut self, news: &mut impl FnMut(&mut Self, usize, News)) {
        let now = Instant::now();
        while self.opening < OPENING_MAX
            && let Some((when, number)) = self.closed.front().copied()
            && when <= now
        {
            self.closed.pop_front();
            match self.connect(number) {
                Ok(stream) => {
                    self.opening += 1;
                    self.connections[number].state = State::Opening(stream);
                }
                Err(error) => self.fail(number, kind(&error), news),
            }
        }
    }

    fn connect(&self, number: usize) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry()
            .register(&mut stream, Token(number), interest)?;
        Ok(stream)
    }

    fn event(
        &mut self,
        number: usize,
        writable: bool,
        readable: bool,
        news: &mut impl FnMut(&mut Self, usize, News),
    ) {
        if let State::Opening(stream) = &self.connections[number].state {
            match opened(stream) {
                Ok(false) => return,
                Ok(true) => {
                    let connection = &mut self.connections[number];
                    let state = std::mem::replace(&mut connection.state, State::Closed);
                    connection.state = match state {
                        State::Opening(stream) => State::Free(stream),
                        other => other,
                    };
                    self.opening -= 1;
                    news(self, number, News::Opened);
                }
                Err(error) => return self.fail(number, kind(&error), news),
            }
        }
        if writable && self.connections[number].unsent > 0 {
            self.connections[number].write(&self.request);
        }
        if readable {
            self.read(number, news);
        }
    }

    /// Reads what there is. A read that does not fill the buffer has emptied the socket.
    fn read(&mut self, number: usize, news: &mut impl FnMut(&mut Self, usize, News)) {
        loop {
            let Some(stream) = self.connections[number].stream() else {
                return;
            };
            match stream.read(&mut self.buffer) {
                Ok(0) => return self.fail(number, "closed".into(), news),
                Ok(bytes) => {
                    if let Err(wrong) = self.take(number, bytes, news) {
                        return self.fail(number, wrong, news);
                    }
                    if bytes < self.buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.fail(number, kind(&error), news),
            }
        }
    }

    /// Takes in what was read.
    fn take(
        &mut self,
        number: usize,
        bytes: usize,
        news: &mut impl FnMut(&mut Self, usize, News),
    ) -> Result<(), String> {
        let connection = &mut self.connections[number];
        let read = &self.buffer[..bytes];
        let whole = if connection.rest.is_empty() {
            read
        } else {
            connection.rest.extend_from_slice(read);
            &connection.rest
        };
        let Some(answer) = answer::parse(whole)? else {
            if connection.rest.is_empty() {
                connection.rest = read.to_vec();
            }
            return Ok(());
        };
        // There is one request at a time, so nothing may follow its answer.
        if answer.len < whole.len() {
            return Err("more than was asked for".into());
        }
        connection.rest = Vec::new();
        self.answered(number, answer, news)
    }

    fn answered(
        &mut self,
        number: usize,
        answer: Answer,
        news: &mut impl FnMut(&mut Self, usize, News),
    ) -> Result<(), String> {
        let connection = &mut self.connections[number];
        let Answer { status, closes, .. } = answer;
        let due = match std::mem::replace(&mut connection.state, State::Closed) {
            State::Busy(stream, due) => {
                if closes {
                    self.closed.push_back((Instant::now() + PAUSE, number));
                } else {
                    connection.state = State::Free(stream);
                }
                due
            }
            other => {
                connection.state = other;
                // How an edge says that there is no room.
                return Err(format!("status {status} before a request"));
            }
        };
        let answered = News::Answered {
            due,
            status,
            closes,
        };
        news(self, number, answered);
        Ok(())
    }

    fn fail(&mut self, number: usize, kind: String, news: &mut impl FnMut(&mut Self, usize, News)) {
        let connection = &mut self.connections[number];
        connection.rest = Vec::new();
        connection.unsent = 0;
        let due = match std::mem::replace(&mut connection.state, State::Closed) {
            State::Busy(_, due) => Some(due),
            State::Opening(_) => {
                self.opening -= 1;
                None
            }
            State::Closed | State::Free(_) => None,
        };
        self.closed.push_back((Instant::now() + PAUSE, number));
        news(self, number, News::Failed { due, kind });
    }
}
