//! How users end.

use crate::session::Fault;
use crate::socket::Socket;
use crate::worker::crowd::{Crowd, Gone, Phase, Watch, slot};

/// Why a user is to be removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The session says that it is over.
    Over,
    /// What went wrong.
    Fault(String),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault.to_string())
    }
}

impl From<String> for End {
    fn from(kind: String) -> Self {
        Self::Fault(kind)
    }
}

impl Crowd {
    /// Whoever has not joined or left by its deadline is out.
    pub(in crate::worker) fn expire(&mut self, now: u64, watch: &mut dyn Watch) {
        while let Some((deadline, user)) = self.waiting.front().copied() {
            match slot(&mut self.users, user) {
                Some(entry) if entry.deadline == deadline && entry.phase != Phase::In => {
                    if deadline > now {
                        return;
                    }
                    let ready = entry.sockets[0].as_ref().is_some_and(Socket::is_ready);
                    let kind = match entry.phase {
                        Phase::Leaving => "timed out: logging out",
                        _ if ready => "timed out: logging in",
                        _ => "timed out: connecting",
                    };
                    self.end(user, Err(End::Fault(kind.to_owned())), watch);
                }
                // It has joined, left, or fallen out.
                _ => {}
            }
            self.waiting.pop_front();
        }
    }

    /// Removes the user if it has ended, and says so.
    pub(super) fn end(&mut self, user: u32, ended: Result<(), End>, watch: &mut dyn Watch) {
        if let Err(end) = ended
            && let Some(gone) = self.remove(user, &end)
        {
            watch.gone(user, gone);
        }
    }

    /// Removes a user, and counts why where it had been logged in.
    pub(super) fn remove(&mut self, user: u32, end: &End) -> Option<Gone> {
        // What it wanted done is not to be done for somebody else.
        self.clear_output();
        let gone = self.users.get_mut(user as usize)?.take()?;
        let kind = match end {
            End::Over => "closed by the server",
            End::Fault(kind) => kind,
        };
        match gone.phase {
            Phase::Joining => return Some(Gone::Failed(kind.to_owned())),
            Phase::In => self.online -= 1,
            Phase::Leaving if *end == End::Over => return Some(Gone::Left),
            Phase::Leaving => {}
        }
        *self.faults.entry(kind.to_owned()).or_default() += 1;
        Some(match gone.phase {
            Phase::Leaving => Gone::Left,
            _ => Gone::FellOut,
        })
    }
}
