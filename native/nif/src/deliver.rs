//! From bytes that arrived to the process that wants them: a blocked reader first, else an
//! active owner. Wakes a process once for all that has gathered, and gives credit back for what
//! was taken.

use megaphone_proto::conn::ConnError;
use megaphone_proto::control::Control;
use megaphone_proto::http1::{Item, Step};
use megaphone_proto::packet::{self, Found, Mode};
use rustler::{Atom, Binary, Encoder, Env, NewBinary, Term};

use crate::atoms;
use crate::conn::{Held, State, token};
use crate::foreign;
use crate::front::Front;
use crate::gather::Parts;
use crate::http_terms::{self, Strings};
use crate::limits;
use crate::options::Active;
use crate::socket::{Reader, Want};

/// Packets handed out in one go. Behind them the connection waits its turn: a stream of one-byte
/// lines must not hold a scheduler (64 messages are some 60 µs).
const SERVE_MAX: usize = 64;
/// Longest `recv`, as in inet (`TCP_MAX_PACKET_SIZE`), and longest `{packet, N}`.
pub const RECV_MAX: u32 = 64 << 20;

/// A packet is a part of the chunk that it came in, and not a copy, where it is at least one part in
/// so many of it: who keeps it keeps the chunk, which is then so many times as large at most.
const SHARED_PART: usize = 4;
/// Bytes below which a copy costs no more than to refer to the chunk.
const SHARED_MIN: usize = 1024;

/// Bytes of a buffer that a reader gets as it is, if it takes all of it. To make a binary of it costs
/// about as much as to copy 4 KiB, and no buffer is larger than twice its content and a little.
const WHOLE_MIN: usize = 8 << 10;

/// What became of a `recv`.
pub enum Got<'e> {
    /// `{ok, Packet}`.
    Packet(Term<'e>),
    /// Wait for the answer under this token.
    Wait(u64),
    /// `{error, Reason}`.
    Error(Atom),
}

/// What a look into the buffer found.
pub enum Taken<'e> {
    /// A packet, and whether it is an HTTP item.
    Packet(Term<'e>, bool),
    /// Not enough there yet.
    More,
    /// A packet that cannot be had; the stream is of no use any more.
    Bad(Atom),
}

impl<'e> Held<'_, 'e> {
    /// Bytes from the far side, `length` of them in `parts` of a chunk. Hands out what somebody
    /// waits for.
    pub fn arrive(
        &mut self,
        chunk: Binary<'e>,
        parts: Parts,
        length: u32,
    ) -> Result<(), ConnError> {
        self.flow.receive(length)?;
        if !self.is_open() {
            return Ok(());
        }
        if self.socket.deaf {
            self.release(length);
            return Ok(());
        }
        self.inbox.held += length;
        if !self.pass(chunk, parts.clone(), length as usize) {
            self.inbox.buffer.reserve(length as usize);
            parts.for_each(|part| self.inbox.buffer.push(part));
            self.pump();
        }
        Ok(())
    }

    /// Hands bytes on, past an empty buffer, to who waits for just what there is; `false` where
    /// nobody does.
    fn pass(&mut self, chunk: Binary<'e>, parts: Parts, length: usize) -> bool {
        if self.has_front() || !self.inbox.buffer.is_empty() {
            return false;
        }
        let options = &self.socket.options;
        let as_it_is = options.packet == Mode::Raw && !options.list && options.header == 0;
        if !as_it_is || !matches!(self.wanted(), Some(Want::Packet(0))) {
            return false;
        }
        self.count_received(length);
        self.hand_out(passed(self.env, chunk, parts, length), false);
        self.give_credit();
        true
    }

    /// `recv`: the packet when it is there, else the caller's place among the readers.
    pub fn recv(&mut self, want: Want) -> Got<'e> {
        if !self.is_open() {
            return Got::Error(atoms::closed());
        }
        match self.front {
            Front::Plain => {}
            Front::Http(_) => return self.http_recv(want),
            // Their bytes go to nobody else.
            Front::Ws(_) | Front::Stream(_) => return Got::Error(atoms::einval()),
        }
        if self.socket.options.active != Active::False {
            return Got::Error(atoms::einval());
        }
        let raw = self.socket.options.packet == Mode::Raw;
        match want {
            Want::Packet(length) if length > 0 && !raw => return Got::Error(atoms::einval()),
            Want::Packet(length) if length > RECV_MAX => return Got::Error(atoms::enomem()),
            _ => {}
        }
        let token = token();
        let pid = self.env.pid();
        if self.socket.readers.is_empty() {
            match self.take(want) {
                Taken::Packet(packet, _) => {
                    self.give_credit();
                    return Got::Packet(packet);
                }
                Taken::Bad(reason) => {
                    self.at_end(Some(reason));
                    return Got::Error(reason);
                }
                Taken::More if self.inbox.ended.is_some() => {
                    let error = self.end_error();
                    self.at_end(error);
                    return Got::Error(error.unwrap_or(atoms::closed()));
                }
                Taken::More => {}
            }
        }
        self.socket.readers.push_back(Reader { pid, token, want });
        self.give_credit();
        Got::Wait(token)
    }

    /// The time of a blocked `recv` is up; `false` when its answer is already on the way.
    pub fn cancel_recv(&mut self, token: u64) -> bool {
        let mut readers = self.socket.readers.iter();
        let Some(at) = readers.position(|reader| reader.token == token) else {
            return false;
        };
        self.socket.readers.remove(at);
        // The one behind may want less than the one that left.
        self.pump();
        true
    }

    /// Puts bytes back in front (`unrecv`). They have been paid for already.
    pub fn unrecv(&mut self, bytes: &[u8]) {
        self.inbox.buffer.push_front(bytes);
        if let Some(socket) = self.socket.get_mut() {
            socket.http.forget_lookahead();
            if let Some(requests) = &mut socket.requests {
                requests.forget_lookahead();
            }
        }
        self.pump();
    }

    /// Hands out what can be handed out.
    pub fn pump(&mut self) {
        if self.has_front() {
            return self.front_pump();
        }
        for _ in 0..SERVE_MAX {
            if !self.is_open() || !self.serve_one() {
                self.give_credit();
                return;
            }
        }
        self.give_credit();
        self.defer();
    }

    /// Goes on later, in the receiver's time.
    pub fn defer(&mut self) {
        if !self.inbox.deferred
            && let Some(this) = self.this()
        {
            self.inbox.deferred = true;
            self.conn.link.defer(self.env, this);
        }
    }

    /// What is wanted by who is next; `None` when nobody is.
    fn wanted(&mut self) -> Option<Want> {
        let env = self.env;
        // A reader that died must not take a packet with it.
        while self
            .socket
            .readers
            .front()
            .is_some_and(|r| !r.pid.is_alive(env))
        {
            self.socket.readers.pop_front();
        }
        let reader = self.socket.readers.front().map(|reader| reader.want);
        let active = self.socket.options.active != Active::False && !self.socket.handing;
        reader.or(active.then_some(Want::Packet(0)))
    }

    /// One packet to whoever is next; `false` when there is nobody or nothing.
    fn serve_one(&mut self) -> bool {
        let Some(want) = self.wanted() else {
            return false;
        };
        match self.take(want) {
            Taken::Packet(packet, is_http) => {
                self.hand_out(packet, is_http);
                true
            }
            Taken::Bad(reason) => {
                self.at_end(Some(reason));
                false
            }
            Taken::More => {
                let told = self.socket.end_told && self.socket.readers.is_empty();
                if self.inbox.ended.is_some() && !told {
                    let error = self.end_error();
                    self.at_end(error);
                }
                false
            }
        }
    }

    fn hand_out(&mut self, packet: Term<'e>, is_http: bool) {
        let reader = self.socket.get_mut().and_then(|s| s.readers.pop_front());
        match reader {
            Some(reader) => self.answer(&reader.pid, reader.token, (atoms::ok(), packet)),
            None => self.tell_active(packet, is_http),
        }
    }

    fn tell_active(&mut self, packet: Term<'e>, is_http: bool) {
        self.tell_owner(|env, socket| {
            if is_http {
                (atoms::http(), socket, packet).encode(env)
            } else {
                (atoms::tcp(), socket, packet).encode(env)
            }
        });
        match self.socket.options.active {
            Active::Once => self.socket.options.active = Active::False,
            Active::Count(1) => {
                self.socket.options.active = Active::False;
                self.tell_owner(|env, socket| (atoms::tcp_passive(), socket).encode(env));
            }
            Active::Count(left) => self.socket.options.active = Active::Count(left - 1),
            Active::True | Active::False => {}
        }
    }

    /// The next packet out of the buffer.
    fn take(&mut self, want: Want) -> Taken<'e> {
        let env = self.env;
        let state: &mut State = self;
        let length = match want {
            Want::Item => return crate::requests::take(env, state),
            Want::Packet(length) => length as usize,
        };
        let bytes = state.inbox.buffer.as_slice();
        if bytes.is_empty() {
            return Taken::More;
        }
        let (skip, take) = match state.socket.options.packet {
            Mode::Raw if length == 0 => (0, bytes.len()),
            Mode::Raw if length > bytes.len() => return Taken::More,
            Mode::Raw => (0, length),
            Mode::Http { bin, .. } => {
                let most = state.socket.options.packet_size as usize;
                let too_long = |length| most > 0 && length > most;
                return match state.socket.http.next(bytes) {
                    Step::More if too_long(bytes.len()) => Taken::Bad(atoms::emsgsize()),
                    Step::More => Taken::More,
                    // A refusal consumes all there is; that says nothing of its line.
                    Step::Item { item, consumed }
                        if too_long(consumed) && !matches!(item, Item::Error { .. }) =>
                    {
                        Taken::Bad(atoms::emsgsize())
                    }
                    Step::Item { item, consumed } => {
                        let strings = if bin { Strings::Binary } else { Strings::List };
                        let term = http_terms::item(env, &item, strings);
                        state.count_received(consumed);
                        state.inbox.buffer.consume(consumed);
                        Taken::Packet(term, true)
                    }
                };
            }
            mode => {
                let options = &state.socket.options;
                let (size, line) = (options.packet_size as usize, options.buffer as usize);
                let delimiter = options.line_delimiter;
                let mode = match mode {
                    Mode::Line { .. } => Mode::Line { delimiter },
                    other => other,
                };
                match packet::find(mode, bytes, size, line) {
                    Found::Packet { skip, take } => (skip, take),
                    Found::More { .. } => return Taken::More,
                    Found::TooLong => return Taken::Bad(atoms::emsgsize()),
                }
            }
        };
        let options = &state.socket.options;
        let as_it_is = !options.list && options.header == 0 && skip == 0;
        let whole = as_it_is && take == bytes.len() && take >= WHOLE_MIN;
        let term = match whole {
            true => foreign::content(env, std::mem::take(&mut state.inbox.buffer)).to_term(env),
            false => data(env, &bytes[skip..skip + take], options.list, options.header),
        };
        state.count_received(skip + take);
        state.inbox.buffer.consume(skip + take);
        Taken::Packet(term, false)
    }

    /// Gives the far side credit for what was taken: all but what waits for a reader to come.
    pub fn give_credit(&mut self) {
        let reading =
            !self.socket.readers.is_empty() || self.socket.options.active != Active::False;
        let keep = match reading {
            true => 0,
            false => u32::try_from(self.inbox.buffer.len()).unwrap_or(u32::MAX),
        };
        self.give_credit_but(keep);
    }

    /// Gives the far side credit for all but the last `keep` bytes that are here.
    pub fn give_credit_but(&mut self, keep: u32) {
        if self.inbox.held > keep {
            let taken = self.inbox.held - keep;
            self.inbox.held = keep;
            self.release(taken);
        }
        self.choke_or_not();
    }

    fn release(&mut self, taken: u32) {
        if let Some(bytes) = self.flow.release(taken, &limits::GROWTH) {
            let id = self.conn.id;
            let control = Control::Window { id, bytes };
            self.conn.link.outbox.push_urgent(self.env, &control);
        }
    }

    /// Version 1 has no credit: a connection that holds more than a window stops its link.
    fn choke_or_not(&mut self) {
        let link = &self.conn.link;
        if link.version() != 1 {
            return;
        }
        let over = self.inbox.held > link.window();
        if over && !self.socket.choking {
            self.socket.choking = true;
            self.conn.link.choke();
        } else if !over {
            self.unchoke();
        }
    }

    /// Lets a version 1 link go on, as far as this connection is concerned.
    pub fn unchoke(&mut self) {
        if self.socket.choking {
            self.socket.choking = false;
            self.conn.link.unchoke(self.env);
        }
    }

    /// Answers every blocked reader with an error.
    pub fn fail_readers(&mut self, reason: Atom) {
        let Some(socket) = self.socket.get_mut() else {
            return;
        };
        for reader in std::mem::take(&mut socket.readers) {
            self.answer(&reader.pid, reader.token, (atoms::error(), reason));
        }
    }
}

/// Payload that came in `parts` of a chunk.
fn passed<'e>(env: Env<'e>, chunk: Binary<'e>, mut parts: Parts, length: usize) -> Term<'e> {
    let whole = chunk.as_slice();
    if length >= SHARED_MIN
        && length >= whole.len() / SHARED_PART
        && let Some(part) = parts.clone().next()
        && part.len() == length
        && let Some(offset) = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())
        && let Ok(shared) = chunk.make_subbinary(offset, length)
    {
        return shared.to_term(env);
    }
    let mut packet = NewBinary::new(env, length);
    let mut rest = packet.as_mut_slice();
    for part in &mut parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
    packet.into()
}

/// Payload as `{mode, _}` and `{header, _}` ask for it.
fn data<'e>(env: Env<'e>, bytes: &[u8], list: bool, header: u16) -> Term<'e> {
    if list {
        return bytes.encode(env);
    }
    let (head, tail) = bytes.split_at(bytes.len().min(usize::from(header)));
    if head.len() < usize::from(header) {
        return head.encode(env);
    }
    let tail: Term = NewBinary::from_slice(env, tail).into();
    head.iter()
        .rev()
        .fold(tail, |list, byte| list.list_prepend(byte))
}
