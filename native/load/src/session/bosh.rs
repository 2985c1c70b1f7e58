//! BOSH (XEP-0124, XEP-0206): a session out of HTTP requests over two kept-alive connections.
//!
//! One request is always with the server, which holds it until it has something to say. What the user
//! says goes on the other connection: the server answers the held request then, and holds the new one.

use quick_xml::escape::escape;

use super::Channel;
use crate::target::Target;

/// How long the server may hold a request, in seconds (XEP-0124's own example has 60).
const WAIT_SECONDS: u32 = 60;

/// Request ids begin below this, so that they stay below 2^53 (XEP-0124, 14.1).
const FIRST_RID_BELOW: u64 = 1 << 52;

/// A user's BOSH session.
#[derive(Debug)]
pub(super) struct Bosh {
    sid: Box<str>,
    /// Of the last request.
    rid: u64,
    lines: [Line; 2],
    /// Stanzas that wait for a line.
    queue: String,
    ask: Option<Ask>,
    /// What came on the second line and is not whole, or not its turn.
    pub(super) kept: Vec<u8>,
}

/// One of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Down,
    /// The caller has been asked to connect it.
    Coming,
    Free,
    /// The server has the request of this id.
    Busy(u64),
}

/// What the next request is besides a carrier of stanzas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// The first.
    Create,
    /// A new stream.
    Restart,
    /// The last.
    Terminate,
}

impl Bosh {
    pub(super) fn new() -> Self {
        Self {
            sid: Box::default(),
            rid: fastrand::u64(1..FIRST_RID_BELOW),
            lines: [Line::Coming, Line::Down],
            queue: String::new(),
            ask: Some(Ask::Create),
            kept: Vec::new(),
        }
    }

    /// The caller has connected the line.
    pub(super) fn connected(&mut self, channel: Channel) {
        self.lines[channel.index()] = Line::Free;
    }

    /// The server has closed the line; `false` where it owes an answer on it.
    pub(super) fn closed(&mut self, channel: Channel) -> bool {
        let line = &mut self.lines[channel.index()];
        let free = !matches!(line, Line::Busy(_));
        *line = Line::Down;
        free
    }

    /// Whether the server has a request on both lines.
    pub(super) fn is_busy(&self) -> bool {
        self.lines.iter().all(|line| matches!(line, Line::Busy(_)))
    }

    /// Whether an earlier request's answer must be read before what came on this line: answers
    /// that come at the same time may be read in any order.
    pub(super) fn must_wait(&self, channel: Channel) -> bool {
        match (
            self.lines[channel.index()],
            self.lines[channel.other().index()],
        ) {
            (Line::Busy(this), Line::Busy(other)) => other < this,
            _ => false,
        }
    }

    /// The line's request is answered; `false`: there was none.
    pub(super) fn answered(&mut self, channel: Channel, keep_alive: bool) -> bool {
        let line = &mut self.lines[channel.index()];
        let busy = matches!(line, Line::Busy(_));
        *line = match keep_alive {
            true => Line::Free,
            false => Line::Down,
        };
        busy
    }

    /// The server has named the session.
    pub(super) fn name(&mut self, sid: String) {
        self.sid = sid.into();
    }

    /// Whether the server has named the session.
    pub(super) fn is_named(&self) -> bool {
        !self.sid.is_empty()
    }

    /// Stanzas that the next request takes along.
    pub(super) fn say(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.queue.push_str(part));
    }

    /// What the next request is besides.
    pub(super) fn ask(&mut self, ask: Ask) {
        self.ask = Some(ask);
    }

    /// Makes the request that is due, if one is and a line is free for it. Returns the line that
    /// the caller is to connect, where one is needed.
    pub(super) fn flush(&mut self, target: &Target, writes: &mut [Vec<u8>; 2]) -> Option<usize> {
        let poll = !self.lines.iter().any(|line| matches!(line, Line::Busy(_)));
        if !poll && self.queue.is_empty() && self.ask.is_none() {
            return None;
        }
        let find = |wanted| self.lines.iter().position(|&line| line == wanted);
        if let Some(free) = find(Line::Free) {
            self.request(target, free, &mut writes[free]);
            return None;
        }
        let down = find(Line::Down)?;
        // One that is coming will do for a poll.
        if poll && find(Line::Coming).is_some() {
            return None;
        }
        self.lines[down] = Line::Coming;
        Some(down)
    }

    fn request(&mut self, target: &Target, line: usize, out: &mut Vec<u8>) {
        let body = self.body(target);
        let (path, host, length) = (&target.path, &target.authority, body.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml; charset=utf-8\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
        self.lines[line] = Line::Busy(self.rid);
    }

    fn body(&mut self, target: &Target) -> String {
        const XMLNS: &str = "xmlns='http://jabber.org/protocol/httpbind'";
        const XBOSH: &str = "xmlns:xmpp='urn:xmpp:xbosh'";
        self.rid += 1;
        let (rid, sid, domain) = (self.rid, &self.sid, escape(&*target.domain));
        let queue = std::mem::take(&mut self.queue);
        match self.ask.take() {
            Some(Ask::Create) => format!(
                "<body rid='{rid}' to='{domain}' wait='{WAIT_SECONDS}' hold='1' ver='1.11' \
                 content='text/xml; charset=utf-8' xml:lang='en' xmpp:version='1.0' {XMLNS} {XBOSH}/>"
            ),
            Some(Ask::Restart) => format!(
                "<body rid='{rid}' sid='{sid}' to='{domain}' xml:lang='en' xmpp:restart='true' {XMLNS} {XBOSH}/>"
            ),
            Some(Ask::Terminate) => {
                format!("<body rid='{rid}' sid='{sid}' type='terminate' {XMLNS}>{queue}</body>")
            }
            None if queue.is_empty() => format!("<body rid='{rid}' sid='{sid}' {XMLNS}/>"),
            None => format!("<body rid='{rid}' sid='{sid}' {XMLNS}>{queue}</body>"),
        }
    }
}
