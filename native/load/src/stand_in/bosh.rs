//! XMPP over BOSH (XEP-0124, XEP-0206): a connection carries requests, a session is known by its
//! `sid` on any of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bosh_session::{Session, Sessions, send_body};
use super::http;
use super::report::count;
use super::server::Server;
use super::wire::{Protocol, Wire, Wrong};
use super::xml::{self, Element, Unit};

/// One client's HTTP connection.
#[derive(Debug)]
pub struct Bosh {
    server: Arc<Server>,
    sessions: Arc<Sessions>,
    /// The session whose request came last here, and when it must be answered.
    last: Option<(Arc<Session>, Instant)>,
}

impl Bosh {
    /// A connection on which nothing has come.
    pub fn new(server: &Arc<Server>, sessions: &Arc<Sessions>) -> Self {
        Self {
            server: Arc::clone(server),
            sessions: Arc::clone(sessions),
            last: None,
        }
    }

    fn body(&mut self, text: &str, wire: &Arc<Wire>) -> Result<(), Wrong> {
        let Some((Unit::Element(body), _)) = xml::first(text)? else {
            return Err(Wrong);
        };
        let rid = body.attribute("rid").and_then(|rid| rid.parse().ok());
        let rid: u64 = rid.ok_or(Wrong)?;
        let Some(sid) = body.attribute("sid") else {
            self.create(rid, &body, wire);
            return Ok(());
        };
        let Some(session) = self.sessions.get(sid) else {
            send_body(wire, " type='terminate' condition='item-not-found'", "");
            return Ok(());
        };
        session.request(rid, text, wire);
        self.held(session);
        Ok(())
    }

    fn create(&mut self, rid: u64, body: &Element<'_>, wire: &Arc<Wire>) {
        let number = |name| body.attribute(name).and_then(|value| value.parse().ok());
        let wait = number("wait").unwrap_or(60).min(60);
        let domain = body.attribute("to").unwrap_or("localhost");
        let wait = Duration::from_secs(wait);
        let session = self.sessions.create(&self.server, domain, rid, wait, wire);
        self.held(session);
    }

    fn held(&mut self, session: Arc<Session>) {
        let until = Instant::now() + session.wait();
        self.last = Some((session, until));
    }
}

impl Protocol for Bosh {
    fn take(&mut self, input: &mut [u8], wire: &Arc<Wire>) -> Result<usize, Wrong> {
        let mut taken = 0;
        while let Some(request) = http::request(&input[taken..])? {
            taken += request.bytes;
            count(&self.server.counts.requests);
            let text = str::from_utf8(request.body).map_err(|_| Wrong)?;
            if self.body(text, wire).is_err() {
                wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
                return Err(Wrong);
            }
        }
        Ok(taken)
    }

    fn deadline(&self) -> Option<Instant> {
        self.last.as_ref().map(|(_, until)| *until)
    }

    fn lapse(&mut self, wire: &Arc<Wire>) {
        if let Some((session, _)) = self.last.take() {
            session.lapse(wire);
        }
    }

    fn gone(&mut self, wire: &Arc<Wire>) {
        if let Some((session, _)) = self.last.take() {
            session.lost(wire, &self.sessions);
        }
    }
}
