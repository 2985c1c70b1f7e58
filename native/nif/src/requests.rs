//! `megaphone:recv/1`: a connection read as HTTP requests, heads and bodies, item by item.

use megaphone_proto::http1::{BodyDecoder, BodyFraming, BodyPiece, HttpReader, Item, Step};
use rustler::{Env, NewBinary};

use crate::atoms;
use crate::conn::State;
use crate::deliver::Taken;
use crate::http_terms::{self, Strings};

/// Longest body given whole; the connection of a longer one is closed with `emsgsize`. Who takes
/// uploads reads them with `recv/3` as they come.
pub const BODY_MAX: usize = 1 << 20;

/// Where a connection stands between one request and the next.
pub struct Requests {
    reader: HttpReader,
    body: Option<(BodyDecoder, Vec<u8>)>,
}

/// The next item out of the buffer.
pub fn take<'e>(env: Env<'e>, state: &mut State) -> Taken<'e> {
    let requests = state.socket.requests.get_or_insert_with(|| {
        Box::new(Requests {
            reader: HttpReader::new(false),
            body: None,
        })
    });
    let mut input = state.inbox.buffer.as_slice();
    let before = input.len();
    let taken = match &mut requests.body {
        None => requests.head(env, &mut input),
        Some((decoder, gathered)) => match gather(decoder, gathered, &mut input) {
            Gathered::More => Taken::More,
            Gathered::Bad(reason) => Taken::Bad(reason),
            Gathered::Whole => {
                let body = NewBinary::from_slice(env, gathered).into();
                requests.body = None;
                Taken::Packet(body, true)
            }
        },
    };
    let used = before - input.len();
    state.inbox.buffer.consume(used);
    if matches!(taken, Taken::Packet(..)) {
        state.count_received(used);
    }
    taken
}

impl Requests {
    /// Bytes were put in front of those that the reader has looked at.
    pub fn forget_lookahead(&mut self) {
        self.reader.forget_lookahead();
    }

    fn head<'e>(&mut self, env: Env<'e>, input: &mut &[u8]) -> Taken<'e> {
        match self.reader.next(input) {
            Step::More => Taken::More,
            Step::Item { item, consumed } => {
                *input = &input[consumed..];
                if item == Item::Eoh {
                    self.body = match self.reader.body() {
                        BodyFraming::None | BodyFraming::Length(0) => None,
                        framing => Some((BodyDecoder::new(framing), Vec::new())),
                    };
                }
                Taken::Packet(http_terms::item(env, &item, Strings::List), true)
            }
        }
    }
}

enum Gathered {
    More,
    Whole,
    Bad(rustler::Atom),
}

fn gather(decoder: &mut BodyDecoder, gathered: &mut Vec<u8>, input: &mut &[u8]) -> Gathered {
    if decoder.remaining() > (BODY_MAX - gathered.len()) as u64 {
        return Gathered::Bad(atoms::emsgsize());
    }
    loop {
        match decoder.next(input) {
            Ok(Some(BodyPiece::Data(bytes))) if gathered.len() + bytes.len() > BODY_MAX => {
                return Gathered::Bad(atoms::emsgsize());
            }
            Ok(Some(BodyPiece::Data(bytes))) => gathered.extend_from_slice(bytes),
            Ok(Some(BodyPiece::End)) => return Gathered::Whole,
            Ok(None) => return Gathered::More,
            Err(_) => return Gathered::Bad(atoms::http_error()),
        }
    }
}
