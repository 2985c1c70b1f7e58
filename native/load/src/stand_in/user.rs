//! One user's XMPP, the same over all transports: what comes in, and what is said to it.
//!
//! ```text
//!   Unknown ── <auth/> ──► Proving ── <response/> ──► Known ── bind ──► Here
//!      ▲  └────────── ANONYMOUS, PLAIN ─────────────────▲
//!      └───── <failure/> ─────┘
//! ```

use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::accounts::{Answer, Exchange};
use super::report::count;
use super::server::Server;
use super::users::{Inbox, PING};
use super::xml::Element;

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

thread_local! {
    /// Where stanzas are made that go to another user.
    static STANZA: RefCell<String> = const { RefCell::new(String::new()) };
}

/// One user, as far as the login has come.
#[derive(Debug)]
pub struct User {
    domain: String,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Unknown,
    Proving(Exchange),
    Known { name: String },
    Here { jid: String, inbox: Arc<dyn Inbox> },
}

impl User {
    /// Somebody who wants to log in to this domain.
    pub fn new(domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            phase: Phase::Unknown,
        }
    }

    /// The domain that the user logs in to.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `<stream:features/>`: what the user can do next.
    pub fn features(&self, server: &Server, out: &mut String) {
        out.push_str("<stream:features>");
        if matches!(self.phase, Phase::Unknown | Phase::Proving(_)) {
            let _ = write!(out, "<mechanisms xmlns='{SASL}'>");
            let all = ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "ANONYMOUS"];
            let without_accounts = if server.accounts.is_some() { 0 } else { 3 };
            for name in &all[without_accounts..] {
                let _ = write!(out, "<mechanism>{name}</mechanism>");
            }
            out.push_str("</mechanisms>");
        } else {
            let _ = write!(out, "<bind xmlns='{BIND}'/>");
            out.push_str(
                "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>",
            );
        }
        out.push_str("</stream:features>");
    }

    /// Takes an element of the user's stream. At most one element is added to `reply`. `inbox`
    /// is asked for when the user arrives.
    pub fn take(
        &mut self,
        server: &Server,
        element: &Element<'_>,
        inbox: impl FnOnce() -> Arc<dyn Inbox>,
        reply: &mut String,
    ) {
        match (element.name, &mut self.phase) {
            ("auth", Phase::Unknown) => self.auth(server, element, reply),
            ("response", Phase::Proving(_)) => {
                let said = BASE64_STANDARD.decode(element.inner).unwrap_or_default();
                self.respond(server, &said, reply);
            }
            ("iq", Phase::Known { name }) => {
                if let Some(bind) = element.child("bind") {
                    let jid = full_jid(server, name, &self.domain, &bind);
                    let inbox = inbox();
                    server.users.arrive(&jid, Arc::clone(&inbox));
                    count(&server.counts.logins);
                    let result = format!("<bind xmlns='{BIND}'><jid>{jid}</jid></bind>");
                    put_result(element, &result, reply);
                    self.phase = Phase::Here { jid, inbox };
                }
            }
            (_, Phase::Here { jid, .. }) => match element.attribute("to") {
                Some(to) if to.contains('/') => forward(server, element, jid, to, reply),
                _ => to_server(server, element, jid, reply),
            },
            // Nothing else means anything yet.
            _ => {}
        }
    }

    /// The user is gone.
    pub fn leave(&mut self, server: &Server) {
        if let Phase::Here { jid, inbox } = &self.phase {
            server.users.leave(jid, inbox);
            self.phase = Phase::Unknown;
        }
    }

    fn auth(&mut self, server: &Server, auth: &Element<'_>, reply: &mut String) {
        if let Some(condition) = server.users.refusal() {
            return self.refuse(server, condition, reply);
        }
        let mechanism = auth.attribute("mechanism").unwrap_or_default();
        if mechanism == "ANONYMOUS" {
            self.phase = Phase::Known {
                name: server.fresh(),
            };
            return put_success(b"", reply);
        }
        let said = BASE64_STANDARD.decode(auth.inner).unwrap_or_default();
        let accounts = server.accounts.as_ref();
        match accounts.and_then(|accounts| Exchange::begin(accounts, mechanism, &said)) {
            Some(exchange) => {
                self.phase = Phase::Proving(exchange);
                self.respond(server, &said, reply);
            }
            None => self.refuse(server, "invalid-mechanism", reply),
        }
    }

    fn respond(&mut self, server: &Server, said: &[u8], reply: &mut String) {
        let Phase::Proving(exchange) = &mut self.phase else {
            return;
        };
        match exchange.respond(said) {
            Ok(Answer::Challenge(challenge)) => {
                let challenge = BASE64_STANDARD.encode(challenge);
                let _ = write!(reply, "<challenge xmlns='{SASL}'>{challenge}</challenge>");
            }
            Ok(Answer::Success { user, last }) => {
                self.phase = Phase::Known { name: user };
                put_success(&last, reply);
            }
            Err(_) => self.refuse(server, "not-authorized", reply),
        }
    }

    fn refuse(&mut self, server: &Server, condition: &str, reply: &mut String) {
        server.counts.refused(condition);
        self.phase = Phase::Unknown;
        let _ = write!(reply, "<failure xmlns='{SASL}'><{condition}/></failure>");
    }
}

fn full_jid(server: &Server, name: &str, domain: &str, bind: &Element<'_>) -> String {
    let wished = bind.child("resource").map(|resource| resource.inner);
    match wished.filter(|resource| !resource.is_empty()) {
        Some(resource) => format!("{name}@{domain}/{resource}"),
        None => format!("{name}@{domain}/{}", server.fresh()),
    }
}

/// A stanza from one user to another.
fn forward(server: &Server, element: &Element<'_>, from: &str, to: &str, reply: &mut String) {
    let delivered = STANZA.with_borrow_mut(|stanza| {
        stanza.clear();
        let name = element.name;
        let _ = write!(stanza, "<{name} from='{from}' to='{to}'");
        for key in ["type", "id"] {
            if let Some(value) = element.attribute(key) {
                put_attribute(key, value, stanza);
            }
        }
        let _ = write!(stanza, ">{}</{name}>", element.inner);
        if name == "message" && element.inner.contains("<body") {
            server.begin_stalls();
            return server.users.chat(from, to, stanza);
        }
        server.users.send(to, stanza)
    });
    // Nobody is told that an answer did not arrive (RFC 6120, 8.3.1).
    let answer = matches!(element.attribute("type"), Some("error" | "result"));
    if !delivered && !answer && element.name != "presence" {
        put_unavailable(element, from, to, reply);
    }
}

/// A stanza to the server itself, or to the user's own account.
fn to_server(server: &Server, element: &Element<'_>, jid: &str, reply: &mut String) {
    let kind = element.attribute("type");
    match (element.name, kind) {
        // To all of the account's own resources, this one among them (RFC 6121, 4.2.2).
        ("presence", None) => {
            let _ = write!(reply, "<presence from='{jid}' to='{jid}'/>");
        }
        ("iq", Some("result")) if element.attribute("id") == Some(PING) => {
            count(&server.counts.pongs);
        }
        ("iq", Some("get" | "set")) => match element.children().next() {
            Some(asked) if ["ping", "session"].contains(&asked.name) => {
                put_result(element, "", reply);
            }
            Some(asked) if asked.attribute("xmlns") == Some("jabber:iq:roster") => {
                put_result(element, "<query xmlns='jabber:iq:roster'/>", reply);
            }
            _ => put_unavailable(element, jid, "", reply),
        },
        _ => {}
    }
}

fn put_success(last: &[u8], reply: &mut String) {
    let last = BASE64_STANDARD.encode(last);
    let _ = write!(reply, "<success xmlns='{SASL}'>{last}</success>");
}

fn put_result(iq: &Element<'_>, inner: &str, reply: &mut String) {
    reply.push_str("<iq type='result'");
    if let Some(id) = iq.attribute("id") {
        put_attribute("id", id, reply);
    }
    let _ = write!(reply, ">{inner}</iq>");
}

fn put_unavailable(element: &Element<'_>, from: &str, to: &str, reply: &mut String) {
    let name = element.name;
    let _ = write!(reply, "<{name} type='error' to='{from}'");
    for (key, value) in [("from", Some(to)), ("id", element.attribute("id"))] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            put_attribute(key, value, reply);
        }
    }
    let error = format!("<error type='cancel'><service-unavailable xmlns='{STANZAS}'/></error>");
    let _ = write!(reply, ">{error}</{name}>");
}

/// The value is still escaped, but for the quote that it stood in.
fn put_attribute(key: &str, value: &str, out: &mut String) {
    let quote = if value.contains('\'') { '"' } else { '\'' };
    let _ = write!(out, " {key}={quote}{value}{quote}");
}

/// Writes an element as it is where it stands in no stream: with the namespaces that
/// `<stream:stream>` would have named (RFC 7395, 3.3.3).
pub fn put_alone(element: &str, out: &mut String) {
    let name = element.split([' ', '/', '>']).next().unwrap_or_default();
    out.push_str(name);
    match name {
        "<message" | "<presence" | "<iq" => out.push_str(" xmlns='jabber:client'"),
        "<stream:features" | "<stream:error" => {
            out.push_str(" xmlns:stream='http://etherx.jabber.org/streams'");
        }
        _ => {}
    }
    out.push_str(&element[name.len()..]);
}
