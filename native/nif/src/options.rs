//! The options of a virtual socket: those of `inet:setopts/2` (OTP's page says what each means).

use megaphone_proto::packet::Mode;
use rustler::{Atom, Encoder, Env, Term};

use crate::atoms;

/// `{active, _}`: who gets the data, and how often.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Active {
    /// Passive: data waits for `recv`.
    False,
    /// Every packet is a message.
    True,
    /// The next packet is a message, then passive.
    Once,
    /// This many more packets are messages, then `{tcp_passive, Socket}`. Never below 1.
    Count(u16),
}

/// Why an option was not taken; the caller sees `{error, einval}`.
pub struct BadOption;

/// What `setopts` and `getopts` know. What only a kernel socket would act on is remembered in
/// `other`, which most connections never allocate.
#[derive(Clone)]
pub struct Options {
    /// How the byte stream is cut into packets.
    pub packet: Mode,
    /// Who gets them.
    pub active: Active,
    /// `{mode, list}` instead of `binary`.
    pub list: bool,
    /// The end of the peer's stream closes this socket too.
    pub exit_on_close: bool,
    /// Show a reset as `econnreset` and not as a plain close.
    pub show_econnreset: bool,
    /// A `send` that times out closes the socket.
    pub send_timeout_close: bool,
    /// Bytes of each binary delivered as a list in front of it.
    pub header: u16,
    /// Longest line of `{packet, line}`.
    pub buffer: u32,
    /// Last byte of each line of `{packet, line}`.
    pub line_delimiter: u8,
    /// Longest packet allowed; 0 is no limit.
    pub packet_size: u32,
    /// Milliseconds a blocked `send` waits.
    pub send_timeout: Option<u32>,
    /// Bytes over the credit that a `send` may leave with us before it blocks.
    pub high_watermark: u32,
    /// A blocked `send` returns when no more than this waits.
    pub low_watermark: u32,
    other: Vec<(Atom, i64)>,
}

impl Options {
    /// inet's own, but for `binary` and passive: whoever accepts says what it wants.
    pub const NEW: Options = Options {
        packet: Mode::Raw,
        active: Active::False,
        list: false,
        exit_on_close: true,
        show_econnreset: false,
        send_timeout_close: false,
        header: 0,
        buffer: 1460,
        line_delimiter: b'\n',
        packet_size: 0,
        send_timeout: None,
        high_watermark: 8192,
        low_watermark: 4096,
        other: Vec::new(),
    };
}

/// What a change of `{active, _}` asks for; a count is relative to the one that runs.
#[derive(Clone, Copy)]
pub enum ActiveChange {
    /// As given.
    Set(Active),
    /// Add to the running count.
    Add(i16),
}

/// The options of one `setopts` call, checked, not yet in force.
pub struct Change {
    /// All but `active`.
    pub options: Options,
    /// `{active, _}` where it was asked for.
    pub active: Option<ActiveChange>,
}

impl Change {
    /// Reads `[{Name, Value}]` over the options in force. One bad option spoils the call, and
    /// then nothing has changed.
    pub fn parse(options: &Options, list: Term) -> Result<Self, BadOption> {
        let mut change = Change {
            options: options.clone(),
            active: None,
        };
        for item in list.into_list_iterator().map_err(|_| BadOption)? {
            let (name, value): (Atom, Term) = item.decode().map_err(|_| BadOption)?;
            change.set(name, value)?;
        }
        Ok(change)
    }

    fn set(&mut self, name: Atom, value: Term) -> Result<(), BadOption> {
        let o = &mut self.options;
        if name == atoms::active() {
            self.active = Some(active_change(value)?);
        } else if name == atoms::packet() {
            o.packet = packet_mode(value)?;
        } else if name == atoms::mode() {
            o.list = pick(value, atoms::list(), atoms::binary())?;
        } else if name == atoms::deliver() {
            // `port` is for port programs' messages, which no socket's owner has been seen to want.
            pick(value, atoms::term(), atoms::term())?;
        } else if name == atoms::exit_on_close() {
            o.exit_on_close = boolean(value)?;
        } else if name == atoms::show_econnreset() {
            o.show_econnreset = boolean(value)?;
        } else if name == atoms::send_timeout_close() {
            o.send_timeout_close = boolean(value)?;
        } else if name == atoms::header() {
            o.header = number(value)?;
        } else if name == atoms::buffer() {
            o.buffer = number::<u32>(value)?.max(1);
        } else if name == atoms::line_delimiter() {
            o.line_delimiter = number(value)?;
        } else if name == atoms::packet_size() {
            o.packet_size = number(value)?;
        } else if name == atoms::send_timeout() {
            o.send_timeout = if is(value, atoms::infinity()) {
                None
            } else {
                Some(number(value)?)
            };
        } else if name == atoms::high_watermark() {
            o.high_watermark = number(value)?;
        } else if name == atoms::low_watermark() {
            o.low_watermark = number(value)?;
        } else {
            self.set_other(name, value)?;
        }
        Ok(())
    }

    /// What only a kernel socket acts on: checked and remembered, so that `getopts` answers it.
    fn set_other(&mut self, name: Atom, value: Term) -> Result<(), BadOption> {
        let stored = match kind(name).ok_or(BadOption)? {
            Kind::Bool => i64::from(boolean(value)?),
            Kind::Int(_) => i64::from(number::<u32>(value)?),
            Kind::Linger => {
                let (on, seconds): (Term, u16) = value.decode().map_err(|_| BadOption)?;
                if boolean(on)? { i64::from(seconds) } else { -1 }
            }
        };
        if name == atoms::recbuf() {
            // A longer kernel buffer makes inet's longer too.
            let size = u32::try_from(stored).unwrap_or(u32::MAX);
            self.options.buffer = self.options.buffer.max(size);
        }
        let other = &mut self.options.other;
        match other.iter_mut().find(|(known, _)| *known == name) {
            Some(slot) => slot.1 = stored,
            None => other.push((name, stored)),
        }
        Ok(())
    }
}

impl Options {
    /// The value of one option, `None` for a name that `inet` does not know either.
    pub fn get<'a>(&self, env: Env<'a>, name: Atom) -> Option<Term<'a>> {
        let term = if name == atoms::active() {
            active_term(env, self.active)
        } else if name == atoms::packet() {
            packet_term(env, self.packet)
        } else if name == atoms::mode() {
            choose(self.list, atoms::list(), atoms::binary()).encode(env)
        } else if name == atoms::deliver() {
            atoms::term().encode(env)
        } else if name == atoms::exit_on_close() {
            self.exit_on_close.encode(env)
        } else if name == atoms::show_econnreset() {
            self.show_econnreset.encode(env)
        } else if name == atoms::send_timeout_close() {
            self.send_timeout_close.encode(env)
        } else if name == atoms::header() {
            self.header.encode(env)
        } else if name == atoms::buffer() {
            self.buffer.encode(env)
        } else if name == atoms::line_delimiter() {
            self.line_delimiter.encode(env)
        } else if name == atoms::packet_size() {
            self.packet_size.encode(env)
        } else if name == atoms::send_timeout() {
            match self.send_timeout {
                None => atoms::infinity().encode(env),
                Some(ms) => ms.encode(env),
            }
        } else if name == atoms::high_watermark() {
            self.high_watermark.encode(env)
        } else if name == atoms::low_watermark() {
            self.low_watermark.encode(env)
        } else {
            self.get_other(env, name)?
        };
        Some(term)
    }

    fn get_other<'a>(&self, env: Env<'a>, name: Atom) -> Option<Term<'a>> {
        let kind = kind(name)?;
        let stored = self.other.iter().find(|(known, _)| *known == name);
        let stored = stored.map(|(_, value)| *value);
        Some(match kind {
            Kind::Bool => (stored.unwrap_or(0) != 0).encode(env),
            Kind::Int(default) => stored.unwrap_or(default).encode(env),
            Kind::Linger => {
                let seconds = stored.unwrap_or(-1);
                (seconds >= 0, seconds.max(0)).encode(env)
            }
        })
    }
}

enum Kind {
    Bool,
    /// With the default that `getopts` answers.
    Int(i64),
    Linger,
}

fn kind(name: Atom) -> Option<Kind> {
    let bools = [
        atoms::nodelay(),
        atoms::keepalive(),
        atoms::delay_send(),
        atoms::reuseaddr(),
        atoms::dontroute(),
        atoms::recvtos(),
        atoms::recvtclass(),
        atoms::recvttl(),
    ];
    let ints = [
        (atoms::recbuf(), 65_536),
        (atoms::sndbuf(), 65_536),
        (atoms::high_msgq_watermark(), 8192),
        (atoms::low_msgq_watermark(), 4096),
        (atoms::priority(), 0),
        (atoms::tos(), 0),
        (atoms::tclass(), 0),
        (atoms::ttl(), 64),
    ];
    if bools.contains(&name) {
        Some(Kind::Bool)
    } else if name == atoms::linger() {
        Some(Kind::Linger)
    } else {
        let (_, default) = ints.iter().find(|(known, _)| *known == name)?;
        Some(Kind::Int(*default))
    }
}

fn is(term: Term, atom: Atom) -> bool {
    atom == term
}

fn choose(first: bool, yes: Atom, no: Atom) -> Atom {
    if first { yes } else { no }
}

fn boolean(value: Term) -> Result<bool, BadOption> {
    pick(value, atoms::true_(), atoms::false_())
}

fn pick(value: Term, yes: Atom, no: Atom) -> Result<bool, BadOption> {
    if is(value, yes) {
        Ok(true)
    } else if is(value, no) {
        Ok(false)
    } else {
        Err(BadOption)
    }
}

/// Not by the decoder of `T`: for small types that wraps.
fn number<T: TryFrom<i64>>(value: Term) -> Result<T, BadOption> {
    let number: i64 = value.decode().map_err(|_| BadOption)?;
    T::try_from(number).map_err(|_| BadOption)
}

/// Reads the value of `{active, _}`.
pub fn active_change(value: Term) -> Result<ActiveChange, BadOption> {
    if value.is_integer() {
        Ok(ActiveChange::Add(number(value)?))
    } else if is(value, atoms::once()) {
        Ok(ActiveChange::Set(Active::Once))
    } else {
        let on = boolean(value)?;
        Ok(ActiveChange::Set(if on {
            Active::True
        } else {
            Active::False
        }))
    }
}

fn active_term(env: Env<'_>, active: Active) -> Term<'_> {
    match active {
        Active::False => false.encode(env),
        Active::True => true.encode(env),
        Active::Once => atoms::once().encode(env),
        Active::Count(left) => left.encode(env),
    }
}

fn http_modes() -> [(Atom, Mode); 4] {
    let mode = |bin, headers_only| Mode::Http { bin, headers_only };
    [
        (atoms::http(), mode(false, false)),
        (atoms::http_bin(), mode(true, false)),
        (atoms::httph(), mode(false, true)),
        (atoms::httph_bin(), mode(true, true)),
    ]
}

/// Reads the value of `{packet, _}`, and the `Type` of `decode_packet`.
pub fn packet_mode(value: Term) -> Result<Mode, BadOption> {
    if value.is_integer() {
        return match number::<u8>(value)? {
            0 => Ok(Mode::Raw),
            1 => Ok(Mode::One),
            2 => Ok(Mode::Two),
            4 => Ok(Mode::Four),
            _ => Err(BadOption),
        };
    }
    let simple = [
        (atoms::raw(), Mode::Raw),
        (atoms::line(), Mode::Line { delimiter: b'\n' }),
    ];
    let modes = simple.into_iter().chain(http_modes());
    let found = modes.into_iter().find(|(name, _)| is(value, *name));
    found.map(|(_, mode)| mode).ok_or(BadOption)
}

fn packet_term(env: Env<'_>, mode: Mode) -> Term<'_> {
    match mode {
        Mode::Raw => 0.encode(env),
        Mode::One => 1.encode(env),
        Mode::Two => 2.encode(env),
        Mode::Four => 4.encode(env),
        Mode::Line { .. } => atoms::line().encode(env),
        Mode::Http { .. } => {
            let found = http_modes().into_iter().find(|(_, known)| *known == mode);
            found.map_or(atoms::http(), |(name, _)| name).encode(env)
        }
    }
}
