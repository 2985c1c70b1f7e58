//! A connection that speaks XMPP over TCP (RFC 6120): its owner gets whole stanzas, one when it asks
//! for one, and needs no parser of the stream between two of them.

use megaphone_proto::stanza::{Kind, Malformed, Split, Splitter};
use rustler::{Atom, Encoder, NewBinary, Term};

use crate::atoms;
use crate::conn::Held;
use crate::ends::closed_message;
use crate::front::Front;

/// One XML stream.
pub struct Stream {
    splitter: Splitter,
    /// Longest piece, in bytes.
    max_stanza: u32,
    /// The owner waits for the next piece.
    wanted: bool,
    /// The owner has been told of the end.
    told: bool,
    /// What came cannot be read on.
    broken: bool,
}

impl Stream {
    /// A stream before its header.
    pub fn new(max_stanza: u32) -> Self {
        Stream {
            splitter: Splitter::new(),
            max_stanza,
            wanted: false,
            told: false,
            broken: false,
        }
    }
}

/// What is next for the owner.
enum Next<'e> {
    Piece(Term<'e>),
    More,
}

impl<'e> Held<'_, 'e> {
    /// The next piece, `{header | stanza | text | finish, Bytes}` or `{error, Why}`; `None`: the
    /// owner waits for the message that brings it. Where the client has gone that is the end's.
    pub fn stream_next(&mut self) -> Option<Term<'e>> {
        let next = self.stream_take();
        if let Front::Stream(stream) = &mut self.front {
            stream.wanted = matches!(next, Next::More);
        }
        self.stream_credit();
        match next {
            Next::Piece(piece) => Some(piece),
            Next::More => {
                if self.inbox.ended.is_some() {
                    self.stream_tell_end();
                }
                None
            }
        }
    }

    /// The client is to begin the stream again (RFC 6120, 4.3.3).
    pub fn stream_restart(&mut self) {
        if let Front::Stream(stream) = &mut self.front {
            stream.splitter.restart();
        }
    }

    pub(super) fn stream_pump(&mut self) {
        let Front::Stream(Stream { wanted: true, .. }) = self.front else {
            return self.stream_credit();
        };
        if let Next::Piece(piece) = self.stream_take() {
            if let Front::Stream(stream) = &mut self.front {
                stream.wanted = false;
            }
            if let Some(owner) = self.owner() {
                // An owner that is gone closes the connection by its monitor.
                let _ = self.env.send(&owner, (atoms::stream_message(), piece));
            }
        }
        self.stream_credit();
    }

    pub(super) fn stream_ended(&mut self) {
        self.stream_pump();
        if let Front::Stream(Stream { wanted: true, .. }) = self.front {
            self.stream_tell_end();
        }
    }

    pub(super) fn stream_closed(&mut self, stream: &Stream) {
        if !stream.told {
            self.tell_owner(closed_message);
        }
    }

    fn stream_tell_end(&mut self) {
        if let Front::Stream(stream) = &mut self.front
            && !std::mem::replace(&mut stream.told, true)
        {
            self.tell_owner(closed_message);
        }
    }

    /// Who waits for a stanza is given what it takes; who does not leaves the client with its
    /// window.
    fn stream_credit(&mut self) {
        let keep = match self.front {
            Front::Stream(Stream { wanted: true, .. }) => 0,
            _ => u32::try_from(self.inbox.buffer.len()).unwrap_or(u32::MAX),
        };
        self.give_credit_but(keep);
    }

    fn stream_take(&mut self) -> Next<'e> {
        let env = self.env;
        let Front::Stream(stream) = &self.front else {
            return Next::More;
        };
        if stream.broken {
            return Next::More;
        }
        let mut splitter = stream.splitter;
        let max = stream.max_stanza as usize;
        let next = loop {
            let bytes = self.inbox.buffer.as_slice();
            match splitter.next(bytes) {
                Ok(Split::More) if bytes.len() > max => break Err(atoms::too_big()),
                Ok(Split::More) => break Ok(Next::More),
                Ok(Split::Piece(_, length)) if length > max => break Err(atoms::too_big()),
                Ok(Split::Piece(Kind::Nothing, length)) => self.inbox.buffer.consume(length),
                Ok(Split::Piece(kind, length)) => {
                    let bytes: Term = NewBinary::from_slice(env, &bytes[..length]).into();
                    let piece = (kind_atom(kind), bytes).encode(env);
                    self.inbox.buffer.consume(length);
                    self.count_received(length);
                    break Ok(Next::Piece(piece));
                }
                Err(Malformed::DocumentType) => break Err(atoms::document_type()),
                Err(Malformed::Tags) => break Err(atoms::not_well_formed()),
            }
        };
        let broken = next.is_err();
        if broken {
            self.inbox.buffer.clear();
        }
        if let Front::Stream(stream) = &mut self.front {
            stream.splitter = splitter;
            stream.broken = broken;
        }
        next.unwrap_or_else(|why| Next::Piece((atoms::error(), why).encode(env)))
    }
}

fn kind_atom(kind: Kind) -> Atom {
    match kind {
        Kind::Header => atoms::header(),
        Kind::Stanza => atoms::stanza(),
        Kind::End => atoms::finish(),
        Kind::Text | Kind::Nothing => atoms::text(),
    }
}
