use std::net::TcpStream;

use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use super::support::{PATIENCE, StandIn, between};

type Client = WebSocket<TcpStream>;

fn connect(stand_in: &StandIn) -> Client {
    let mut request = format!("ws://{}/ws", stand_in.address)
        .into_client_request()
        .unwrap();
    let protocol = "xmpp".parse().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol);
    let socket = TcpStream::connect(stand_in.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (client, response) = tungstenite::client(request, socket).unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "xmpp");
    client
}

fn say(client: &mut Client, text: &str) {
    client.send(Message::text(text)).unwrap();
}

fn hear(client: &mut Client) -> String {
    client.read().unwrap().into_text().unwrap().to_string()
}

const OPEN: &str =
    "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.org' version='1.0'/>";

fn login(stand_in: &StandIn) -> (Client, String) {
    let mut client = connect(stand_in);
    say(&mut client, OPEN);
    assert!(hear(&mut client).starts_with("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'"));
    assert!(hear(&mut client).contains("<mechanism>ANONYMOUS</mechanism>"));
    say(
        &mut client,
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>",
    );
    assert!(hear(&mut client).starts_with("<success"));
    say(&mut client, OPEN);
    hear(&mut client);
    let features = hear(&mut client);
    assert!(features.starts_with("<stream:features xmlns:stream="));
    say(
        &mut client,
        "<iq xmlns='jabber:client' type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
    );
    let result = hear(&mut client);
    let jid = between(&result, "<jid>", "</jid>").to_owned();
    (client, jid)
}

#[test]
fn users_write_to_each_other() {
    let stand_in = StandIn::start("websocket", &[]);
    let ((mut romeo, romeos), (mut juliet, juliets)) = (login(&stand_in), login(&stand_in));
    // Of all lengths that a frame's head tells apart.
    for length in [1, 125, 126, 1000, 65_000, 70_000] {
        let text = "x".repeat(length);
        let body = format!("<body>{text}</body>");
        say(
            &mut romeo,
            &format!("<message xmlns='jabber:client' to='{juliets}'>{body}</message>"),
        );
        let expected = format!(
            "<message xmlns='jabber:client' from='{romeos}' to='{juliets}'>{body}</message>"
        );
        assert_eq!(hear(&mut juliet), expected);
    }
    assert_eq!(stand_in.report().delivered, 6);
}

#[test]
fn pings_are_answered_and_closing_is() {
    let stand_in = StandIn::start("websocket", &[]);
    let (mut romeo, _) = login(&stand_in);
    romeo.send(Message::Ping("abc".into())).unwrap();
    assert_eq!(romeo.read().unwrap(), Message::Pong("abc".into()));
    say(
        &mut romeo,
        "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
    );
    assert!(hear(&mut romeo).starts_with("<close"));
    assert!(matches!(romeo.read(), Ok(Message::Close(Some(_)))));
    assert!(matches!(
        romeo.read(),
        Err(tungstenite::Error::ConnectionClosed)
    ));

    let (mut juliet, _) = login(&stand_in);
    juliet.close(None).unwrap();
    while juliet.read().is_ok() {}
}

#[test]
fn what_is_no_xmpp_is_closed() {
    let stand_in = StandIn::start("websocket", &[]);
    let mut client = connect(&stand_in);
    client.send(Message::binary("<open/>")).unwrap();
    assert!(client.read().is_err());
    let mut client = connect(&stand_in);
    say(&mut client, "<message/>");
    assert!(client.read().is_err());
}
