use sasl::client::Mechanism;
use sasl::client::mechanisms::{Plain, Scram};
use sasl::common::Credentials;
use sasl::common::scram::{Sha1, Sha256};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::support::{Client, StandIn, between};

const STREAM: &str = "<?xml version='1.0'?><stream:stream to='example.org' version='1.0' \
     xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const ANONYMOUS: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>";

/// A user that is logged in, and its full JID.
pub fn login(stand_in: &StandIn) -> (Client, String) {
    let mut client = Client::connect(stand_in.address);
    client.say(STREAM);
    client.hear("</stream:features>");
    client.say(ANONYMOUS);
    client.hear("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'></success>");
    let jid = bind(&mut client);
    (client, jid)
}

fn bind(client: &mut Client) -> String {
    client.say(STREAM);
    assert!(client.hear("</stream:features>").contains("<bind "));
    client.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    let result = client.hear("</iq>");
    assert!(result.contains("id='b'"), "{result}");
    let jid = between(&result, "<jid>", "</jid>").to_owned();
    client.say("<presence/>");
    client.hear(&format!("<presence from='{jid}' to='{jid}'/>"));
    jid
}

#[test]
fn users_write_to_each_other_and_to_themselves() {
    let stand_in = StandIn::start("c2s", &[]);
    let ((mut romeo, romeos), (mut juliet, juliets)) = (login(&stand_in), login(&stand_in));
    assert!(romeos.contains("@example.org/") && romeos != juliets);
    romeo.say(&format!(
        "<message type='chat' to='{juliets}' id='7'><body>a &lt; b</body><x/></message> \n"
    ));
    let came = juliet.hear("</message>");
    let expected = format!(
        "<message from='{romeos}' to='{juliets}' type='chat' id='7'><body>a &lt; b</body><x/></message>"
    );
    assert_eq!(came, expected);
    juliet.say(&format!("<message to='{juliets}'><body>I</body></message>"));
    assert!(juliet.hear("</message>").contains("<body>I</body>"));
    let report = stand_in.report();
    assert_eq!((report.connections, report.logins), (2, 2));
    assert_eq!((report.messages, report.delivered), (2, 2));
}

#[test]
fn what_nobody_takes_is_told_and_pings_are_answered() {
    let stand_in = StandIn::start("c2s", &[]);
    let (mut romeo, romeos) = login(&stand_in);
    romeo.say("<message to='a@b/c' id='1'><body>x</body></message>");
    let error = romeo.hear("</message>");
    assert!(error.contains("type='error'") && error.contains("from='a@b/c'"));
    assert!(error.contains(&format!("to='{romeos}'")) && error.contains("<service-unavailable"));
    romeo.say("<iq type='get' id='2'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_eq!(romeo.hear("</iq>"), "<iq type='result' id='2'></iq>");
    romeo.say("<iq type='get' id=\"3'\"><version xmlns='x'/></iq>");
    assert!(romeo.hear("</iq>").contains("id=\"3'\""));
    assert_eq!(stand_in.report().bounced, 1);
}

/// Cut at any byte, and any number of stanzas in one write.
#[test]
fn a_stream_may_be_cut_anywhere() {
    let stand_in = StandIn::start("c2s", &[]);
    let (mut romeo, romeos) = login(&stand_in);
    let message = |n| format!("<message to='{romeos}'><body>{n} \u{20ac}</body></message>");
    let (three, more) = (message(0) + &message(1) + &message(2), message(3));
    for byte in three.as_bytes() {
        use std::io::Write;
        romeo.socket.write_all(&[*byte]).unwrap();
    }
    romeo.say(&more.repeat(500));
    for n in 0..503 {
        let came = romeo.hear("</message>");
        assert!(
            came.contains(&format!("<body>{} \u{20ac}<", n.min(3))),
            "{came}"
        );
    }
}

#[test]
fn a_closed_stream_is_closed_and_its_user_gone() {
    let stand_in = StandIn::start("c2s", &[]);
    let ((mut romeo, romeos), (mut juliet, _)) = (login(&stand_in), login(&stand_in));
    romeo.say("</stream:stream>");
    assert_eq!(romeo.hear_end(), "</stream:stream>");
    juliet.say(&format!("<message to='{romeos}'><body>x</body></message>"));
    assert!(juliet.hear("</message>").contains("<service-unavailable"));

    let mut nonsense = Client::connect(stand_in.address);
    nonsense.say("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(nonsense.hear_end(), "");
}

/// Logs in with `mechanism`; the answer is what the server said at last.
fn prove(client: &mut Client, mut mechanism: impl Mechanism) -> String {
    client.say(STREAM);
    let features = client.hear("</stream:features>");
    let name = mechanism.name().to_owned();
    assert!(features.contains(&format!("<mechanism>{name}</mechanism>")));
    let said = BASE64_STANDARD.encode(mechanism.initial());
    let sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
    client.say(&format!("<auth {sasl} mechanism='{name}'>{said}</auth>"));
    let mut heard = client.hear("xmpp-sasl'>");
    if heard.starts_with("<challenge") {
        let challenge = client.hear("</challenge>");
        let challenge = challenge.strip_suffix("</challenge>").unwrap();
        let challenge = BASE64_STANDARD.decode(challenge).unwrap();
        let said = BASE64_STANDARD.encode(mechanism.response(&challenge).unwrap());
        client.say(&format!("<response {sasl}>{said}</response>"));
        heard = client.hear("xmpp-sasl'>");
    }
    if heard.starts_with("<success") {
        let last = client.hear("</success>");
        let last = last.strip_suffix("</success>").unwrap();
        mechanism
            .success(&BASE64_STANDARD.decode(last).unwrap())
            .unwrap();
        return bind(client);
    }
    client.hear("</failure>")
}

#[test]
fn accounts_log_in_by_password() {
    let accounts = ["--accounts=user%", "--password=secret%"];
    let stand_in = StandIn::start("c2s", &accounts);
    let credentials = |password: &str| {
        let user = Credentials::default().with_username("user3");
        user.with_password(password)
    };
    let connect = || Client::connect(stand_in.address);
    let right = || credentials("secret3");
    for jid in [
        prove(&mut connect(), Plain::from_credentials(right()).unwrap()),
        prove(
            &mut connect(),
            Scram::<Sha1>::from_credentials(right()).unwrap(),
        ),
        prove(
            &mut connect(),
            Scram::<Sha256>::from_credentials(right()).unwrap(),
        ),
    ] {
        assert!(jid.starts_with("user3@example.org/"), "{jid}");
    }
    let wrong = Scram::<Sha1>::from_credentials(credentials("x")).unwrap();
    let refused = prove(&mut connect(), wrong);
    assert_eq!(refused, "<not-authorized/></failure>");
    let report = stand_in.report();
    assert_eq!(report.logins, 3);
    assert_eq!(report.refused, [("not-authorized".to_owned(), 1)].into());
}

#[test]
fn users_are_pinged_and_their_answers_counted() {
    let stand_in = StandIn::start("c2s", &["--ping=20ms"]);
    let (mut romeo, romeos) = login(&stand_in);
    let ping = romeo.hear("</iq>");
    let to = format!("<iq from='example.org' to='{romeos}' type='get'");
    assert!(ping.starts_with(&to), "{ping}");
    let id = between(&ping, "id='", "'").to_owned();
    romeo.say("<iq type='result' id='another' to='example.org'/>");
    romeo.say(&format!("<iq type='result' id='{id}' to='example.org'/>"));
    romeo.say("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>");
    romeo.hear("id='last'></iq>");
    let report = stand_in.report();
    assert!(report.pings >= 1);
    assert_eq!(report.pongs, 1);
}
