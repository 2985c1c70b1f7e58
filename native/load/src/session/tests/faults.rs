//! Every way to fail, and what it is called.

use super::script::{frame, plan_of, response};
use super::*;
use crate::account::Mechanism;
use crate::target::Tls;

const HEADER: &str = "<stream:stream xmlns:stream='s'>";
const ANONYMOUS: &str =
    "<features><mechanisms><mechanism>ANONYMOUS</mechanism></mechanisms></features>";

/// What a session of this transport says to these bytes.
fn fault_of(transport: Transport, tls: Tls, accounts: Accounts, bytes: &[u8]) -> String {
    let mut session = Session::new(&plan_of(transport, tls, accounts), 1);
    let mut out = Output::default();
    session.connected(Channel::First, &mut out).unwrap();
    let result = session.received(Channel::First, bytes, &mut out, &mut |_| ());
    result.map_or_else(|fault| fault.to_string(), |()| "none".into())
}

fn c2s(stanzas: &str) -> String {
    let bytes = [HEADER, stanzas].concat();
    fault_of(
        Transport::C2s,
        Tls::None,
        Accounts::Anonymous,
        bytes.as_bytes(),
    )
}

fn bosh(response: &[u8]) -> String {
    fault_of(Transport::Bosh, Tls::None, Accounts::Anonymous, response)
}

/// A fault after the login.
fn later(script: &Script, bytes: &[u8]) -> String {
    let (mut session, mut out) = script.logged_in();
    let result = session.received(Channel::First, bytes, &mut out, &mut |_| ());
    result.map_or_else(|fault| fault.to_string(), |()| "none".into())
}

#[test]
fn a_stream_that_is_none() {
    let raw = |bytes: &[u8]| fault_of(Transport::C2s, Tls::None, Accounts::Anonymous, bytes);
    assert_eq!(
        raw(b"HTTP/1.1 400 Bad Request\r\n"),
        "protocol: text between stanzas"
    );
    assert_eq!(c2s("<a></b>"), "protocol: not XML");
    assert_eq!(c2s("<!-- -->"), "protocol: XML that XMPP forbids");
    assert_eq!(
        raw(&[HEADER.as_bytes(), b"<a>\xff</a>"].concat()),
        "protocol: not UTF-8"
    );
    assert_eq!(c2s("<message/>"), "protocol: not what a login expects here");
    let large = format!("<a>{}", "x".repeat(MAX_KEPT));
    assert_eq!(c2s(&large), "protocol: a stanza too large");
}

#[test]
fn a_login_that_is_refused() {
    let missing = "protocol: the server offers no SASL mechanisms";
    assert_eq!(c2s("<features/>"), missing);
    assert_eq!(
        c2s("<features><starttls/></features>"),
        "protocol: the server wants STARTTLS"
    );
    let plain = "<features><mechanisms><mechanism>PLAIN</mechanism></mechanisms></features>";
    assert_eq!(c2s(plain), "authentication: ANONYMOUS is not offered");
    for (mechanism, name) in [
        (Mechanism::Best, "SCRAM-SHA-256, SCRAM-SHA-1 or PLAIN"),
        (Mechanism::ScramSha1, "SCRAM-SHA-1"),
    ] {
        let accounts = Accounts::Pattern {
            user: "u".into(),
            password: "p".into(),
            mechanism,
        };
        let bytes = [HEADER, ANONYMOUS].concat();
        let fault = fault_of(Transport::C2s, Tls::None, accounts, bytes.as_bytes());
        assert_eq!(fault, format!("authentication: {name} is not offered"));
    }
    let after = |stanza: &str| c2s(&[ANONYMOUS, stanza].concat());
    assert_eq!(after("<failure><x/><text/></failure>"), "authentication: x");
    assert_eq!(after("<failure/>"), "authentication: undefined");
    assert_eq!(
        after("<challenge>!</challenge>"),
        "protocol: not Base64 in SASL"
    );
    let bind = |features: &str| after(&["<success/>", HEADER, features].concat());
    assert_eq!(
        bind("<features/>"),
        "protocol: the server offers no resource binding"
    );
    let error =
        "<features><bind/></features><iq id='bind' type='error'><error><conflict/></error></iq>";
    assert_eq!(bind(error), "no resource: conflict");
    assert_eq!(
        bind(&error.replace("<error><conflict/></error>", "")),
        "no resource: undefined"
    );
    let bare = "<features><bind/></features><iq id='bind'><bind><jid>a@b</jid></bind></iq>";
    assert_eq!(bind(bare), "protocol: bound to no full JID");
    let other = "<features><bind/></features><iq id='other'/><message/>";
    assert_eq!(bind(other), "none");
    let session = "<features><bind/><session/></features><iq id='bind'><bind><jid>a@b/c</jid></bind></iq>\
        <iq id='session' type='error'><error><internal-server-error/></error></iq>";
    assert_eq!(bind(session), "no resource: internal-server-error");
}

#[test]
fn tls_that_does_not_begin() {
    let raw = |stanzas: &str| {
        let bytes = [HEADER, stanzas].concat();
        fault_of(
            Transport::C2s,
            Tls::Starttls,
            Accounts::Anonymous,
            bytes.as_bytes(),
        )
    };
    assert_eq!(raw(ANONYMOUS), "protocol: the server offers no STARTTLS");
    let offer = "<features><starttls/></features>";
    assert_eq!(
        raw(&[offer, "<failure/>"].concat()),
        "protocol: STARTTLS failed"
    );
    let more = [offer, "<proceed/>", "<injected/>"].concat();
    assert_eq!(raw(&more), "protocol: more in plain text where TLS begins");
}

#[test]
fn a_server_that_ends() {
    assert_eq!(
        c2s("<stream:error><host-unknown/></stream:error>"),
        "stream error: host-unknown"
    );
    assert_eq!(c2s("</stream:stream>"), "closed by the server");
    for script in lives() {
        let (mut session, mut out) = script.logged_in();
        let closed = session.closed(Channel::First, &mut out);
        assert_eq!(closed, Err(Fault::Closed), "{}", script.name);
    }
    let websocket = Script::websocket();
    assert_eq!(
        later(&websocket, &frame("<close/>")),
        "closed by the server"
    );
    assert_eq!(later(&websocket, b"\x88\x00"), "closed by the server");
    let end = "<body type='terminate' condition='x' xmlns='y'/>";
    assert_eq!(later(&Script::bosh(), &response(end)), "stream error: x");
    assert_eq!(
        bosh(&response("<body type='terminate'/>")),
        "stream error: terminate"
    );
    let error = "<body sid='1'><stream:error xmlns:stream='s'><conflict/></stream:error></body>";
    assert_eq!(bosh(&response(error)), "stream error: conflict");
}

#[test]
fn a_websocket_that_is_none() {
    let raw = |bytes: &[u8]| fault_of(Transport::WebSocket, Tls::None, Accounts::Anonymous, bytes);
    assert_eq!(
        raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        "HTTP status 404"
    );
    assert_eq!(
        raw(b"<stream:stream>\r\n"),
        "protocol: not an HTTP response"
    );
    let other = b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: other\r\n\r\n";
    assert_eq!(
        raw(other),
        "protocol: not the answer to this WebSocket handshake"
    );
    let raw = |bytes: &[u8]| later(&Script::websocket(), bytes);
    assert_eq!(raw(b"\x83\x00"), "protocol: not a WebSocket frame");
    assert_eq!(
        raw(b"\x81\x80\0\0\0\0"),
        "protocol: a frame that no server may send"
    );
    assert_eq!(
        raw(b"\xc1\x00"),
        "protocol: a frame that no server may send"
    );
    assert_eq!(
        raw(b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"),
        "protocol: a stanza too large"
    );
    assert_eq!(raw(b"\x80\x00"), "protocol: a frame out of place");
    assert_eq!(raw(b"\x82\x00"), "protocol: a frame out of place");
    assert_eq!(raw(b"\x09\x00"), "protocol: a control frame in parts");
    assert_eq!(
        raw(&frame("<a>")),
        "protocol: a WebSocket message that is no stanza"
    );
    assert_eq!(
        raw(b"\x81\x01\xff"),
        "protocol: a WebSocket message that is no stanza"
    );
}

#[test]
fn a_bosh_session_that_is_none() {
    assert_eq!(bosh(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), "HTTP status 502");
    for body in ["", "hello", "<html/>", "<body"] {
        assert_eq!(
            bosh(&response(body)),
            "protocol: an HTTP response without BOSH"
        );
    }
    assert_eq!(
        bosh(&response("<body/>")),
        "protocol: a BOSH session without a name"
    );
    assert_eq!(bosh(b"<stream:stream>"), "protocol: not an HTTP response");
    let (mut session, mut out) = Script::bosh().logged_in();
    session.connected(Channel::Second, &mut out).unwrap();
    let bytes = response("<body/>");
    let result = session.received(Channel::Second, &bytes, &mut out, &mut |_| ());
    assert_eq!(result, Err(Fault::Protocol("an HTTP response to nothing")));
}
