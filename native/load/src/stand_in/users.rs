//! Who is here, and how messages get to them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::faults::{Fate, Faults};
use super::report::{Counts, count};

/// A message waits so long for the one that overtakes it.
const OVERTAKEN_WITHIN: Duration = Duration::from_secs(1);

/// The `id` of the pings that are sent.
pub const PING: &str = "stand-in-ping";

/// Where a user's stanzas go.
pub trait Inbox: Debug + Send + Sync {
    /// Sends the user a stanza; it names no namespace.
    fn deliver(&self, stanza: &str);

    /// Asks the transport for a sign of life, where that has a way of its own.
    ///
    /// The answer is whether it has.
    fn ping(&self) -> bool {
        false
    }

    /// The user has logged in elsewhere with the same full JID.
    fn replaced(&self);
}

/// All users by full JID.
#[derive(Debug)]
pub struct Users {
    here: RwLock<HashMap<String, Arc<dyn Inbox>>>,
    faults: Option<Faults>,
    delay: Option<Delay>,
    end_after: u64,
    enough: Notify,
    /// Read by who passes a message on.
    passing: RwLock<()>,
    counts: Arc<Counts>,
}

/// Everything goes this way that comes late on purpose, in order.
#[derive(Debug)]
struct Delay {
    time: Duration,
    queue: mpsc::UnboundedSender<(Instant, String, String)>,
}

impl Users {
    /// Nobody is here yet. With a delay, a task is started that delivers late. After
    /// `end_after` messages no more are delivered.
    pub fn new(
        faults: Option<Faults>,
        delay: Option<Duration>,
        end_after: Option<u64>,
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        let (queue, late) = mpsc::unbounded_channel();
        let users = Arc::new(Self {
            here: RwLock::default(),
            faults,
            delay: delay.map(|time| Delay { time, queue }),
            end_after: end_after.unwrap_or(u64::MAX),
            enough: Notify::new(),
            passing: RwLock::default(),
            counts,
        });
        if delay.is_some() {
            tokio::spawn(deliver_late(late, Arc::clone(&users)));
        }
        users
    }

    /// The condition with which this login is refused on purpose, if it is.
    pub fn refusal(&self) -> Option<&'static str> {
        self.faults.as_ref()?.refusal()
    }

    /// The user of this JID is here now.
    pub fn arrive(&self, jid: &str, inbox: Arc<dyn Inbox>) {
        let mut here = self.here.write().unwrap_or_else(PoisonError::into_inner);
        let before = here.insert(jid.to_owned(), inbox);
        drop(here);
        if let Some(before) = before {
            before.replaced();
        }
    }

    /// The user of this JID is no longer here, unless it has arrived anew by another inbox.
    pub fn leave(&self, jid: &str, inbox: &Arc<dyn Inbox>) {
        let mut here = self.here.write().unwrap_or_else(PoisonError::into_inner);
        if here.get(jid).is_some_and(|found| Arc::ptr_eq(found, inbox)) {
            here.remove(jid);
        }
    }

    /// Sends a stanza to a user as it is. `false`: there is no such user.
    pub fn send(&self, to: &str, stanza: &str) -> bool {
        self.send_counted(to, stanza, None)
    }

    /// Counts before it sends: who has got it may ask at once.
    fn send_counted(&self, to: &str, stanza: &str, counter: Option<&AtomicU64>) -> bool {
        let here = self.here.read().unwrap_or_else(PoisonError::into_inner);
        let Some(inbox) = here.get(to) else {
            return false;
        };
        if let Some(counter) = counter {
            count(counter);
        }
        inbox.deliver(stanza);
        true
    }

    /// Sends a message with a body, or does to it what is done on purpose. `false`: there is no
    /// such user.
    pub fn chat(self: &Arc<Self>, from: &str, to: &str, stanza: &mut String) -> bool {
        let _passing = self.passing.read().unwrap_or_else(PoisonError::into_inner);
        if self.counts.messages.fetch_add(1, Relaxed) >= self.end_after {
            self.enough.notify_one();
            return true;
        }
        let Some(faults) = &self.faults else {
            return self.pass(to, stanza);
        };
        if let Some(overtaken) = faults.release(from, to, None) {
            count(&self.counts.swapped);
            return self.pass(to, stanza) && self.pass(to, &overtaken);
        }
        if !self.is_here(to) {
            return self.pass(to, stanza);
        }
        match faults.fate() {
            Fate::Lose => count(&self.counts.lost),
            Fate::Double => {
                count(&self.counts.doubled);
                self.pass(to, stanza);
                self.pass(to, stanza);
            }
            Fate::Swap => self.hold(faults, from, to, stanza),
            Fate::Damage if faults.damage(stanza) => {
                count(&self.counts.damaged);
                self.pass(to, stanza);
            }
            Fate::Misdeliver => match self.somebody_but(faults, to) {
                Some(other) => {
                    count(&self.counts.misdelivered);
                    self.pass(&other, stanza);
                }
                None => return self.pass(to, stanza),
            },
            Fate::Damage | Fate::Pass => return self.pass(to, stanza),
        }
        true
    }

    /// Pings all users (XEP-0199) again and again.
    pub async fn ping(self: Arc<Self>, every: Duration) {
        loop {
            sleep(every).await;
            let here = self.here.read().unwrap_or_else(PoisonError::into_inner);
            for (jid, inbox) in here.iter() {
                let domain = jid.split(['@', '/']).nth(1).unwrap_or_default();
                let ping = format!(
                    "<iq from='{domain}' to='{jid}' type='get' id='{PING}'>\
                     <ping xmlns='urn:xmpp:ping'/></iq>"
                );
                count(&self.counts.pings);
                inbox.deliver(&ping);
                if inbox.ping() {
                    count(&self.counts.pings);
                }
            }
        }
    }

    /// Waits until there were more messages than were to be delivered, and those are passed on.
    pub async fn had_enough(&self) {
        self.enough.notified().await;
        drop(self.passing.write());
    }

    /// Delivers, or queues to deliver late.
    fn pass(&self, to: &str, stanza: &str) -> bool {
        if let Some(delay) = &self.delay
            && self.is_here(to)
        {
            count(&self.counts.delayed);
            let late = (
                Instant::now() + delay.time,
                to.to_owned(),
                stanza.to_owned(),
            );
            // The task ends with the program.
            let _ = delay.queue.send(late);
            return true;
        }
        self.deliver(to, stanza)
    }

    fn deliver(&self, to: &str, stanza: &str) -> bool {
        let sent = self.send_counted(to, stanza, Some(&self.counts.delivered));
        if !sent {
            count(&self.counts.bounced);
        }
        sent
    }

    fn hold(self: &Arc<Self>, faults: &Faults, from: &str, to: &str, stanza: &str) {
        let number = faults.hold(from, to, stanza);
        let (users, from, to) = (Arc::clone(self), from.to_owned(), to.to_owned());
        tokio::spawn(async move {
            sleep(OVERTAKEN_WITHIN).await;
            let faults = users.faults.as_ref();
            if let Some(late) = faults.and_then(|faults| faults.release(&from, &to, Some(number))) {
                users.pass(&to, &late);
            }
        });
    }

    fn is_here(&self, jid: &str) -> bool {
        let here = self.here.read().unwrap_or_else(PoisonError::into_inner);
        here.contains_key(jid)
    }

    fn somebody_but(&self, faults: &Faults, jid: &str) -> Option<String> {
        let here = self.here.read().unwrap_or_else(PoisonError::into_inner);
        if here.len() < 2 {
            return None;
        }
        let mut others = here.keys().filter(|other| *other != jid);
        others.nth(faults.one_of(here.len() - 1)).cloned()
    }
}

async fn deliver_late(
    mut late: mpsc::UnboundedReceiver<(Instant, String, String)>,
    users: Arc<Users>,
) {
    while let Some((due, to, stanza)) = late.recv().await {
        sleep_until(due).await;
        users.deliver(&to, &stanza);
    }
}
