//! What comes over a link.

use std::time::{Duration, Instant};

use megaphone_proto::conn::ConnError;
use megaphone_proto::control::Control;
use megaphone_proto::credit::NO_GROWTH;
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::{Event, LinkError};

use super::{Edge, Shared};
use crate::generator::record;

impl Edge {
    /// Takes in what was read. The error is for a person; the link is of no use after it.
    pub(super) fn take_in(&mut self, mut bytes: &[u8], shared: &mut Shared) -> Result<(), String> {
        let now = Instant::now();
        let text = |error: LinkError| format!("the node broke the protocol: {error}");
        while let Some(event) = self.protocol.next(&mut bytes).map_err(text)? {
            self.event(event, now, shared)?;
        }
        if let Some(ack) = self.protocol.ack() {
            self.outgoing.say(&ack);
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, now: Instant, shared: &mut Shared) -> Result<(), String> {
        let credit = |id, error: ConnError| format!("connection {id}: {error}");
        match event {
            Event::Content { id, bytes } => {
                self.content(id, bytes, now, shared)
                    .map_err(|error| credit(id, error))?;
            }
            Event::Window { id, bytes } => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.conn
                        .granted(bytes)
                        .map_err(|error| credit(id, error))?;
                    if peer.unsent > 0 {
                        self.again.push_back(id);
                    }
                }
            }
            Event::End { id } => {
                if self.gone(id, "ended".into(), shared) {
                    put_frame(id, &[], self.outgoing.messages());
                }
            }
            Event::Close { id, reason } => drop(self.gone(id, format!("closed: {reason}"), shared)),
            Event::Reset { id, reason } => drop(self.gone(id, format!("reset: {reason}"), shared)),
            Event::Ping { word } => self.outgoing.say(&Control::Pong { word }),
            Event::Ack { bytes } => {
                let text = |error: LinkError| error.to_string();
                self.outgoing.acknowledged(bytes).map_err(text)?;
            }
            Event::Goaway { reason, .. } => return Err(format!("the node says goaway: {reason}")),
            Event::PeerError { code, text } => {
                return Err(format!(
                    "the node says error {code}: {}",
                    text.escape_debug()
                ));
            }
            // Nobody asked, and only a node is told of an open.
            Event::Pong { .. } | Event::Open(_) => {}
        }
        Ok(())
    }

    fn content(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), ConnError> {
        let Some(peer) = self.peers.get_mut(&id) else {
            shared.count("for nobody".into());
            return Ok(());
        };
        peer.conn.receive(bytes.len() as u32)?;
        if let Some(grant) = peer.conn.release(bytes.len() as u32, &NO_GROWTH) {
            self.outgoing.say(&Control::Window { id, bytes: grant });
        }
        let from = (shared.payload.len() - peer.missing) as usize;
        let range = from..from + bytes.len();
        let too_much = bytes.len() > peer.missing as usize;
        if too_much || shared.payload.part(peer.number, range) != bytes {
            shared.count("damaged".into());
            return Ok(());
        }
        peer.missing -= bytes.len() as u32;
        if peer.missing == 0 {
            peer.answered = shared.payload.round();
            self.waiting -= 1;
            let sent = shared.begin + Duration::from_micros(peer.sent_at.into());
            record(&mut shared.latency, now.saturating_duration_since(sent));
            shared.answered += 1;
            shared.heard = now;
        }
        Ok(())
    }

    /// The node ended a connection. Says whether it was open.
    fn gone(&mut self, id: ConnectionId, kind: String, shared: &mut Shared) -> bool {
        let Some(peer) = self.peers.remove(id) else {
            return false;
        };
        if peer.answered < shared.payload.round() {
            self.waiting -= 1;
        }
        shared.count(kind);
        true
    }
}
