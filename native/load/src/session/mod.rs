//! One user's XMPP: bytes in, bytes and events out. No I/O, no clock.
//!
//! [`Session`] is small when its user is quiet: what is in no buffer is not kept. It is the same for
//! the three transports; BOSH uses two channels, the others one.
//!
//! ```text
//! connected ─► LoggingIn ─bound─► LoggedIn ─leave()─► Leaving ─server's goodbye─► Over
//! ```

mod bosh;
mod http;
mod login;
#[cfg(test)]
mod tests;
mod websocket;
mod xml;

use std::sync::Arc;

use quick_xml::escape::escape;
use thiserror::Error;

use crate::account::Accounts;
use crate::target::{Target, Transport};
use bosh::{Ask, Bosh};
use login::{Login, Next};
use websocket::WebSocket;
use xml::Element;

/// A stanza is not larger than this, in bytes: four times what ejabberd sends on by default.
const MAX_STANZA: usize = 1 << 20;

/// What is kept of something that is not whole, in bytes: a stanza with what carries it.
const MAX_KEPT: usize = 2 * MAX_STANZA;

/// What all sessions of a worker share.
#[derive(Debug)]
pub struct Plan {
    /// Where they log in.
    pub target: Target,
    /// Who they are.
    pub accounts: Accounts,
}

/// Which of a session's connections: BOSH has two, all others the first only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The only one, but for BOSH.
    First,
    /// BOSH's second: requests that cannot wait for the held one.
    Second,
}

impl Channel {
    /// Its place in [`Output::writes`] and [`Output::connect`].
    pub fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What a session wants done. The caller empties it after each call.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes to write, by channel.
    pub writes: [Vec<u8>; 2],
    /// The channel is to be connected, anew if it has been; [`Session::connected`] tells when it is.
    /// BOSH only: its second when it is first needed, and either when the server has
    /// ended a kept-alive connection. Never asked for before [`Session::connected`] of the first.
    pub connect: [bool; 2],
    /// The first channel goes on in TLS from here: nothing is written before it has begun,
    /// and [`Session::connected`] is called again when it has.
    pub start_tls: bool,
    /// The session is over and its connections can be closed.
    pub close: bool,
}

/// What happened to a user.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bound, and its presence on the way: it can send and receive, and [`Session::jid`] is its full
    /// JID.
    LoggedIn,
    /// A `<message type='chat'/>` with a body came, as the body's text.
    Message(&'a str),
    /// Any other stanza.
    Other,
}

/// Why a session failed. Its `Display` is what errors are counted by: no address, no number of
/// a user, at most a condition's name in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The server sent what does not parse, or not what is expected here.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// `<failure/>` of SASL, with its condition; or no mechanism that would do.
    #[error("authentication: {0}")]
    Authentication(String),
    /// Bind or session was answered with an error, of this condition.
    #[error("no resource: {0}")]
    Refused(String),
    /// `<stream:error/>` or a BOSH `terminate`, with its condition.
    #[error("stream error: {0}")]
    Stream(String),
    /// An HTTP status that is not expected here.
    #[error("HTTP status {0}")]
    Http(u16),
    /// The server closed the connection, or the stream.
    #[error("closed by the server")]
    Closed,
}

/// One user's session.
#[derive(Debug)]
pub struct Session {
    plan: Arc<Plan>,
    jid: Box<str>,
    login: Option<Box<Login>>,
    carrier: Carrier,
    /// What came on the first channel and is not whole.
    kept: Vec<u8>,
    user: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    LoggingIn,
    LoggedIn,
    /// The server has been told goodbye.
    Leaving,
    Over,
}

/// What stanzas are wrapped in.
#[derive(Debug)]
enum Carrier {
    /// Nothing: they follow each other on a stream, whose header is still to come or not.
    Stream {
        header: bool,
    },
    WebSocket(WebSocket),
    Bosh(Box<Bosh>),
}

type OnEvent<'a> = &'a mut dyn FnMut(Event<'_>);

impl Session {
    /// User number `user`, not connected yet.
    pub fn new(plan: &Arc<Plan>, user: u32) -> Self {
        Self {
            plan: Arc::clone(plan),
            jid: Box::default(),
            login: Some(Box::new(Login::new())),
            carrier: match plan.target.transport {
                Transport::C2s => Carrier::Stream { header: true },
                Transport::WebSocket => Carrier::WebSocket(WebSocket::default()),
                Transport::Bosh => Carrier::Bosh(Box::new(Bosh::new())),
            },
            kept: Vec::new(),
            user,
            phase: Phase::LoggingIn,
        }
    }

    /// The channel is connected, with TLS where that begins at once, or has begun now.
    pub fn connected(&mut self, channel: Channel, out: &mut Output) -> Result<(), Fault> {
        match &mut self.carrier {
            Carrier::Stream { .. } => self.open(out),
            Carrier::WebSocket(websocket) => {
                websocket.open(&self.plan.target, &mut out.writes[channel.index()]);
            }
            Carrier::Bosh(bosh) => {
                bosh.connected(channel);
                self.flush(out);
            }
        }
        Ok(())
    }

    /// Bytes came (after TLS). Each event is told as it is found; what it borrows lives as long
    /// as the call of `event`.
    pub fn received(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        out: &mut Output,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        self.feed(channel, bytes, out, event)?;
        // What came too early on the other channel may have its turn now.
        if matches!(self.carrier, Carrier::Bosh(_)) && !self.kept(channel.other()).is_empty() {
            self.feed(channel.other(), &[], out, event)?;
        }
        self.flush(out);
        Ok(())
    }

    /// The peer closed the channel. `Ok` where that is no fault: a BOSH channel between two
    /// requests, or after [`Session::leave`].
    pub fn closed(&mut self, channel: Channel, out: &mut Output) -> Result<(), Fault> {
        let fault = match &mut self.carrier {
            Carrier::Stream { .. } | Carrier::WebSocket(_) => true,
            // An answer that waits for its turn is as good as read.
            Carrier::Bosh(bosh) => !bosh.must_wait(channel) && !bosh.closed(channel),
        };
        match self.phase {
            Phase::Over => {}
            Phase::Leaving if fault => self.over(out),
            _ if fault => return Err(Fault::Closed),
            _ => self.flush(out),
        }
        Ok(())
    }

    /// Sends a chat message, once logged in. `body` needs no escaping: it is of printable ASCII
    /// without `<&>"'`.
    pub fn send_message(&mut self, to: &str, body: &str, out: &mut Output) {
        if self.phase != Phase::LoggedIn {
            return;
        }
        let (to, namespace) = (escape(to), self.namespace());
        let parts = [
            "<message",
            namespace,
            " type='chat' to='",
            &to,
            "'><body>",
            body,
        ];
        let [a, b, c, d, e, f] = parts;
        self.say(&[a, b, c, d, e, f, "</body></message>"], out);
        self.flush(out);
    }

    /// Says goodbye. [`Output::close`] tells when the server has answered, or at once.
    pub fn leave(&mut self, out: &mut Output) {
        if self.phase != Phase::LoggedIn {
            return self.over(out);
        }
        self.phase = Phase::Leaving;
        let presence = ["<presence", self.namespace(), " type='unavailable'/>"];
        self.say(&presence, out);
        match &mut self.carrier {
            Carrier::Stream { .. } => self.say(&["</stream:stream>"], out),
            Carrier::WebSocket(_) => {
                self.say(
                    &["<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"],
                    out,
                );
            }
            Carrier::Bosh(bosh) => {
                bosh.ask(Ask::Terminate);
                self.flush(out);
            }
        }
    }

    /// The full JID, once logged in.
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// Which user this is.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// What all sessions share.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    // --- what comes

    fn kept(&mut self, channel: Channel) -> &mut Vec<u8> {
        match (channel, &mut self.carrier) {
            (Channel::Second, Carrier::Bosh(bosh)) => &mut bosh.kept,
            _ => &mut self.kept,
        }
    }

    /// Takes the bytes with what is kept from before, and keeps what is not whole yet.
    fn feed(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<(), Fault> {
        let mut kept = std::mem::take(self.kept(channel));
        if kept.is_empty() {
            let used = self.consume(channel, bytes, out, event)?;
            kept = bytes[used..].to_vec();
        } else {
            kept.extend_from_slice(bytes);
            let used = self.consume(channel, &kept, out, event)?;
            kept.drain(..used);
        }
        if kept.len() > MAX_KEPT {
            return Err(Fault::Protocol("a stanza too large"));
        }
        if !kept.is_empty() && self.phase != Phase::Over {
            *self.kept(channel) = kept;
        }
        Ok(())
    }

    /// Takes what is whole, and returns how many bytes that is.
    fn consume(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<usize, Fault> {
        match self.carrier {
            Carrier::Stream { .. } => self.consume_stream(bytes, out, event),
            Carrier::WebSocket(_) => self.consume_frames(bytes, out, event),
            Carrier::Bosh(_) => self.consume_response(channel, bytes, out, event),
        }
    }

    fn consume_stream(
        &mut self,
        bytes: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<usize, Fault> {
        let (text, valid) = xml::utf8(bytes);
        let mut at = 0;
        while self.phase != Phase::Over {
            let header = matches!(self.carrier, Carrier::Stream { header: true });
            match xml::find(&text[at..], header).map_err(Fault::Protocol)? {
                xml::Found::More(_) if !valid => return Err(Fault::Protocol("not UTF-8")),
                xml::Found::More(used) => return Ok(at + used),
                xml::Found::Header(used) => {
                    at += used;
                    self.carrier = Carrier::Stream { header: false };
                }
                xml::Found::Stanza(used, stanza) => {
                    at += used;
                    self.stanza(&stanza, out, event)?;
                    if out.start_tls && at < bytes.len() {
                        return Err(Fault::Protocol("more in plain text where TLS begins"));
                    }
                }
                xml::Found::End(used) => {
                    at += used;
                    self.ended(out)?;
                }
            }
        }
        Ok(bytes.len())
    }

    fn consume_frames(
        &mut self,
        bytes: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<usize, Fault> {
        use websocket::Found;
        let mut at = 0;
        while self.phase != Phase::Over {
            let Carrier::WebSocket(websocket) = &mut self.carrier else {
                break;
            };
            at += match websocket.find(&bytes[at..])? {
                Found::More => return Ok(at),
                Found::Nothing(used) => used,
                Found::Open(used) => {
                    self.open(out);
                    used
                }
                Found::Message(used, message) => {
                    self.message(message, out, event)?;
                    used
                }
                Found::Gathered(used, message) => {
                    self.message(&message, out, event)?;
                    used
                }
                Found::Ping(used, payload) => {
                    websocket::write_pong(payload, &mut out.writes[0]);
                    used
                }
                Found::Close(used) => {
                    self.ended(out)?;
                    used
                }
            };
        }
        Ok(bytes.len())
    }

    /// A WebSocket message: stanzas, whole.
    fn message(
        &mut self,
        message: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<(), Fault> {
        let (text, _) = xml::utf8(message);
        let mut at = 0;
        while let xml::Found::Stanza(used, stanza) =
            xml::find(&text[at..], false).map_err(Fault::Protocol)?
        {
            at += used;
            self.stanza(&stanza, out, event)?;
        }
        match message[at..].trim_ascii().is_empty() {
            true => Ok(()),
            false => Err(Fault::Protocol("a WebSocket message that is no stanza")),
        }
    }

    fn consume_response(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<usize, Fault> {
        let Carrier::Bosh(bosh) = &mut self.carrier else {
            return Ok(0);
        };
        if bosh.must_wait(channel) {
            return Ok(0);
        }
        let Some(response) = http::response(bytes)? else {
            return Ok(0);
        };
        if !bosh.answered(channel, response.keep_alive) {
            return Err(Fault::Protocol("an HTTP response to nothing"));
        }
        if response.status != 200 {
            return self
                .failed(Fault::Http(response.status), out)
                .map(|()| response.length);
        }
        let (text, _) = xml::utf8(&response.body);
        let body = match xml::find(text, false) {
            Ok(xml::Found::Stanza(_, body)) if body.name() == "body" => body,
            _ => return Err(Fault::Protocol("an HTTP response without BOSH")),
        };
        if !bosh.is_named() && !body.has("type", "terminate") {
            let sid = body.attribute("sid").filter(|sid| !sid.is_empty());
            bosh.name(sid.ok_or(Fault::Protocol("a BOSH session without a name"))?);
        }
        for stanza in body.children() {
            self.stanza(&stanza, out, event)?;
        }
        if body.has("type", "terminate") || body.has("type", "error") {
            let condition = body.attribute("condition");
            let condition = condition.unwrap_or_else(|| "terminate".into());
            self.failed(Fault::Stream(condition), out)?;
        }
        Ok(response.length)
    }

    fn stanza(
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
    fn failed(&mut self, fault: Fault, out: &mut Output) -> Result<(), Fault> {
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
    fn ended(&mut self, out: &mut Output) -> Result<(), Fault> {
        if self.phase == Phase::Leaving && matches!(self.carrier, Carrier::WebSocket(_)) {
            websocket::write_close(&mut out.writes[0]);
        }
        self.failed(Fault::Closed, out)
    }

    fn over(&mut self, out: &mut Output) {
        self.phase = Phase::Over;
        out.close = true;
    }

    // --- what goes

    /// What a stanza of one's own names as its namespace, where the carrier does not.
    fn namespace(&self) -> &'static str {
        match self.carrier {
            Carrier::Stream { .. } => "",
            Carrier::WebSocket(_) | Carrier::Bosh(_) => " xmlns='jabber:client'",
        }
    }

    /// Begins a stream, the first or another.
    fn open(&mut self, out: &mut Output) {
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

    fn say(&mut self, parts: &[&str], out: &mut Output) {
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
    fn flush(&mut self, out: &mut Output) {
        if let Carrier::Bosh(bosh) = &mut self.carrier
            && self.phase != Phase::Over
            && let Some(line) = bosh.flush(&self.plan.target, &mut out.writes)
        {
            out.connect[line] = true;
        }
    }
}
