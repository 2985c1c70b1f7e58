//! Between sockets and sessions.

use std::mem;

use mio::event::Event as Readiness;

use crate::clock;
use crate::errno;
use crate::session::{Channel, Event};
use crate::socket::Received;
use crate::worker::crowd::end::End;
use crate::worker::crowd::{Crowd, Phase, Watch, register, slot};

const CHANNELS: [Channel; 2] = [Channel::First, Channel::Second];

impl Crowd {
    /// A socket is ready: reads and writes it as far as that goes.
    pub(super) fn handle(
        &mut self,
        place: u32,
        channel: usize,
        event: &Readiness,
        watch: &mut dyn Watch,
    ) -> Result<(), End> {
        let which = CHANNELS[channel];
        let Some(user) = slot(&mut self.users, place) else {
            return Ok(());
        };
        let Some(socket) = &mut user.sockets[channel] else {
            return Ok(());
        };
        if !socket.is_ready() {
            if !socket.advance(&mut self.traffic).map_err(io("connect"))? {
                return Ok(());
            }
            user.session.connected(which, &mut self.output)?;
            self.apply(place)?;
        } else if event.is_writable() {
            socket.flush(&mut self.traffic).map_err(io("write"))?;
        }
        let closing = event.is_read_closed() || event.is_error();
        loop {
            // Anew each time: what was just read may have replaced the socket.
            let Some(user) = slot(&mut self.users, place) else {
                return Ok(());
            };
            let Some(socket) = &mut user.sockets[channel] else {
                return Ok(());
            };
            if !socket.is_ready() {
                return Ok(());
            }
            let count = match socket
                .read(&mut self.buffer, &mut self.traffic)
                .map_err(io("read"))?
            {
                Received::Nothing => return Ok(()),
                Received::End => {
                    user.sockets[channel] = None;
                    user.session.closed(which, &mut self.output)?;
                    return self.apply(place);
                }
                Received::Bytes(count) => count,
            };
            let mut logged_in = false;
            let result = user.session.received(
                which,
                &self.buffer[..count],
                &mut self.output,
                &mut |event| match event {
                    Event::LoggedIn => logged_in = true,
                    Event::Message(body) => watch.message(place, body),
                    Event::Other => {}
                },
            );
            if logged_in && user.phase == Phase::Joining {
                user.phase = Phase::In;
                self.online += 1;
                watch.logged_in(place, user.due);
            }
            result?;
            self.apply(place)?;
            if self.plain && count > 0 && count < self.buffer.len() && !closing {
                return Ok(());
            }
        }
    }

    /// Does what the session wants done.
    pub(super) fn apply(&mut self, place: u32) -> Result<(), End> {
        let result = self.apply_output(place);
        let over = mem::take(&mut self.output.close);
        self.clear_output();
        match over {
            true => result.and(Err(End::Over)),
            false => result,
        }
    }

    pub(super) fn clear_output(&mut self) {
        let output = &mut self.output;
        output.writes.iter_mut().for_each(Vec::clear);
        output.connect = [false; 2];
        output.start_tls = false;
        output.close = false;
    }

    fn apply_output(&mut self, place: u32) -> Result<(), End> {
        let Some(user) = slot(&mut self.users, place) else {
            return Ok(());
        };
        loop {
            for (channel, which) in CHANNELS.into_iter().enumerate() {
                if mem::take(&mut self.output.connect[channel]) {
                    let beside = user.sockets[1 - channel].as_ref();
                    let connected = self.connector.connect(beside);
                    let mut socket = connected.map_err(io("connect"))?;
                    register(&self.registry, &mut socket, place, which)?;
                    user.sockets[channel] = Some(socket);
                }
                let bytes = &mut self.output.writes[channel];
                if let (false, Some(socket)) = (bytes.is_empty(), &mut user.sockets[channel]) {
                    // One that cannot be written to has ended: that is seen by reading it, and
                    // what the server said before is read first.
                    let _ = socket.write(bytes, &mut self.traffic);
                    bytes.clear();
                    if self.bosh {
                        user.wrote = clock::now();
                    }
                }
            }
            if !mem::take(&mut self.output.start_tls) {
                return Ok(());
            }
            let Some(socket) = &mut user.sockets[0] else {
                return Ok(());
            };
            socket.start_tls(&self.connector).map_err(io("tls"))?;
            if !socket.advance(&mut self.traffic).map_err(io("tls"))? {
                return Ok(());
            }
            user.session.connected(Channel::First, &mut self.output)?;
        }
    }
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> End {
    move |error| End::Fault(errno::kind(what, &error))
}
