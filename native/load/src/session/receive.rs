//! What comes, until it is stanzas: streams, frames and responses.

use super::{
    Carrier, Channel, Fault, MAX_KEPT, OnEvent, Output, Phase, Session, http, websocket, xml,
};

impl Session {
    pub(super) fn kept(&mut self, channel: Channel) -> &mut Vec<u8> {
        match (channel, &mut self.carrier) {
            (Channel::Second, Carrier::Bosh(bosh)) => &mut bosh.kept,
            _ => &mut self.kept,
        }
    }

    /// Takes the bytes with what is kept from before, and keeps what is not whole yet.
    pub(super) fn feed(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<(), Fault> {
        let mut kept = std::mem::take(self.kept(channel));
        if kept.is_empty() {
            let used = self.consume(channel, bytes, out, event)?;
            kept = bytes[used..].to_vec();
        } else {
            kept.extend_from_slice(bytes);
            let used = self.consume(channel, &kept, out, event)?;
            kept.drain(..used);
        }
        if kept.len() > MAX_KEPT {
            return Err(Fault::Protocol("a stanza too large"));
        }
        if !kept.is_empty() && self.phase != Phase::Over {
            *self.kept(channel) = kept;
        }
        Ok(())
    }

    /// Takes what is whole, and returns how many bytes that is.
    fn consume(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<usize, Fault> {
        match self.carrier {
            Carrier::Stream { .. } => self.consume_stream(bytes, out, event),
            Carrier::WebSocket(_) => self.consume_frames(bytes, out, event),
            Carrier::Bosh(_) => self.consume_response(channel, bytes, out, event),
        }
    }

    fn consume_stream(
        &mut self,
        bytes: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<usize, Fault> {
        let (text, valid) = xml::utf8(bytes);
        let mut at = 0;
        while self.phase != Phase::Over {
            let header = matches!(self.carrier, Carrier::Stream { header: true });
            match xml::find(&text[at..], header).map_err(Fault::Protocol)? {
                xml::Found::More(_) if !valid => return Err(Fault::Protocol("not UTF-8")),
                xml::Found::More(used) => return Ok(at + used),
                xml::Found::Header(used) => {
                    at += used;
                    self.carrier = Carrier::Stream { header: false };
                }
                xml::Found::Stanza(used, stanza) => {
                    at += used;
                    self.stanza(&stanza, out, event)?;
                    if out.start_tls && at < bytes.len() {
                        return Err(Fault::Protocol("more in plain text where TLS begins"));
                    }
                }
                xml::Found::End(used) => {
                    at += used;
                    self.ended(out)?;
                }
            }
        }
        Ok(bytes.len())
    }

    fn consume_frames(
        &mut self,
        bytes: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<usize, Fault> {
        use websocket::Found;
        let mut at = 0;
        while self.phase != Phase::Over {
            let Carrier::WebSocket(websocket) = &mut self.carrier else {
                break;
            };
            at += match websocket.find(&bytes[at..])? {
                Found::More => return Ok(at),
                Found::Nothing(used) => used,
                Found::Open(used) => {
                    self.open(out);
                    used
                }
                Found::Message(used, message) => {
                    self.message(message, out, event)?;
                    used
                }
                Found::Gathered(used, message) => {
                    self.message(&message, out, event)?;
                    used
                }
                Found::Ping(used, payload) => {
                    websocket::write_pong(payload, &mut out.writes[0]);
                    used
                }
                Found::Close(used) => {
                    self.ended(out)?;
                    used
                }
            };
        }
        Ok(bytes.len())
    }

    /// A WebSocket message: stanzas, whole.
    fn message(
        &mut self,
        message: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<(), Fault> {
        let (text, _) = xml::utf8(message);
        let mut at = 0;
        while let xml::Found::Stanza(used, stanza) =
            xml::find(&text[at..], false).map_err(Fault::Protocol)?
        {
            at += used;
            self.stanza(&stanza, out, event)?;
        }
        match message[at..].trim_ascii().is_empty() {
            true => Ok(()),
            false => Err(Fault::Protocol("a WebSocket message that is no stanza")),
        }
    }

    fn consume_response(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        out: &mut Output,
        event: OnEvent<'_>,
    ) -> Result<usize, Fault> {
        let Carrier::Bosh(bosh) = &mut self.carrier else {
            return Ok(0);
        };
        if bosh.must_wait(channel) {
            return Ok(0);
        }
        let Some(response) = http::response(bytes)? else {
            return Ok(0);
        };
        if !bosh.answered(channel, response.keep_alive) {
            return Err(Fault::Protocol("an HTTP response to nothing"));
        }
        if response.status != 200 {
            return self
                .failed(Fault::Http(response.status), out)
                .map(|()| response.length);
        }
        let (text, _) = xml::utf8(&response.body);
        let body = match xml::find(text, false) {
            Ok(xml::Found::Stanza(_, body)) if body.name() == "body" => body,
            _ => return Err(Fault::Protocol("an HTTP response without BOSH")),
        };
        if !bosh.is_named() && !body.has("type", "terminate") {
            let sid = body.attribute("sid").filter(|sid| !sid.is_empty());
            bosh.name(sid.ok_or(Fault::Protocol("a BOSH session without a name"))?);
        }
        for stanza in body.children() {
            self.stanza(&stanza, out, event)?;
        }
        if body.has("type", "terminate") || body.has("type", "error") {
            let condition = body.attribute("condition");
            let condition = condition.unwrap_or_else(|| "terminate".into());
            self.failed(Fault::Stream(condition), out)?;
        }
        Ok(response.length)
    }
}
