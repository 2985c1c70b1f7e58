//! Time passes for a connection: its front says what that means, and when it wants to know again.

use crate::conn::Held;

impl Held<'_, '_> {
    /// Has the front looked at when so many whole seconds will have passed, or sooner.
    pub fn watch_in(&mut self, seconds: u32) {
        // The second that runs has partly passed already.
        let due = self.conn.link.awake().saturating_add(seconds + 1);
        self.watch_at(due);
    }

    /// Has the front looked at in this second of the link's, or sooner.
    pub fn watch_at(&mut self, due: u32) {
        let mut watch = self.watch;
        self.conn.link.watch(&mut watch, self.conn.id, due);
        self.watch = watch;
    }

    /// Lets the link forget that this connection waits for a time.
    pub fn unwatch(&mut self) {
        let mut watch = self.watch;
        self.conn.link.unwatch(&mut watch, self.conn.id);
        self.watch = watch;
    }

    /// The link has found its second to have come.
    pub fn look(&mut self, now: u32) {
        if self.watch.fired(now)
            && self.is_open()
            && let Some(due) = self.front_tick(now)
        {
            self.watch_at(due);
        }
    }
}
