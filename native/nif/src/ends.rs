//! How a connection ends: from here, from the far side, or with its link.

use megaphone_proto::conn::{ConnError, State as FlowState};
use megaphone_proto::control::{CloseReason, Control};
use rustler::{Atom, Encoder, Term};

use crate::atoms;
use crate::conn::{Held, Phase};
use crate::front::Front;
use crate::options::Active;

impl<'e> Held<'_, 'e> {
    /// Closes the socket from here, both directions. What `send` took still goes out.
    pub fn close(&mut self, reason: CloseReason) {
        if !self.is_open() {
            return;
        }
        self.close_socket();
        let unsent = self.pending.as_ref().is_some_and(|p| p.bytes() > 0);
        match self.this() {
            _ if self.flow.state() == FlowState::Closed => {
                self.fail_senders();
                self.phase = Phase::Closed(reason);
            }
            Some(this) if unsent => {
                self.phase = Phase::Lingering(reason);
                self.conn.link.linger(this);
            }
            _ => self.leave(reason),
        }
        self.tell_closed();
    }

    /// The owner closes the socket, or has died.
    pub fn close_by_owner(&mut self) {
        let reason = match self.draining {
            true => CloseReason::Shutdown,
            false => CloseReason::ServerClosed,
        };
        self.close(reason);
    }

    /// Closes the socket over its owner's head; what `send` took still goes out.
    pub fn close_for(&mut self, reason: CloseReason) {
        if self.is_open() {
            let told = std::mem::replace(&mut self.socket.end_told, true);
            if self.socket.options.active != Active::False && !told {
                self.tell_owner(closed_message);
            }
            self.close(reason);
        }
    }

    /// Ends the connection at once and says so to the far side; nothing more is delivered there.
    pub fn abort(&mut self, reason: CloseReason) {
        if self.flow.state() != FlowState::Closed {
            let id = self.conn.id;
            let link = &self.conn.link;
            if link.version() == 1 {
                self.say_end();
            } else {
                let control = Control::Reset { id, reason };
                link.outbox.push_control(self.env, &control);
            }
        }
        self.broken_off(reason);
    }

    /// The far side closed: what it sent before is still read, nothing more can be sent.
    pub fn peer_closed(&mut self, reason: CloseReason) {
        self.off_the_wire(reason);
        self.fail_senders();
        if let Phase::Lingering(_) = self.phase {
            self.phase = Phase::Closed(reason);
        } else if self.is_open() {
            self.inbox.ended = Some(reason);
            self.pump_end();
        }
    }

    /// The far side reset: what was under way is dropped, and what has not been read.
    pub fn peer_reset(&mut self, reason: CloseReason) {
        self.socket.reset = true;
        self.broken_off(reason);
    }

    fn broken_off(&mut self, reason: CloseReason) {
        // A request that came whole before is served: it may be a user's last word.
        let may_be_served = self.socket.reset && matches!(self.front, Front::Http(_));
        if !may_be_served {
            self.drop_unread();
        }
        self.peer_closed(reason);
    }

    /// The far side ended its direction, as a FIN does.
    pub fn peer_ended(&mut self) -> Result<(), ConnError> {
        self.flow.peer_ended()?;
        self.leave_if_both_ended();
        if self.is_open() {
            self.inbox.ended = Some(CloseReason::Normal);
            self.pump_end();
        }
        Ok(())
    }

    /// Lets whoever reads come to the end.
    fn pump_end(&mut self) {
        if self.has_front() {
            self.front_ended();
        } else {
            self.pump();
        }
    }

    /// `shutdown(read)`: what is there can be read, what still comes is dropped.
    pub fn stop_reading(&mut self) {
        self.socket.deaf = true;
        self.inbox.ended.get_or_insert(CloseReason::Normal);
        self.pump();
    }

    /// What the end of the stream is to its reader: `None` is a plain end.
    pub fn end_error(&mut self) -> Option<Atom> {
        // Told once; after that it is an end like any other.
        let socket = self.socket.get_mut();
        let reset = socket.is_some_and(|socket| std::mem::take(&mut socket.reset));
        let shown = reset && self.socket.options.show_econnreset;
        shown.then(atoms::econnreset)
    }

    /// The reader has come to the end of the stream, or to a packet that cannot be had.
    pub fn at_end(&mut self, error: Option<Atom>) {
        self.drop_unread();
        let reason = *self.inbox.ended.get_or_insert(CloseReason::Normal);
        self.fail_readers(error.unwrap_or(atoms::closed()));
        let active = self.socket.options.active != Active::False;
        if active && !self.socket.end_told {
            self.socket.end_told = true;
            if let Some(error) = error {
                self.tell_owner(|env, socket| (atoms::tcp_error(), socket, error).encode(env));
            }
            self.tell_owner(closed_message);
        }
        match (self.socket.options.exit_on_close, active) {
            (true, true) => self.close(reason),
            // A passive socket can still be asked and told things, as a port can.
            (true, false) => self.say_close(reason),
            (false, _) => {}
        }
    }

    /// Nobody will read what is here.
    fn drop_unread(&mut self) {
        self.inbox.clear();
        if let Some(socket) = self.socket.get_mut() {
            socket.requests = None;
        }
    }

    /// The Erlang side of closing.
    fn close_socket(&mut self) {
        self.front_closed();
        self.drop_unread();
        if let Some(socket) = self.socket.get_mut() {
            socket.options.active = Active::False;
        }
        self.drop_owner();
        self.unchoke();
    }

    /// Lets those know who wait for data or for the end. They may look the id up at once, on
    /// another scheduler: it is gone before they hear of it.
    fn tell_closed(&mut self) {
        self.fail_readers(atoms::closed());
        let socket = self.socket.get_mut();
        let watchers = socket.map(|socket| std::mem::take(&mut socket.watchers));
        for (pid, token) in watchers.unwrap_or_default() {
            self.answer(&pid, token, atoms::closed());
        }
    }

    /// The last word to the far side, and the end of the socket.
    pub fn leave(&mut self, reason: CloseReason) {
        self.say_close(reason);
        self.phase = Phase::Closed(reason);
    }

    /// The last word to the far side; the id is gone after it.
    fn say_close(&mut self, reason: CloseReason) {
        self.fail_senders();
        if self.flow.state() != FlowState::Closed {
            if self.conn.link.version() == 1 {
                self.say_end();
            } else {
                let id = self.conn.id;
                let control = Control::Close { id, reason };
                self.conn.link.outbox.push_control(self.env, &control);
            }
            self.off_the_wire(reason);
        }
    }

    /// All that version 1 can say: our end, once. Its peer still owes us its own.
    fn say_end(&mut self) {
        let (id, link) = (self.conn.id, &self.conn.link);
        if self.flow.may_send() {
            link.outbox.push_frame(self.env, id, &[]);
        }
        if self.flow.may_receive() {
            link.bury(id);
        }
    }

    /// After both ends the id is gone from the link; the socket may still be read.
    pub fn leave_if_both_ended(&mut self) {
        if self.flow.state() == FlowState::Closed {
            self.off_the_wire(CloseReason::Normal);
        }
    }

    fn off_the_wire(&mut self, reason: CloseReason) {
        self.flow.close();
        self.unwatch();
        self.conn.link.forget(self.conn.id, reason);
    }
}

/// `{tcp_closed, Socket}`.
pub fn closed_message<'e>(env: rustler::Env<'e>, socket: Term<'e>) -> Term<'e> {
    (atoms::tcp_closed(), socket).encode(env)
}
