//! A BOSH session: its requests in order of their `rid`, and the one that is held.
//!
//! ```text
//!   request ─► order ─► user ─► other users' mailboxes
//!                │               │
//!                ▼               ▼
//!             mailbox: what waits for the user, or the request that waits for it
//! ```
//!
//! `order` is never taken by who delivers, so that two users can send to each other at once, and
//! one to itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::server::Server;
use super::user::{User, put_alone};
use super::users::Inbox;
use super::wire::{Wire, lock};
use super::xml::{self, Element, Unit};

/// How far ahead of the next a `rid` may be: `requests` and one more (XEP-0124, 12).
const WINDOW: u64 = 3;

/// A session without a request for so long is over.
const INACTIVITY: Duration = Duration::from_secs(60);

thread_local! {
    static RESPONSE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// All sessions by `sid`.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

impl Sessions {
    /// The session of this `sid`.
    pub fn get(&self, sid: &str) -> Option<Arc<Session>> {
        lock(&self.0).get(sid).cloned()
    }

    /// Begins one, and answers its first request.
    pub fn create(
        self: &Arc<Self>,
        server: &Arc<Server>,
        domain: &str,
        rid: u64,
        wait: Duration,
        wire: &Arc<Wire>,
    ) -> Arc<Session> {
        let sid = server.fresh();
        let user = User::new(domain);
        let (mut features, mut alone) = (String::new(), String::new());
        user.features(server, &mut features);
        put_alone(&features, &mut alone);
        let session = Arc::new(Session {
            server: Arc::clone(server),
            sessions: Arc::downgrade(self),
            wait,
            order: Mutex::new(Order {
                next: rid.wrapping_add(1),
                early: BTreeMap::new(),
                user,
            }),
            mailbox: Arc::default(),
            sid,
        });
        let attributes = format!(
            " xmlns:xmpp='urn:xmpp:xbosh' sid='{}' wait='{}' requests='2' hold='1' \
             inactivity='{}' polling='2' ver='1.6' from='{domain}' xmpp:version='1.0' \
             xmpp:restartlogic='true' secure='false'",
            session.sid,
            wait.as_secs(),
            INACTIVITY.as_secs(),
        );
        lock(&self.0).insert(session.sid.clone(), Arc::clone(&session));
        send_body(wire, &attributes, &alone);
        session
    }
}

/// One user's session.
#[derive(Debug)]
pub struct Session {
    server: Arc<Server>,
    sessions: Weak<Sessions>,
    sid: String,
    wait: Duration,
    order: Mutex<Order>,
    mailbox: Arc<Mailbox>,
}

#[derive(Debug)]
struct Order {
    /// The `rid` that is due.
    next: u64,
    /// Requests that came before one that is due before them.
    early: BTreeMap<u64, (Arc<Wire>, String)>,
    user: User,
}

#[derive(Debug, Default)]
struct Mailbox(Mutex<Mail>);

#[derive(Debug, Default)]
struct Mail {
    held: Option<Arc<Wire>>,
    waiting: String,
    over: bool,
}

impl Session {
    /// How long a request may be held.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// A request came: `text` is its `<body/>`. It is answered, held, or kept for its turn.
    pub fn request(self: &Arc<Self>, rid: u64, text: &str, wire: &Arc<Wire>) {
        let mut order = lock(&self.order);
        if rid.wrapping_sub(order.next) >= WINDOW {
            send_body(wire, " type='terminate' condition='item-not-found'", "");
            return;
        }
        if rid > order.next {
            let early = (Arc::clone(wire), text.to_owned());
            order.early.insert(rid, early);
            return;
        }
        self.body(&mut order, text, wire);
        while let Some((wire, text)) = {
            let due = order.next;
            order.early.remove(&due)
        } {
            self.body(&mut order, &text, &wire);
        }
    }

    /// The request that `wire` carries has been held long enough.
    pub fn lapse(&self, wire: &Arc<Wire>) {
        if lock(&self.mailbox.0).release(wire) {
            send_body(wire, "", "");
        }
    }

    /// `wire` is closed, whatever it carried. If no other request comes, the session is over.
    pub fn lost(self: Arc<Self>, wire: &Arc<Wire>, sessions: &Arc<Sessions>) {
        lock(&self.mailbox.0).release(wire);
        let (sessions, seen) = (Arc::clone(sessions), lock(&self.order).next);
        if sessions.get(&self.sid).is_none() {
            return;
        }
        tokio::spawn(async move {
            sleep(INACTIVITY).await;
            let mut order = lock(&self.order);
            if order.next == seen && lock(&self.mailbox.0).held.is_none() {
                self.end(&mut order);
            }
        });
    }

    fn body(self: &Arc<Self>, order: &mut Order, text: &str, wire: &Arc<Wire>) {
        order.next += 1;
        let Ok(Some((Unit::Element(body), _))) = xml::first(text) else {
            return send_body(wire, " type='terminate' condition='bad-request'", "");
        };
        let mut replies = String::new();
        if body.attribute("xmpp:restart") == Some("true") {
            let mut features = String::new();
            order.user.features(&self.server, &mut features);
            put_alone(&features, &mut replies);
        }
        for element in body.children() {
            self.element(order, &element, &mut replies);
        }
        let over = body.attribute("type") == Some("terminate");
        if over {
            self.end(order);
        }
        lock(&self.mailbox.0).answer_or_hold(wire, &replies, over);
    }

    fn element(self: &Arc<Self>, order: &mut Order, element: &Element<'_>, replies: &mut String) {
        let mut reply = String::new();
        let inbox = || Arc::clone(&self.mailbox) as Arc<dyn Inbox>;
        order.user.take(&self.server, element, inbox, &mut reply);
        if !reply.is_empty() {
            put_alone(&reply, replies);
        }
    }

    fn end(&self, order: &mut Order) {
        order.user.leave(&self.server);
        if let Some(sessions) = self.sessions.upgrade() {
            lock(&sessions.0).remove(&self.sid);
        }
    }
}

impl Mail {
    /// A request has been taken in, with these replies to what was in it.
    fn answer_or_hold(&mut self, wire: &Arc<Wire>, replies: &str, over: bool) {
        self.waiting.push_str(replies);
        // One is held at most: an older one is answered first, in order of `rid`.
        if let Some(older) = self.held.take() {
            send_body(&older, "", &self.waiting);
            self.waiting = String::new();
        }
        if over || self.over {
            send_body(wire, " type='terminate'", &self.waiting);
        } else if self.waiting.is_empty() {
            self.held = Some(Arc::clone(wire));
        } else {
            send_body(wire, "", &self.waiting);
            self.waiting = String::new();
        }
    }

    /// Holds it no longer, if it is that one.
    fn release(&mut self, wire: &Arc<Wire>) -> bool {
        let held = self.held.take_if(|held| Arc::ptr_eq(held, wire));
        held.is_some()
    }
}

impl Inbox for Mailbox {
    fn deliver(&self, stanza: &str) {
        let mut mail = lock(&self.0);
        put_alone(stanza, &mut mail.waiting);
        if let Some(wire) = mail.held.take() {
            send_body(&wire, "", &mail.waiting);
            mail.waiting.clear();
            // What a quiet user has is not kept.
            mail.waiting.shrink_to(0);
        }
    }

    fn replaced(&self) {
        let mut mail = lock(&self.0);
        mail.over = true;
        if let Some(wire) = mail.held.take() {
            let condition = " type='terminate' condition='remote-stream-error'";
            send_body(&wire, condition, &mail.waiting);
        }
    }
}

/// Answers a request with a `<body/>` of these attributes and elements.
pub fn send_body(wire: &Wire, attributes: &str, inner: &str) {
    const OPEN: &str = "<body xmlns='http://jabber.org/protocol/httpbind'";
    const CLOSE: &str = "</body>";
    let length = OPEN.len() + attributes.len() + 1 + inner.len() + CLOSE.len();
    RESPONSE.with_borrow_mut(|out| {
        out.clear();
        let _ = write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\n\
             Content-Length: {length}\r\n\r\n{OPEN}{attributes}>{inner}{CLOSE}"
        );
        wire.send(out.as_bytes());
    });
}
