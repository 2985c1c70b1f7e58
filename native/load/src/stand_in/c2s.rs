//! XMPP over TCP (RFC 6120).

use std::fmt::Write;
use std::sync::Arc;

use super::server::Server;
use super::user::User;
use super::users::Inbox;
use super::wire::{Protocol, Wire, Wrong};
use super::xml::{self, Unit};

/// One client's stream.
#[derive(Debug)]
pub struct C2s {
    server: Arc<Server>,
    /// None before the stream's head.
    user: Option<User>,
}

impl C2s {
    /// A connection on which nothing has come.
    pub fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            user: None,
        }
    }

    fn unit(&mut self, unit: &Unit<'_>, wire: &Arc<Wire>, out: &mut String) -> Result<(), Wrong> {
        match (unit, &mut self.user) {
            (Unit::Opened(head), user) => {
                let user = user
                    .get_or_insert_with(|| User::new(head.attribute("to").unwrap_or("localhost")));
                let (id, domain) = (self.server.fresh(), user.domain());
                let _ = write!(
                    out,
                    "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                     xmlns:stream='http://etherx.jabber.org/streams' id='{id}' from='{domain}' \
                     version='1.0' xml:lang='en'>"
                );
                user.features(&self.server, out);
            }
            (Unit::Closed, _) => {
                out.push_str("</stream:stream>");
                wire.send(out.as_bytes());
                wire.finish();
                out.clear();
            }
            (Unit::Element(element), Some(user)) => {
                let inbox = || Arc::clone(wire) as Arc<dyn Inbox>;
                user.take(&self.server, element, inbox, out);
            }
            (Unit::Element(_), None) => return Err(Wrong),
        }
        Ok(())
    }
}

impl Protocol for C2s {
    fn take(&mut self, input: &mut [u8], wire: &Arc<Wire>) -> Result<usize, Wrong> {
        let text = xml::text(input)?;
        let (mut taken, mut out) = (0, String::new());
        while let Some((unit, bytes)) = xml::first(&text[taken..])? {
            taken += bytes;
            self.unit(&unit, wire, &mut out)?;
        }
        wire.send(out.as_bytes());
        // White space keeps a connection alive (RFC 6120, 4.6.1).
        match input[taken..].trim_ascii().is_empty() {
            true => Ok(input.len()),
            false => Ok(taken),
        }
    }

    fn gone(&mut self, _wire: &Arc<Wire>) {
        if let Some(user) = &mut self.user {
            user.leave(&self.server);
        }
    }
}

impl Inbox for Wire {
    fn deliver(&self, stanza: &str) {
        self.send(stanza.as_bytes());
    }

    fn replaced(&self) {
        self.send(
            b"<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
              </stream:error></stream:stream>",
        );
        self.finish();
    }
}
