//! What a server says, in turn, and what came of it.

use std::sync::Arc;

use tungstenite::handshake::derive_accept_key;

use super::*;
use crate::target::Tls;

const FEATURES: &str = "<stream:features xmlns:stream='s'><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
     <mechanism>X</mechanism><mechanism>ANONYMOUS</mechanism></mechanisms></stream:features>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const RESOURCES: &str = "<stream:features xmlns:stream='s'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
     <session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></stream:features>";
const BOUND: &str = "<iq type='result' id='bind'><bind><jid>a@b/c</jid></bind></iq>";
const SESSION: &str = "<iq type='result' id='session'/>";
const HEADER: &str = "<?xml version='1.0'?><stream:stream id='1' xmlns:stream='s' version='1.0'>";

/// The chunks that a server sends: what is in one never comes with what is in another.
pub(super) struct Script {
    pub(super) name: &'static str,
    pub(super) transport: Transport,
    tls: Tls,
    pub(super) chunks: Vec<Vec<u8>>,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) events: Vec<String>,
    pub(super) writes: [Vec<u8>; 2],
    pub(super) fault: Option<Fault>,
    pub(super) jid: String,
    name: &'static str,
}

pub(super) fn plan_of(transport: Transport, tls: Tls, accounts: Accounts) -> Arc<Plan> {
    let target = Target {
        transport,
        tls,
        addresses: Vec::new(),
        authority: "host:1".into(),
        path: "/path".into(),
        domain: "b".into(),
        insecure: false,
    };
    Arc::new(Plan { target, accounts })
}

pub(super) fn plan(transport: Transport, accounts: Accounts) -> Arc<Plan> {
    plan_of(transport, Tls::None, accounts)
}

impl Script {
    fn of(name: &'static str, transport: Transport, steps: &[&[&str]]) -> Self {
        let mut script = Self {
            name,
            transport,
            tls: Tls::None,
            chunks: Vec::new(),
        };
        for step in steps {
            script.say(step);
        }
        script
    }

    pub(super) fn c2s() -> Self {
        let all = [
            HEADER, FEATURES, SUCCESS, HEADER, RESOURCES, " \n", BOUND, SESSION,
        ];
        Self::of("c2s", Transport::C2s, &[&all])
    }

    pub(super) fn c2s_in_tls() -> Self {
        let starttls = "<stream:features xmlns:stream='s'>\
            <starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>";
        let proceed = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
        let mut script = Self::of("starttls", Transport::C2s, &[&[HEADER, starttls, proceed]]);
        script.tls = Tls::Starttls;
        script.chunks.extend(Self::c2s().chunks);
        script
    }

    pub(super) fn websocket() -> Self {
        let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0'/>";
        let mut script = Self::of("websocket", Transport::WebSocket, &[]);
        let head = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";
        script.chunks.push(head.into());
        script.say(&[open, FEATURES, SUCCESS, open, RESOURCES, BOUND, SESSION]);
        script
    }

    pub(super) fn bosh() -> Self {
        let steps: [&[&str]; 6] = [
            &[],
            &[FEATURES],
            &[SUCCESS],
            &[RESOURCES],
            &[BOUND],
            &[SESSION],
        ];
        let mut script = Self::of("bosh", Transport::Bosh, &steps);
        script.chunks[0] = response("<body sid='S1' wait='60' xmlns='x'/>");
        script
    }

    /// The stanzas come in one piece.
    pub(super) fn say(&mut self, stanzas: &[&str]) {
        let stanzas = match self.transport {
            Transport::Bosh => self.wrap(&stanzas.concat()),
            _ => stanzas
                .iter()
                .flat_map(|stanza| self.wrap(stanza))
                .collect(),
        };
        self.chunks.push(stanzas);
    }

    /// A stanza as it is carried.
    pub(super) fn wrap(&self, stanza: &str) -> Vec<u8> {
        match self.transport {
            Transport::C2s => stanza.into(),
            Transport::WebSocket => frame(stanza),
            Transport::Bosh => response(&format!("<body xmlns='x'>{stanza}</body>")),
        }
    }

    /// What the server says when its user leaves.
    pub(super) fn goodbye(&self) -> Vec<(Channel, Vec<u8>)> {
        let bytes = match self.transport {
            Transport::C2s => b"</stream:stream>".to_vec(),
            Transport::WebSocket => frame("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"),
            Transport::Bosh => {
                let end = response("<body type='terminate' xmlns='x'/>");
                let empty = response("<body xmlns='x'/>");
                return vec![
                    (Channel::First, empty),
                    (Channel::Second, end.clone()),
                    (Channel::First, end),
                ];
            }
        };
        vec![(Channel::First, bytes)]
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Gives it to a session; the chunk that holds byte `cut` comes in two.
    pub(super) fn run(&self, cut: Option<usize>) -> Run {
        let mut at = 0;
        self.run_in(|chunk| {
            let cut = cut.and_then(|cut| cut.checked_sub(at));
            at += chunk.len();
            match cut {
                Some(cut) if cut < chunk.len() => vec![&chunk[..cut], &chunk[cut..]],
                _ => vec![chunk],
            }
        })
    }

    /// Gives it to a session byte by byte.
    pub(super) fn run_by_bytes(&self) -> Run {
        self.run_in(|chunk| chunk.chunks(1).collect())
    }

    fn run_in(&self, mut split: impl for<'a> FnMut(&'a [u8]) -> Vec<&'a [u8]>) -> Run {
        // Masks and request ids are the same each time.
        fastrand::seed(7);
        let mut run = Run::of(&Output::default(), self.name);
        let (mut session, mut out) = self.connected(&self.plan());
        let accept = accept(&mut out);
        for chunk in &self.chunks {
            let chunk = fill(chunk, &accept);
            for piece in split(&chunk) {
                let mut told = |event: Event<'_>| run.events.push(tell(&event));
                let result = session.received(Channel::First, piece, &mut out, &mut told);
                run.fault = result.err().or(run.fault);
            }
            step(&mut session, &mut out);
        }
        run.writes = out.writes;
        run.jid = session.jid().to_owned();
        run
    }

    pub(super) fn plan(&self) -> Arc<Plan> {
        plan_of(self.transport, self.tls, Accounts::Anonymous)
    }

    fn connected(&self, plan: &Arc<Plan>) -> (Session, Output) {
        let mut session = Session::new(plan, 7);
        let mut out = Output::default();
        session.connected(Channel::First, &mut out).unwrap();
        (session, out)
    }

    /// A session that has got nothing yet but a WebSocket's handshake.
    pub(super) fn begun(&self) -> (Session, Output) {
        let (mut session, mut out) = self.connected(&self.plan());
        let accept = accept(&mut out);
        if self.transport == Transport::WebSocket {
            let head = fill(&self.chunks[0], &accept);
            session
                .received(Channel::First, &head, &mut out, &mut |_| ())
                .unwrap();
        }
        (session, out)
    }

    /// A session that has got all of it.
    pub(super) fn logged_in(&self) -> (Session, Output) {
        self.logged_in_with(&self.plan())
    }

    /// One of several sessions with the same plan.
    pub(super) fn logged_in_with(&self, plan: &Arc<Plan>) -> (Session, Output) {
        let (mut session, mut out) = self.connected(plan);
        let accept = accept(&mut out);
        for chunk in &self.chunks {
            let chunk = fill(chunk, &accept);
            session
                .received(Channel::First, &chunk, &mut out, &mut |_| ())
                .unwrap();
            step(&mut session, &mut out);
        }
        assert_eq!(session.jid(), "a@b/c");
        (session, out)
    }
}

/// Does what the session wants done.
fn step(session: &mut Session, out: &mut Output) {
    if std::mem::take(&mut out.start_tls) {
        session.connected(Channel::First, out).unwrap();
    }
    // One line is enough for a server that answers before anything is said.
    out.connect = [false; 2];
}

/// The answer to the key in what was written, which is forgotten.
fn accept(out: &mut Output) -> String {
    let head = String::from_utf8(std::mem::take(&mut out.writes[0])).unwrap();
    let key = head.split("Sec-WebSocket-Key: ").nth(1);
    let key = key.and_then(|rest| rest.lines().next()).unwrap_or_default();
    derive_accept_key(key.as_bytes())
}

fn fill(chunk: &[u8], accept: &str) -> Vec<u8> {
    match std::str::from_utf8(chunk) {
        Ok(text) => text.replace("{accept}", accept).into(),
        Err(_) => chunk.to_vec(),
    }
}

fn tell(event: &Event<'_>) -> String {
    match event {
        Event::LoggedIn => "in".into(),
        Event::Message(body) => (*body).into(),
        Event::Other => "other".into(),
    }
}

/// A text frame of a server's.
pub(super) fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match text.len() {
        length @ ..126 => bytes.push(length as u8),
        length => {
            bytes.push(126);
            bytes.extend((length as u16).to_be_bytes());
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// An HTTP response of a server's.
pub(super) fn response(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into()
}

impl Run {
    pub(super) fn of(out: &Output, name: &'static str) -> Self {
        Self {
            events: Vec::new(),
            writes: out.writes.clone(),
            fault: None,
            jid: String::new(),
            name,
        }
    }

    /// What was written, unmasked.
    pub(super) fn said(&self) -> String {
        let bytes = self.writes.concat();
        let bytes = match self.name {
            "websocket" => unmask(&bytes),
            _ => bytes,
        };
        String::from_utf8(bytes).unwrap()
    }
}

fn unmask(mut bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while !bytes.is_empty() {
        assert_eq!((bytes[0], bytes[1] & 0x80), (0x81, 0x80));
        let (head, length) = match bytes[1] & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            length => (2, usize::from(length)),
        };
        let (mask, rest) = bytes[head..].split_at(4);
        let (payload, rest) = rest.split_at(length);
        text.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        bytes = rest;
    }
    text
}
