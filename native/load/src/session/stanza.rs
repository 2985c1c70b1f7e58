//! What stanzas say, and how one's own are sent.

use std::sync::Arc;

use quick_xml::escape::escape;

use super::bosh::Ask;
use super::login::Next;
use super::xml::Element;
use super::{Carrier, Event, Fault, OnEvent, Output, Phase, Session, websocket};

impl Session {
    /// Takes a stanza, in the login or after it.
    pub(super) fn stanza(
        &mut self,
        stanza: &Element<'_>,
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<(), Fault> {
        match (stanza.name(), &self.carrier) {
            ("error", _) => return self.failed(Fault::Stream(stanza.condition()), out),
            ("open", Carrier::WebSocket(_)) => return Ok(()),
            ("close", Carrier::WebSocket(_)) => return self.ended(out),
            _ => {}
        }
        let namespace = self.namespace();
        let Some(login) = &mut self.login else {
            self.live(stanza, out, event);
            return Ok(());
        };
        match login.take(&self.plan, self.user, namespace, stanza)? {
            Next::Wait => event(Event::Other),
            Next::Say(text) => self.say(&[&text], out),
            Next::StartTls => out.start_tls = true,
            Next::Restart => self.open(out),
            Next::Done(jid) => {
                self.jid = jid;
                self.login = None;
                self.phase = Phase::LoggedIn;
                self.say(&["<presence", namespace, "/>"], out);
                event(Event::LoggedIn);
            }
        }
        Ok(())
    }

    /// A stanza after the login.
    fn live(&mut self, stanza: &Element<'_>, out: &mut Output, event: OnEvent<'_>) {
        match stanza.name() {
            "message" if stanza.has("type", "chat") => {
                let body = stanza.child("body").and_then(|body| body.text());
                return event(body.as_deref().map_or(Event::Other, Event::Message));
            }
            "iq" if stanza.has("type", "get") || stanza.has("type", "set") => {
                self.answer(stanza, out);
            }
            _ => {}
        }
        event(Event::Other);
    }

    /// Every request is answered (RFC 6120, 8.2.3): pings well, all else with an error.
    fn answer(&mut self, iq: &Element<'_>, out: &mut Output) {
        const ERROR: &str = "<error type='cancel'>\
            <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        let attribute = |name: &str| iq.attribute(name).unwrap_or_default();
        let (id, from) = (attribute("id"), attribute("from"));
        let to = match from.is_empty() {
            true => String::new(),
            false => format!(" to='{}'", escape(&*from)),
        };
        let (kind, inner) = match iq.child("ping").is_some() {
            true => ("result", ""),
            false => ("error", ERROR),
        };
        let (id, namespace) = (escape(&*id), self.namespace());
        let answer = format!("<iq{namespace} type='{kind}' id='{id}'{to}>{inner}</iq>");
        self.say(&[&answer], out);
    }

    /// The server says that it is over: a fault, unless the user has said so before.
    pub(super) fn failed(&mut self, fault: Fault, out: &mut Output) -> Result<(), Fault> {
        match self.phase {
            Phase::Over => Ok(()),
            Phase::Leaving => {
                self.over(out);
                Ok(())
            }
            Phase::LoggingIn | Phase::LoggedIn => Err(fault),
        }
    }

    /// The server closes its stream.
    pub(super) fn ended(&mut self, out: &mut Output) -> Result<(), Fault> {
        if self.phase == Phase::Leaving && matches!(self.carrier, Carrier::WebSocket(_)) {
            websocket::write_close(&mut out.writes[0]);
        }
        self.failed(Fault::Closed, out)
    }

    pub(super) fn over(&mut self, out: &mut Output) {
        self.phase = Phase::Over;
        out.close = true;
    }

    /// What a stanza of one's own names as its namespace, where the carrier does not.
    pub(super) fn namespace(&self) -> &'static str {
        match self.carrier {
            Carrier::Stream { .. } => "",
            Carrier::WebSocket(_) | Carrier::Bosh(_) => " xmlns='jabber:client'",
        }
    }

    /// Begins a stream, the first or another.
    pub(super) fn open(&mut self, out: &mut Output) {
        let plan = Arc::clone(&self.plan);
        let domain = escape(&*plan.target.domain);
        match &mut self.carrier {
            Carrier::Stream { header } => {
                *header = true;
                let parts = [
                    "<?xml version='1.0'?><stream:stream to='",
                    &domain,
                    "' version='1.0' xml:lang='en' xmlns='jabber:client' \
                     xmlns:stream='http://etherx.jabber.org/streams'>",
                ];
                self.say(&parts, out);
            }
            Carrier::WebSocket(_) => {
                let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0' to='";
                self.say(&[open, &domain, "'/>"], out);
            }
            Carrier::Bosh(bosh) => bosh.ask(Ask::Restart),
        }
    }

    pub(super) fn say(&mut self, parts: &[&str], out: &mut Output) {
        let [first, _] = &mut out.writes;
        match &mut self.carrier {
            Carrier::Stream { .. } => {
                parts
                    .iter()
                    .for_each(|part| first.extend_from_slice(part.as_bytes()));
            }
            Carrier::WebSocket(_) => websocket::write_text(parts, first),
            Carrier::Bosh(bosh) => bosh.say(parts),
        }
    }

    /// Has BOSH make the request that is due.
    pub(super) fn flush(&mut self, out: &mut Output) {
        if let Carrier::Bosh(bosh) = &mut self.carrier
            && self.phase != Phase::Over
            && let Some(line) = bosh.flush(&self.plan.target, &mut out.writes)
        {
            out.connect[line] = true;
        }
    }
}
