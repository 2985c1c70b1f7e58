//! Whose death ends which connections of a link.
//!
//! A resource of the emulator that can monitor processes is larger by some 60 bytes, whether or not
//! it does. So connections, most of which have no owner, do not: a few resources of their link do
//! it for all of them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};

use crate::conn::Conn;
use crate::sync::lock;

/// Parts of a link's owners, so that schedulers seldom wait for each other.
const PARTS: usize = 16;

/// The owners of a link's connections.
pub struct Owners([ResourceArc<Part>; PARTS]);

/// Some of them.
#[derive(Default)]
pub struct Part {
    /// By owner, and by connection (its address) for one that has several. Locked last of all.
    owned: Mutex<BTreeMap<(LocalPid, usize), Owned>>,
}

struct Owned {
    conn: ResourceArc<Conn>,
    monitor: Monitor,
}

#[rustler::resource_impl]
impl Resource for Part {
    /// An owner died. There is a call for each of its connections, whichever comes first.
    fn down<'a>(&'a self, env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        let gone = {
            let mut owned = lock(&self.owned);
            let mut its = owned.range((pid, 0)..=(pid, usize::MAX));
            let key = its.next().map(|(key, _)| *key);
            key.and_then(|key| owned.remove(&key))
        };
        if let Some(Owned { conn, .. }) = gone {
            conn.lock(env, Some(&conn)).owner_died(pid);
        }
    }
}

impl Owners {
    /// Nobody.
    pub fn new() -> Self {
        Owners(std::array::from_fn(|_| ResourceArc::new(Part::default())))
    }

    /// Has `conn` told when `pid` dies; `false` when it is dead.
    pub fn add(&self, env: Env, conn: &ResourceArc<Conn>, pid: LocalPid) -> bool {
        let part = self.part(conn);
        // Under the lock, so that a death that comes at once finds what it is about.
        let mut owned = lock(&part.owned);
        let Some(monitor) = env.monitor(part, &pid) else {
            return false;
        };
        let conn = conn.clone();
        let before = owned.insert(key(&conn, pid), Owned { conn, monitor });
        if let Some(before) = before {
            env.demonitor(part, &before.monitor);
        }
        true
    }

    /// The death of `pid` means nothing to `conn` any more.
    pub fn remove(&self, env: Env, conn: &ResourceArc<Conn>, pid: LocalPid) {
        let part = self.part(conn);
        let gone = lock(&part.owned).remove(&key(conn, pid));
        if let Some(gone) = gone {
            env.demonitor(part, &gone.monitor);
        }
    }

    fn part(&self, conn: &Conn) -> &ResourceArc<Part> {
        &self.0[conn.id.get() as usize % PARTS]
    }
}

fn key(conn: &Conn, pid: LocalPid) -> (LocalPid, usize) {
    (pid, std::ptr::from_ref(conn).addr())
}
